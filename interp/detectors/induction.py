"""Induction heads, which attend to the token after an earlier occurrence of the current one.

The score reads attention alone; whether the head writes a prediction is its effect, a separate number. Olsson et al. 2022
(arXiv 2209.11895); repeated random tokens as in TransformerLens's demonstrations.
"""

from dataclasses import replace

from interp.ablation.ablate_heads import ablate_heads
from interp.detectors.support.dataclass_as_keywords import keyword_options
from interp.detectors.support.detection import Detection
from interp.detectors.support.detector_declaration import detector
from interp.detectors.support.induction_family import RepeatedTokenOptions, detect_roles, repeated_token_prompts
from interp.engine.sweep.sweep import Progress
from interp.heads import HeadScores
from interp.models.model import Model
from interp.tasks.task import Example, Task


@detector(default_task="induction", quick=True)
@keyword_options(RepeatedTokenOptions)
def induction(
    model: Model, options: RepeatedTokenOptions, *, effects: bool = False, progress: Progress | None = None
) -> Detection:
    """Heads by their mean attention weight, 0 to 1, from row t to key t-n+1, over the second copy of n repeated random tokens.

    With ``effects``, ``extra_scores["effect"]`` is the mean change of the last token's log-probability when the head is
    zero-ablated at all positions, in nats (negative = it helped). The rest is as in ``duplicate_token``.
    """
    detection = detect_roles(model, ["induction"], options, progress)["induction"]
    if not effects:
        return detection
    return replace(detection, extra_scores={"effect": _zero_ablation_effect(model, options, progress)})


def _zero_ablation_effect(model: Model, options: RepeatedTokenOptions, progress: Progress | None) -> HeadScores:
    """Effect of zero-ablating each head on the log-probability of the last token of the detector's own prompts, in nats."""
    prompts = [tuple(prompt) for prompt in repeated_token_prompts(model, options.n_prompts, options.period, options.seed)]
    task = Task("repeats", tuple(Example(p[:-1], p[:-1], p[-1:], ()) for p in prompts), "answer_logprob")
    result = ablate_heads(model, task, ablation="zero", seed=options.seed, progress=progress)
    effects = result.effects.mean(1).reshape(model.facts.n_layers, model.facts.n_heads)
    return HeadScores("effect", effects, result.unit, (None, None), result.record)
