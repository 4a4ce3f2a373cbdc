"""What works in which architecture: tiny random models of transformers' families, each number against the plain model.

Every family is built from its configuration alone (no weights are downloaded), with 3 layers of 4 heads, random weights and the sizes in
``SIZES``, and seven checks are made of it. References are the plain Hugging Face model: ``output_attentions`` of its eager attention, and
one forward pass per head and prompt in which a hook sets the head's input of the output projection, found by its name, to zero.

``facts``: heads, vocabulary and causality. ``attention``: the weights of every row. ``batch``, ``left_padding``: the weights of texts of
different lengths in one batch, padded by the engine or on the left, as of each alone. ``zero_sweep``: every head zero-ablated on prompts
of different lengths in one batch by resumed runs. ``exact_edges``: every edge scored, the clean and the fully corrupted outcome compared.
``bfloat16``: the same sweep in bfloat16, relative to the logits (encoders: the weights), within 4 units of rounding in 95% of the runs: a
token near the border of two experts may go to the other one.
"""

import copy
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.circuits.edge_scores import score_edges
from interp.engine.attention.attention_metric import AttentionMetric
from interp.engine.attention.attention_observer import observe
from interp.engine.attention.attention_rows import AttentionRows
from interp.engine.sweep.sweep import sweep
from interp.heads import Head
from interp.interventions import zero
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.models.plain_model_reference import rounding
from interp.models.wrap_model import wrap_model
from interp.registry import check_name
from interp.tasks.task import Example, Task

SIZES: dict[str, Any] = {
    **dict.fromkeys("hidden_size n_embd d_model word_embed_proj_dim embedding_size".split(), 48),
    **dict.fromkeys("num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers".split(), 3),
    **dict.fromkeys("num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads".split(), 4),
    **dict.fromkeys("intermediate_size n_inner ffn_dim d_ff ffn_hidden_size decoder_ffn_dim encoder_ffn_dim hidden_dim".split(), 40),
    **dict.fromkeys("max_position_embeddings n_positions max_seq_len".split(), 96),
    **dict.fromkeys("num_experts num_local_experts n_routed_experts moe_num_experts rotary_dim qk_rope_head_dim".split(), 4),
    **dict.fromkeys("num_experts_per_tok moe_k moe_topk num_key_value_heads".split(), 2),
    **dict.fromkeys("moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size".split(), 24),
    **dict.fromkeys("n_shared_experts n_group topk_group first_k_dense_replace bos_token_id".split(), 1),
    "mamba_d_ssm": 48, "mamba_n_heads": 4, "mamba_d_head": 12, "mamba_d_state": 4, "mamba_chunk_size": 8, "mamba_expand": 1,
    "vocab_size": 61, "head_dim": 12, "d_kv": 12, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "v_head_dim": 10,
    "pad_token_id": 0, "eos_token_id": 2, "attention_dropout": 0.0, "is_decoder": True, "tie_word_embeddings": False,
}  # fmt: skip
_HYBRID = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
SPECIAL: dict[str, dict[str, Any]] = {
    "falcon": {"head_dim": None},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 4},
    "jamba": {
        "attn_layer_period": 3,
        "attn_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "stablelm": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    "qwen3_next": _HYBRID,
    "qwen3_5_text": _HYBRID,
    "qwen3_5_moe_text": _HYBRID,
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "bamba": {"attn_layer_indices": [1]},
    "bailing_hybrid": {"layer_group_size": 2},
}
SKIPPED = frozenset(
    "fuyu gemma3 gemma4 gemma4_unified got_ocr2 git mllama moss_transcribe_diarize phi4_multimodal roc_bert musicgen musicgen_melody "
    "trocr whisper speech_to_text_2 moshi".split()
)
"""Families that also read images or sound, or whose models take long to build."""

