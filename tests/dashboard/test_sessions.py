"""Sessions that use the dashboard at the same time see their own prompt, head and model, and share one loaded model."""

import gc
import json
import random
import threading
import time
import weakref
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import streamlit as st
import torch
import transformers
from streamlit.testing.v1 import AppTest

import interp.models
from interp.engine.attention.qk_cache import AttentionCache
from interp.heads import Head
from interp_dashboard import prompts
from interp_dashboard.attention_cache import PromptChoice, attention_cache
from interp_dashboard.formatting import plain
from interp_dashboard.metric_cache import measure
from interp_dashboard.model_cache import model_cache
from interp_dashboard.settings import VARIABLE, settings
from tests.support.dashboard_apps import MINI, new_session, open_address, save_small, viewer_data, viewer_weights

TEXTS = [
    "The dog ran to the old house.",
    "The cat sat on the mat because the cat was tired.",
    "When Mary and John went to the store, John gave a drink to",
    "one two three one two",
    "a",
]
SHAPES = {"interp-mini": (4, 4), "small": (3, 5)}
ACTIONS = 200
READ_OFF = 1 / 500
"""Of a weight that the viewer keeps in 255 steps, and of another implementation."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder of a model of 3 layers x 5 heads."""
    return str(save_small(tmp_path_factory.mktemp("models") / "small", *SHAPES["small"]))


@pytest.fixture
def models(small, monkeypatch):
    """Names of the two models of a fresh server, with their shapes."""
    monkeypatch.setenv(VARIABLE, json.dumps({"model": small}))
    settings.cache_clear()
    st.cache_resource.clear()
    yield {"interp-mini": SHAPES["interp-mini"], small: SHAPES["small"]}
    st.cache_resource.clear()
    settings.cache_clear()


@pytest.fixture
def loads(monkeypatch):
    """What was loaded, in order; it must be gone before something else is loaded."""
    names, alive, load = [], [], interp.models.load_model

    def load_model(name, **options):
        until = time.monotonic() + 10  # another thread may be about to let go of it
        while any(ref() is not None for ref in alive):
            assert time.monotonic() < until, f"{name} is loaded beside {names[-1]}"
            time.sleep(0.01)
            gc.collect()
        model = load(name, **options)
        names.append(name)
        alive.extend(weakref.ref(part) for part in (model, model.hf, next(iter(model.hf.parameters()))))
        return model

    monkeypatch.setattr(interp.models, "load_model", load_model)
    return names


@cache
def patterns(name, text):
    """Weights of every head, [n_layers n_heads query key], and the tokens, as transformers has them."""
    folder = MINI if name == "interp-mini" else name
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    ids = [2, *transformers.AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids]
    with torch.inference_mode():
        return torch.stack(model(torch.tensor([ids]), output_attentions=True).attentions)[:, 0].numpy(), tuple(ids)


@dataclass
class Session:
    """One user: what they chose last, and what their page must show."""

    app: AppTest
    model: str
    text: str
    head: Head | None = None
    history: list[str] = field(default_factory=list)

    def act(self, rng, models):
        """Does something at random."""
        does = rng.choice([self.choose_text, self.choose_text, self.choose_head, self.choose_model])
        self.history.append(f"{does.__name__} {does(rng, models)}")

    def choose_text(self, rng, models):
        self.text = rng.choice(TEXTS)
        self.app.text_area(key="field:text").set_value(self.text).run()
        return self.text

    def choose_model(self, rng, models):
        self.model = rng.choice([*models])
        self.app.selectbox(key="field:model").set_value(self.model).run()
        return self.model

    def choose_head(self, rng, models):
        n_layers, n_heads = models[self.model]
        self.head = Head(rng.randrange(n_layers), rng.randrange(n_heads))
        self.app.query_params["head"] = str(self.head)
        self.app.run()
        return self.head

    def check(self):
        """The page shows this session's model, text and head; of a head that the model does not have it says so."""
        app, data = self.app, viewer_data(self.app)
        weights, tokens = patterns(self.model, self.text)
        there = self.head is None or self.head in np.ndindex(weights.shape[:2])
        assert not app.exception and not app.error, self.history
        warned = [said.value for said in app.warning if "does not know" not in said.value]
        assert [f"Head {self.head} does not exist" in said for said in warned] == [True] * (not there), self.history
        assert app.selectbox(key="field:model").value == self.model, self.history
        shown = plain(prompts.name(PromptChoice(text=self.text)))
        begins = f"{plain(self.model)} · {shown} · {len(tokens)} tokens · digest "
        assert any(said.value.startswith(begins) for said in app.caption), self.history
        head = Head(*data["head"])
        assert self.head in (None, head) or not there, self.history
        np.testing.assert_allclose(viewer_weights(app), weights[head], atol=READ_OFF, err_msg=str(self.history))
        assert f"load_model({self.model!r})" in app.code[1].value and repr(self.text) in app.code[1].value


