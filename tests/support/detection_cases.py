"""Detections and confirmations made by hand: all sizes differ, and what must be found is known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from interp.confirmation import Confirmation
from interp.detectors.support.detection import Detection, TokenDetection
from interp.heads import Head, HeadScores, TokenScores
from interp.records import RunRecord

RECORD = RunRecord("toy", "0123456789ab", task="needles", metric="retrieval", arguments={"n_prompts": 7})
FOUND = (Head(1, 3), Head(1, 4), Head(2, 4), Head(0, 0))
"""Highest score first: three that touch and one in a corner."""


def head_scores(values, name="score", nan_reason=""):
    return HeadScores(name, np.asarray(values, dtype=float), "share of needle tokens", (0.0, 1.0), RECORD, nan_reason)


def detection(literature_threshold=0.1, found=FOUND, shape=(3, 5)):
    """3 layers x 5 heads; ``found`` score 0.9, 0.8 ..., the others 0.01 ..., the threshold is 0.2; L2H0 has no score."""
    values = np.linspace(0.01, 0.1, shape[0] * shape[1]).reshape(shape)
    for place, head in enumerate(found):
        values[head] = 0.9 - 0.1 * place
    if shape[0] > 2:
        values[2, 0] = np.nan
    tables = {"cells": cells(), "depths": depths(shape)}
    return Detection(
        "retrieval",
        head_scores(values, nan_reason="no trial was answered"),
        head_scores(np.full(shape, 0.0125)),
        np.full(shape, 0.2),
        0.05,
        literature_threshold,
        extra_scores={"frequency": head_scores(values / 2, "frequency", "no trial was answered")},
        tables=tables,
        details={"accepted": 12, "total": 24},
    )


def cells():
    """4 lengths x 3 depths with 2 trials each; the longest text was not measured at depth 1."""
    rows = [
        {"length": length, "depth": depth, "n": 2, "accepted": accepted, "recall": accepted / 2}
        for i, length in enumerate((32, 64, 96, 1280))
        for j, depth in enumerate((0.0, 50.0, 100.0))
        if (i, j) != (3, 2) and (accepted := (i + j) % 3) >= 0
    ]
    return pd.DataFrame(rows)


def depths(shape):
    rows = [
        {"layer": layer, "head": head, "depth": depth, "score": (layer + head) / 10 + depth / 1000, "n": 4}
        for layer in range(shape[0])
        for head in range(shape[1])
        for depth in (0.0, 50.0, 100.0)
    ]
    return pd.DataFrame(rows)


def confirmation(ks=(1, 2, 5), draws=6, positions=("all", "end"), tasks=("needle",)):
    """Every found head costs 0.15 of an accuracy of 0.95, other heads cost 0.01."""
    curve, sets = [], []
    for task in tasks:
        for where in positions:
            place = {"task": task, "positions": where}
            for group in ("detected", "random", "layer_matched", "bottom"):
                for k in (0, *ks) if group == "detected" else ks:
                    each = draws if group in ("random", "layer_matched") else 1
                    values = [0.95 - k * (0.15 if group == "detected" else 0.01) + 0.001 * draw for draw in range(each)]
                    point = {**place, "group": group, "k": k}
                    for draw, value in enumerate(values):
                        heads = " ".join(f"L0H{i}" for i in range(k))
                        sets.append({**point, "draw": draw, "heads": heads, **numbers(value, 0.02), "n": 40})
                    curve.append({**point, "n_draws": each, "n_sets": each, **numbers(float(np.mean(values)), 0.03), "n": 40})
    record = RunRecord(
        "toy", "0123456789ab", task="needle", metric="accuracy", arguments={"n_examples": 40}, interventions=("mean",)
    )
    details = {"unit": "share of prompts", "detected": [str(head) for head in FOUND], "unmatched": {}}
    return Confirmation("retrieval", pd.DataFrame(sets), record, details, {"curve": pd.DataFrame(curve)})


def numbers(value, half):
    return {
        "value": value,
        "ci_low": value - half,
        "ci_high": value + half,
        "effect": value - 0.95,
        "effect_ci_low": value - 0.95 - half,
        "effect_ci_high": value - 0.95 + half,
    }


def token_detection(words=None, response=4, n_texts=1):
    """A text whose tokens from ``response`` on have numbers: WAAD falls from 5 to 1 in turns of four, FAI is highest at every sixth."""
    words = words or tuple(f" w{i}" for i in range(23))
    length = len(words)
    at = np.arange(length)
    known = at >= response
    waad = np.where(known, 5.0 - at % 4, np.nan)
    fai = np.where(known & (at < length - 3), np.where(at % 6 == 0, 0.4, 0.05), np.nan)
    record = RunRecord("toy", "0123456789ab", task="own text", metric="waad, fai", arguments={"n_tokens": length})
    scores = {
        name: TokenScores(
            name,
            np.tile(values, (n_texts, 1)),
            (tuple(words),) * n_texts,
            unit,
            bounds,
            record,
            nan_reason="not of the response",
        )
        for name, values, unit, bounds in (
            ("waad", waad, "tokens", (0.0, None)),
            ("fai", fai, "attention", (0.0, 1.0)),
            ("delta", np.where(known, 1.0 - at % 4, np.nan), "tokens", (None, None)),
        )
    }
    chosen = {
        "preplan": np.tile(known & (at % 4 == 3), (n_texts, 1)),
        "anchor": np.tile(known & (at % 6 == 0), (n_texts, 1)),
        "sink": np.tile(at == 0, (n_texts, 1)),
    }
    statistics = pd.DataFrame(
        [
            {
                "statistic": "entropy_at_waad_peaks",
                "null": "shuffle",
                "observed": 0.36,
                "expected": 0.24,
                "null_low": 0.2,
                "null_high": 0.3,
                "p_value": 0.01,
                "n": 9,
            }
        ]
    )
    heads = {"local": (Head(0, 1),), "global": (Head(2, 2), Head(1, 0))}
    return TokenDetection("preplan_anchor", scores, chosen, heads, {"statistics": statistics}, {"response_start": response})
