"""Plotly figures of tables and scores; each can be saved as HTML, JSON, PNG or SVG without a browser."""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.figures.attention_viewer import AttentionViewer as AttentionViewer
    from interp.figures.attention_viewer import attention_viewer as attention_viewer
    from interp.figures.attention_viewer import tile_data as tile_data
    from interp.figures.attention_viewer import view_assets as view_assets
    from interp.figures.attention_viewer import view_data as view_data
    from interp.figures.circuit_graph import circuit_graph as circuit_graph
    from interp.figures.confirmation_curve import confirmation_curve as confirmation_curve
    from interp.figures.dark_theme import to_dark_theme as to_dark_theme
    from interp.figures.detection_map import detection_map as detection_map
    from interp.figures.faithfulness_plot import faithfulness_plot as faithfulness_plot
    from interp.figures.figure_with_png import Figure as Figure
    from interp.figures.head_atlas import Atlas as Atlas
    from interp.figures.head_atlas import atlas as atlas
    from interp.figures.head_difference_map import head_difference_map as head_difference_map
    from interp.figures.head_map import head_map as head_map
    from interp.figures.needle_grid import needle_grid as needle_grid
    from interp.figures.patch_map import patch_map as patch_map
    from interp.figures.pattern_difference import pattern_difference as pattern_difference
    from interp.figures.pattern_heatmap import pattern_heatmap as pattern_heatmap
    from interp.figures.ranked_effects import ranked_effects as ranked_effects
    from interp.figures.run_figures import available_figures as available_figures
    from interp.figures.run_figures import run_figure as run_figure
    from interp.figures.save_figure import figure_bytes as figure_bytes
    from interp.figures.save_figure import save_figure as save_figure
    from interp.figures.scores_by_layer import scores_by_layer as scores_by_layer
    from interp.figures.show_attention import show_attention as show_attention
    from interp.figures.token_scores import token_scores_text as token_scores_text
    from interp.figures.waad_fai_html import waad_fai_html as waad_fai_html
    from interp.figures.waad_fai_strips import waad_fai_strips as waad_fai_strips
else:
    __all__, __getattr__, __dir__ = exports(__name__)
