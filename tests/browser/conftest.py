"""A browser for the tests of this folder: Debian's Chromium, or the one that the environment variable CHROMIUM names.

A page that logs an error, throws, opens a dialog or cannot load something fails its test.
"""

import os
from shutil import which

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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
def page(browser, errors):
    """A fresh page, 1100 x 900."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})

    def dialog(found):
        errors.append(f"dialog: {found.message}")
        found.dismiss()

    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(f"not loaded: {request.url[:200]}"))
    page.on("dialog", dialog)
    yield page
    page.close()
    assert not errors
