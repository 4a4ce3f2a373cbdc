"""Plotly figures of tables and scores; every one can be saved as HTML, JSON, PNG or SVG without a browser."""

from interp.figures.head_map import head_map
from interp.figures.ranked_bars import ranked_bars
from interp.figures.save import save_figure

__all__ = ["head_map", "ranked_bars", "save_figure"]
