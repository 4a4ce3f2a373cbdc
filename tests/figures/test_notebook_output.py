"""What a notebook stores of a figure is visible without JavaScript and loads nothing."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from interp import show_attention
from interp.figures import Figure, head_map, to_dark_theme
from interp.heads import Head, HeadScores
from interp.records import RunRecord
from tests.support.tiny_models import tiny, tiny_tokens

PLOTLY = "application/vnd.plotly.v1+json"
SCORES = HeadScores("entropy", np.arange(15.0).reshape(3, 5) / 15, "nats", (0.0, None), RunRecord("m", metric="entropy"))
CELLS = """
import numpy as np
from interp.heads import HeadScores
from interp.records import RunRecord
HeadScores("entropy", np.arange(15.0).reshape(3, 5) / 15, "nats", (0.0, None), RunRecord("m", metric="entropy")).plot()
"""


def opened(png):
    with Image.open(io.BytesIO(png)) as image:
        image.load()
    assert image.format == "PNG"
    return image


@pytest.mark.parametrize("figure", [SCORES.plot(), to_dark_theme(head_map(SCORES)), Figure(head_map(SCORES))])
def test_the_output_of_a_figure_is_plotlys_json_and_a_png_of_its_size(figure):
    bundle, metadata = figure._repr_mimebundle_()
    assert set(bundle) == {PLOTLY, "image/png"} and bundle[PLOTLY]["layout"]["title"]["text"] == "<b>entropy</b>"
    image, size = opened(base64.b64decode(bundle["image/png"])), metadata["image/png"]
    assert image.size == (2 * size["width"], 2 * size["height"]) == (2 * figure.layout.width, 2 * figure.layout.height)


def test_no_html_of_a_figure_is_offered_and_no_renderer_is_called():
    figure = SCORES.plot()
    assert not callable(figure._ipython_display_) and not callable(figure._repr_html_)


def test_a_figure_that_matplotlib_cannot_render_keeps_its_interactive_form():
    figure = head_map(SCORES)
    figure.add_pie(values=[1, 2])
    assert set(figure._repr_mimebundle_()[0]) == {PLOTLY}


def test_a_figure_can_be_changed_and_copied_as_any_other_of_plotly():
    figure = head_map(SCORES)
    figure.update_layout(title_text="mine")
    assert type(Figure(figure)) is type(figure) and Figure(figure).layout.title.text == "mine"


@pytest.mark.parametrize("with_atlas", [True, False])
def test_the_viewer_loads_nothing_and_has_a_png_for_places_without_frames(with_atlas):
    from interp.figures import attention_viewer

    pattern = np.tril(np.ones((2, 3, 7, 7))) / np.arange(1, 8)[:, None]
    tokens = [f"w{i}" for i in range(7)]
    view = (
        show_attention(tiny("gpt2"), tiny_tokens(1, 7))
        if with_atlas
        else attention_viewer(pattern, tokens, first_head=Head(1, 2))
    )
    assert not re.search(r"https?:", view._repr_html_())
    assert min(opened(view._repr_png_()).size) > 50


def test_nbconvert_shows_the_png_and_asks_for_no_script_of_plotly():
    nbformat, nbconvert = pytest.importorskip("nbformat"), pytest.importorskip("nbconvert")
    processor = pytest.importorskip("nbconvert.preprocessors").ExecutePreprocessor(kernel_name="python3")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELLS)])
    processor.preprocess(notebook)
    (output,) = notebook.cells[0].outputs
    assert {PLOTLY, "image/png"} <= set(output.data) and "text/html" not in output.data
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert "data:image/png;base64," in page and "plotly" not in page.lower().split("<body", 1)[1].replace("plot()", "")
