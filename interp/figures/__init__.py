"""Plotly figures of tables and scores; every one can be saved as HTML, JSON, PNG or SVG without a browser."""

from plotly.graph_objects import Figure

from interp.figures.ablation_curve import dose_curve
from interp.figures.attention_viewer import AttentionView, attention_view, tile_data, view_assets, view_data
from interp.figures.circuit_graph import circuit_graph
from interp.figures.dark_theme import darkened
from interp.figures.detection_map import score_map
from interp.figures.faithfulness_plot import faithfulness_plot
from interp.figures.head_atlas import Atlas, atlas
from interp.figures.head_difference_map import difference_map
from interp.figures.head_map import head_map
from interp.figures.needle_grid import needle_grid
from interp.figures.patch_map import patch_map
from interp.figures.pattern_difference import difference_tile
from interp.figures.pattern_heatmap import pattern_tile
from interp.figures.ranked_effects import ranked_bars
from interp.figures.run_figures import drawings_of, run_figure
from interp.figures.save_figure import figure_bytes, save_figure
from interp.figures.scores_by_layer import layer_dots
from interp.figures.show_attention import show_attention
from interp.figures.token_scores import token_strip
from interp.figures.waad_fai_strips import role_strips

__all__ = [
    "Atlas",
    "AttentionView",
    "Figure",
    "atlas",
    "attention_view",
    "circuit_graph",
    "darkened",
    "difference_map",
    "difference_tile",
    "dose_curve",
    "drawings_of",
    "faithfulness_plot",
    "figure_bytes",
    "head_map",
    "layer_dots",
    "needle_grid",
    "patch_map",
    "pattern_tile",
    "ranked_bars",
    "role_strips",
    "run_figure",
    "save_figure",
    "score_map",
    "show_attention",
    "tile_data",
    "token_strip",
    "view_assets",
    "view_data",
]
