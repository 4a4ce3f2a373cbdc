"""Tokens that somebody else wrote, in every view and every file: they stay text, and nothing breaks.

A model whose vocabulary holds them reads them as tokens of their own, so that they reach labels, tables, hover texts and code.
"""

import base64
import io
import json
import re
import shlex
import zlib
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import streamlit as st
import torch
import transformers
from PIL import Image
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from interp.figures import pattern_heatmap
from interp.heads import Head
from interp.metrics import observe_attention
from interp.models import load_model
from interp.records import RunRecord
from interp.store import save_observation
from interp_dashboard import export, manual_ablation
from interp_dashboard.pages import attention, compare, heads, runs
from interp_dashboard.settings import VARIABLE, settings
from interp_dashboard.url import COMPRESSED
from tests.support.attention_views import HOSTILE
from tests.support.dashboard_apps import new_session, open_address, viewer_data

pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing from font")  # a box is drawn

BETWEEN = "\u241f"
MORE = (
    ":red[x]",
    "![](http://x.invalid/a.png)",
    "[a](javascript:alert(1))",
    ":material/delete:",
    "**b**",
    "@SUM(1)",
    "'quoted'",
)
SURROGATE = re.compile(r"[\ud800-\udfff]")
WORDS = [word for word in dict.fromkeys((*HOSTILE, *MORE)) if word and not SURROGATE.search(word)]
"""What a tokenizer can hold: no half letters, and nothing empty."""
TEXT = BETWEEN.join(WORDS)
MARKUP = {"gray-badge", "blue-badge"}
FORMULA = re.compile(r"^[=+\-@\t\r]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of the model, whose own name is Markdown and HTML."""
    path = tmp_path_factory.mktemp("models") / "<b>:red[m] $x$ ![i](http:x)"
    names = ["<pad>", "<s>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*names, *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(BETWEEN), behavior="removed")
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(names) + len(WORDS), n_positions=64, n_embd=40, n_layer=3, n_head=5, bos_token_id=1, eos_token_id=2
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return str(path)


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    """A server with that model; the folder of its runs."""
    monkeypatch.setenv(VARIABLE, json.dumps({"model": folder, "runs": str(tmp_path / "runs")}))
    settings.cache_clear()
    st.cache_resource.clear()
    yield tmp_path / "runs"
    st.cache_resource.clear()
    settings.cache_clear()


@pytest.fixture
def shared(monkeypatch):
    """What pages pass to ``export_menu``: name, figure and table of each."""
    found = []

    def kept(name, *, figure=None, table=None, **code):
        found.append((name, *(thing() if callable(thing) else thing for thing in (figure, table)), code))
        export.export_menu(name, figure=figure, table=table, **code)

    for module in (attention, compare, heads, runs, manual_ablation):
        monkeypatch.setattr(module, "export_menu", kept)
    return found


def check_page(app):
    """Nothing failed, and no token stands in a text that Streamlit reads as Markdown."""
    assert not app.exception and not app.error, [said.value for said in (*app.exception, *app.error)]
    for element in (*app.markdown, *app.caption, *app.warning, *app.info):
        bare = re.sub(r"\\.", "", element.value)
        assert not re.search(r"<\w|!\[|\$x|:red\[", bare), element.value


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, sorted(name for name, _ in attrs)))


def check_files(name, figure, table, code):
    """All five files open; the tables hold what was shown."""
    if figure is not None:
        with Image.open(io.BytesIO(export.figure_file(figure, "png"))) as image:
            image.load()
        assert ElementTree.fromstring(export.figure_file(figure, "svg")).tag.endswith("svg")
        harmless = pattern_heatmap(np.eye(2), ["a", "b"], Head(0, 0), RunRecord("m"))
        assert (
            Tags(export.figure_file(figure, "html").decode()).found == Tags(export.figure_file(harmless, "html").decode()).found
        ), name
    if table is not None:
        shown = table.reset_index(drop=True)
        again = pd.read_parquet(io.BytesIO(export.parquet(shown)))
        plain = pd.read_csv(io.BytesIO(export.csv(shown)), keep_default_na=False, dtype=str)
        assert list(again) == list(plain) == list(shown) and len(again) == len(plain) == len(shown)
        for column in shown.select_dtypes(["object", "string"]):
            assert sorted(again[column]) == sorted(shown[column].map(escaped)), (name, column)
            assert not [cell for cell in plain[column] if FORMULA.match(cell)], (name, column)
            told = [cell.removeprefix("'") if FORMULA.match(cell[1:]) and cell[:1] == "'" else cell for cell in plain[column]]
            assert told == [escaped(cell) for cell in shown[column]], (name, column)
    if code.get("cli"):
        shlex.split(code["cli"])
    if code.get("python"):
        compile(code["python"], "copied", "exec")


def escaped(text):
    return text.encode("utf-8", "backslashreplace").decode()


PAGES = {
    "attention": [{}, {"head": "L2H4", "value_weighted": "yes", "gamma": "0.5", "window": "3,20,0,9"}],
    "heads": [{"head": "L1H1"}],
    "ablate": [{"mode": "manual", "ablated": "L0H0,L2H4", "manual_ablation": how} for how in ("zero", "uniform")],
    "compare": [{"task_b": "", "text_b": BETWEEN.join(reversed(WORDS)), "head": "L1H2"}],
}


@pytest.mark.parametrize("page", PAGES)
def test_hostile_tokens_stay_text_on_every_page_and_in_its_files(page, server, shared):
    app = new_session(page)
    for query in PAGES[page]:
        open_address(app, task="", text=TEXT, **query)
        check_page(app)
        assert shared
        while shared:
            check_files(*shared.pop())


def test_the_viewer_and_the_table_have_every_token_as_it_is(server, shared):
    app = open_address(new_session("attention"), task="", text=TEXT)
    tokens = viewer_data(app)["tokens"]
    assert [token for token in tokens if token != "<s>"] == WORDS
    ((_, _, table, code),) = shared
    assert set(table["query_token"]) == set(tokens)
    assert repr(TEXT) in code["python"]


def test_hostile_tokens_of_a_stored_run_stay_text(server, shared, folder):
    model = load_model(folder)
    found = observe_attention(model, model.to_tokens(TEXT), ["received_attention", "entropy"])
    server.mkdir()
    save_observation(found, model.facts, server / "hostile")
    app = new_session("runs")
    for kind in ("heads", "layers", "tokens"):
        open_address(app, run="hostile", figure=kind)
        check_page(app)
        name, figure, table, code = shared[-1]
        check_files(name, figure, table, code)
    assert set(table["token"]) >= set(WORDS)


@pytest.mark.parametrize("word", ["\ud800", "a\ud83d", "\udfff</script>"])
def test_half_letters_are_written_as_escapes(word):
    table = pd.DataFrame({"token": pd.Series([word, "=1"], dtype=object), "weight": [0.5, 0.25]})
    check_files("half", pattern_heatmap(np.eye(2), [word, "x"], Head(0, 0), RunRecord("m")), table, {})


@pytest.mark.parametrize("page", PAGES)
def test_half_letters_of_an_address_break_nothing(page, server, shared):
    raw = zlib.compress("a\ud83d \udfff".encode("utf-8", "surrogatepass"))
    packed = COMPRESSED + base64.urlsafe_b64encode(raw).decode().rstrip("=")
    app = open_address(new_session(page), **PAGES[page][0], task="", text=packed)
    check_page(app)
    for found in shared:
        check_files(*found)
