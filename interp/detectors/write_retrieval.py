"""Heads that write the answer from the passage that holds it (LOCOS).

Weights alone do not tell a head that carries the answer from one that looks at it and writes nothing of it. Here each token's value
is followed through the output projection to the answer's row of the unembedding. This is the direct way alone: what later blocks
make of it is not seen, nor is a norm that a block puts behind its attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.passage_pairs import asked, detection
from interp.engine.attention.attention_rows import AttentionRows
from interp.engine.attention.last_query_rows import read_last_queries
from interp.engine.forward.residual_reader import reading_residual
from interp.engine.sweep.resume_from_layer import output_rows
from interp.engine.sweep.work_units import batches
from interp.tasks.task import Example, Span, Task

if TYPE_CHECKING:
    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model

COLUMNS = ("gold", "competing", "attention_on_needle", "direct")


@detector(default_task="needle")
def write_retrieval(
    model: Model,
    *,
    task: str | Task = "needle",
    n_prompts: int = 64,
    gold: str = "needle",
    fold_norm: bool = False,
    n_null_draws: int = 99,
    rate: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads that write the answer from the passage that holds it.

    With ``phi[j] = A[t, j] * (v[j] W_O u)`` for the row ``t`` that predicts the answer and the answer's row ``u`` of the unembedding,
    the score is the sum of phi over the passage ``gold`` (a mark), minus that over all other keys times (keys in the passage) / (other
    keys), mean over prompts. ``parts["attention_on_needle"]`` is the same with phi = A, ``parts["direct"]`` the sum of phi over all keys
    (direct logit attribution). ``control`` is the score of the competing passage for its own word, the distractor. Unit: logits before
    the final norm and its scale, biases left out; with ``fold_norm`` logits, the norm held at the scale that it has in that run.

    The paper ranks and has no threshold; here passages are traded (``_passages.py``, which also says what prompts must hold): in a share
    ``rate`` of models that do not tell them apart, by default 0.05, at least one head lies above the threshold. Measured on 500 untrained
    models: in 0.048 of them, and 0.003 of all heads. The answer is one token. Raises ValueError for an encoder, prompts without two
    passages, and models whose output projection is not known. Source: arXiv 2607.01002.
    """
    if model.layout is None:
        raise ValueError(
            f"What the heads of {model.facts.name} write cannot be read: the parts of a {model.facts.architecture} model are not known. "
            f"Use query_retrieval, which reads attention alone."
        )
    found = asked(model, "write_retrieval", task, n_prompts, gold, "end", seed)
    table = locos_scores(model, found.task, found.gold, found.competing, fold_norm=fold_norm, progress=progress)
    right, wrong, attention, direct = np.moveaxis(table, -1, 0)
    unit = "logits" if fold_norm else "logits before the final norm"
    return detection(
        model,
        "write_retrieval",
        found,
        right,
        wrong,
        unit=unit,
        bounds=(None, None),
        parts={"attention_on_needle": (attention, "weight", (None, 1.0)), "direct": (direct, unit, (None, None))},
        options={"gold": gold, "fold_norm": fold_norm},
        details={},
        n_null_draws=n_null_draws,
        rate=rate,
        seed=seed,
    )


