"""Every test runs offline and on one thread."""

import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TQDM_DISABLE="1")

import jaxtyping
import pytest
import torch

from tests.support import runtime_annotation_checks
from tests.support.tiny_models import TINY, tiny

# What the hook named in pyproject.toml applies to every function of interp
jaxtyping.jaxtyped = runtime_annotation_checks.jaxtyped
torch.set_num_threads(1)


@pytest.fixture(params=TINY)
def model(request):
    """Each tiny architecture in turn, with its tokenizer."""
    return tiny(request.param)


@pytest.fixture
def gpt2():
    return tiny("gpt2")


@pytest.fixture
def llama():
    return tiny("llama")
