"""What tests of loading share."""

import pytest


@pytest.fixture
def load_model():
    from interp.models import load_model

    return load_model


@pytest.fixture
def unavailable():
    from interp.errors import ModelUnavailable

    return ModelUnavailable
