"""The dashboard in a browser, as somebody uses it: pages, the atlas, keys, shared addresses, files, odd models and long texts."""

import io
import json
import re
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.figures import atlas
from interp.heads import Head
from interp_dashboard import url
from tests.browser.app import PATIENCE, App
from tests.browser.conftest import LONG
from tests.support.dashboard_apps import MINI

pytestmark = pytest.mark.browser

PAGES = {"": "Attention", "attention": "Attention", "heads": "Heads", "ablate": "Ablate", "compare": "Compare", "runs": "Runs"}
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(14, 17, 23)"}
TEXT = "The dog ran to the old house because the dog was hungry."
TILE_BYTES = 4 * LONG**2
"""Of one head's weights at 4,096 tokens."""


@pytest.fixture
def small(page, small_server):
    """The dashboard with a random model of 3 layers x 5 heads."""
    return App(page, small_server.address)


def name(app, head):
    """Waits until the viewer names a head."""
    app.page.locator(".attention-viewer .name", has_text=re.compile(f"^{head}$")).wait_for(timeout=PATIENCE)


def drawn(app, head):
    """Waits until a head is chosen, in the address too, and its tile is drawn."""
    name(app, head)
    app.wait_for_query(head=str(head))
    app.settle()
    app.page.locator(".attention-viewer .tile:not(.stale) .weights").wait_for(timeout=PATIENCE)


def caption(app):
    """Model, length and digest of what is shown, as the page says them."""
    found = app.page.get_by_text(re.compile(r"· digest [0-9a-f]{12}$"))
    found.wait_for(timeout=PATIENCE)
    return found.inner_text()


def picture(n_layers, n_heads, n_tokens, n_kv_heads=None):
    """The geometry of an atlas; it depends on sizes alone."""
    side = min(n_tokens, 48)
    return atlas(np.zeros((n_layers, n_heads, side, side), np.float32), n_kv_heads=n_kv_heads)


def click_head(app, head, geometry):
    """Clicks the middle of a head's cell."""
    image = app.page.locator(".attention-viewer .grid img")
    image.wait_for(timeout=PATIENCE)
    assert image.evaluate("(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") == [
        geometry.width,
        geometry.height,
    ]
    x0, y0, x1, y1 = geometry.box(head)
    share = image.bounding_box()["width"] / geometry.width
    app.page.locator(".attention-viewer .grid").click(position={"x": (x0 + x1) / 2 * share, "y": (y0 + y1) / 2 * share})


@pytest.mark.parametrize("place", ["", "attention"])
def test_the_first_page_has_two_addresses_and_a_link_one_step_back(page, server, place):
    app = App(page, server.address)
    app.open(place, head="L2H1", text=TEXT, task="")
    drawn(app, Head(2, 1))
    page.get_by_role("link", name="Metrics of all heads").click()
    page.get_by_role("heading", name="Heads", exact=True, level=1).wait_for(timeout=PATIENCE)
    app.settle()
    page.go_back()
    drawn(app, Head(2, 1))
    assert app.query == {"head": "L2H1", "text": TEXT, "task": ""}


@pytest.mark.parametrize("scheme", PAPER)
def test_every_page_opens_in_the_browsers_colours(new_page, server, scheme):
    app = App(new_page(color_scheme=scheme), server.address)
    for place, title in PAGES.items():
        app.open(place)
        assert app.said("stHeading")[0] == title
        assert not app.said("stException") and not app.said("stAlertContentError")
        assert app.page.get_by_test_id("stApp").evaluate("(app) => getComputedStyle(app).backgroundColor") == PAPER[scheme]
        if place == "":
            app.page.locator(".attention-viewer .weights").wait_for(timeout=PATIENCE)
            app.page.locator(f".attention-viewer{'.dark' if scheme == 'dark' else ':not(.dark)'}").wait_for(timeout=PATIENCE)
        if place == "heads":
            figure = app.page.locator(".js-plotly-plot .main-svg").first
            figure.wait_for(timeout=PATIENCE)
            assert figure.evaluate("(figure) => figure.style.background") == PAPER[scheme]