ENCODERS = "albert bert camembert distilbert electra ernie modernbert mpnet roberta xlm-roberta deberta-v2 nomic_bert".split()
PROJECTION = re.compile(
    r"\.(\d+)\.(?!.*(?:encoder_attn|crossattention|cross_attn|mlp)).*\b(o_proj|out_proj|c_proj|dense|wo|o_linear)$"
)
LIMIT, LARGEST = 1e-4, 3_000_000
RIGHT, REFUSED, WRONG, CRASH, UNCHECKED, UNBUILT = "right", "refused", "WRONG", "CRASH", "no reference", "not built"
REFUSALS = (ValueError, LookupError, NotImplementedError)


class _NoReference(Exception):
    """The plain model gives nothing to compare with."""


@dataclass
class _Case:
    """A tiny model of one family, a twin of it that the engine never touches, and prompts of 7, 7 and 9 tokens."""

    family: str
    hf: Any
    plain: Any

    @cached_property
    def model(self) -> Model:
        return wrap_model(self.hf, name=self.family)

    @cached_property
    def task(self) -> Task:
        draw = torch.Generator().manual_seed(1)
        texts = [torch.randint(3, 60, (n,), generator=draw).tolist() for n in (7, 7, 9)]
        corrupted = [[*text[:2], (text[2] + 5) % 50 + 3, *text[3:]] for text in texts]
        pairs = zip(texts, corrupted, strict=True)
        return Task("matrix", tuple(Example(tuple(a), tuple(b), (7,), (9,)) for a, b in pairs), "logit_diff")

    @property
    def texts(self) -> list[list[int]]:
        return [list(example.clean) for example in self.task]

    @cached_property
    def projections(self) -> dict[int, Any]:
        """Output projections of attention by layer, found by their names."""
        named = [(PROJECTION.search(name), module) for name, module in self.plain.named_modules()]
        return {int(match[1]): module for match, module in reversed(named) if match}

    def weights(self, prompts: Any, token_mask: Tensor | None = None) -> Tensor:
        """Observed weights [layer batch head query key]; 0 where a key is not seen."""
        table = observe(self.model, prompts, [_WEIGHTS], token_mask=token_mask)["weights"].nan_to_num()
        return table.unflatten(-1, (int(table.shape[-1] ** 0.5), -1))

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Logits of the plain model on one text, [pos d_vocab]."""
        with torch.no_grad():
            return self.plain(input_ids=torch.tensor([tokens]), use_cache=False)[0][0].float()

    def outcome(self, tokens: Sequence[int]) -> float:
        last = self.logits(tokens)[-1]
        return float(last[7] - last[9])

    @contextmanager
    def without(self, head: Head) -> Iterator[None]:
        """Within the context the plain model's output projection reads zeros in place of the head's z."""

        def clear(module: Any, args: tuple) -> tuple:
            z = args[0].unflatten(-1, (self.model.facts.n_heads, -1)).clone()
            z[..., head.head, :] = 0
            return (z.flatten(-2), *args[1:])

        handle = self.projections[head.layer].register_forward_pre_hook(clear)
        try:
            yield
        finally:
            handle.remove()

    @cached_property
    def outcomes(self) -> np.ndarray:
        """Outcomes [variant prompt] of the plain model, each head zero-ablated alone, and of the clean model in the last row."""
        rows = []
        for head in self.model.facts.heads():
            with self.without(head):
                rows.append([self.outcome(text) for text in self.texts])
        return np.array([*rows, [self.outcome(text) for text in self.texts]])

    def swept(self) -> np.ndarray:
        """The same by one sweep of resumed runs."""
        variants = [(zero([head]),) for head in self.model.facts.heads()]
        metric, record = OUTCOMES.get(self.task.metric), record_of(self.model)
        found = sweep(self.model, self.task, variants, metric, record=record, backend="resumed")
        return np.array([*found.values, found.baseline])


def _table(rows: AttentionRows) -> tuple[Tensor, Tensor]:
    """The weights of a block at their places in a table of all queries and keys, and 1 at these places."""
    length = rows.prompts.token_mask.shape[1]
    weights = rows.pattern.new_zeros(*rows.pattern.shape[:2], length, length)
    seen = torch.zeros_like(weights)
    weights[:, :, rows.queries, rows.keys], seen[:, :, rows.queries, rows.keys] = rows.pattern, 1
    return weights.flatten(2), seen.flatten(2)


_WEIGHTS = AttentionMetric("weights", "query and key", "weight", (0.0, 1.0), _table, "")


def _facts(case: _Case) -> tuple[float, float]:
    facts = case.model.facts
    first, second = (case.logits([*case.texts[2][:5], token, *case.texts[2][6:]])[:5] for token in (11, 23))
    causal = float((first - second).abs().max()) < LIMIT * float(first.abs().max())
    return float((facts.n_heads, facts.d_vocab, facts.causal) != (4, case.logits(case.texts[0]).shape[-1], causal)), LIMIT


def _attention(case: _Case) -> tuple[float, float]:
    found = [case.weights([text]) for text in case.texts]
    try:
        case.plain.set_attn_implementation("eager")
        outputs = [case.plain(input_ids=torch.tensor([text]), output_attentions=True) for text in case.texts]
        wanted = [torch.stack(output.attentions).detach().float() for output in outputs]
    except Exception as error:  # of transformers: no eager attention, or no attentions in its outputs
        raise _NoReference(f"{type(error).__name__}: {error}") from error
    finally:
        case.plain.set_attn_implementation(case.model.own_attention)
    if any(
        name.endswith("sinks") for name, _ in case.plain.named_parameters()
    ):  # some report the share that a sink takes, some do not
        found, wanted = ([table / table.sum(-1, keepdim=True) for table in tables] for tables in (found, wanted))
    return max(_difference(a, b) for a, b in zip(found, wanted, strict=True)), LIMIT


def _batch(case: _Case) -> tuple[float, float]:
    together = case.weights(case.texts)
    return max(
        _difference(together[:, i, :, : len(text), : len(text)], case.weights([text])[:, 0])
        for i, text in enumerate(case.texts)
    ), LIMIT


def _left_padding(case: _Case) -> tuple[float, float]:
    mask = torch.tensor([[i >= 9 - len(text) for i in range(9)] for text in case.texts])
    together = case.weights(torch.tensor([[0] * (9 - len(text)) + text for text in case.texts]), mask)
    return max(
        _difference(together[:, i, :, -len(text) :, -len(text) :], case.weights([text])[:, 0])
        for i, text in enumerate(case.texts)
    ), LIMIT


def _zero_sweep(case: _Case) -> tuple[float, float]:
    found, wanted = case.swept(), case.outcomes
    return float(np.abs(found - wanted).max() / np.abs(wanted - wanted[-1]).max()), LIMIT


def _exact_edges(case: _Case) -> tuple[float, float]:
    scores = score_edges(case.model, case.task, method="exact")
    ends = [[case.outcome(t) for t in (example.clean, example.corrupted)] for example in case.task]
    error = np.abs(np.stack([scores.clean, scores.corrupted], 1) - np.array(ends)).max()
    return float(error / np.abs(ends).max()), LIMIT


def _bfloat16(case: _Case) -> tuple[float, float]:
    halves = (copy.deepcopy(case.plain).to(torch.bfloat16) for _ in range(2))
    half = _Case(case.family, *halves)
    if half.model.facts.causal != case.model.facts.causal:
        return float("inf"), LIMIT
    if not half.model.facts.causal:
        return _difference(half.weights(case.texts), case.weights(case.texts)), rounding(torch.bfloat16)
    errors = np.abs(half.swept() - half.outcomes) / float(case.logits(case.texts[0]).abs().max())
    return float(np.quantile(errors, 0.95)), 4 * torch.finfo(torch.bfloat16).eps


def _difference(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max()) if found.shape == wanted.shape else float("inf")


CHECKS: dict[str, Callable[[_Case], tuple[float, float]]] = {
    check.__name__.removeprefix("_"): check
    for check in (_facts, _attention, _batch, _left_padding, _zero_sweep, _exact_edges, _bfloat16)
}


def decoder_families() -> list[str]:
    """Families of transformers with a causal language model that reads text alone, as ``model_type`` of a configuration."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in SKIPPED]


