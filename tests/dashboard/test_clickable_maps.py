"""The frame of a chosen head: below the outlines of marked heads, and narrow where cells are small."""

import numpy as np
import pytest

from interp.figures import head_map
from interp.heads import Head, HeadScores
from interp.records import RunRecord
from interp_dashboard.clickable_maps import CHOSEN, _clickable


@pytest.mark.parametrize(("n_layers", "n_heads", "width"), [(4, 6, 6), (14, 9, 6), (30, 9, 3), (12, 16, 3)])
def test_a_chosen_head_has_a_frame_that_leaves_room_for_its_number(n_layers, n_heads, width):
    values = np.arange(n_layers * n_heads, dtype=float).reshape(n_layers, n_heads)
    scores = HeadScores("score", values, "weight", (0.0, None), RunRecord("toy"))
    figure = _clickable(head_map(scores), Head(2, 3))
    frame = figure.data[1]
    assert (frame.line.color, frame.line.width) == (CHOSEN, width)
    assert (min(frame.x), max(frame.x), min(frame.y), max(frame.y)) == (2.5, 3.5, 1.5, 2.5)
    assert len(_clickable(head_map(scores), None).data) == len(figure.data) - 1
