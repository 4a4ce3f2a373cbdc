"""Every head of a model in one picture: layers down, heads across, each cell the thumbnail of a pattern (queries down, keys across).

All cells share one scale that never follows the data: palest is weight 0, strongest weight 1. ``gamma`` below 1 lifts small weights, for
all heads alike, and the atlas says so. It is a PNG of few colours made without a browser, and knows which head lies under a pixel.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache, reduce
from io import BytesIO
from itertools import accumulate, product

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from interp._short_repr import short_repr
from interp.figures import style
from interp.figures.dark_theme import DARK_COLOURS
from interp.heads import Head

PIXELS = 1_200_000  # coloured, of all cells together: 32 x 32 causal heads have room for 48 bins, and more heads for fewer
SMALL, LARGE, ACROSS = 48, 160, 640  # pixels of a cell with many heads and with few, and of all together that few heads aim at
GAP, BETWEEN_GROUPS, MARGIN = 2, 8, 4  # pixels between heads, between groups that share keys and values, around all
LEVELS, SHADES = 32, 6  # of weight, and between paper and ink for smooth letters
GREY, BLANK = LEVELS, LEVELS + 1


@short_repr
@dataclass(frozen=True)
class Atlas:
    """A picture of all heads and where each of them is.

    ``png`` is the file, ``width`` by ``height`` pixels. The cell of head h of layer l is a square of ``cell`` pixels whose first is at
    (``lefts[h]``, ``tops[l]``). ``caption`` says how to read it.
    """

    png: bytes = field(repr=False)
    width: int
    height: int
    cell: int
    lefts: tuple[int, ...]
    tops: tuple[int, ...]
    caption: str

    def box(self, head: Head) -> tuple[int, int, int, int]:
        """Pixels (x0, y0, x1, y1) of a head's cell, x1 and y1 just after the last. Raises LookupError for a head that is not there."""
        layer, at = head
        if not (0 <= layer < len(self.tops) and 0 <= at < len(self.lefts)):
            raise LookupError(
                f"Head {Head(layer, at)} does not exist: there are layers 0-{len(self.tops) - 1} and heads 0-{len(self.lefts) - 1}."
            )
        return self.lefts[at], self.tops[layer], self.lefts[at] + self.cell, self.tops[layer] + self.cell

    def head_at(self, x: float | int, y: float | int) -> Head | None:
        """The head whose cell has this pixel; None between cells and in the margins."""
        layer, head = bisect_right(self.tops, y) - 1, bisect_right(self.lefts, x) - 1
        if layer < 0 or head < 0 or x >= self.lefts[head] + self.cell or y >= self.tops[layer] + self.cell:
            return None
        return Head(layer, head)

    def _repr_png_(self) -> bytes:
        return self.png


