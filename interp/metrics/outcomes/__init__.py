"""Outcomes: numbers read from the logits that predict the answer; one file each."""

from interp.registry import Shelf

OUTCOMES = Shelf("interp.metrics.outcomes", "metric")
