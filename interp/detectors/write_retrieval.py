"""LOCOS write-retrieval heads, which write the answer they read from the passage.

Attention alone does not distinguish a head that carries the answer from one that attends to it and writes nothing of it. Here
each token's value is followed through the output projection to the answer's row of the unembedding. Only this direct path
counts, without later blocks or a norm that a block applies after its attention.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector_declaration import detector
from interp.detectors.support.gold_and_competing_passages import passage_detection, passage_prompts
from interp.engine.attention.attention_rows import AttentionRows
from interp.engine.attention.last_query_rows_and_prefix_cache import read_last_queries
from interp.engine.forward.residual_observer import reading_residual
from interp.engine.sweep.sweep import Progress
from interp.engine.sweep.work_units import batches
from interp.models.model import Model
from interp.models.value_and_output_weights import output_rows, unembed_rows
from interp.tasks.task import Example, Span, Task
from interp.tasks.token_batch import as_batch

COLUMNS = ("gold", "competing", "attention_on_needle", "logit_attribution")


@detector(default_task="needle")
def write_retrieval(
    model: Model,
    *,
    task: str | Task = "needle",
    n_prompts: int = 64,
    gold: str = "needle",
    fold_norm: bool = False,
    n_null_draws: int = 99,
    fwer: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads by the logit they write for the answer from the passage that holds it, in logits.

    With ``phi[j] = A[t, j] * (v[j] W_O u)`` for the row ``t`` that predicts the answer and the answer's row ``u`` of the
    unembedding, the score is the sum of phi over the passage ``gold`` (a mark), minus that over all other keys times (keys in
    the passage) / (other keys), mean over prompts. In ``extra_scores``, ``attention_on_needle`` is the same with phi = A and
    ``logit_attribution`` the sum of phi over all keys. ``control`` scores the competing passage for its own word, the
    distractor. Logits are those before the final norm, without biases; ``fold_norm`` applies the norm at its scale in that run.

    The paper ranks without a threshold; here passages are swapped (``gold_and_competing_passages``, which also says what prompts need) at
    the family-wise error rate ``fwer``. Of 500 untrained models 0.048, and of all heads 0.003, exceed it. The answer is one token.
    Raises ValueError for an encoder, prompts without two passages or without distractors, and unknown output projections. Source:
    arXiv 2607.01002.
    """
    if model.layout is None:
        raise ValueError(
            f"write_retrieval needs the output projections of {model.facts.name}, which are not known for {model.facts.architecture}. "
            f"Use query_retrieval, which reads attention alone."
        )
    prompts = passage_prompts(model, "write_retrieval", task, n_prompts, gold, "end", seed)
    if not all(example.distractors for example in prompts.task):
        raise ValueError(
            f"write_retrieval compares answers with distractors, which task {prompts.task.name!r} lacks: add them."
        )
    table = locos_scores(model, prompts.task, prompts.gold, prompts.competing, fold_norm=fold_norm, progress=progress)
    gold_scores, competing_scores, attention, logit_attribution = np.moveaxis(table, -1, 0)
    unit = "logits" if fold_norm else "logits before the final norm"
    return passage_detection(
        model,
        "write_retrieval",
        prompts,
        gold_scores,
        competing_scores,
        unit=unit,
        bounds=(None, None),
        extra_scores={
            "attention_on_needle": (attention, "weight", (None, 1.0)),
            "logit_attribution": (logit_attribution, unit, (None, None)),
        },
        options={"gold": gold, "fold_norm": fold_norm},
        details={},
        n_null_draws=n_null_draws,
        fwer=fwer,
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
    """``COLUMNS`` for every prompt and head: contrast of the gold passage for the answer, of the competing passage for the
    distractor, of the gold passage in attention alone, and the sum over all keys for the answer."""
    assert model.layout is not None
    scores = np.empty((len(task), model.facts.n_layers, model.facts.n_heads, len(COLUMNS)))
    done = 0
    for example_ids in batches(task):
        examples = [task.examples[i] for i in example_ids]
        spans = [[passages[i] for i in example_ids] for passages in (gold, competing)]
        in_passage = torch.stack([_in_span(part, len(examples[0].clean)) for part in spans], 1).to(model.device)
        directions = _directions(model, examples, fold_norm)
        scores[example_ids] = _read(model, examples, in_passage, directions).cpu().double().transpose(0, 1).numpy()
        done += len(example_ids)
        if progress is not None:
            progress(done, len(task))
    return scores


def _read(
    model: Model,
    examples: Sequence[Example],
    in_passage: Bool[Tensor, "batch 2 pos"],
    directions: Float[Tensor, "batch 2 d_model"],
) -> Float[Tensor, "n_layers batch n_heads columns"]:
    facts = model.facts
    table = torch.zeros(facts.n_layers, len(examples), facts.n_heads, len(COLUMNS), device=model.device)

    def read(rows: AttentionRows) -> None:
        call, output = rows.layer.call, rows.layer.output
        first = rows.keys.start - call.first_key
        here = slice(first, first + rows.pattern.shape[-1])
        passage, visible = in_passage[:, :, rows.keys], rows.visible[:, 0].expand(len(in_passage), -1, -1)
        for i, head in enumerate(range(rows.heads.start, rows.heads.stop)):
            value, weights = call.head_value(head)[:, here].float(), rows.pattern[:, i]
            logits = value @ (output_rows(output, head, value.shape[-1]).float() @ directions.mT)
            phi = weights * logits.mT
            both = contrast(phi, passage & visible, visible)
            attention = contrast(weights, passage[:, :1] & visible, visible)
            table[rows.layer.index, :, head] = torch.cat([both, attention, phi[:, :1].sum(-1)], -1)

    read_last_queries(model, as_batch(model, examples).tokens, 1, read)
    return table


def contrast(
    phi: Float[Tensor, "batch n key"], passage: Bool[Tensor, "batch n key"], visible: Bool[Tensor, "batch 1 key"]
) -> Float[Tensor, "batch n"]:
    """The sum of ``phi`` over a passage minus its sum over the other visible keys, scaled to the same number of keys."""
    n_inside = passage.sum(-1)
    n_outside = visible.sum(-1) - n_inside
    own, all_keys = (phi * passage).sum(-1), phi.sum(-1)
    return own - n_inside / n_outside * (all_keys - own)


def _in_span(spans: Sequence[Span], length: int) -> Bool[Tensor, "batch pos"]:
    at = torch.arange(length)
    start, end = torch.tensor(spans).T[:, :, None]
    return (at >= start) & (at < end)


def _directions(model: Model, examples: Sequence[Example], fold_norm: bool) -> Float[Tensor, "batch 2 d_model"]:
    """The directions of the residual stream whose dot products are the logits of answer and distractor."""
    assert model.layout is not None
    words = torch.tensor([[e.answers[0], e.distractors[0]] for e in examples], device=model.device)
    rows = unembed_rows(model.layout, words).float()
    return _before_norm(model, examples, rows) if fold_norm else rows


def _before_norm(
    model: Model, examples: Sequence[Example], directions: Float[Tensor, "batch 2 d_model"]
) -> Float[Tensor, "batch 2 d_model"]:
    """The same directions before the final norm, at its scale at the position that predicts the answer.

    A norm multiplies each (centred) coordinate by its weight over the scale, which is the ratio of its output to its input.
    """
    assert model.layout is not None
    norm, residual = model.layout.final_norm, {}
    with reading_residual(model, lambda layer, x: residual.__setitem__(layer, x[:, -1])):
        read_last_queries(model, as_batch(model, examples).tokens, 1, None)
    x = residual[model.facts.n_layers - 1]
    with torch.inference_mode():
        out = norm(x).float()
    if not isinstance(norm, nn.LayerNorm):
        return directions * (out / x.float()).nan_to_num()[:, None]
    centred = x.float() - x.float().mean(-1, keepdim=True)
    scaled = directions * ((out - norm.bias.float()) / centred).nan_to_num()[:, None]
    return scaled - scaled.mean(-1, keepdim=True)
