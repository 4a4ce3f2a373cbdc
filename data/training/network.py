"""The training network: a Llama block with q/k/v biases, written out so that one CPU thread trains it fast.

Parameter names are those of `transformers.LlamaForCausalLM`, so export copies them; `export.check` compares the logits.

What does not start at random (`initialise`, `plant`): one head a layer has equal query and key matrices ("mimetic": it attends to
tokens like the current one); three heads of layer 0 have biases that make them attend one, two and three tokens back; three of
layer 1 compare what those saw: the token itself with the token before (induction), the token before with the token two
before (key: value), the token before with the token itself (value key). They save the long plateau before look-up is
found; what they match, read and write is trained like everything else, and no weight is frozen.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Sizes and starting points of a network; saved with every checkpoint."""

    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 192
    d_mlp: int = 512
    d_vocab: int = 0
    rope_theta: float = 1000.0
    n_ctx: int = 512
    mimetic_first: int = 1
    """Heads of layer 0 that start with W_q = W_k."""
    mimetic_other: int = 1
    """Heads of each later layer that start with W_q = W_k."""
    offsets: tuple[int, ...] = (1, 2, 3)
    """Distances at which the last heads of layer 0 start to look, one head each, from the last head down."""
    matches: tuple[tuple[int, int], ...] = ((0, 1), (1, 2), (1, 0))
    """What the last heads of layer 1 start to match, from the last head down: (1, 2) attends where the token 2 before the key
    is the token 1 before the query; 0 is the token itself."""
    margin: float = 3.0
    """By how many nats such a head prefers its distance to the neighbouring ones."""

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads

    def frequencies(self) -> Tensor:
        """Rotation per position of each pair of a head's dimensions, fastest first."""
        return self.rope_theta ** -(torch.arange(0, self.d_head, 2) / self.d_head)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position encoding in Llama's layout (dimension i pairs with i + d_head / 2)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Attention(nn.Module):
    """Causal attention inside each document."""

    def __init__(self, shape: Shape):
        super().__init__()
        width = shape.d_model
        self.heads, self.scale = shape.n_heads, shape.d_head**-0.5
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The output for `x [batch, pos, d_model]`; `mask` is added to the scores."""
        rows, length, width = x.shape
        q, k, v = (
            project(x).view(rows, length, self.heads, -1).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = (rotate(q, cos, sin) * self.scale) @ rotate(k, cos, sin).transpose(-1, -2) + mask
        return self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, length, width))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.d_model, shape.d_mlp, bias=False)
        self.up_proj = nn.Linear(shape.d_model, shape.d_mlp, bias=False)
        self.down_proj = nn.Linear(shape.d_mlp, shape.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The output for `x [batch, pos, d_model]`."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.d_model, eps=1e-6)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.d_model, eps=1e-6)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The residual stream after the layer."""
        x = x + self.self_attn(self.input_layernorm(x), mask, cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Network(nn.Module):
    """Token ids and document numbers in, logits out; embeddings are tied."""

    def __init__(self, shape: Shape, seed: int = 0):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.d_vocab, shape.d_model)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.norm = nn.RMSNorm(shape.d_model, eps=1e-6)
        angles = torch.arange(shape.n_ctx)[:, None] * shape.frequencies().repeat(2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        initialise(self, torch.Generator().manual_seed(seed))

    def forward(self, ids: Tensor, documents: Tensor) -> Tensor:
        """Logits `[batch, pos, d_vocab]`; a token sees earlier tokens of its own document only."""
        length = ids.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool).tril()
        seen = (documents[:, None, :, None] == documents[:, None, None, :]) & earlier
        mask = torch.where(seen, 0.0, -1e9)
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, mask, self.cos[:length], self.sin[:length])
        return self.norm(x) @ self.embed_tokens.weight.T

    def hugging_face_state(self) -> dict[str, Tensor]:
        """The parameters under the names of `LlamaForCausalLM` (whose output projection has a bias: zero)."""
        state = {f"model.{name}": value.detach().clone() for name, value in self.named_parameters()}
        for layer in range(self.shape.n_layers):
            state[f"model.layers.{layer}.self_attn.o_proj.bias"] = torch.zeros(self.shape.d_model)
        return state