@pytest.mark.slow
def test_two_sessions_do_not_see_each_other_in_200_actions(models, loads):
    rng = random.Random(0)
    first, second = models
    sessions = [Session(new_session("attention"), first, TEXTS[0]), Session(new_session("attention"), second, TEXTS[1])]
    for session in sessions:
        open_address(session.app, task="", text=session.text, model=session.model)
    for i in range(ACTIONS):
        session = sessions[rng.randrange(2)]
        session.act(rng, models)
        session.check()
        if i % 10 == 9:
            for session in sessions:
                session.app.run()
                session.check()
    assert set(loads) == set(models)


def test_threads_that_read_at_the_same_time_get_their_own_numbers(models, loads):
    server, measurer, failures = attention_cache(), measure, []
    model_cache()  # made once

    def work(seed):
        rng = random.Random(seed)
        try:
            for _ in range(ACTIONS // 4):
                name, text = rng.choice([*models]), rng.choice(TEXTS[1:])
                reading = server.get(name, PromptChoice(text=text))
                weights, tokens = patterns(name, text)
                head = Head(*(rng.randrange(n) for n in models[name]))
                n = len(tokens)
                assert reading.tokens == tokens
                np.testing.assert_allclose(reading.tile(head, (0, n, 0, n), n), weights[head], atol=1e-5)
                entropy = measurer(reading, PromptChoice(text=text), name, ["entropy"])["entropy"].values[head]
                rows = weights[head].astype(float)
                expected = -(rows * np.log(np.where(rows > 0, rows, 1))).sum(1).mean()
                np.testing.assert_allclose(entropy, expected, atol=1e-4)
        except Exception as error:
            failures.append(error)

    for name in models:
        for text in TEXTS:
            patterns(name, text)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert set(loads) == set(models)


def test_a_model_is_let_go_while_its_attention_is_still_read(models, loads, monkeypatch):
    """A long observation of one session does not keep the model that another session wants to replace."""
    observing, go_on = threading.Event(), threading.Event()
    observe = AttentionCache.observe

    def slow(cache, *asked):
        observing.set()
        assert go_on.wait(60)
        return observe(cache, *asked)

    monkeypatch.setattr(AttentionCache, "observe", slow)
    first, second = models
    model_cache()
    thread = threading.Thread(target=attention_cache().get, args=(first, PromptChoice(text=TEXTS[0])))
    thread.start()
    assert observing.wait(60)
    try:
        with model_cache().acquire(second):
            assert loads == [first, second]
    finally:
        go_on.set()
        thread.join()


def test_a_model_is_gone_when_another_is_asked_for(models, loads):
    session = new_session("attention")
    for name in [*models, *models]:
        text = f"{TEXTS[3]} {'one ' * len(loads)}"  # read anew, by a model that is loaded anew
        open_address(session, task="", text=text, model=name)
        assert not session.exception and not session.error
    assert loads == [*models, *models]


def test_a_page_says_that_it_waits_for_the_model_of_another_session(models, loads, monkeypatch):
    said, holding, go_on = [], threading.Event(), threading.Event()
    first, _ = models

    def hold():
        with model_cache().acquire(first):
            holding.set()
            assert go_on.wait(60)

    spinner = st.spinner

    def told(text, **options):
        said.append(text)
        if "Another session" in text:
            go_on.set()
        return spinner(text, **options)

    monkeypatch.setattr(st, "spinner", told)
    model_cache()
    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(60)
    session = new_session("attention")
    open_address(session, task="", text=TEXTS[0], model=first)
    holder.join()
    assert "Another session uses the model: waiting for it …" in said
    assert viewer_weights(session).shape == patterns(first, TEXTS[0])[0].shape[2:]
    said.clear()
    open_address(new_session("attention"), task="", text=TEXTS[1], model=first)
    assert not any("Another session" in text for text in said)
