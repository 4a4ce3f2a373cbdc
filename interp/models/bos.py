"""BOS policy: whether prompts begin with the BOS token, decided once per model.

``always`` and ``never`` are the user's choice. ``auto``: BOS is prepended when the tokenizer itself does so, or by the convention of
TransformerLens (``default_prepend_bos``: GPT-2, Llama, Gemma, Mistral, OPT ... yes; Pythia, Qwen, Phi, Bloom ... no), unless BOS makes
the model worse on short English texts: some models (SmolLM2) have a BOS token that only opens a turn of a chat. Without a BOS token
nothing is prepended. Texts of an encoder are encoded by its tokenizer alone, with the special tokens that it adds ([CLS], [SEP]).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from interp.models.model import Model

POLICIES = ("auto", "always", "never")
NO_BOS_FAMILIES = frozenset(
    "bloom deepseek_v2 ernie4_5 ernie4_5_moe exaone exaone4 glm glm4_moe gpt_neox granite llada minimax_m2 mpt phi phimoe "
    "qwen2 qwen2_5_vl qwen2_moe qwen3 qwen3_moe recurrent_gemma seed_oss smollm3 starcoder2".split()
)
PROBES = (
    "The river rises in the hills to the north and flows past three villages before it reaches the sea.",
    "When the snow melts in spring, the water often covers the road, and people cross it in small boats.",
    "My brother bought a new car last week, but it would not start this morning, so he had to walk to work.",
    "The first computers filled whole rooms and were much slower than the telephone in your pocket.",
    "She opened the window, looked at the sky and decided to take an umbrella with her to the market.",
    "Most of the students who took the course said that the examination was harder than they had expected.",
)
MIN_TOKENS = 60
"""Fewer tokens than these in all, or more unknown ones, and the texts tell nothing about the model."""


def check_bos(bos: str) -> None:
    """Raises ValueError for what is no policy."""
    if bos not in POLICIES:
        raise ValueError(f"bos={bos!r} is not one of: {', '.join(POLICIES)}.")


def tokenizer_adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer prepends BOS by itself."""
    bos = getattr(tokenizer, "bos_token_id", None)
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def conventional_bos(model_type: str, tokenizer: Any) -> bool:
    """Whether the tokenizer, or the convention for the family, prepends BOS to a prompt."""
    return tokenizer_adds_bos(tokenizer) or model_type not in NO_BOS_FAMILIES


def set_bos(model: Model, bos: str = "auto") -> Model:
    """``model`` with ``prepend_bos`` of its facts decided; ``bos_reason`` says why where that is not the convention. Raises ValueError
    for a choice that the model does not have."""
    check_bos(bos)
    facts = model.facts
    if bos == "auto":
        if facts.prepend_bos and (reason := _reason_against(model)):
            model.facts = replace(facts, prepend_bos=False, bos_reason=reason)
        return model
    if not facts.causal:
        raise ValueError(
            f"bos={bos!r} belongs to causal models, and {facts.name} is encoded with its tokenizer's own special tokens."
        )
    if bos == "always" and facts.bos_token_id is None:
        raise ValueError(f"bos='always' needs a BOS token, and {facts.name} has none: use bos='auto'.")
    if (wanted := bos == "always") != facts.prepend_bos:
        model.facts = replace(facts, prepend_bos=wanted, bos_reason=f"bos={bos!r}")
    return model


def _reason_against(model: Model) -> str:
    """The mean losses of the following tokens of ``PROBES`` with BOS and without it, where the former is larger by two standard errors
    or more; empty otherwise, and for a tokenizer that adds BOS itself."""
    if model.hf is None or model.tokenizer is None or tokenizer_adds_bos(model.tokenizer):
        return ""
    texts = [model.to_tokens_without_special(text)[: (model.facts.max_length or 64) - 1] for text in PROBES]
    known = [token for text in texts for token in text if token != getattr(model.tokenizer, "unk_token_id", None)]
    if len(known) < MIN_TOKENS:
        return ""
    import torch

    bos: Any = model.facts.bos_token_id
    with torch.inference_mode():
        without = torch.cat([_losses(model, text) for text in texts])
        added = torch.cat([_losses(model, [bos, *text])[1:] for text in texts]) - without
    if not added.mean() > 2 * added.std() / len(added) ** 0.5:
        return ""
    loss = float(without.mean())
    return f"loss {loss + float(added.mean()):.2f} nats with BOS, {loss:.2f} without"


def _losses(model: Model, tokens: list[int]) -> torch.Tensor:
    import torch

    ids = torch.tensor([tokens], device=model.device)
    hf: Any = model.hf
    return torch.nn.functional.cross_entropy(hf(ids).logits[0, :-1].float(), ids[0, 1:], reduction="none")
