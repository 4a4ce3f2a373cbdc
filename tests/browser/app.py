"""The dashboard as somebody at a browser has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

PATIENCE = 60_000
"""Milliseconds until something that was asked for must be there, also on a machine that is busy."""


@dataclass(frozen=True)
class Server:
    """A running ``interp dashboard``; in ``folder`` are its log and its ``runs``."""

    address: str
    pid: int
    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def forget_peak(self) -> None:
        """Begins to measure ``peak`` anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        return self._memory("VmRSS")

    @property
    def peak(self) -> int:
        """The most bytes of memory since ``forget_peak``."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> int:
        line = next(row for row in Path(f"/proc/{self.pid}/status").read_text().splitlines() if row.startswith(field))
        return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class App:
    """A page of the browser that shows the dashboard of a server."""

    page: object
    address: str

    def open(self, name: str = "", **query: str) -> None:
        """Opens a page by its address; the first has none."""
        self.goto(f"{self.address}/{name}?{urlencode(query)}")

    def goto(self, address: str) -> None:
        self.page.goto(address)
        self.settle()

    def settle(self) -> None:
        """Waits until the script has run and the page shows its title."""
        self.page.locator("h1").wait_for(timeout=PATIENCE)
        self.page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for(timeout=PATIENCE)

    def menu(self, title: str) -> None:
        """Follows the menu to a page."""
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=title, exact=True).click()
        self.page.get_by_role("heading", name=title, exact=True, level=1).wait_for(timeout=PATIENCE)
        self.settle()

    @property
    def query(self) -> dict[str, str]:
        """The values in the address."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query, keep_blank_values=True).items()}

    def wait_for_query(self, **values: str) -> None:
        """Waits until the address holds these values."""
        self.page.wait_for_function(
            "(wanted) => Object.entries(wanted).every(([k, v]) => new URLSearchParams(location.search).get(k) === v)",
            arg=values,
            timeout=PATIENCE,
        )

    def said(self, test_id: str) -> list[str]:
        """The texts of all elements of a kind of Streamlit's."""
        return self.page.get_by_test_id(test_id).all_inner_texts()
