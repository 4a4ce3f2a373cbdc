"""Plotly figures of tables and scores; every one can be saved as HTML, JSON, PNG or SVG without a browser."""

from plotly.graph_objects import Figure

from interp.figures.ablation_curve import ablation_curve
from interp.figures.attention_viewer import AttentionViewer, attention_view, tile_data, view_assets, view_data
from interp.figures.circuit_graph import circuit_graph
from interp.figures.dark_theme import to_dark_theme
from interp.figures.detection_map import detection_map
from interp.figures.faithfulness_plot import faithfulness_plot
from interp.figures.head_atlas import Atlas, atlas
from interp.figures.head_difference_map import head_difference_map
from interp.figures.head_map import head_map
from interp.figures.needle_grid import needle_grid
from interp.figures.patch_map import patch_map
from interp.figures.pattern_difference import pattern_difference
from interp.figures.pattern_heatmap import pattern_heatmap
from interp.figures.ranked_effects import ranked_effects
from interp.figures.run_figures import available_figures, run_figure
from interp.figures.save_figure import figure_bytes, save_figure
from interp.figures.scores_by_layer import scores_by_layer
from interp.figures.show_attention import show_attention
from interp.figures.token_scores import token_scores_text
from interp.figures.waad_fai_strips import waad_fai_strips

__all__ = [
    "Atlas",
    "AttentionViewer",
    "Figure",
    "ablation_curve",
    "atlas",
    "attention_view",
    "available_figures",
    "circuit_graph",
    "detection_map",
    "faithfulness_plot",
    "figure_bytes",
    "head_difference_map",
    "head_map",
    "needle_grid",
    "patch_map",
    "pattern_difference",
    "pattern_heatmap",
    "ranked_effects",
    "run_figure",
    "save_figure",
    "scores_by_layer",
    "show_attention",
    "tile_data",
    "to_dark_theme",
    "token_scores_text",
    "view_assets",
    "view_data",
    "waad_fai_strips",
]
