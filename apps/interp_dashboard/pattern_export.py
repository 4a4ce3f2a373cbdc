"""Files and code of a head's pattern: exactly what the Attention page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from interp.figures import Figure, pattern_heatmap
from interp.figures.attention_viewer import STEPS
from interp.heads import Head
from interp_dashboard import prompts
from interp_dashboard.attention_cache import PromptAttention, PromptChoice

EXACT = 256
"""Most queries and keys of a tile of single weights; larger windows are shown in so many bins a side."""


@dataclass(frozen=True)
class ShownPattern:
    """A window (first query, end, first key, end) of a head's pattern on a prompt, as it is shown."""

    model: str
    prompt: PromptChoice
    attention: PromptAttention
    head: Head
    window: tuple[int, int, int, int]
    gamma: float
    value_weighted: bool

    @property
    def top(self) -> float:
        """The weight of the strongest colour."""
        return self.attention.max_value_norm(self.head) if self.value_weighted else 1.0

    @property
    def binned(self) -> bool:
        """Whether a row or column holds several tokens."""
        q0, q1, k0, k1 = self.window
        return max(q1 - q0, k1 - k0) > EXACT

    @property
    def caption(self) -> str:
        """Model, prompt, length and digest."""
        return prompts.caption(self.model, self.prompt, self.attention)

    def tile(self) -> np.ndarray:
        """The weights, or the largest weight of each bin, [row column]."""
        return self.attention.tile(self.head, self.window, EXACT, value_weighted=self.value_weighted)

    def figure(self) -> Figure:
        """The tile in the colours of the viewer, which has 255 of them; hover texts have the exact weights."""
        label = "weight × ‖vW_O‖" if self.value_weighted else "weight"
        about = f"{self.caption}{self._window_text()}"
        figure = pattern_heatmap(
            self.tile(), self.attention.words, self.head, about, **self._place(), gamma=self.gamma, top=self.top, label=label
        )
        cells: Any = figure.data[0]
        cells.z = np.round(np.asarray(cells.z, dtype=float) / self.top * STEPS) / STEPS * self.top
        return figure

    def table(self) -> pd.DataFrame:
        """One row per visible cell: the positions and tokens of query and key, and the weight."""
        tile = self.tile()
        q0, q1, k0, k1 = self.window
        row, column = (place.ravel() for place in np.indices(tile.shape))
        query, query_end = _ends(q0, q1, row, len(tile))
        key, key_end = _ends(k0, k1, column, tile.shape[1])
        words = np.array(self.attention.words, dtype=object)
        columns = {"query": query, "query_token": words[query], "key": key, "key_token": words[key]}
        if self.binned:
            columns = {"query": query, "query_end": query_end, "key": key, "key_end": key_end}
        name = "value_weighted" if self.value_weighted else "weight"
        columns[f"max_{name}" if self.binned else name] = tile.ravel()
        visible = key < query_end if self.attention.facts.causal else np.ones(len(key), bool)
        return pd.DataFrame(columns).loc[visible]

    def python(self) -> str:
        """Code that computes the tile as ``weights`` and draws it."""
        (layer, head), (q0, q1, k0, k1) = self.head, self.window
        norms = f"cache.value_norms[{layer}][0, {head}].numpy()"
        arguments = "model, tokens, value_norms=True" if self.value_weighted else "model, tokens"
        if self.binned:
            scale = ", scale=norms" if self.value_weighted else ""
            imports = "from interp.metrics import overview\n"
            weights = f"overview(cache, head, {EXACT}, window={self.window}{scale})  # largest of each bin, [query_bin key_bin]"
        else:
            scale = f" * norms[{k0}:{k1}]" if self.value_weighted else ""
            imports = ""
            weights = f"cache.pattern(head, slice({q0}, {q1}), slice({k0}, {k1})).numpy(){scale}  # [query key]"
        about = {**self._place(), "gamma": self.gamma, "top": "float(norms.max())" if self.value_weighted else 1.0}
        return (
            f"{prompts.python_code(self.prompt, self.model)}"
            f"from interp.engine import capture_attention\nfrom interp.figures import pattern_heatmap\n{imports}\n"
            f"cache, head = capture_attention({arguments}), interp.Head({layer}, {head})\n"
            f"{f'norms = {norms}  # of v W_O of each key{chr(10)}' if self.value_weighted else ''}"
            f"weights = {weights}\n"
            f"pattern_heatmap(weights, cache.words[0], head, {self.caption!r}, "
            f"{', '.join(f'{name}={value}' for name, value in about.items())})\n"
        )

    def _place(self) -> dict[str, Any]:
        q0, q1, k0, k1 = self.window
        return {"first_query": q0, "end_query": q1, "first_key": k0, "end_key": k1, "causal": self.attention.facts.causal}

    def _window_text(self) -> str:
        """Which part of the text it is, unless it is all of it."""
        q0, q1, k0, k1 = self.window
        whole = self.window == (0, len(self.attention.words)) * 2
        return "" if whole else f" · queries {q0}-{q1 - 1}, keys {k0}-{k1 - 1}"


def _ends(start: int, end: int, part: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """First position and end of these of ``n`` bins of positions from ``start`` to ``end``, divided as in ``tile_data``."""
    return tuple(start - (-(part + i) * (end - start) // n) for i in (0, 1))  # type: ignore[return-value]
