"""The dashboard in a browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000
"""Timeout of a wait in milliseconds, also on a busy machine."""


@dataclass(frozen=True)
class Server:
    """A running ``interp dashboard``; in ``folder`` are its log and its ``runs``."""

    address: str
    pid: int
    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def reset_peak(self) -> None:
        """Restart the measurement of ``peak``."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def resident(self) -> int:
        """Resident memory in bytes."""
        return self._memory("VmRSS")

    @property
    def peak(self) -> int:
        """Peak resident memory in bytes since ``reset_peak``."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> int:
        line = next(row for row in Path(f"/proc/{self.pid}/status").read_text().splitlines() if row.startswith(field))
        return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class App:
    """A page of the browser that shows the dashboard of a server."""

    page: Any
    address: str

    def open(self, name: str = "", **query: str) -> None:
        """Open a page by its address; the first page has none."""
        self.goto(f"{self.address}/{name}?{urlencode(query)}")

    def goto(self, address: str) -> None:
        self.page.goto(address)
        self.settle()

    def again(self, page: Any) -> App:
        """The same address in another page."""
        other = App(page, self.address)
        other.goto(self.page.url)
        return other

    def settle(self) -> None:
        """Wait until the script has run and the page shows its title."""
        self.page.locator("h1").wait_for(timeout=PATIENCE)
        self.page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for(timeout=PATIENCE)

    def menu(self, title: str) -> None:
        """Open a page through the menu."""
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=title, exact=True).click()
        self.page.get_by_role("heading", name=title, exact=True, level=1).wait_for(timeout=PATIENCE)
        self.settle()

    def choose(self, label: str, begins: str) -> None:
        """Choose an option of the last field of this label. A field whose options change is replaced, which closes its open menu."""
        from playwright.sync_api import TimeoutError

        option, offered = self.page.get_by_role("option", name=begins), []
        for _ in range(5):
            self.page.get_by_role("combobox", name=label).last.click()
            try:
                return option.click(timeout=PATIENCE / 10)
            except TimeoutError:
                offered = self.page.get_by_role("option").all_inner_texts()
                self.page.keyboard.press("Escape")
                self.settle()
        raise AssertionError(f"{label}: no option {begins!r} among {offered}")

    @property
    def query(self) -> dict[str, str]:
        """The query parameters of the address."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query, keep_blank_values=True).items()}

    def wait_for_query(self, **values: str) -> None:
        """Wait until the address has these values."""
        self.page.wait_for_function(
            "(wanted) => Object.entries(wanted).every(([k, v]) => new URLSearchParams(location.search).get(k) === v)",
            arg=values,
            timeout=PATIENCE,
        )

    def said(self, test_id: str) -> list[str]:
        """The texts of all Streamlit elements of a kind."""
        return self.page.get_by_test_id(test_id).all_inner_texts()


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium, or the one named by the environment variable CHROMIUM."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or which("chromium") or "/usr/bin/chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def serving(folder: Path, model: str | Path = "interp-mini", *options: str, base: str = "") -> Iterator[Server]:
    """A server started by ``interp dashboard`` on a free port, below the path ``base``, ready to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["dashboard", "--no-browser", "--port", port, "--runs", folder / "runs", "--model", model, *options]
    path = os.pathsep.join([str(ROOT), str(ROOT / "apps")])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "interp", *map(str, words)],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "STREAMLIT_SERVER_BASE_URL_PATH": base},
        )
    server = Server(f"http://127.0.0.1:{port}{base and f'/{base}'}", process.pid, folder)
    try:
        _wait(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _wait(server: Server, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, (server.folder / "log").read_text()
        try:
            with urlopen(f"{server.address}/_stcore/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError((server.folder / "log").read_text())