def test_the_menu_leads_through_all_pages_and_keeps_the_prompt(app):
    app.open("", task="", text=TEXT)
    said = caption(app)
    for title in ["Heads", "Ablate", "Compare", "Runs", "Attention"]:
        app.menu(title)
        assert not app.said("stException")
    assert caption(app) == said
    assert app.query["text"] == TEXT


def test_a_click_on_the_atlas_chooses_that_head(app):
    app.open("", task="", text=TEXT)
    n_tokens = int(re.search(r"· (\d+) tokens", caption(app))[1])
    for head in (Head(3, 0), Head(0, 2), Head(2, 3)):
        click_head(app, head, picture(4, 4, n_tokens))
        drawn(app, head)


def test_arrow_keys_walk_the_atlas(app):
    app.open("", head="L1H2")
    name(app, Head(1, 2))
    app.page.locator(".attention-viewer .grid").focus()
    for key, head in [("ArrowRight", "L1H3"), ("ArrowDown", "L2H3"), ("Home", "L2H0"), ("ArrowUp", "L1H0"), ("End", "L1H3")]:
        app.page.keyboard.press(key)
        drawn(app, head)


def test_an_address_that_is_passed_on_shows_the_same(app, new_page, server):
    app.open("", task="ioi", seed="3", example="2", corrupted="yes")
    first = caption(app)
    click_head(app, Head(2, 1), picture(4, 4, int(re.search(r"· (\d+) tokens", first)[1])))
    drawn(app, Head(2, 1))
    app.page.get_by_text("Scale by value norm").click()
    app.wait_for_query(value_weighted="yes")
    app.page.locator(".attention-viewer").get_by_role("button", name="½").click()
    app.wait_for_query(gamma="0.5")
    app.settle()
    other = App(new_page(), server.address)
    other.goto(app.page.url)
    drawn(other, Head(2, 1))
    assert caption(other) == first
    assert other.query == app.query
    looks = []
    for shown in (app, other):
        shown.page.locator(".attention-viewer .notes:visible").wait_for(timeout=PATIENCE)
        view = shown.page.locator(".attention-viewer")
        texts = [view.locator(part).inner_text() for part in (".headline", ".range", ".note")]
        looks.append((texts, shown.said("stBadge"), view.locator(".grid img").get_attribute("src")))
    assert looks[0] == looks[1]
    app.open("", task="ioi", seed="3", example="2")
    assert caption(app).split("digest")[1] != first.split("digest")[1], "of the prompt that is not corrupted"


def look(app, head):
    """What the viewer shows of a head, once it is drawn: the prompt's model, length and digest, the head's numbers, the whole atlas."""
    drawn(app, head)
    view = app.page.locator(".attention-viewer")
    said = [view.locator(part).inner_text() for part in (".headline", ".range", ".note")]
    return caption(app), said, view.locator(".grid img").get_attribute("src")


