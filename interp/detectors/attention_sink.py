"""Heads that park their attention on the first token.

The score is Gu's importance of the first token, alpha_0 = mean over rows t of A[t, 0], at a stated length T; the paper counts a head of a
text as a sink where it passes 0.3, at T = 64 (arXiv 2410.10781). A head that looks everywhere alike has H_T / T, 0.074 at T = 64,
but 0.34 at T = 8. A head that finds nothing to match in a text rests on the first token as well, and is found: on texts in which it
does find something its score falls.

The null gives the first token another key (``_other_keys.py``). Keys shuffled inside rows would not do: the first token is the same in
all texts and has only itself to look at, so that even in an untrained model its weight strays further than that of other tokens
(with BOS, 27 to 97 % of such models had a head above that 5 % threshold, by architecture).

Beside the heads: sinks at later tokens by both rules of ACT (arXiv 2406.15765), massive activations (arXiv 2402.17762), and how far the two
are the same tokens. A layer's heads are compared with the massive tokens of the stream that enters it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.null_threshold import null_threshold, prompt_digests
from interp.detectors.support.sink_null import draw_keys, importance_of_other_keys
from interp.detectors.support.sink_texts import TEXTS, cut, knows_sentences, sink_texts
from interp.engine.attention.attention_observer import Observation, observe
from interp.engine.forward.residual_reader import reading_residual
from interp.engine.forward.run import record_of
from interp.engine.sweep.sweep import Progress
from interp.heads import HeadScores
from interp.metrics.attention.column_sinks import RULES, sink_flags
from interp.metrics.attention.first_token_sink import first_token_sink
from interp.metrics.attention.received_attention import received_attention
from interp.metrics.attention.sink_share import sink_share
from interp.metrics.massive_activations import MassiveActivations

if TYPE_CHECKING:
    import pandas as pd

    from interp.models.model import Model

LENGTH = 64


@detector(quick=True)
def attention_sink(
    model: Model,
    *,
    length: int | None = None,
    n_prompts: int = 32,
    text: str | None = None,
    bos: bool | None = None,
    prompts: Any = None,
    epsilon: float = 0.3,
    alpha: float = 5.0,
    absolute: float = 0.1,
    min_rows: int = 8,
    n_null_draws: int = 99,
    rate: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads by their mean weight on the first token, alpha_0 = (1/T) sum_t A[t, 0], over ``n_prompts`` texts of T = ``length`` tokens
    (64, or as many as the context or the shortest of ``prompts`` allows); arXiv 2410.10781, whose threshold is ``epsilon``.

    ``text`` is ``task`` (sentences; the default where the model knows the words), ``random`` or ``repeated``; ``bos`` puts BOS in front,
    by default where the model's texts have it; ``prompts`` are texts of your own, cut to T. Parts: alpha_0 of ``random`` and
    ``repeated`` tokens (its controls; one token repeated without BOS leaves a rotary model no first token to find), ``sink_share`` of
    the first four tokens in rows from 16 on (or the later half), and ``hidden``, the largest mean weight of a later column. Tables:
    ``columns``, the later sinks by both rules (``ratio``: above ``alpha`` / T; ``abs``: above ``absolute``; the last ``min_rows`` - 1
    tokens are not judged); ``massive`` activations; ``overlap`` of both, a row a layer.

    At most a share ``Detection.rate`` of untrained models (0.04 with 99 draws of either kind of key) has a head above the threshold.
    Raises ValueError for encoders, texts shorter than T, and models whose blocks are not known.
    """
    model.facts.check_causal("An attention sink at the first token")
    kind, tokens = _texts(model, text, n_prompts, length, bos, prompts, min_rows, seed)
    size, others = tokens.shape[1], [name for name in TEXTS[1:] if name != kind]
    drawn = draw_keys(tokens.shape, model.facts.d_head, n_null_draws, np.random.default_rng([seed, 4]))
    importance = first_token_sink.set(epsilon=epsilon)
    massive = MassiveActivations(torch.ones(tokens.shape, dtype=torch.bool, device=model.device))
    share = sink_share.set(from_row=min(16, size // 2))
    with reading_residual(model, massive.read):
        metrics = [importance, share, received_attention.set(min_rows=min_rows), importance_of_other_keys(*drawn)]
        seen = observe(model, tokens.tolist(), metrics)
    inputs = {kind: seen}
    for done, name in enumerate(others):
        if progress:
            progress(done + 1, len(others) + 1)
        inputs[name] = observe(model, sink_texts(model, name, len(tokens), size, bos, seed).tolist(), [importance])
    if progress:
        progress(len(others) + 1, len(others) + 1)

    shuffled = seen["importance_of_other_keys"].double().mean(1).permute(2, 0, 1).cpu().numpy()
    limits = [null_threshold(some, rate / 2) for some in np.split(shuffled, 2)]
    threshold, chance = min(limit for limit, *_ in limits), np.mean([mean for *_, mean in limits], axis=0)
    arguments = {"text": kind, "length": size, "n_prompts": len(tokens), "bos": bos, "epsilon": epsilon}
    record = record_of(model, task="attention_sink", arguments=arguments, metric="alpha_0", seed=seed)

    def scores(name: str, values: np.ndarray) -> HeadScores:
        return HeadScores(name, values, "weight", (0.0, 1.0), record)

    weight = seen["received_attention"]
    judged = {"alpha": alpha, "threshold": absolute, "min_rows": min_rows}
    sinks = {rule: sink_flags(weight, seen.prompts, rule=rule, keep_first=True, **judged) == 1 for rule in RULES}
    later = weight[..., 1 : size - min_rows + 1].double().amax(-1).mean(1).cpu().numpy()
    parts = {name: scores(f"alpha_0 of {name} tokens", _alpha(inputs[name])) for name in others}
    parts |= {"sink_share": seen.heads("sink_share"), "hidden": scores("largest later column", later)}
    every = sink_flags(weight, seen.prompts, rule="ratio", keep_first=False, **judged)
    return Detection(
        "attention_sink",
        scores("alpha_0", _alpha(seen)),
        scores("alpha_0 with other keys", chance),
        threshold,
        sum(limit_rate for _, limit_rate, _ in limits),
        epsilon,
        parts,
        {
            "columns": _columns(sinks, weight, seen.words),
            "massive": _with_token(massive.to_dataframe(), seen.words),
            "overlap": overlap(massive, every),
        },
        {
            **arguments,
            "first_tokens": sorted({words[0] for words in seen.words})[:5],
            "uniform": float((1 / np.arange(1, size + 1)).mean()),
            "sink_0": {name: float(found["first_token_sink"][..., 1].mean()) for name, found in inputs.items()},
            "onset_layer": massive.onset,
            "min_rows": min_rows,
            "alpha": alpha,
            "absolute": absolute,
            "n_null_draws": n_null_draws,
        },
        prompt_digests(tokens.tolist()),
    )


def overlap(massive: MassiveActivations, flags: Float[Tensor, "n_layers batch head pos"]) -> pd.DataFrame:
    """How far sinks (``flags``, NaN where not judged) and massive tokens are the same, one row a layer.

    ``tokens`` were judged, ``massive`` are those of the entering stream, ``sinks`` those that are a sink of some head, ``both``;
    ``correlation`` (phi) over the tokens between being massive and being a sink of some head, NaN where one of them does not vary;
    ``median`` and ``largest`` are |x| of the stream that leaves the layer.
    """
    import pandas as pd

    rows = []
    for layer, own in enumerate(flags):
        judged = own.isfinite().all(1)
        large, sink = massive.tokens(layer - 1)[judged].cpu().numpy(), (own == 1).any(1)[judged].cpu().numpy()
        varies = 0 < large.mean() < 1 and 0 < sink.mean() < 1
        phi = float(np.corrcoef(large, sink)[0, 1]) if varies else np.nan
        counts = (len(large), int(large.sum()), int(sink.sum()), int((large & sink).sum()))
        rows.append((layer, *counts, phi, *massive.sizes[layer]))
    return pd.DataFrame(rows, columns=["layer", "tokens", "massive", "sinks", "both", "correlation", "median", "largest"])


def _texts(
    model: Model, text: str | None, n_prompts: int, length: int | None, bos: bool | None, prompts: Any, min_rows: int, seed: int
) -> tuple[str, Int[np.ndarray, "n_prompts length"]]:
    """The kind of text, and token ids."""
    if prompts is not None:
        kind, tokens = "given", cut(model, prompts, length, LENGTH)
    else:
        longest = model.facts.max_length or LENGTH
        length = min(LENGTH, longest) if length is None else length
        if length > longest:
            raise ValueError(f"length={length} is more than the {longest} tokens of {model.facts.name}'s context: take fewer.")
        if n_prompts < 1:
            raise ValueError(f"n_prompts={n_prompts} is too few: give at least 1.")
        kind = text or ("task" if knows_sentences(model) else "random")
        tokens = sink_texts(model, kind, n_prompts, length, bos, seed)
    if tokens.shape[1] < min_rows + 2:
        raise ValueError(
            f"Texts of {tokens.shape[1]} tokens are too short for min_rows={min_rows}: later sinks are judged by as many rows, so that "
            f"at least {min_rows + 2} tokens are needed."
        )
    return kind, tokens


def _alpha(seen: Observation) -> Float[np.ndarray, "n_layers n_heads"]:
    return seen["first_token_sink"][..., 0].double().mean(1).cpu().numpy()


def _columns(sinks: dict[str, Tensor], weight: Tensor, words: tuple[tuple[str, ...], ...]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (layer, head, example, pos, words[example][pos], float(weight[layer, example, head, pos]), rule)
        for rule, flags in sinks.items()
        for layer, example, head, pos in flags.nonzero().tolist()
    ]
    return pd.DataFrame(rows, columns=["layer", "head", "example", "pos", "token", "weight", "rule"])


def _with_token(massive: pd.DataFrame, words: tuple[tuple[str, ...], ...]) -> pd.DataFrame:
    massive.insert(3, "token", [words[example][pos] for example, pos in zip(massive["example"], massive["pos"], strict=True)])
    return massive
