"""Plotly figures of tables and scores; every one can be saved as HTML, JSON, PNG or SVG without a browser."""

from interp.figures.difference_map import difference_map
from interp.figures.head_map import head_map
from interp.figures.layer_dots import layer_dots
from interp.figures.pattern_tile import pattern_tile
from interp.figures.ranked_bars import ranked_bars
from interp.figures.save import save_figure
from interp.figures.token_strip import token_strip

__all__ = ["difference_map", "head_map", "layer_dots", "pattern_tile", "ranked_bars", "save_figure", "token_strip"]