@pytest.mark.parametrize("n_actions", [16, pytest.param(200, marks=pytest.mark.survey)])
def test_two_people_who_act_at_once_see_their_own_heads_and_prompts(new_page, server, n_actions):
    texts = [TEXT, "When Mary and John went to the store, John gave a drink to", "Two words"]
    alone, sizes = {}, {}
    app = App(new_page(), server.address)
    for text in texts:
        app.open("", task="", text=text, head="L0H0")
        sizes[text] = picture(4, 4, int(re.search(r"· (\d+) tokens", caption(app))[1]))
        for head in [Head(layer, i) for layer in range(4) for i in range(4)]:
            if head != Head(0, 0):
                click_head(app, head, sizes[text])
            alone[text, head] = look(app, head)
    assert len({shown for shown, *_ in alone.values()}) == len(texts)
    apps, moves = [App(new_page(), server.address) for _ in range(2)], np.random.default_rng(0)
    shown = [(text, Head(0, 0)) for text in texts[:2]]
    for app, (text, head) in zip(apps, shown, strict=True):
        app.open("", task="", text=text, head=str(head))
    for _ in range(n_actions // 2):
        for i, app in enumerate(apps):  # the second acts while the first is still answered
            text, head = shown[i]
            if moves.random() < 0.2:
                text = texts[moves.integers(len(texts))]
                app.page.goto(f"{server.address}/?{urlencode({'task': '', 'text': text, 'head': str(head)})}")
            else:
                head = Head(int(moves.integers(4)), int(moves.integers(4)))
                click_head(app, head, sizes[text])
            shown[i] = text, head
        for app, now in zip(apps, shown, strict=True):
            assert look(app, now[1]) == alone[now] and app.query["text"] == now[0]


@pytest.fixture
def downloads(app):
    """Takes the files that a page's Download gives, by their endings."""

    def take():
        app.page.get_by_role("button", name="Download").first.click()
        found = {}
        for ending in ("png", "svg", "html", "csv", "parquet"):
            with app.page.expect_download(timeout=PATIENCE) as waiting:
                app.page.get_by_role("button", name=ending.upper(), exact=True).click()
            assert waiting.value.suggested_filename.endswith(f".{ending}")
            found[ending] = waiting.value.path().read_bytes()
        app.page.keyboard.press("Escape")
        return found

    return take


def check_files(files, new_page, folder):
    """Both tables, which are the same, after all files were opened."""
    with Image.open(io.BytesIO(files["png"])) as image:
        assert image.format == "PNG" and min(image.size) > 300
    assert ElementTree.fromstring(files["svg"]).tag.endswith("svg")
    page, asked = new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    (folder / "figure.html").write_bytes(files["html"])
    page.goto((folder / "figure.html").as_uri())
    page.locator(".main-svg").first.wait_for(timeout=PATIENCE)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    tables = pd.read_csv(io.BytesIO(files["csv"]), keep_default_na=False), pd.read_parquet(io.BytesIO(files["parquet"]))
    assert list(tables[0]) == list(tables[1]) and len(tables[0]) == len(tables[1])
    return tables


def test_files_of_a_pattern_open_and_hold_the_weights_that_transformers_computes(app, new_page, downloads, tmp_path):
    import torch
    import transformers

    app.open("", task="", text=TEXT, head="L2H1")
    drawn(app, Head(2, 1))
    csv, parquet = check_files(downloads(), new_page, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINI)
    model = transformers.AutoModelForCausalLM.from_pretrained(MINI, attn_implementation="eager")
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    if ids[0, 0] != tokenizer.bos_token_id:
        ids = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids], 1)
    with torch.inference_mode():
        weights = model(ids, output_attentions=True).attentions[2][0, 1].numpy()
    n = ids.shape[1]
    assert len(csv) == n * (n + 1) // 2
    for table in (csv, parquet):
        np.testing.assert_allclose(table["weight"], weights[table["query"], table["key"]], atol=1e-5)


def test_files_of_a_map_open(app, new_page, downloads, tmp_path):
    app.open("heads", task="", text=TEXT)
    app.page.locator(".js-plotly-plot").first.wait_for(timeout=PATIENCE)
    csv, _ = check_files(downloads(), new_page, tmp_path)
    assert list(csv["head"]) == [f"L{layer}H{head}" for layer in range(4) for head in range(4)]


def test_three_layers_of_five_heads(small):
    small.open("", task="", text=TEXT)
    n_tokens = int(re.search(r"· (\d+) tokens", caption(small))[1])
    for head in (Head(2, 4), Head(0, 3)):
        click_head(small, head, picture(3, 5, n_tokens))
        drawn(small, head)
    small.page.locator(".attention-viewer .grid").focus()
    small.page.keyboard.press("ArrowDown")
    drawn(small, Head(1, 3))
    small.menu("Heads")
    assert not small.said("stException")
    small.page.locator(".js-plotly-plot").first.wait_for(timeout=PATIENCE)
    small.open("", task="", text=TEXT, head="L3H0")
    assert any("L3H0" in said for said in small.said("stAlertContentWarning"))


