"""A browser and servers for the tests of this folder: Debian's Chromium, or the one that the environment variable CHROMIUM names.

A page that logs an error, throws, opens a dialog, cannot load something or asks anything of another machine fails its test.
"""

import os
import socket
import subprocess
import sys
import time
from shutil import which
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.browser.app import App, Server
from tests.dashboard_apps import ROOT, save_small

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROBES = ("/_stcore/health", "/_stcore/host-config")
"""On an address below the root Streamlit's own script asks for these beside the page first, where they are not, and then at the root."""
LONG = 4096
"""Tokens that the model ``long`` takes."""


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or which("chromium") or "/usr/bin/chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def errors():
    """What went wrong on the page; a test that expects an error takes it out."""
    return []


@pytest.fixture
def new_page(browser, errors):
    """Opens a page, 1100 x 900, that shares nothing with the others: a browser of its own."""
    opened = []

    def open_page(**options):
        page = browser.new_page(viewport={"width": 1100, "height": 900}, **options)
        opened.append(page)

        def dialog(found):
            errors.append(f"dialog: {found.message}")
            found.dismiss()

        def console(message):
            if message.type == "error" and not message.location["url"].endswith(PROBES):
                errors.append(f"{message.text} ({message.location['url'][:200]})")

        def request(asked):
            address = urlsplit(asked.url)
            if address.scheme in ("http", "https", "ws", "wss") and address.hostname != "127.0.0.1":
                errors.append(f"asked another machine: {asked.url[:200]}")

        def failed(asked):
            if asked.failure != "net::ERR_ABORTED":  # what a page no longer needs when another is opened
                errors.append(f"not loaded: {asked.url[:200]}")

        page.on("console", console)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", request)
        page.on("requestfailed", failed)
        page.on("dialog", dialog)
        return page

    yield open_page
    for page in opened:
        page.context.close()
    assert not errors


@pytest.fixture
def page(new_page):
    """A fresh page."""
    return new_page()


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """Starts ``interp dashboard`` as a user does, with a folder of its own for runs; it is stopped at the end."""
    started = []

    def start(model="interp-mini"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = tmp_path_factory.mktemp("server")
        words = ["dashboard", "--no-browser", "--port", port, "--runs", folder / "runs", "--model", model]
        path = os.pathsep.join([str(ROOT), str(ROOT / "apps")])
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "interp", *map(str, words)],
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
            )
        started.append(process)
        server = Server(f"http://127.0.0.1:{port}", process.pid, folder)
        _wait(server, process)
        return server

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(20)


@pytest.fixture(scope="session")
def server(serve):
    """A server with the embedded model."""
    return serve()


@pytest.fixture(scope="session")
def small_server(serve, folders):
    """A server with the model ``long``."""
    return serve(folders["long"])


@pytest.fixture
def app(page, server):
    """The dashboard with the embedded model in a fresh page."""
    return App(page, server.address)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of random models with the embedded model's tokenizer: ``long`` has 3 layers x 5 heads and takes 4,096 tokens, ``single``
    has one head."""
    folder = tmp_path_factory.mktemp("models")
    return {"long": save_small(folder / "long", 3, 5, LONG), "single": save_small(folder / "single", 1, 1)}


def _wait(server, process):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, (server.folder / "log").read_text()
        try:
            with urlopen(f"{server.address}/_stcore/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError((server.folder / "log").read_text())