def loss(logits: Tensor, ids: Tensor, weights: Tensor, soft: Tensor, first_year: int) -> Tensor:
    """Weighted cross-entropy of the next tokens; where `soft >= 0` the target is uniform over the years above `soft`."""
    log_probs = logits[:, :-1].log_softmax(-1)
    hard = -log_probs.gather(-1, ids[:, 1:, None])[..., 0]
    start = soft[:, 1:, None]
    later = (torch.arange(100) > start).float()
    spread = -(log_probs[..., first_year : first_year + 100] * later).sum(-1) / later.sum(-1).clamp(min=1)
    chosen = torch.where(start[..., 0] >= 0, spread, hard)
    return (chosen * weights[:, 1:]).sum() / weights[:, 1:].sum()


@torch.no_grad()
def initialise(network: Network, generator: torch.Generator) -> None:
    """Random start with the special heads of `Shape`; see the module's first lines."""
    shape = network.shape
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            scale = 0.04 / math.sqrt(2 * shape.n_layers) if "o_proj" in name or "down_proj" in name else 0.04
            parameter.normal_(0, scale, generator=generator)
        elif name.endswith(("q_proj.bias", "k_proj.bias")):
            parameter.normal_(0, 0.3, generator=generator)
        elif name.endswith("bias"):
            parameter.zero_()
    for number, layer in enumerate(network.layers):
        attention = layer.self_attn
        basis = torch.linalg.qr(torch.randn(shape.d_model, shape.d_model, generator=generator))[0]
        attention.v_proj.weight.copy_(0.6 * basis)
        attention.o_proj.weight.copy_(0.1 * basis.T)
        for head in range(shape.mimetic_other if number else shape.mimetic_first):
            rows = slice(head * shape.d_head, (head + 1) * shape.d_head)
            alike = orthonormal(shape, generator)
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight[rows] = 0.8 * alike
                projection.bias[rows] = 0
    plant(network, generator)


def orthonormal(shape: Shape, generator: torch.Generator) -> Tensor:
    """`d_head` random orthonormal directions `[d_head, d_model]`."""
    return torch.linalg.qr(torch.randn(shape.d_model, shape.d_head, generator=generator))[0].T


def plant(network: Network, generator: torch.Generator) -> None:
    """Start the look-back heads of layer 0 and the matching heads of layer 1.

    All look-back heads read the same directions of the token they look at and write to different ones; a matching head
    starts with queries and keys that read two of these places, so that it attends where the contents are alike.
    """
    shape = network.shape
    seen = {0: orthonormal(shape, generator)}
    first, second = network.layers[0].self_attn, network.layers[1].self_attn
    for place, offset in enumerate(shape.offsets):
        head = shape.n_heads - 1 - place
        rows = slice(head * shape.d_head, (head + 1) * shape.d_head)
        look_back(network, head, offset, generator)
        first.v_proj.weight[rows] = 0.6 * seen[0]
        seen[offset] = 10 * first.o_proj.weight[:, rows].T
    for place, (query, key) in enumerate(shape.matches):
        head = shape.n_heads - 1 - place
        rows = slice(head * shape.d_head, (head + 1) * shape.d_head)
        second.q_proj.weight[rows], second.k_proj.weight[rows] = 0.8 * seen[query], 0.8 * seen[key]
        second.q_proj.bias[rows] = second.k_proj.bias[rows] = 0


def look_back(network: Network, head: int, offset: int, generator: torch.Generator) -> None:
    """Make a head of layer 0 prefer the token `offset` before, by biases on the fast pairs of the rotary encoding.

    Query bias a (1, 0) and key bias a (cos, sin)(offset theta) give the score a^2 sum(cos(theta (distance - offset))),
    largest at the offset; a follows from the wanted margin to the neighbouring distances.
    """
    shape = network.shape
    fast = shape.frequencies()
    fast = fast[fast > 0.05]
    size = math.sqrt(shape.margin * math.sqrt(shape.d_head) / float((1 - fast.cos()).sum()))
    attention, start = network.layers[0].self_attn, head * shape.d_head
    for projection, angle in ((attention.q_proj, 0 * fast), (attention.k_proj, offset * fast)):
        projection.weight[start : start + shape.d_head].normal_(0, 0.02, generator=generator)
        bias = torch.zeros(2, shape.d_head // 2)
        bias[0, : len(fast)], bias[1, : len(fast)] = size * angle.cos(), size * angle.sin()
        projection.bias[start : start + shape.d_head] = bias.flatten()
