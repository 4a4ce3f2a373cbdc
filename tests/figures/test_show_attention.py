"""What a notebook shows of a model's attention is the model's attention."""

import base64
import json
import re
import zlib
from html import unescape

import numpy as np
import pytest

from interp import show_attention
from interp.heads import Head
from tests.support.reference_metrics import hooked_pattern
from tests.support.tiny_models import tiny, tiny_tokens


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_every_head_in_the_view_has_the_pattern_of_the_hook(name):
    model, tokens = tiny(name), tiny_tokens(1, 11)
    html = unescape(show_attention(model, tokens, "L1H1")._repr_html_())
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)[1])
    assert data["head"] == [1, 1]
    pattern = hooked_pattern(model, tokens).numpy()
    assert len(data["tiles"]) == model.facts.n_layers * model.facts.n_heads
    for key, (tile,) in data["tiles"].items():
        levels = np.frombuffer(zlib.decompress(base64.b64decode(tile["weights"])), np.uint8).reshape(tile["shape"])
        layer, head = map(int, key.split(","))
        np.testing.assert_allclose(levels / 255, pattern[layer, 0, head], rtol=0, atol=0.5 / 255 + 1e-5)


def test_a_head_that_is_not_there_and_two_prompts_are_refused():
    model = tiny("gpt2")
    with pytest.raises(LookupError, match="L9H9 does not exist"):
        show_attention(model, tiny_tokens(1, 5), Head(9, 9))
    with pytest.raises(ValueError, match="one prompt"):
        show_attention(model, tiny_tokens(2, 5))
