"""A wrong kind of argument is answered with one sentence, by every public function that takes a model, a task or heads."""

import importlib
from functools import cache
from inspect import isfunction, signature
from pathlib import Path

import numpy as np
import pytest

import interp
from interp._check_argument_types import checks_arguments
from interp.engine.attention.attention_observer import Observation
from interp.heads import Head
from interp.interventions import zero
from interp.models import plant

ROOMS = ("ablation", "circuits", "detectors", "engine", "figures", "interventions", "metrics", "models", "store", "tasks")


@cache
def wanted():
    return interp.load_model("interp-mini")


def functions_with(parameter: str, annotation: str) -> list:
    """Public functions whose parameter of this name is annotated so, by room and name."""
    found = []
    for room in ROOMS:
        package = importlib.import_module(f"interp.{room}")
        for name in package.__all__:
            function = getattr(package, name)
            taken = isfunction(function) and signature(function).parameters.get(parameter)
            if taken and str(getattr(taken.annotation, "__name__", taken.annotation)).strip("'\"") == annotation:
                found.append(pytest.param(function, parameter, id=f"{room}.{name}"))
    return found


@pytest.mark.parametrize(("function", "parameter"), functions_with("model", "Model"))
def test_a_name_in_place_of_a_model_is_answered_with_the_call_that_loads_it(function, parameter):
    with pytest.raises(TypeError) as caught:
        function(**{parameter: "interp-mini"})
    assert str(caught.value) == "model must be a Model as returned by load_model, not str: interp.load_model('interp-mini')."


@pytest.mark.parametrize(("function", "parameter"), functions_with("task", "Task"))
def test_a_name_in_place_of_a_task_is_answered_with_the_call_that_makes_it(function, parameter):
    with pytest.raises(TypeError, match=r"task must be a Task .*, not str: interp\.make_task\('ioi', model\)\."):
        function(**{parameter: "ioi"})


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ("L0H1", r"heads must be a list of Head, not str: \[Head\.parse\('L0H1'\)\]\."),
        (Head(0, 1), r"not Head: \[Head\(layer=0, head=1\)\]\."),
        (["L0H1"], r"and 'L0H1' is a str: Head\(5, 1\) is L5H1\."),
        (3, r"heads must be a list of Head, not int\."),
    ],
)
def test_heads_that_are_not_a_list_of_heads_are_refused(heads, message):
    with pytest.raises(TypeError, match=message):
        zero(heads)


def test_a_planted_model_and_a_model_in_place_of_its_facts_are_answered_with_the_attribute():
    planted = plant("mini_ioi")
    with pytest.raises(TypeError, match=r"not PlantedModel: pass its \.model\."):
        interp.run(planted, "a b")
    with pytest.raises(
        TypeError, match=r"facts must be a ModelFacts as returned by Model\.facts, not Model: pass model\.facts\."
    ):
        interp.save_observation(object.__new__(Observation), planted.model, "folder")


def test_a_checked_function_keeps_its_name_signature_and_docstring():
    from interp.ablation.ablate_heads import ablate_heads

    assert signature(interp.ablate_heads) == signature(ablate_heads)
    assert (interp.ablate_heads.__name__, interp.ablate_heads.__doc__) == ("ablate_heads", ablate_heads.__doc__)
    assert interp.ablate_heads is interp.ablation.ablate_heads


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interp.load_model(3), "name must be a str, not int."),
        (lambda: interp.load_model(None), "name must be a str, not NoneType."),
        (lambda: interp.detect(wanted(), "induction", n_prompts="4"), "n_prompts must be an int, not str."),
        (lambda: interp.detect(wanted(), 3), "role must be a str, not int."),
        (lambda: interp.confirm("retrieval", wanted(), None), "detection must be a Detection as returned by detect, not str: "
         "interp.detect(model, 'retrieval')."),
        (lambda: interp.observe_attention(wanted(), "a b", "entropy"), "metrics must be a list of str or AttentionMetric, not str: "
         "['entropy']."),
        (lambda: interp.observe_attention(wanted(), "a b", ["entropy", 3]), "metrics must be a list of str or AttentionMetric, and 3 is an "
         "int."),
        (lambda: interp.make_task("ioi", wanted(), n_prompts="8"), "n_prompts must be an int, not str."),
        (lambda: interp.save_observation({}, wanted().facts, "folder"), "observation must be an Observation as returned by "
         "observe_attention, not dict."),
        (lambda: interp.open_run(7), "path must be a str or Path, not int."),
    ],
)  # fmt: skip
def test_every_other_argument_is_answered_with_what_it_must_be(call, message):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == message


def test_an_argument_that_may_be_none_is_answered_as_one_that_may_not():
    with pytest.raises(TypeError, match=r"^heads must be a list of Head, not str: \[Head\.parse\('L0H1'\)\]\.$"):
        interp.ablate_heads(wanted(), interp.make_task("ioi", wanted(), n_prompts=2), heads="L0H1")
    with pytest.raises(TypeError, match=r"^heads must be a list of Head, and 'L0H1' is a str: Head\(5, 1\) is L5H1\.$"):
        interp.ablate_heads(wanted(), interp.make_task("ioi", wanted(), n_prompts=2), heads=["L0H1"])


def test_numbers_of_numpy_paths_and_none_are_let_through():
    @checks_arguments
    def function(count: int, share: "float", folder: "str | Path | None" = None, layers: "Sequence[int]" = ()) -> tuple:  # noqa: F821
        return count, share, folder, layers

    assert function(np.int64(3), np.float32(0.5), Path("runs"), np.arange(2))[0] == 3
    assert function(True, 1, None, (4, 5)) == (True, 1, None, (4, 5))
    with pytest.raises(TypeError, match=r"^share must be a float, not str\.$"):
        function(1, share="0.5")
    with pytest.raises(TypeError, match=r"^layers must be a list of int, not int: \[3\]\.$"):
        function(1, 0.5, layers=3)


def test_an_argument_that_no_function_has_is_answered_with_those_it_has():
    with pytest.raises(
        TypeError, match=r"^load_model has no argument 'devise'\. There are: name, device, .* Did you mean 'device'\?$"
    ):
        interp.load_model(devise="cpu")
    with pytest.raises(TypeError, match=r"^ablate_heads has no argument 'ablaton'\. There are: .* Did you mean 'ablation'\?$"):
        interp.ablate_heads(wanted(), None, ablaton="mean")
