"""The interactive attention viewer: all heads, one head's pattern, and the text. For notebooks, as a file, and as data for the dashboard.

``assets/attention_viewer.js`` renders it. In a notebook it runs with its data in a sandboxed frame: it loads nothing, cannot access the
page around it, and several can coexist. Weights are stored in 255 steps of ``top``: a displayed number is off by at most ``top / 510``.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from interp._short_repr import short_repr
from interp.figures import style
from interp.figures.dark_theme import DARK_COLOURS
from interp.figures.head_atlas import Atlas
from interp.figures.pattern_heatmap import MAX_SIDE, pattern_heatmap
from interp.figures.static_render import render
from interp.files import user_path, write_atomically
from interp.heads import Head

ASSETS = Path(__file__).parent / "assets"
MAX_TOKENS = 4096  # tokens of a text whose whole patterns are stored
LIMIT = 2_000_000  # characters of a notebook output
KEYS = 8  # weights kept of each row where all of them exceed the limit
MAX_WEIGHTS = 1 << 26  # with more weights than this, all of them never fit
STEPS = 255
SPARE = 500  # characters reserved for the frame and the last note
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


@short_repr
@dataclass(frozen=True, eq=False)
class AttentionViewer:
    """An attention view that notebooks display. ``read`` returns the weights of a head, [query key], when they are needed.

    A notebook gets at most ``limit`` characters of HTML, and a PNG where HTML is not shown; a file holds every weight of every head.
    """

    data: Mapping[str, Any]
    heads: tuple[Head, ...]
    read: Callable[[Head], np.ndarray]
    height: int
    limit: int = LIMIT
    atlas: Atlas | None = None

    def html(self) -> str:
        """A self-contained page with every weight of every head."""
        return _page({**self.data, "tiles": {_key(head): [self._tile(head)] for head in self.heads}})

    def save(self, path: str | Path) -> Path:
        """Writes the page and returns its path. Raises ValueError for a suffix other than ``.html``."""
        path = user_path(path)
        if path.suffix.lower() != ".html":
            raise ValueError(f"{path.name} has no supported format: the viewer is saved as .html.")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.html().encode())
        return path

    def _repr_html_(self) -> str:
        frame = f"border:0;width:100%;height:{self.height}px;display:block"
        return f'<iframe sandbox="allow-scripts" style="{frame}" srcdoc="{escape(self._notebook_page())}"></iframe>'

    def _repr_png_(self) -> bytes:
        """All heads, or else the pattern of the first one up to its 256th token: for GitHub and other places that show no frame."""
        if self.atlas is not None:
            return self.atlas.png
        head, part = self.heads[0], slice(MAX_SIDE)
        pattern = self.read(head)[part, part]
        figure = pattern_heatmap(pattern, self.data["tokens"][part], head, self.data["caption"], causal=self.data["causal"])
        return render(figure, "png")

    def _notebook_page(self) -> str:
        """The page with what fits: every weight, else the largest of each row, else those of some heads; a note says which."""
        ways: list[tuple[int | None, list[str]]] = [(KEYS, [f"the {KEYS} largest weights of each row, the others as 0"])]
        if len(self.heads) * len(self.data["tokens"]) ** 2 <= MAX_WEIGHTS:
            ways.insert(0, (None, []))
        for keep, note in ways:
            data = {**self.data, "notes": [*self.data["notes"], *note]}
            tiles = self._tiles(keep, self.limit - len(escape(_page({**data, "tiles": {}}))) - SPARE)
            if len(tiles) == len(self.heads):
                return _page({**data, "tiles": tiles})
        data["notes"].append(f"{len(tiles)} of {len(self.heads)} heads; .save('attention.html') saves all")
        return _page({**data, "tiles": tiles})

    def _tiles(self, keep: int | None, room: int) -> dict[str, list[dict[str, Any]]]:
        """Tiles of the first heads, as many as fit in ``room`` characters."""
        tiles: dict[str, list[dict[str, Any]]] = {}
        for head in self.heads:
            tile = {_key(head): [self._tile(head, keep)]}
            room -= len(escape(json.dumps(tile, allow_nan=False)))
            if room < 0:
                break
            tiles |= tile
        return tiles

    def _tile(self, head: Head, keep: int | None = None) -> dict[str, Any]:
        weights = self.read(head)
        length = len(self.data["tokens"])
        if weights.shape != (length, length):
            needed = f"({length}, {length}) as {length} tokens need"
            raise ValueError(f"The weights of {head} have the shape {weights.shape}, not {needed}.")
        return tile_data(weights, top=self.data["top"], keep=keep)


def attention_viewer(
    patterns: np.ndarray | Callable[[Head], np.ndarray],
    tokens: Sequence[str],
    *,
    heads: Sequence[Head] | None = None,
    first_head: Head | None = None,
    limit: int = LIMIT,
    **options: Any,
) -> AttentionViewer:
    """An interactive view of the attention of some heads on one text, for notebooks or as a file.

    ``patterns`` are weights [n_layers n_heads query key], or a function from a head to its weights [query key] together with ``heads``.
    ``first_head`` is shown first. Options: see ``view_data``. Raises ValueError for more than 4,096 tokens, for no heads and, when
    displayed, for weights of another shape or outside 0..top.
    """
    if heads is None:
        if callable(patterns):
            raise ValueError("`patterns` is a function of a head: pass its heads as heads=[Head(0, 0), ...].")
        heads = [Head(*map(int, place)) for place in np.ndindex(*patterns.shape[:2])]
    first = next(iter(heads), None) if first_head is None else first_head
    if first is None or first not in heads:
        hint = "pass at least one head, and one of them as `first_head`"
        raise ValueError(f"Head {first} is not among the heads of the view: {hint}.")
    if not 0 < len(tokens) <= MAX_TOKENS:
        raise ValueError(f"A view holds 1 to {MAX_TOKENS:,} tokens, not {len(tokens):,}: pass a part of the text.")
    data = view_data(tokens, head=first, **options)
    order = (first, *(head for head in heads if head != first))
    read = patterns if callable(patterns) else patterns.__getitem__
    return AttentionViewer(data, order, read, _height(data), limit, options.get("atlas"))


def view_data(
    tokens: Sequence[str] | None = None,
    *,
    tiles: Mapping[Head, Sequence[Mapping[str, Any]]] | None = None,
    head: Head | None = None,
    window: tuple[int, int, int, int] | None = None,
    atlas: Atlas | None = None,
    atlas_url: str | None = None,
    labels: Mapping[Head, str] | None = None,
    caption: str = "",
    notes: Sequence[str] = (),
    causal: bool = True,
    gamma: float = 1.0,
    top: float = 1.0,
    dark: bool = False,
    text: bool = True,
) -> dict[str, Any]:
    """The data of the viewer as JSON: pass it to the component as ``data``. Parts that are None are not shown.

    - ``tiles``: of each available head, weights of some windows (see ``tile_data``); the finest tile that covers the visible window is
      drawn, and one that covers the whole text gives the overview.
    - ``head`` and ``window`` (first query, end, first key, end) are selected at first, and again when they change; the viewer reports
      the reader's own choice as ``head`` and ``window``, and ``gamma`` likewise.
    - ``atlas``: thumbnails of all heads; ``atlas_url`` is its address, if it is served from one.
    - ``labels``: a few words on each head, shown beside its name; ``caption`` and ``notes`` are shown above the view.
    - ``top``: the weight of the strongest colour, 1 unless tiles hold something other than attention; ``causal``: keys after their query
      are grey.
    - ``text``: whether the text is shown.
    """
    shown = {"dark": dark, "causal": causal, "gamma": gamma, "top": top, "text": text, "caption": caption, "notes": [*notes]}
    data: dict[str, Any] = {
        "palette": [DARK_COLOURS[colour] for colour in style.SEQUENTIAL] if dark else style.SEQUENTIAL,
        **shown,
        "labels": {_key(labelled): label for labelled, label in (labels or {}).items()},
        "head": None if head is None else [*map(int, head)],
        "window": None if window is None else [*map(int, window)],
    }
    if tokens is not None:
        data["tokens"] = [*tokens]
    if tiles is not None:
        data["tiles"] = {_key(tiled): [*windows] for tiled, windows in tiles.items()}
    if atlas is not None:
        data["atlas"] = {
            "src": atlas_url or f"data:image/png;base64,{b64encode(atlas.png).decode()}",
            **{name: getattr(atlas, name) for name in ("width", "height", "cell", "caption")},
            "lefts": [*atlas.lefts],
            "tops": [*atlas.tops],
        }
    return data


def tile_data(
    weights: np.ndarray, window: Sequence[int] | None = None, *, top: float = 1.0, keep: int | None = None
) -> dict[str, Any]:
    """Weights [row column] of a window (first query, end, first key, end), packed for the viewer; by default one row per query from 0 and
    one column per key.

    With fewer rows than queries, row ``i * rows // queries`` holds the largest weights of the bin of query i; keys likewise. With ``keep``
    only that many of each row's largest weights remain, the others become 0, as does NaN. Raises ValueError for weights outside 0..top
    and for more rows or columns than the window has.
    """
    rows, columns = weights.shape
    q0, q1, k0, k1 = (0, rows, 0, columns) if window is None else map(int, window)
    if not (0 < rows <= q1 - q0 and 0 < columns <= k1 - k0):
        raise ValueError(f"A tile of {rows} x {columns} weights does not fit queries {q0}-{q1 - 1} and keys {k0}-{k1 - 1}.")
    shares = weights if top == 1 else weights / top
    if np.isnan(shares.min()):
        shares = np.nan_to_num(shares, nan=0.0)
    low, high = shares.min(), shares.max()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"The viewer shows weights in 0..{top:g}, not {low * top:g} to {high * top:g}.")
    levels = (np.clip(shares, 0, 1) * STEPS + 0.5).astype(np.uint8)
    if keep is not None and keep < columns:
        top_keys = np.argpartition(levels, -keep, axis=1)[:, -keep:]
        every, levels = levels, np.zeros_like(levels)
        np.put_along_axis(levels, top_keys, np.take_along_axis(every, top_keys, 1), 1)
    packed = b64encode(zlib.compress(levels.tobytes(), 6)).decode()
    return {"window": [q0, q1, k0, k1], "shape": [rows, columns], "weights": packed}


@cache
def view_assets() -> tuple[str, str]:
    """The viewer's JavaScript (a module whose default export is a Streamlit component) and its style sheet."""
    script, look = ((ASSETS / f"attention_viewer.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return script, look


def _page(data: Mapping[str, Any]) -> str:
    script, look = view_assets()
    encoded = json.dumps(data, allow_nan=False).replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
    start = 'mount(document.getElementById("view"), JSON.parse(document.getElementById("data").textContent), null);'
    paper = DARK_COLOURS[style.PAPER] if data["dark"] else style.PAPER
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>Attention</title><style>body {{ margin: 0; padding: 12px; background: {paper} }}\n{look}</style></head>"
        f'<body><div id="view"></div><script id="data" type="application/json">{encoded}</script>'
        f'<script type="module">{script}\n{start}</script></body></html>'
    )


def _height(data: Mapping[str, Any]) -> int:
    """Approximate height in pixels in a notebook 960 pixels wide; where the view is higher, the frame scrolls."""
    n, n_characters = len(data["tokens"]), sum(min(len(token), 40) + 1 for token in data["tokens"])
    text = min(24 * -(-n_characters // 100), 220) + 130 if data["text"] else 20
    room = 430 if "atlas" in data else 560
    tile = n * int(np.clip(room // n, 1, 26)) if n < room else room
    panel = max(tile + 130, 260)
    if "atlas" in data:
        panel = max(panel + 90, data["atlas"]["height"] * min(1, 400 / data["atlas"]["width"]) + 60)
    return int(80 + panel + text)


def _key(head: Head) -> str:
    return f"{int(head[0])},{int(head[1])}"
