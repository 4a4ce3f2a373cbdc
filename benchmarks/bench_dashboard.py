"""Bytes and latency of the dashboard: the first page, and interactions once the model has run.

The embedded model on its first page, a random GPT-2-small-sized model (12 layers x 12 heads) on 256 tokens, and a random llama-like one of
4 layers x 16 heads on 4,096 tokens. Sent: the frames of the socket, and files that the app made; what Streamlit itself loads once is told
beside it. Server time: one run of the page's script, in this process; seen: from the click in Chromium until the new view stands.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import streamlit
import torch
import transformers
from measure import save
from streamlit.testing.v1 import AppTest
from tokenizers import Tokenizer

from interp.figures import atlas
from interp.heads import Head
from interp_dashboard.settings import Settings, settings
from interp_dashboard.url import text as field
from tests.browser.app import PATIENCE, App, Server, chromium, serving

MINI = Path(__file__).resolve().parent.parent / "data" / "models" / "interp-mini"
WORDS = "the cat sat on the mat because it was tired "
SCRIPT = "import streamlit as st; from interp_dashboard.app import show; show(st.session_state.get('page', 'attention'))"
PAGES = ["Heads", "Ablate", "Compare", "Runs"]


def stored(folder: Path, config: Any, kind: Any) -> str:
    """The folder of a random model with the embedded model's tokenizer."""
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        copy(MINI / file, folder / file)
    return str(folder)


def text_of(n_tokens: int) -> str:
    """A text of ``n_tokens`` tokens including the first special one."""
    words = WORDS * n_tokens
    ends = Tokenizer.from_file(str(MINI / "tokenizer.json")).encode(words, add_special_tokens=False).offsets
    return words[: ends[n_tokens - 2][1]]


class Meter:
    """Bytes that a browser page receives."""

    def __init__(self, page: Any) -> None:
        self.sent = self.bundle = 0
        page.on("websocket", lambda socket: socket.on("framereceived", self._frame))
        page.on("requestfinished", self._request)

    def _frame(self, frame: str | bytes) -> None:
        self.sent += len(frame)

    def _request(self, request: Any) -> None:
        size = request.sizes()["responseBodySize"]
        if urlsplit(request.url).path.startswith("/media/"):
            self.sent += size
        else:
            self.bundle += size


def settled(app: App, head: Head | None = None) -> None:
    """Wait until the viewer shows the tile of the head."""
    name = re.compile(f"^{head}$" if head else r"^L\d+H\d+$")
    app.page.locator(".attention-viewer .name", has_text=name).wait_for(timeout=PATIENCE)
    app.page.locator(".attention-viewer .tile:not(.stale) .weights").wait_for(timeout=PATIENCE)


