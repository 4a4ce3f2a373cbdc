"""Outcomes: numbers read from the logits that predict the answer; one file each."""

from interp.registry import Registry

OUTCOMES = Registry("interp.metrics.outcomes", "metric", group="interp.outcomes", kind="Outcome")
