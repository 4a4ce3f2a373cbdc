"""A wrong kind of argument is answered with one sentence, by every public function that takes a model, a task or heads."""

import importlib
from inspect import isfunction, signature

import pytest

import interp
from interp.heads import Head
from interp.interventions import zero
from interp.models import plant

ROOMS = ("ablation", "circuits", "detectors", "engine", "figures", "interventions", "metrics", "models", "store", "tasks")


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
    with pytest.raises(TypeError, match=r"facts must be the ModelFacts of a model, not Model: pass model\.facts\."):
        interp.save_observation(None, planted.model, "folder")


def test_a_checked_function_keeps_its_name_signature_and_docstring():
    from interp.ablation.ablate_heads import ablate_heads

    assert signature(interp.ablate_heads) == signature(ablate_heads)
    assert (interp.ablate_heads.__name__, interp.ablate_heads.__doc__) == ("ablate_heads", ablate_heads.__doc__)
    assert interp.ablate_heads is interp.ablation.ablate_heads
