"""Options as text: every kind is read, and what cannot be read is answered with what can."""

from inspect import signature

import pytest

from interp.metrics.attention import attention_metrics
from interp.models import load_model
from interp.options_text import option_text, parse_options, settable


def example(model, *, n: int = 3, share: float = 0.5, strict: bool = False, name: str | None = None, extra: list[int] = []):  # noqa: B006
    """A function with options of every kind."""


OPTIONS = signature(example).parameters


def test_each_value_has_the_kind_of_its_parameter():
    items = ["n=4", "share=2", "strict=TRUE", "name=a=b"]
    assert parse_options(items, OPTIONS, "It") == {"n": 4, "share": 2.0, "strict": True, "name": "a=b"}
    assert parse_options(["name=none"], OPTIONS, "It") == {"name": None}
    assert parse_options(["n=5", "at=1+4", "label=x"], {"n": 1, "at": (2,), "label": None}, "It") == {
        "n": 5,
        "at": (1, 4),
        "label": "x",
    }


def test_written_values_are_read_back():
    values = {"n": 4, "share": 0.25, "strict": False, "name": None}
    assert parse_options([f"{name}={option_text(value)}" for name, value in values.items()], OPTIONS, "It") == values


def test_parameters_that_text_cannot_give_are_not_options():
    assert list(settable(OPTIONS)) == ["n", "share", "strict", "name"]


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ("n", ValueError, "'n' is not an option: write name=value."),
        ("m=1", LookupError, "It has no option 'm'. There are: n, share, strict, name."),
        ("n=few", ValueError, "'n=few': the value must be a whole number."),
        ("share=half", ValueError, "'share=half': the value must be a number."),
        ("strict=1", ValueError, "'strict=1': the value must be true or false."),
        ("extra=1", LookupError, "It has no option 'extra'. There are: n, share, strict, name."),
    ],
)
def test_what_cannot_be_read_is_answered_with_what_can(item, error, message):
    with pytest.raises(error) as caught:
        parse_options([item], OPTIONS, "It")
    assert caught.value.args[0] == message


def test_metrics_and_planted_models_read_their_options_alike():
    (metric,) = attention_metrics(["windowed_distance:window=20"])
    assert metric.parameters["window"] == 20
    with pytest.raises(ValueError, match="'window=x': the value must be a whole number"):
        attention_metrics(["windowed_distance:window=x"])
    assert (
        load_model("planted:mini_ioi,seed=3,noise_everywhere=true").facts.name
        == "planted:mini_ioi,seed=3,noise_everywhere=True"
    )
    with pytest.raises(ValueError, match="'seed=x': the value must be a whole number"):
        load_model("planted:mini_ioi,seed=x")
