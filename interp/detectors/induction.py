"""Looks at what followed its token before, and so goes on with what is repeated.

The score is attention alone. Whether the head then predicts what it found is another number, its effect: a head can look right and
write nothing that is read. Olsson et al. 2022 (arXiv 2209.11895); repeated random words as in TransformerLens's demonstrations.
"""

from dataclasses import replace

from interp.ablation.ablate_heads import ablate_heads
from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.induction_family import detections, repeats
from interp.engine.sweep.sweep import Progress
from interp.heads import HeadScores
from interp.models.model import Model
from interp.tasks.task import Example, Task


@detector(default_task="induction", quick=True)
def induction(
    model: Model,
    *,
    n_prompts: int = 4,
    period: int | None = None,
    effects: bool = False,
    n_null_draws: int = 19,
    rate: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads by their mean weight, 0 to 1, on the key t-n+1, over the rows t of the second time that n random words are said.

    ``period`` is n: by default 50, or as many as fit. ``literature`` is 0.4, a habit of demonstrations, not a paper's constant.
    With ``effects`` every head is zeroed at all positions, and ``parts["effect"]`` is what this does to the log-probability of the
    last word, in nats (mean over prompts; negative = the head helped).

    In 5% (``rate``) of untrained models at least one head lies above the threshold, which is what heads reach with the queries of
    ``n_null_draws`` strangers (``_stripes.py``); 19 are the fewest for 5%. Raises ValueError for an encoder, where the words do not fit
    the context, the vocabulary or any window, and for too few strangers.
    """
    found = detections(model, ["induction"], n_prompts, period, n_null_draws, rate, seed, progress)["induction"]
    return replace(found, parts={"effect": zeroed(model, n_prompts, period, seed, progress)}) if effects else found


def zeroed(model: Model, n_prompts: int, period: int | None, seed: int, progress: Progress | None = None) -> HeadScores:
    """What zeroing each head does to the log-probability of the last word of the prompts that the heads were found on, in nats."""
    prompts = [tuple(prompt) for prompt in repeats(model, n_prompts, period, seed)]
    task = Task("repeats", tuple(Example(p[:-1], p[:-1], p[-1:], ()) for p in prompts), "answer_logprob")
    found = ablate_heads(model, task, ablation="zero", seed=seed, progress=progress)
    effects = found.effects.mean(1).reshape(model.facts.n_layers, model.facts.n_heads)
    return HeadScores("effect", effects, found.unit, (None, None), found.record)