def in_browser(browser: Any, server: Server, about: dict[str, Any], query: dict[str, str], repeats: int) -> list[dict]:
    """Rows of the first page and of what follows, as the browser has them."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    meter, app = Meter(page), App(page, server.address)
    app.open("", **query)  # loads the model and runs it
    settled(app)
    page.close()
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    meter, app = Meter(page), App(page, server.address)
    began = time.perf_counter()
    app.open("", **query)
    settled(app)
    first = {"kB sent": meter.sent / 1e3, "kB of Streamlit": meter.bundle / 1e3, "seen ms": 1e3 * (time.perf_counter() - began)}
    rows = [{**about, "what": "first page", **first}]

    geometry = page.locator(".attention-viewer .grid img").evaluate("(image) => [image.naturalWidth, image.naturalHeight]")
    n_layers, n_heads = about["shape"]
    image = page.locator(".attention-viewer .grid img").bounding_box()

    def choose(i: int) -> None:
        head = Head((i + 1) % n_layers, (2 * i + 1) % n_heads)
        x0, y0, x1, y1 = about["atlas"].box(head)
        share = image["width"] / geometry[0]
        page.locator(".attention-viewer .grid").click(position={"x": (x0 + x1) / 2 * share, "y": (y0 + y1) / 2 * share})
        app.wait_for_query(head=str(head))
        settled(app, head)

    def gamma(i: int) -> None:
        page.locator(".attention-viewer").get_by_role("button", name="1½"[1 - i % 2], exact=True).click()
        picture = page.locator(".attention-viewer .note")
        (picture.filter(has_text="weight^0.5") if i % 2 == 0 else picture.filter(has_not_text="weight^")).wait_for(
            timeout=PATIENCE
        )

    def other(i: int) -> None:
        app.menu(PAGES[i % len(PAGES)])

    def back(i: int) -> None:
        app.menu("Attention")
        settled(app)

    actions: list[tuple[str, list[Callable[[int], None]]]] = [("choose a head", [choose]), ("gamma", [gamma])]
    for name, steps in [*actions, ("another page, and back", [other, back])]:
        sizes, times = [], []
        for i in range(repeats):
            for step in steps:
                page.wait_for_timeout(400)
                before, began = meter.sent, time.perf_counter()
                step(i)
                times.append(1e3 * (time.perf_counter() - began))
                page.wait_for_timeout(200)
                sizes.append((meter.sent - before) / 1e3)
        rows.append({**about, "what": name, "kB sent": max(sizes), "seen ms": statistics.median(times)})
    page.close()
    return rows


def on_server(model: str, about: dict[str, Any], query: dict[str, str], windows: list[str], repeats: int) -> list[dict]:
    """Rows with the duration of script runs."""
    os.environ.update(Settings(model=model).to_environment())
    settings.cache_clear()
    streamlit.cache_resource.clear()
    app = AppTest.from_string(SCRIPT, default_timeout=600)
    app.query_params.update(query)
    n_layers, n_heads = about["shape"]

    def timed() -> float:
        began = time.perf_counter()
        app.run()
        assert not app.exception and not app.error, [said.value for said in app.error]
        return 1e3 * (time.perf_counter() - began)

    def asked(**values: str) -> float:
        app.query_params.update(values)
        return timed()

    def show(page: str) -> float:
        app.session_state["page"] = page
        return timed()

    first = timed()
    heads = [asked(head=f"L{(i + 1) % n_layers}H{(2 * i + 1) % n_heads}") for i in range(2 * repeats)]
    gammas = [asked(gamma="0.5" if i % 2 == 0 else "0.25") for i in range(repeats)]
    shifts = [asked(window=windows[i % len(windows)]) for i in range(repeats)]
    for page in ("heads", "compare", "ablate", "runs", "attention"):
        show(page)  # fills the caches
    pages = [show(page) for _ in range(repeats) for page in ("heads", "attention", "compare", "attention", "runs", "attention")]
    times = {"first page, the model loaded and read": [first], "choose a head": heads, "gamma": gammas, "window": shifts}
    times["another page, and back"] = pages
    return [
        {**about, "what": name, "server ms": statistics.median(took), "longest ms": max(took)} for name, took in times.items()
    ]


def measured(
    browser: Any, folder: Path, name: str, model: str, shape: tuple[int, int], n_tokens: int, repeats: int
) -> list[dict]:
    """Rows of one model and one text, browser and server joined."""
    query = {} if n_tokens == 0 else {"task": "", "text": field("text").write(text_of(n_tokens))}
    side = min(n_tokens or 33, 48)
    picture = atlas(np.zeros((*shape, side, side), np.float32))
    about = {"model": name, "tokens": n_tokens or 33, "shape": shape, "atlas": picture}
    windows = ["0,20,0,20", "4,30,2,28"] if n_tokens < 256 else ["0,200,0,200", f"{n_tokens - 256},{n_tokens},0,256"]
    own = folder / f"server-{name}"
    own.mkdir()
    with serving(own, model) as server:
        rows = in_browser(browser, server, about, query, repeats)
        if n_tokens > 1000:
            rows += [{**about, **row} for row in long_text(browser, server)]
        rows[0]["server MiB"] = server.resident / 2**20
    times = {row["what"]: row for row in on_server(model, about, query, windows, repeats)}
    joined = [{**row, **times.pop(row["what"], {})} for row in rows] + list(times.values())
    return [{key: value for key, value in row.items() if key not in ("shape", "atlas")} for row in joined]


def long_text(browser: Any, server: Server) -> list[dict[str, Any]]:
    """Rows of another long text, read and shown as a whole and in a window, with the memory it takes; and of another window."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    meter, app = Meter(page), App(page, server.address)
    app.open("", task="", text="the cat sat on the mat")
    settled(app)
    server.reset_peak()
    before, sent, began = server.resident, meter.sent, time.perf_counter()
    other = text_of(4096).replace("cat", "dog")
    app.open("", task="", text=field("text").write(other), window="3000,3256,1000,1256", head="L1H3")
    settled(app, Head(1, 3))
    read = {"kB sent": (meter.sent - sent) / 1e3, "seen ms": 1e3 * (time.perf_counter() - began)}
    read["peak MiB"] = (server.peak - before) / 2**20
    sent, began = meter.sent, time.perf_counter()
    page.locator(".attention-viewer .overview").click(position={"x": 60, "y": 60})
    page.wait_for_function("() => !location.search.includes('window=3000')", timeout=PATIENCE)
    settled(app)
    shown = {"seen ms": 1e3 * (time.perf_counter() - began), "kB sent": (meter.sent - sent) / 1e3}
    page.close()
    return [{"what": "another text, read", **read}, {"what": "window", **shown}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    rows = []
    with TemporaryDirectory() as where, chromium() as browser:
        folder = Path(where)
        gpt2 = transformers.GPT2Config(vocab_size=1133, n_positions=512, bos_token_id=2, eos_token_id=3)
        llama = transformers.LlamaConfig(
            vocab_size=1133, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=16,
            max_position_embeddings=4096, bos_token_id=2, eos_token_id=3,
        )  # fmt: skip
        models = [
            ("interp-mini", "interp-mini", (4, 4), 0),
            ("gpt2-small-sized", stored(folder / "gpt2", gpt2, transformers.GPT2LMHeadModel), (12, 12), 256),
            ("llama-like", stored(folder / "llama", llama, transformers.LlamaForCausalLM), (4, 16), 4096),
        ]
        for name, model, shape, n_tokens in models:
            rows += measured(browser, folder, name, model, shape, n_tokens, options.repeats)
    save("dashboard", rows)


if __name__ == "__main__":
    main()
