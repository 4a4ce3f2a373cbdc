"""Results print what they are and how large, never their numbers, and show themselves as a table in a notebook."""

import importlib
from dataclasses import fields, is_dataclass
from inspect import isclass

import numpy as np
import pandas as pd
import pytest

import interp
from interp.heads import HeadScores, TokenScores
from interp.records import RunRecord

ROOMS = (
    "ablation",
    "circuits",
    "detectors",
    "engine",
    "figures",
    "metrics",
    "models",
    "store",
    "tasks",
    "confirmation",
    "head_card",
)
PLAIN = {
    "Answers",
    "AttentionMetric",
    "AttentionRows",
    "Example",
    "Graph",
    "Layout",
    "ModelFacts",
    "Outcome",
    "Prompt",
    "RunRecord",
} | {"HeadVis", "RunSummary", "TaskDefinition"}
"""Public dataclasses that are definitions or parts, not results."""


OWN = {"AblationResult", "DiscreteCodes", "StoredRun"}
"""Results with a line of their own."""


def result_classes() -> list[type]:
    found = {}
    for room in ROOMS:
        package = importlib.import_module(f"interp.{room}")
        for name in getattr(package, "__all__", [n for n in vars(package) if n[0].isupper()]):
            value = getattr(package, name)
            if isclass(value) and is_dataclass(value) and value.__module__.startswith("interp.") and name not in PLAIN | OWN:
                found[name] = value
    return [*{**found, "HeadScores": HeadScores, "TokenScores": TokenScores}.values()]


@pytest.mark.parametrize("kind", result_classes(), ids=lambda kind: kind.__name__)
def test_a_result_prints_its_sizes_in_a_short_line(kind):
    result = object.__new__(kind)
    record = RunRecord("toy", task="ioi", metric="logit_diff")
    for field in fields(kind):
        large = {"record": record, "manifest": {"status": "finished", "details": {}, "spec": {}}, "n_layers": 40, "n_heads": 60}
        object.__setattr__(result, field.name, large.get(field.name, np.full((40, 60), 0.123456)))
    text = repr(result)
    assert text.startswith(f"{kind.__name__}(") and text.endswith(")")
    assert len(text) <= 200 and "\n" not in text and "0.123456" not in text
    assert hasattr(kind, "_repr_html_")


def test_the_results_of_a_session_print_and_show_themselves():
    model = interp.load_model()
    task = interp.make_task("ioi", model, 4)
    observation = interp.observe_attention(model, "When Mary and John", ["entropy"])
    results = [
        task,
        interp.run(model, "When Mary"),
        observation,
        interp.ablate_heads(model, task),
        interp.score_edges(model, task),
    ]
    for result in [*results, observation.heads("entropy"), observation.tokens("entropy"), interp.detect(model, "induction")]:
        assert len(repr(result)) <= 200
        assert "<table" in result._repr_html_() and "Traceback" not in result._repr_html_()
    assert repr(task) == "Task(name='ioi', examples=4 items, metric='logit_diff', arguments={n_prompts, seed, corruption})"
    assert "ioi" in repr(results[3]) and "4 prompts" in repr(results[3])
    assert "values=float64[4, 4], unit='nats'" in repr(observation.heads("entropy"))


def test_a_stored_run_prints_its_kind_and_shows_its_heads(tmp_path):
    scores = HeadScores("entropy", np.eye(2), "nats", (0.0, None), RunRecord("toy"))
    run = interp.open_run(scores.save(tmp_path / "run"))
    assert repr(run) == f"StoredRun('{tmp_path / 'run'}', finished, kind='scores', model='toy')"
    assert run._repr_html_().count("L0H1") == 1


def test_a_hostile_name_is_escaped_in_html():
    record = RunRecord("toy")
    scores = TokenScores("<script>", np.zeros((1, 2)), (("<b>", "&"),), "unit", (None, None), record)
    assert "<script>" not in scores._repr_html_() and "<b>" not in scores._repr_html_()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), "float32"), "float32[2, 3]"),
        (pd.DataFrame({"a": [1, 2], "b": 0}), "table[2 x 2]"),
        (1 / 3, "0.3333"),
        ("x" * 70, f"'{'x' * 57}...'"),
        (b"12345", "5 bytes"),
        ((1, 2.5, "a"), "(1, 2.5, 'a')"),
        (tuple(range(9)), "9 items"),
        ({"clean": 1}, "{clean}"),
        (interp.Head(1, 2), "L1H2"),
        (None, "None"),
        (RunRecord("toy"), "'toy'"),
    ],
)
def test_a_value_is_described_in_a_few_characters(value, text):
    from interp._short_repr import brief

    assert brief(value) == text