def test_a_long_text_is_seen_as_a_whole_and_weight_by_weight(small, small_server):
    small.open("", task="", text=TEXT)
    caption(small)
    small_server.reset_peak()
    before = small_server.resident
    small.open("", task="", text=url.text("text").write(long_text()), window="3000,3020,1000,1030", head="L1H3")
    drawn(small, Head(1, 3))
    assert f"· {LONG} tokens ·" in caption(small).replace(",", "")
    view = small.page.locator(".attention-viewer")
    assert view.locator(".range").inner_text() == "queries 3000–3019\nkeys 1000–1029\nof 4,096 tokens"
    assert view.locator(".overview").is_visible()
    view.locator(".overview").click(position={"x": 60, "y": 60})
    view.locator(".range", has_text=re.compile(r"^queries 20[34]\d")).wait_for(timeout=PATIENCE)
    view.locator(".weights").focus()
    small.page.keyboard.press("ArrowDown")
    single = re.compile(r": (< 0\.01|\d\.\d\d)$")  # where only the overview is here yet, it says so
    view.locator(".tile > .readout", has_text=single).wait_for(timeout=PATIENCE)
    assert small_server.peak - before < TILE_BYTES, "not the weights of a single head"


def long_text():
    """A text of 4,096 tokens with the one in front."""
    from tokenizers import Tokenizer

    words = "the cat sat on the mat because it was tired " * 500
    tokenizer = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    return words[: tokenizer.encode(words, add_special_tokens=False).offsets[LONG - 2][1]]


def test_a_model_of_one_head_takes_the_place_of_the_other(small, folders):
    small.open("", task="", text=TEXT)
    small.page.get_by_role("button", name="Another model").click()
    small.page.get_by_label("Local folder or Hub name").fill(str(folders["single"]))
    small.page.get_by_role("button", name="Load", exact=True).click()
    small.wait_for_query(model=str(folders["single"]))
    small.page.keyboard.press("Escape")
    small.page.get_by_text(re.compile(rf"^{re.escape(str(folders['single']))} ·")).wait_for(timeout=PATIENCE)
    name(small, Head(0, 0))
    small.page.locator(".attention-viewer .grid").focus()
    small.page.keyboard.press("ArrowRight")
    name(small, Head(0, 0))
    for title in ("Heads", "Ablate", "Compare"):
        small.menu(title)
        assert not small.said("stException")


HOSTILE = (
    "</script><script>document.title='ran'</script> <img src=x onerror=\"document.title='ran'\"> \"><svg onload=alert(4)> "
    "[a](javascript:alert(5)) ![](http://x.invalid/y.png) :red[x] $x^2$ `a` | b | <style>*{display:none}</style> <base href=//x> "
    "\u202eevil\u202c \u200b =HYPERLINK(1) :material/delete:"
)


def test_hostile_text_runs_nothing_and_asks_for_nothing(app):
    for place, query in [
        ("", {"task": "", "text": HOSTILE}),
        ("heads", {"task": "", "text": HOSTILE}),
        ("ablate", {"mode": "manual", "task": "", "text": HOSTILE}),
        ("compare", {"task": "", "text": HOSTILE, "task_b": "", "text_b": HOSTILE[::-1], "head": "L0H0"}),
        ("runs", {"run": HOSTILE, "shown": HOSTILE}),
        ("", {"model": HOSTILE, "head": HOSTILE, "task": HOSTILE}),
    ]:
        app.open(place, **query)
        app.page.wait_for_timeout(300)
        assert "ran" not in app.page.title()
        assert app.page.locator("h1").is_visible()
        main = app.page.get_by_test_id("stMain")
        assert (
            main.locator(
                "script, base, iframe, object, embed, img[src='x'], img[src*='invalid'], a[href^='javascript']"
            ).count()
            == 0
        )
        assert main.locator(".katex").count() == 0
        assert not app.said("stException")


def test_the_first_page_is_at_most_half_a_megabyte(new_page, server):
    """What the app itself sends: frames of its socket, and pictures and files that it made; not the script and fonts of Streamlit."""
    app, sizes = App(new_page(), server.address), []

    def socket(found):
        found.on("framereceived", lambda frame: sizes.append(len(frame)))

    def response(found):
        if urlsplit(found.url).path.startswith("/media/"):
            sizes.append(int(found.headers.get("content-length", 0)))

    app.page.on("websocket", socket)
    app.page.on("response", response)
    app.open("")
    app.page.locator(".attention-viewer .weights").wait_for(timeout=PATIENCE)
    app.settle()
    assert 20_000 < sum(sizes) < 500_000, json.dumps(sizes)
