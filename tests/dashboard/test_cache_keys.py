"""What the dashboard caches is found by digests of everything that it depends on, never by a sample of an array."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.models.read_facts import weights_digest
from interp_dashboard.attention_cache import PromptAttention
from tests.support.tiny_models import tiny

APP = Path(__file__).resolve().parents[2] / "apps" / "interp_dashboard"
CACHED = [
    (file.name, function)
    for file in sorted(APP.rglob("*.py"))
    for function in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    if isinstance(function, ast.FunctionDef) and any("st.cache_" in ast.unparse(d) for d in function.decorator_list)
]


def test_one_changed_element_changes_the_key_whichever_head_it_belongs_to():
    weights = torch.randn(12, 12, 64, 64, generator=torch.Generator().manual_seed(0))
    before, rng = weights_digest([("w", weights)]), np.random.default_rng(0)
    for layer, head in np.ndindex(12, 12):
        place = (layer, head, *rng.integers(64, size=2).tolist())
        kept = weights[place].clone()
        weights[place] += 1e-3
        assert weights_digest([("w", weights)]) != before, place
        weights[place] = kept
    assert weights_digest([("w", weights)]) == before


def test_the_key_of_a_prompt_changes_with_each_token_with_the_weights_and_with_the_dtype():
    facts, tokens = tiny("llama").facts, tuple(range(4, 97))
    keys = [PromptAttention(facts, None, None, tokens).digest]
    for place in range(len(tokens)):
        keys.append(PromptAttention(facts, None, None, (*tokens[:place], 3, *tokens[place + 1 :])).digest)
    for change in ({"weights_digest": "0" * 16}, {"dtype": "bfloat16"}):
        keys.append(PromptAttention(replace(facts, **change), None, None, tokens).digest)
    assert len(set(keys)) == len(keys) == len(tokens) + 3


@pytest.mark.parametrize(("file", "function"), CACHED, ids=lambda part: getattr(part, "name", part))
def test_no_cached_function_takes_an_array(file, function):
    taken = {argument.arg: ast.unparse(argument.annotation) for argument in function.args.args}
    assert not [name for name, kind in taken.items() if any(word in kind for word in ("ndarray", "Tensor", "Frame"))]


def test_cached_functions_are_found():
    assert len(CACHED) >= 10
