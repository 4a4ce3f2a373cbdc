"""Every head of a model in one image: layers down, heads across, each cell the thumbnail of a pattern (queries down, keys across).

All cells share one scale that never depends on the data: palest is weight 0, strongest weight 1. ``gamma`` below 1 raises small weights,
for all heads alike, and the caption says so. The atlas is a PNG with a small palette, made without a browser, and maps pixels to heads.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache, reduce
from io import BytesIO
from itertools import accumulate, product
from zlib import Z_RLE

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from interp._short_repr import short_repr
from interp.figures import style
from interp.figures.dark_theme import DARK_COLOURS
from interp.heads import Head

PIXELS = 1_200_000  # coloured, of all cells together: 32 x 32 causal heads get 48 bins each, more heads fewer
SMALL, LARGE = 48, 160  # pixels of a cell with many heads and with few
ACROSS = 640  # target width in pixels of all cells with few heads
GAP, BETWEEN_GROUPS, MARGIN = 2, 8, 4  # pixels between heads, between KV groups, and around the image
LEVELS, SHADES = 32, 6  # colours of weights, and from paper to ink for anti-aliased labels
GREY, BLANK = LEVELS, LEVELS + 1


@short_repr
@dataclass(frozen=True)
class Atlas:
    """An image of all heads and the position of each.

    ``png`` is the file, ``width`` by ``height`` pixels. The cell of head h of layer l is a square of ``cell`` pixels with its top left
    corner at (``lefts[h]``, ``tops[l]``). ``caption`` explains the colours.
    """

    png: bytes = field(repr=False)
    width: int
    height: int
    cell: int
    lefts: tuple[int, ...]
    tops: tuple[int, ...]
    caption: str

    def box(self, head: Head) -> tuple[int, int, int, int]:
        """Pixels (x0, y0, x1, y1) of a head's cell, x1 and y1 excluded. Raises LookupError for an unknown head."""
        layer, at = head
        if not (0 <= layer < len(self.tops) and 0 <= at < len(self.lefts)):
            known = f"layers 0-{len(self.tops) - 1} and heads 0-{len(self.lefts) - 1}"
            raise LookupError(f"Head {Head(layer, at)} does not exist: there are {known}.")
        return self.lefts[at], self.tops[layer], self.lefts[at] + self.cell, self.tops[layer] + self.cell

    def head_at(self, x: float | int, y: float | int) -> Head | None:
        """The head whose cell contains this pixel; None between cells and in the margins."""
        layer, head = bisect_right(self.tops, y) - 1, bisect_right(self.lefts, x) - 1
        if layer < 0 or head < 0 or x >= self.lefts[head] + self.cell or y >= self.tops[layer] + self.cell:
            return None
        return Head(layer, head)

    def _repr_png_(self) -> bytes:
        return self.png


