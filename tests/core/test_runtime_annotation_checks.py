"""Annotations of interp are checked at every call that a test makes, named axes across all arguments."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from interp.models.value_and_output_weights import output_rows
from interp.statistics import draw_weights
from tests.support.runtime_annotation_checks import checked, jaxtyped, names_arrays

Row = Float[Tensor, "batch d_model"]
check = jaxtyped(typechecker=checked)


@check
def scale(x: Row, weights: Float[Tensor, " d_model"]) -> Float[Tensor, " batch"]:
    return x @ weights if x.shape[0] > 1 else x


@check
def repeat(word: str, n: int = 2) -> str:
    return word * n if n else 0  # type: ignore[return-value]


@check
@dataclass
class Pair:
    first: int
    second: Row | None = None


def test_axes_of_one_name_are_equal_in_arguments_and_result():
    assert scale(torch.ones(2, 3), torch.ones(3)).tolist() == [3, 3]
    for x, weights in ((torch.ones(2, 3), torch.ones(4)), (torch.ones(2), torch.ones(2)), (torch.ones(1, 3), torch.ones(3))):
        with pytest.raises(TypeCheckError, match="scale"):
            scale(x, weights)


def test_plain_types_of_arguments_and_results_are_checked_without_axes():
    assert repeat("ab") == "abab"
    for arguments in ((3,), ("ab", "c"), ("ab", 0)):
        with pytest.raises(TypeCheckError, match="repeat"):
            repeat(*arguments)


def test_fields_of_dataclasses_are_checked():
    assert Pair(1, torch.ones(2, 3)).first == 1
    for fields in (("1",), (1, torch.ones(3))):
        with pytest.raises(TypeCheckError, match="Pair"):
            Pair(*fields)


def test_a_function_inside_another_is_checked_each_time_that_it_is_defined():
    def make(n):
        @check
        def add(x: int) -> int:
            return x + n

        return add

    for n in (1, 2):
        assert make(n)(3) == 3 + n
        with pytest.raises(TypeCheckError, match="add"):
            make(n)("3")


@pytest.mark.parametrize("annotation", [Row, Row | None, list[Row], dict[str, tuple[Row, ...]], Callable[[int, Row], None]])
def test_arrays_are_seen_inside_other_types(annotation):
    assert names_arrays(annotation)


@pytest.mark.parametrize("annotation", [int, Tensor, np.ndarray, list[Tensor], Callable[[int], str], Iterator[str], None])
def test_what_has_no_axes_is_none(annotation):
    assert not names_arrays(annotation)


def test_the_library_runs_under_these_checks():
    assert output_rows(torch.nn.Linear(6, 4), 1, 3).shape == (3, 4)
    for function, arguments in (
        (output_rows, (torch.nn.Linear(6, 4), "1", 3)),
        (draw_weights, (np.random.default_rng(0), 3, "5")),
    ):
        with pytest.raises(TypeCheckError, match=function.__name__):
            function(*arguments)
