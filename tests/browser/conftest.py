"""Browser and servers of the browser tests: Debian's Chromium, or the one named by the environment variable CHROMIUM.

A page that logs an error, throws, opens a dialog, cannot load something or asks anything of another machine fails its test.
"""

from urllib.parse import urlsplit

import pytest

from tests.browser.app import App, chromium, serving
from tests.support.dashboard_apps import save_small

PROBES = ("/_stcore/health", "/_stcore/host-config")
"""On an address below the root Streamlit's own script asks for these beside the page first, where they are not, and then at the root."""
LONG = 4096
"""Context length of the model ``long``."""


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def errors():
    """Errors of the page; a test that expects one removes it."""
    return []


@pytest.fixture
def new_page(browser, errors):
    """Open a page, 1100 x 900, in a browser context of its own."""
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
            if asked.failure != "net::ERR_ABORTED":  # requests cancelled by opening another page
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
def server(tmp_path_factory):
    """A server with the embedded model."""
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def small_server(tmp_path_factory, folders):
    """A server with the model ``long``."""
    with serving(tmp_path_factory.mktemp("server"), folders["long"]) as server:
        yield server


@pytest.fixture
def app(page, server):
    """The dashboard with the embedded model in a fresh page."""
    return App(page, server.address)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of random models with the embedded model's tokenizer: ``long`` has 3 layers x 5 heads and a context of 4,096 tokens,
    ``single`` has one head."""
    folder = tmp_path_factory.mktemp("models")
    return {"long": save_small(folder / "long", 3, 5, LONG), "single": save_small(folder / "single", 1, 1)}