def atlas(
    thumbnails: Float[np.ndarray, "n_layers n_heads side side"],
    *,
    gamma: float = 1.0,
    causal: bool = True,
    n_kv_heads: int | None = None,
    dark: bool = False,
) -> Atlas:
    """The atlas of the thumbnails of all heads, weights in 0..1.

    A weight is coloured by ``weight ** gamma``. ``causal``: bins whose keys are all after their queries are grey. With ``n_kv_heads``
    the gap between KV groups is wider. ``dark``: the colours of the dark theme. With very many heads neighbouring bins are max-pooled to
    bound the size of the image. Raises ValueError for a gamma that is not positive, weights outside 0..1 or NaN, weights in grey bins,
    and a number of heads that is no multiple of ``n_kv_heads``.
    """
    n_layers, n_heads, *_ = thumbnails.shape
    groups = n_heads if n_kv_heads is None else n_kv_heads
    _check(thumbnails, gamma, n_heads, groups)
    most = (PIXELS * (1 + causal) / (n_layers * n_heads)) ** 0.5
    room = int(min(np.clip(ACROSS // max(n_layers, n_heads), SMALL, LARGE), most))
    cells = _pooled(thumbnails, -(-thumbnails.shape[-1] // room))
    levels = np.rint((cells if gamma == 1 else cells**gamma) * (LEVELS - 1)).astype(np.uint8)
    if causal:
        future = np.triu(np.ones(levels.shape[-2:], bool), 1)
        if (levels * future).any():
            raise ValueError("A bin of keys after all its queries has weight: pass causal=False for bidirectional attention.")
        levels[..., future] = GREY
    times = max(1, room // levels.shape[-1])
    levels = levels.repeat(times, -2).repeat(times, -1)

    size = levels.shape[-1]
    font = _font(int(np.clip(n_heads * size / 88, 11, 20)))
    left = MARGIN + 6 + int(max(font.getlength(f"L{layer}") for layer in range(n_layers)))
    gaps = [BETWEEN_GROUPS if groups < n_heads and h % (n_heads // groups) == 0 else GAP for h in range(1, n_heads)]
    lefts = tuple(accumulate(gaps, lambda x, gap: x + size + gap, initial=left))
    tops = tuple(int(2 * MARGIN + font.size) + layer * (size + GAP) for layer in range(n_layers))
    width, height = lefts[-1] + size + MARGIN, tops[-1] + size + MARGIN

    canvas = _labels(width, height, size, lefts, tops, font)
    for (layer, y), (head, x) in product(enumerate(tops), enumerate(lefts)):
        canvas[y : y + size, x : x + size] = levels[layer, head]
    notes = [
        f"{'darkest' if dark else 'white'} 0, {'brightest' if dark else 'darkest'} 1 in every cell",
        f"shade = weight^{gamma:g}" if gamma != 1 else "",
        "each bin shows its largest weight",
        "grey: masked (keys after the query)" if causal else "",
    ]
    return Atlas(_png(canvas, _palette(dark)), width, height, size, lefts, tops, " · ".join(filter(None, notes)))


def _check(thumbnails: np.ndarray, gamma: float, n_heads: int, groups: int) -> None:
    if not 0 < gamma < np.inf:
        raise ValueError(f"gamma={gamma:g} is not positive: it is the exponent of the weights, below 1 to raise small ones.")
    if groups < 1 or n_heads % groups:
        raise ValueError(f"{n_heads} heads do not divide into {groups} groups with shared keys and values.")
    low, high = float(thumbnails.min()), float(thumbnails.max())
    if not (low >= 0 and high <= 1 + 1e-5):
        raise ValueError(f"An atlas shows attention weights in 0..1, not {low:g} to {high:g}.")


def _pooled(thumbnails: np.ndarray, times: int) -> np.ndarray:
    """The largest of each ``times`` x ``times`` bins."""
    if times == 1:
        return thumbnails
    short = -thumbnails.shape[-1] % times
    whole = np.pad(thumbnails, [(0, 0), (0, 0), (0, short), (0, short)])
    return reduce(np.maximum, [whole[..., i::times, j::times] for i in range(times) for j in range(times)])


def _labels(
    width: int, height: int, size: int, lefts: tuple[int, ...], tops: tuple[int, ...], font: ImageFont.FreeTypeFont
) -> UInt8[np.ndarray, "height width"]:
    """The image without cells, with the labels of every head and layer, or of every second, fifth ... where room is short."""
    page = Image.new("L", (width, height))
    draw = ImageDraw.Draw(page)
    widest = font.getlength(f"H{len(lefts) - 1}") + 4
    for head in _some(len(lefts), widest / (size + GAP)):
        draw.text((lefts[head] + size / 2, tops[0] - MARGIN), f"H{head}", fill=255, font=font, anchor="ms")
    for layer in _some(len(tops), font.size / (size + GAP)):
        draw.text((lefts[0] - 6, tops[layer] + size / 2), f"L{layer}", fill=255, font=font, anchor="rm")
    return BLANK + (np.asarray(page) // (256 // SHADES)).astype(np.uint8)


def _some(n: int, least: float) -> range:
    """Every index, or every second, fifth ..., at least ``least`` apart."""
    return range(0, n, next(step for step in (1, 2, 5, 10, 20, 50, 100) if step >= least))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@cache
def _palette(dark: bool) -> bytes:
    """RGB values of the weight levels, of grey, and of the shades from paper to ink."""
    scales = (style.SEQUENTIAL, LEVELS), ([style.EMPTY], 1), ([style.PAPER, style.INK], SHADES)
    return b"".join(_between([DARK_COLOURS[c] if dark else c for c in colours], n) for colours, n in scales)


def _between(colours: list[str], n: int) -> bytes:
    """``n`` colours interpolated from the first to the last, as red, green, blue, red ..."""
    known = np.array([[*bytes.fromhex(colour[1:])] for colour in colours])
    at = np.linspace(0, len(colours) - 1, n)
    mixed = [np.interp(at, np.arange(len(colours)), known[:, channel]) for channel in range(3)]
    return np.rint(np.stack(mixed, 1)).astype(np.uint8).tobytes()


def _png(canvas: np.ndarray, palette: bytes) -> bytes:
    image = Image.frombytes("P", canvas.shape[::-1], canvas.tobytes())
    image.putpalette(palette)
    file = BytesIO()
    image.save(file, "PNG", compress_type=Z_RLE)  # runs alone: smaller here than any level of deflate, in half of the time
    return file.getvalue()