def atlas(
    thumbs: Float[np.ndarray, "n_layers n_heads side side"],
    *,
    gamma: float = 1.0,
    causal: bool = True,
    n_kv_heads: int | None = None,
    dark: bool = False,
) -> Atlas:
    """The atlas of the thumbnails of all heads, weights in 0..1.

    A weight is coloured by ``weight ** gamma``. ``causal``: bins of keys that are all after all queries of their bin are grey. With
    ``n_kv_heads`` there is more room between heads that do not share keys and values. ``dark``: the colours for a dark page. Where heads
    are very many, neighbouring bins are joined, by their largest weight, to bound the picture. Raises ValueError for a gamma that is not
    positive, weights outside 0..1 or NaN, weights on grey bins, and heads that do not divide into groups.
    """
    n_layers, n_heads, *_ = thumbs.shape
    groups = n_heads if n_kv_heads is None else n_kv_heads
    _check(thumbs, gamma, n_heads, groups)
    most = (PIXELS * (1 + causal) / (n_layers * n_heads)) ** 0.5
    room = int(min(np.clip(ACROSS // max(n_layers, n_heads), SMALL, LARGE), most))
    cells = _pooled(thumbs, -(-thumbs.shape[-1] // room))
    levels = np.rint((cells if gamma == 1 else cells**gamma) * (LEVELS - 1)).astype(np.uint8)
    if causal:
        future = np.triu(np.ones(levels.shape[-2:], bool), 1)
        if (levels * future).any():
            raise ValueError(
                "A bin of keys after all its queries has a weight: give causal=False for a model that sees later keys."
            )
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
    said = [
        f"{'darkest' if dark else 'white'} 0, {'brightest' if dark else 'darkest'} 1 in every cell",
        f"shade = weight^{gamma:g}" if gamma != 1 else "",
        "each bin shows its largest weight",
        "grey: keys after the query" if causal else "",
    ]
    return Atlas(_png(canvas, _palette(dark)), width, height, size, lefts, tops, " · ".join(filter(None, said)))


def _check(thumbs: np.ndarray, gamma: float, n_heads: int, groups: int) -> None:
    if not 0 < gamma < np.inf:
        raise ValueError(f"gamma={gamma:g} is the power of the weights: take a positive number, below 1 to lift small weights.")
    if groups < 1 or n_heads % groups:
        raise ValueError(f"{n_heads} heads do not divide into {groups} groups that share keys and values.")
    low, high = float(thumbs.min()), float(thumbs.max())
    if not (low >= 0 and high <= 1 + 1e-5):
        raise ValueError(f"An atlas shows weights of attention, in 0..1, and was given {low:g} to {high:g}.")


def _pooled(thumbs: np.ndarray, times: int) -> np.ndarray:
    """The largest of each ``times`` x ``times`` bins."""
    if times == 1:
        return thumbs
    short = -thumbs.shape[-1] % times
    whole = np.pad(thumbs, [(0, 0), (0, 0), (0, short), (0, short)])
    return reduce(np.maximum, [whole[..., i::times, j::times] for i in range(times) for j in range(times)])


def _labels(
    width: int, height: int, size: int, lefts: tuple[int, ...], tops: tuple[int, ...], font: ImageFont.FreeTypeFont
) -> UInt8[np.ndarray, "height width"]:
    """The picture without cells: every head and layer is named where there is room, or every second, fifth ... of them."""
    page = Image.new("L", (width, height))
    draw = ImageDraw.Draw(page)
    widest = font.getlength(f"H{len(lefts) - 1}") + 4
    for head in _some(len(lefts), widest / (size + GAP)):
        draw.text((lefts[head] + size / 2, tops[0] - MARGIN), f"H{head}", fill=255, font=font, anchor="ms")
    for layer in _some(len(tops), font.size / (size + GAP)):
        draw.text((lefts[0] - 6, tops[layer] + size / 2), f"L{layer}", fill=255, font=font, anchor="rm")
    return BLANK + (np.asarray(page) // (256 // SHADES)).astype(np.uint8)


def _some(n: int, least: float) -> range:
    """Every index, or one in so many that ``least`` indices pass from one to the next."""
    return range(0, n, next(step for step in (1, 2, 5, 10, 20, 50, 100) if step >= least))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@cache
def _palette(dark: bool) -> bytes:
    """Red, green and blue of the levels of weight, of grey, and of the shades from paper to ink."""
    scales = (style.SEQUENTIAL, LEVELS), ([style.EMPTY], 1), ([style.PAPER, style.INK], SHADES)
    return b"".join(_between([DARK_COLOURS[c] if dark else c for c in colours], n) for colours, n in scales)


def _between(colours: list[str], n: int) -> bytes:
    """``n`` colours from the first to the last of some, as red, green, blue, red ..."""
    known = np.array([[*bytes.fromhex(colour[1:])] for colour in colours])
    at = np.linspace(0, len(colours) - 1, n)
    mixed = [np.interp(at, np.arange(len(colours)), known[:, channel]) for channel in range(3)]
    return np.rint(np.stack(mixed, 1)).astype(np.uint8).tobytes()


def _png(canvas: np.ndarray, palette: bytes) -> bytes:
    picture = Image.frombytes("P", canvas.shape[::-1], canvas.tobytes())
    picture.putpalette(palette)
    file = BytesIO()
    picture.save(file, "PNG", compress_level=4)
    return file.getvalue()