def family_matrix(families: Sequence[str] | None = None, progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """One row per family and check: ``family kind architecture check verdict error note``.

    ``verdict`` is ``right``, ``refused`` (``note`` is the sentence), ``WRONG`` (``error`` exceeds 1e-4 of the largest weight, effect or
    outcome), ``CRASH`` (an exception that is not a refusal), ``no reference``, or ``not built`` (one row: ``check`` is ``build``).
    ``families`` are decoders, or encoders with ``encoder:`` before them; default all. Raises LookupError for an unknown family.
    """
    known = [*decoder_families(), *(f"encoder:{name}" for name in ENCODERS)]
    chosen = known if families is None else list(families)
    for family in chosen:
        check_name(family, known, "family")
    rows = []
    for done, family in enumerate(chosen):
        rows += _rows(family)
        if progress:
            progress(done + 1, len(chosen))
    return pd.DataFrame(rows, columns=["family", "kind", "architecture", "check", "verdict", "error", "note"])


def _rows(family: str) -> list[tuple]:
    kind, _, name = family.rpartition(":")
    kind = kind or "decoder"
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case = build(name, kind)
        except Exception as error:  # configurations fail in as many ways as there are families
            return [(name, kind, "", "build", UNBUILT, np.nan, f"{type(error).__name__}: {error}".splitlines()[0])]
        return [(name, kind, type(case.hf).__name__, check, *_measured(case, check)) for check in CHECKS]


def build(family: str, kind: str) -> _Case:
    """The tiny model of a family. Raises whatever transformers raises where these sizes do not suit its configuration."""
    import transformers
    from transformers.models.auto import configuration_auto, modeling_auto

    causal, masked = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    names: Any = causal if kind == "decoder" else masked
    mapping: Any = configuration_auto.CONFIG_MAPPING
    config = mapping[family]
    base = config()
    sizes = {key: value for key, value in SIZES.items() if hasattr(base, key)} | SPECIAL.get(family, {})
    if "kv_lora_rank" in sizes:
        sizes |= {"head_dim": sizes["qk_rope_head_dim"], "num_key_value_heads": 4}
    sizes = {
        key: value for key, value in sizes.items() if value is not None and not (key == "is_decoder" and kind != "decoder")
    }
    architecture = getattr(transformers, names[family])
    with torch.device("meta"):
        n_parameters = sum(p.numel() for p in architecture(config(**sizes)).parameters())
    if n_parameters > LARGEST:
        raise ValueError(f"{n_parameters:,} parameters at these sizes")
    torch.manual_seed(0)
    hf = architecture(config(**sizes)).eval()
    with torch.no_grad():
        for weight in hf.parameters():
            weight.mul_(3) if weight.dim() > 1 else weight.add_(0.1 * torch.randn_like(weight))
    case = _Case(family, hf, copy.deepcopy(hf))
    case.logits(case.texts[0])
    return case


def _measured(case: _Case, check: str) -> tuple[str, float, str]:
    try:
        error, limit = CHECKS[check](case)
    except _NoReference as reason:
        return UNCHECKED, np.nan, str(reason).splitlines()[0]
    except Exception as error:  # every cell is filled, whatever the model does
        last = traceback.extract_tb(error.__traceback__)[-1]
        where, raised = Path(last.filename), (last.line or "").startswith("raise ")
        own = raised and where.is_relative_to(Path(__file__).parent) and isinstance(error, REFUSALS)
        sentence = str(error) if own else f"{type(error).__name__} in {where.name}: {error}"
        return REFUSED if own else CRASH, np.nan, (sentence.splitlines() or [""])[0]
    return RIGHT if error <= limit else WRONG, error, ""