def locos_scores(
    model: Model,
    task: Task,
    gold: Sequence[Span],
    competing: Sequence[Span],
    *,
    fold_norm: bool = False,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n_prompts n_layers n_heads columns"]:
    """``COLUMNS`` of every prompt and head: the contrast of gold passage and answer, that of competing passage and distractor, the first
    for attention alone, and the sum over all keys for the answer."""
    assert model.layout is not None
    found = np.empty((len(task), model.facts.n_layers, model.facts.n_heads, len(COLUMNS)))
    done = 0
    for rows in batches(task):
        examples = [task.examples[row] for row in rows]
        length = len(examples[0].clean)
        spans = [[gold[row] for row in rows], [competing[row] for row in rows]]
        inside = torch.stack([_inside(part, length) for part in spans], 1).to(model.device)
        directions = _directions(model, examples, fold_norm)
        found[rows] = _read(model, examples, inside, directions).cpu().double().transpose(0, 1).numpy()
        done += len(rows)
        if progress is not None:
            progress(done, len(task))
    return found


def _read(
    model: Model,
    examples: Sequence[Example],
    inside: Bool[Tensor, "batch 2 pos"],
    directions: Float[Tensor, "batch 2 d_model"],
) -> Float[Tensor, "n_layers batch n_heads columns"]:
    facts = model.facts
    table = torch.zeros(facts.n_layers, len(examples), facts.n_heads, len(COLUMNS), device=model.device)

    def read(rows: AttentionRows) -> None:
        call, output = rows.layer.call, rows.layer.output
        first = rows.keys.start - call.first_key
        here = slice(first, first + rows.pattern.shape[-1])
        passage, seen = inside[:, :, rows.keys], rows.visible[:, 0].expand(len(inside), -1, -1)
        for i, head in enumerate(range(rows.heads.start, rows.heads.stop)):
            value, weights = call.head_value(head)[:, here].float(), rows.pattern[:, i]
            said = value @ (output_rows(output, head, value.shape[-1]).float() @ directions.mT)
            phi = weights * said.mT
            both, attention = contrast(phi, passage & seen, seen), contrast(weights, passage[:, :1] & seen, seen)
            table[rows.layer.index, :, head] = torch.cat([both, attention, phi[:, :1].sum(-1)], -1)

    tokens = torch.tensor([e.clean for e in examples], device=model.device)
    read_last_queries(model, tokens, 1, read)
    return table


def contrast(
    phi: Float[Tensor, "batch n key"], passage: Bool[Tensor, "batch n key"], seen: Bool[Tensor, "batch 1 key"]
) -> Float[Tensor, "batch n"]:
    """The sum of ``phi`` over a passage minus its sum over the other keys that are seen, as if these were as many."""
    n_inside = passage.sum(-1)
    n_outside = seen.sum(-1) - n_inside
    own, all_keys = (phi * passage).sum(-1), phi.sum(-1)
    return own - n_inside / n_outside * (all_keys - own)


def _inside(spans: Sequence[Span], length: int) -> Bool[Tensor, "batch pos"]:
    at = torch.arange(length)
    start, end = torch.tensor(spans).T[:, :, None]
    return (at >= start) & (at < end)


def _directions(model: Model, examples: Sequence[Example], fold_norm: bool) -> Float[Tensor, "batch 2 d_model"]:
    """What the residual is multiplied with for the logits of answer and distractor of each example."""
    assert model.layout is not None
    unembed: Any = model.layout.unembed.weight
    words = torch.tensor([[e.answers[0], e.distractors[0]] for e in examples], device=model.device)
    rows = unembed[words].float()
    return _before_norm(model, examples, rows) if fold_norm else rows


def _before_norm(
    model: Model, examples: Sequence[Example], directions: Float[Tensor, "batch 2 d_model"]
) -> Float[Tensor, "batch 2 d_model"]:
    """The same directions before the final norm, at the scale that it has where each example's answer is predicted.

    A norm multiplies each (centred) coordinate by its weight over the scale: that is its own output over its own input.
    """
    assert model.layout is not None
    norm, kept = model.layout.final_norm, {}
    tokens = torch.tensor([e.clean for e in examples], device=model.device)
    with reading_residual(model, lambda layer, x: kept.__setitem__(layer, x[:, -1])):
        read_last_queries(model, tokens, 1, None)
    x = kept[model.facts.n_layers - 1]
    with torch.inference_mode():
        out = norm(x).float()
    if not isinstance(norm, nn.LayerNorm):
        return directions * (out / x.float()).nan_to_num()[:, None]
    centred = x.float() - x.float().mean(-1, keepdim=True)
    scaled = directions * ((out - norm.bias.float()) / centred).nan_to_num()[:, None]
    return scaled - scaled.mean(-1, keepdim=True)
