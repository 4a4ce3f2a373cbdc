"""Tiny random models of eight architectures, the test bed of every room, and of two encoders and one with ALiBi.

Sizes differ wherever the architecture allows: 3 layers, d_head 8, d_mlp 56, vocabulary 97; either 6 heads over 2 key/value
heads with d_model 60 (merged heads: 48), or 5 heads without groups with d_model 40. Weights are large enough for peaked
attention; norms and biases are random too, so that forgetting one shows.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers as T
from tokenizers import Tokenizer, models, pre_tokenizers, processors

if TYPE_CHECKING:
    from interp.models import Model

D_VOCAB = 97
_SIZES = {
    "vocab_size": D_VOCAB,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = dict(_SIZES, hidden_size=60, num_attention_heads=6, num_key_value_heads=2, head_dim=8)
_WINDOW_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
CONFIGS = {
    "gpt2": lambda: T.GPT2Config(
        vocab_size=D_VOCAB, n_positions=64, n_embd=40, n_layer=3, n_head=5, n_inner=56, bos_token_id=1, eos_token_id=2
    ),
    "llama": lambda: T.LlamaConfig(**_GROUPED),
    "mistral": lambda: T.MistralConfig(**_GROUPED, sliding_window=4),
    "qwen3": lambda: T.Qwen3Config(**_GROUPED),
    "gemma2": lambda: T.Gemma2Config(
        **_GROUPED, sliding_window=4, layer_types=_WINDOW_LAYERS, query_pre_attn_scalar=8,
        attn_logit_softcapping=5.0, final_logit_softcapping=3.0,
    ),
    "gpt_neox": lambda: T.GPTNeoXConfig(**_SIZES, hidden_size=40, num_attention_heads=5, rotary_pct=0.5),
    "phi": lambda: T.PhiConfig(**_SIZES, hidden_size=40, num_attention_heads=5, partial_rotary_factor=0.5),
    "opt": lambda: T.OPTConfig(
        vocab_size=D_VOCAB, hidden_size=40, ffn_dim=56, num_hidden_layers=3, num_attention_heads=5,
        max_position_embeddings=64, word_embed_proj_dim=40, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ),
}  # fmt: skip
TINY = tuple(CONFIGS)
_UNGROUPED = {"hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 5}
OTHERS = {
    "bert": lambda: T.BertForMaskedLM(
        T.BertConfig(**_UNGROUPED, vocab_size=D_VOCAB, max_position_embeddings=64, pad_token_id=0)
    ),
    "vit": lambda: T.ViTForImageClassification(
        T.ViTConfig(**_UNGROUPED, image_size=(8, 10), patch_size=2, num_channels=2, num_labels=11)
    ),
    "bloom": lambda: T.BloomForCausalLM(
        T.BloomConfig(vocab_size=D_VOCAB, hidden_size=40, n_layer=3, n_head=5, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    ),
}
ENCODERS = ("bert", "vit")


def tiny_hf(name: str, *, seed: int = 0, factor: float = 10.0) -> T.PreTrainedModel:
    """A fresh random module of one architecture of ``TINY`` or ``OTHERS``, in eval mode; ``factor`` 1 leaves the matrices as the
    architecture initialises them."""
    torch.manual_seed(seed)
    hf = (OTHERS[name]() if name in OTHERS else T.AutoModelForCausalLM.from_config(CONFIGS[name]())).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.copy_(parameter * factor if parameter.dim() > 1 else parameter + 0.1 * torch.randn_like(parameter))
    return hf


@cache
def tiny(name: str) -> Model:
    """The Model of ``tiny_hf(name)`` with its tokenizer; the same object on every call."""
    from interp.models import wrap_model  # after pytest's shape-checking import hook is in place

    tokenizer = None if name == "vit" else tiny_tokenizer(around=name == "bert")
    return wrap_model(tiny_hf(name), tokenizer, name=f"tiny-{name}")


def tiny_tokenizer(*, around: bool = False) -> T.PreTrainedTokenizerFast:
    """A whitespace tokenizer: <pad> <s> </s> <unk> are 0-3, then w0 w1 ... w92 are 4-96. ``around``: it puts <s> and </s> around a text."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(D_VOCAB - 4))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return T.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def save_tiny(name: str, folder: Path) -> Path:
    """The folder, with a tiny model and its tokenizer as Transformers saves them."""
    tiny_hf(name).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_tokens(n_rows: int = 2, n_tokens: int = 7, *, seed: int = 0) -> torch.Tensor:
    """Random token ids [n_rows, n_tokens] without special tokens."""
    return torch.randint(4, D_VOCAB, (n_rows, n_tokens), generator=torch.Generator().manual_seed(seed))


def tiny_images(n: int = 2, *, seed: int = 0) -> torch.Tensor:
    """Random pixels [n channel height width] for ``tiny("vit")``: 4 x 5 patches."""
    return torch.randn(n, 2, 8, 10, generator=torch.Generator().manual_seed(seed))
