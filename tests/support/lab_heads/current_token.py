"""Heads that attend to the current token."""

from dataclasses import replace

from interp.detectors import Detection, detector, null_threshold, prompt_digests
from interp.engine import observe_query_null
from interp.metrics import attention_metrics
from interp.tasks import make_task


@detector(default_task="induction", quick=True)
def current_token(model, *, n_prompts: int = 4, n_null_draws: int = 19, fwer: float = 0.05, seed: int = 0) -> Detection:
    """Heads by their mean attention weight on the current token, 0 to 1."""
    prompts = [example.clean for example in make_task("induction", model, n_prompts=n_prompts, seed=seed)]
    metrics = attention_metrics(["self_attention_score"])
    observation, null_scores = observe_query_null(model, prompts, metrics, n_null_draws, seed=seed)
    scores = observation.heads("self_attention_score")
    threshold, actual_fwer, null_mean = null_threshold(scores.values, null_scores["self_attention_score"].numpy(), fwer)
    control = replace(scores, name="null", values=null_mean)
    return Detection("current_token", scores, control, threshold, actual_fwer, prompts=prompt_digests(prompts))
