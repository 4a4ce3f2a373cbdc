"""The figure that every function of this room returns: a plotly figure that is also visible where no JavaScript runs.

Plotly's own output loads its library from a CDN, so that a notebook converted to HTML, shown on GitHub or opened without a network stays
empty. This one carries a PNG beside plotly's JSON, and nothing that is loaded.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import plotly.graph_objects as go

from interp.figures.static_render import render


class Figure(go.Figure):
    """A ``plotly.graph_objects.Figure`` whose notebook output is plotly's JSON and a PNG of the same size.

    Front ends that know plotly (JupyterLab, VS Code) draw the interactive figure; nbconvert and GitHub show the PNG. ``show()`` uses
    plotly's own renderers, as always.
    """

    _ipython_display_: Any = None  # or IPython would hand the figure to plotly's renderer and never ask for the bundle
    _repr_html_: Any = None  # plotly's loads its library from a CDN, and nbconvert prefers HTML to PNG

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None, validate: bool = True, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Data by MIME type, and the size in CSS pixels of the PNG; no PNG of a figure that holds what matplotlib does not draw here."""
        bundle: dict[str, Any] = {"application/vnd.plotly.v1+json": json.loads(str(self.to_json()))}
        try:
            bundle["image/png"] = b64encode(render(self, "png")).decode()
        except (ValueError, TypeError, AttributeError, KeyError):  # a reader may have added any trace: it remains interactive
            return bundle, {}
        layout: Any = self.layout
        return bundle, {"image/png": {"width": layout.width, "height": layout.height}}
