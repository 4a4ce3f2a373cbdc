"""Attention to look at and to point at: all heads, one head, and the text. For notebooks, as a file, and as data for the dashboard.

The drawing is ``assets/attention_view.js``. A notebook gets it with its data in a sandboxed frame of its own: it loads nothing, sees
nothing of the page around it, and several live side by side. Weights are stored in 255 steps of ``top``: a number read from the view is
off by at most ``top / 510``.
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
from interp.files import write_atomically
from interp.heads import Head

ASSETS = Path(__file__).parent / "assets"
MAX_TOKENS = 4096  # tokens of a view that holds whole patterns
LIMIT = 2_000_000  # characters of a notebook's output
KEYS = 8  # weights kept of each row where all are too many
TRIED = 1 << 26  # with more weights than this nobody tries whether all of them fit
STEPS = 255
SPARE = 500  # characters for the frame and the last note
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


@short_repr
@dataclass(frozen=True, eq=False)
class AttentionViewer:
    """A view that a notebook shows by itself. ``read`` makes the weights of a head, [query key], when they are needed.

    A notebook gets at most ``limit`` characters; a file gets every weight of every head.
    """

    data: Mapping[str, Any]
    heads: tuple[Head, ...]
    read: Callable[[Head], np.ndarray]
    height: int
    limit: int = LIMIT

    def html(self) -> str:
        """A page that stands alone, with every weight of every head."""
        return _page({**self.data, "tiles": {_key(head): [self._tile(head)] for head in self.heads}})

    def save(self, path: str | Path) -> Path:
        """Writes the page and returns its path. Raises ValueError for a name that does not end in ``.html``."""
        path = Path(path)
        if path.suffix.lower() != ".html":
            raise ValueError(f"{path.name} has no known format: a view is saved as .html.")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.html().encode())
        return path

    def _repr_html_(self) -> str:
        frame = f"border:0;width:100%;height:{self.height}px;display:block"
        return f'<iframe sandbox="allow-scripts" style="{frame}" srcdoc="{escape(self._small())}"></iframe>'

    def _small(self) -> str:
        """The page with all that fits: every weight, else the largest of each row, else those of some heads; it says which."""
        ways: list[tuple[int | None, list[str]]] = [(KEYS, [f"of each row the {KEYS} largest weights, the others drawn as 0"])]
        if len(self.heads) * len(self.data["tokens"]) ** 2 <= TRIED:
            ways.insert(0, (None, []))
        for keep, note in ways:
            data = {**self.data, "notes": [*self.data["notes"], *note]}
            tiles = self._tiles(keep, self.limit - len(escape(_page({**data, "tiles": {}}))) - SPARE)
            if len(tiles) == len(self.heads):
                return _page({**data, "tiles": tiles})
        data["notes"].append(f"{len(tiles)} of {len(self.heads)} heads; .save('attention.html') writes all")
        return _page({**data, "tiles": tiles})

    def _tiles(self, keep: int | None, room: int) -> dict[str, list[dict[str, Any]]]:
        """The heads that fit in so many characters, from the first on."""
        tiles = {}
        for head in self.heads:
            tiles[_key(head)] = [self._tile(head, keep)]
            room -= len(escape(json.dumps({_key(head): tiles[_key(head)]})))
            if room < 0:
                del tiles[_key(head)]
                break
        return tiles

    def _tile(self, head: Head, keep: int | None = None) -> dict[str, Any]:
        weights = self.read(head)
        length = len(self.data["tokens"])
        if weights.shape != (length, length):
            raise ValueError(f"The weights of {head} are {weights.shape}: a text of {length} tokens has [{length} {length}].")
        return tile_data(weights, top=self.data["top"], keep=keep)


def attention_view(
    patterns: np.ndarray | Callable[[Head], np.ndarray],
    tokens: Sequence[str],
    *,
    heads: Sequence[Head] | None = None,
    chosen: Head | None = None,
    limit: int = LIMIT,
    **options: Any,
) -> AttentionViewer:
    """The attention of some heads on one text, to explore in a notebook or as a file.

    ``patterns`` are weights [n_layers n_heads query key], or a function from a head to its weights [query key], which then needs
    ``heads``. ``chosen`` is the head shown first. Options: see ``view_data``. Raises ValueError for more than 4,096 tokens, for no heads,
    and, when it is drawn, for weights of another shape or outside 0..top.
    """
    if heads is None:
        if callable(patterns):
            raise ValueError("patterns is a function of a head: name the heads that it has, as heads=[Head(0, 0), ...].")
        heads = [Head(*map(int, place)) for place in np.ndindex(*patterns.shape[:2])]
    first = next(iter(heads), None) if chosen is None else chosen
    if first is None or first not in heads:
        raise ValueError(f"The view has no head {first}: give at least one head, and choose one of those given.")
    if not 0 < len(tokens) <= MAX_TOKENS:
        raise ValueError(f"A view holds 1 to {MAX_TOKENS:,} tokens, not {len(tokens):,}: take a part of the text.")
    data = view_data(tokens, head=first, **options)
    order = (first, *(head for head in heads if head != first))
    read = patterns if callable(patterns) else patterns.__getitem__
    return AttentionViewer(data, order, read, _height(data), limit)


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
    """What the viewer draws, as JSON: hand it to the component as ``data``. Parts that are not given are not shown.

    - ``tiles``: of each head that is at hand, weights of some windows (see ``tile_data``); the finest that covers what is asked is drawn,
      and one that covers the whole text gives the overview.
    - ``head`` and ``window`` (first query, end, first key, end) are chosen at first, and again when they change; the viewer reports
      the reader's own choice as ``head`` and ``window``, and ``gamma`` likewise.
    - ``atlas``: the picture of all heads; ``atlas_url`` is its address, when it is served from one.
    - ``labels``: a few words on each head, shown beside its name; ``caption`` and ``notes`` stand above the view.
    - ``top``: the weight drawn strongest: 1 unless tiles hold something else than attention; ``causal``: keys after their query are grey.
    - ``text``: whether the running text is shown.
    """
    palette = [DARK_COLOURS[colour] for colour in style.SEQUENTIAL] if dark else style.SEQUENTIAL
    data: dict[str, Any] = {
        "palette": palette,
        "dark": dark,
        "causal": causal,
        "gamma": gamma,
        "top": top,
        "text": text,
        "caption": caption,
        "notes": [*notes],
        "labels": {_key(one): said for one, said in (labels or {}).items()},
        "head": None if head is None else [*map(int, head)],
        "window": None if window is None else [*map(int, window)],
    }
    if tokens is not None:
        data["tokens"] = [*tokens]
    if tiles is not None:
        data["tiles"] = {_key(one): [*some] for one, some in tiles.items()}
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
    """Weights [row column] of a window (first query, end, first key, end; by default one row a query from 0, one column a key).

    With fewer rows than queries, row ``i * rows // queries`` of the i-th query holds the largest weights of its bin; keys likewise. With
    ``keep`` all but so many of each row's largest weights become 0; NaN is 0 too. Raises ValueError for weights outside 0..top and for
    more rows or columns than the window has.
    """
    rows, columns = weights.shape
    q0, q1, k0, k1 = (0, rows, 0, columns) if window is None else map(int, window)
    if not (0 < rows <= q1 - q0 and 0 < columns <= k1 - k0):
        raise ValueError(f"A tile of {rows} x {columns} weights cannot stand for queries {q0}-{q1 - 1} and keys {k0}-{k1 - 1}.")
    shares = weights if top == 1 else weights / top
    low, high = shares.min(), shares.max()
    if np.isnan(low):
        shares = np.nan_to_num(shares, nan=0.0)
        low, high = shares.min(), shares.max()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"The viewer shows weights in 0..{top:g}, and was given {low * top:g} to {high * top:g}.")
    levels = (np.clip(shares, 0, 1) * STEPS + 0.5).astype(np.uint8)
    if keep is not None and keep < columns:
        kept = np.argpartition(levels, -keep, axis=1)[:, -keep:]
        whole, levels = levels, np.zeros_like(levels)
        np.put_along_axis(levels, kept, np.take_along_axis(whole, kept, 1), 1)
    packed = b64encode(zlib.compress(levels.tobytes(), 6)).decode()
    return {"window": [q0, q1, k0, k1], "shape": [rows, columns], "weights": packed}


@cache
def view_assets() -> tuple[str, str]:
    """The viewer's JavaScript (a module whose default export is a Streamlit component) and its style sheet."""
    script, look = ((ASSETS / f"attention_view.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return script, look


def _page(data: Mapping[str, Any]) -> str:
    script, look = view_assets()
    written = json.dumps(data, allow_nan=False).replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
    start = 'mount(document.getElementById("view"), JSON.parse(document.getElementById("data").textContent), null);'
    paper = DARK_COLOURS[style.PAPER] if data["dark"] else style.PAPER
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>Attention</title><style>body {{ margin: 0; padding: 12px; background: {paper} }}\n{look}</style></head>"
        f'<body><div id="view"></div><script id="data" type="application/json">{written}</script>'
        f'<script type="module">{script}\n{start}</script></body></html>'
    )


def _height(data: Mapping[str, Any]) -> int:
    """Pixels that the view takes in a notebook about 960 wide, roughly: where it takes more, the frame scrolls."""
    n, letters = len(data["tokens"]), sum(min(len(token), 40) + 1 for token in data["tokens"])
    text = min(24 * -(-letters // 100), 220) + 130 if data["text"] else 20
    room = 430 if "atlas" in data else 560
    tile = n * int(np.clip(room // n, 1, 26)) if n < room else room
    panel = max(tile + 130, 260)
    if "atlas" in data:
        panel = max(panel + 90, data["atlas"]["height"] * min(1, 400 / data["atlas"]["width"]) + 60)
    return int(80 + panel + text)


def _key(head: Head) -> str:
    return f"{int(head[0])},{int(head[1])}"
