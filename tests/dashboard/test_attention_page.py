"""The Attention page: its files and code are what the viewer shows, and its window belongs to one text."""

import numpy as np
import pytest

from interp.heads import Head
from interp_dashboard.attention_cache import PromptChoice, attention_cache
from interp_dashboard.pattern_export import ShownPattern
from tests.support.dashboard_apps import address, new_session, open_address, save_small, viewer_data, viewer_weights

TEXT = "When Mary and John went to the store, John gave a drink to Mary."
OTHER = "the cat sat on the table and the dog sat on the chair and the cat sat on the dog"
WINDOW = (2, 9, 1, 8)


def shown(text=TEXT, window=WINDOW, gamma=0.25, value_weighted=True, model="interp-mini"):
    prompt = PromptChoice(text=text)
    return ShownPattern(model, prompt, attention_cache().get(model, prompt), Head(1, 3), window, gamma, value_weighted)


def opened(**query):
    app = open_address(new_session("attention"), **{"task": "", "text": TEXT, "head": "L1H3", **query})
    assert not app.exception and not app.error
    return app


def test_the_table_and_the_figure_hold_the_scaled_weights_that_the_viewer_shows():
    app, export = opened(window="2,9,1,8", gamma="0.25", value_weighted="yes"), shown()
    data, table = viewer_data(app), export.table()
    assert data["top"] == pytest.approx(export.top) and export.top != 1
    q0, q1, k0, k1 = WINDOW
    tile = viewer_weights(app)[q0:q1, k0:k1] * data["top"]
    for row in table.itertuples():
        assert row.value_weighted == pytest.approx(tile[row.query - q0, row.key - k0], abs=export.top / 500)
        assert (row.query_token, row.key_token) == (data["tokens"][row.query], data["tokens"][row.key])
    assert set(zip(table["query"], table["key"], strict=True)) == {
        (q, k) for q in range(q0, q1) for k in range(k0, k1) if k <= q
    }
    heat = export.figure().data[0]
    np.testing.assert_allclose(
        np.nan_to_num(np.array(heat.z, float)), np.where(np.isnan(heat.z), 0, tile), atol=1e-6 * export.top
    )
    assert (heat.zmin, heat.zmax) == (0, export.top)


def test_the_colours_of_the_figure_are_those_of_the_viewer_at_its_gamma():
    scale = shown().figure().data[0].colorscale
    palette = viewer_data(opened())["palette"]
    for i, colour in enumerate(palette):
        share = (i / (len(palette) - 1)) ** (1 / 0.25)
        assert min(abs(place - share) for place, known in scale if known == colour) < 1e-9
    assert [colour for _, colour in shown(gamma=1.0).figure().data[0].colorscale] == palette


def test_the_caption_of_the_figure_names_the_prompt_the_digest_and_the_scaling():
    export = shown()
    said = export.figure().layout.annotations[0].text.replace("<br>", " ")
    for part in ("interp-mini", "When Mary and John", export.attention.digest, "queries 2-8, keys 1-7", "γ = 0.25"):
        assert part in said
    assert export.figure().data[0].colorbar.title.text == "weight × ‖vW_O‖"
    assert export.caption in [caption.value.replace("\\", "") for caption in opened().caption]


@pytest.mark.parametrize("value_weighted", [False, True])
@pytest.mark.parametrize("window", [WINDOW, (0, 300, 0, 290)])
def test_the_code_gives_the_table(value_weighted, window):
    text = OTHER if window == WINDOW else f"{OTHER} " * 16
    export, names = shown(text, window, value_weighted=value_weighted), {}
    exec(export.python(), names)
    table = export.table()
    assert table.columns[-1] == f"{'max_' * (window != WINDOW)}{'value_weighted' if value_weighted else 'weight'}"
    weights, visible = names["weights"], np.isfinite(np.array(export.figure().data[0].z, float))
    assert weights.shape == (7, 7) if window == WINDOW else weights.shape == (256, 256)
    np.testing.assert_allclose(weights[visible], table.iloc[:, -1], rtol=1e-4, atol=1e-6)


def test_a_wide_window_is_exported_in_the_bins_that_are_drawn():
    window = (100, 400, 0, 390)
    export = shown(f"{OTHER} " * 22, window, value_weighted=False)
    full = export.attention.cache.pattern(export.head).numpy()
    table = export.table()
    assert len(export.tile()) == 256 and table["query_end"].max() == 400 and table["key_end"].max() == 390
    for row in table.sample(200, random_state=0).itertuples():
        assert row.max_weight == full[row.query : row.query_end, row.key : row.key_end].max()


def test_the_window_of_a_shared_address_is_shown():
    app = opened(window="2,9,1,8")
    assert viewer_data(app)["window"] == list(WINDOW) and address(app)["window"] == "2,9,1,8"


def test_a_window_is_dropped_with_its_text():
    app = opened(window="0,5,0,5")
    app.text_area(key="field:text").set_value(OTHER).run()
    data = viewer_data(app)
    assert data["window"] == [0, len(data["tokens"])] * 2 and "window" not in address(app)


def test_a_window_is_dropped_with_the_task_and_kept_with_the_head():
    app = opened(task="induction", window="0,5,0,5")
    app.query_params["head"] = "L0H1"
    app.run()
    assert viewer_data(app)["window"] == [0, 5, 0, 5]
    app.number_input(key="field:seed").set_value(4).run()
    assert "window" not in address(app)


@pytest.mark.parametrize("window", ["0,17,0,17", "0,9999,0,9999"])
def test_a_window_of_the_whole_text_is_none(window):
    app = opened(window=window)
    assert len(viewer_data(app)["tokens"]) == 17 and "window" not in address(app)


def test_another_model_with_the_same_tokens_keeps_the_window(tmp_path):
    from interp_dashboard.model_cache import model_cache

    other = str(save_small(tmp_path / "small", 3, 5))
    model_cache().add(other)
    app = opened(window="2,9,1,8")
    app.selectbox(key="field:model").set_value(other).run()
    assert address(app)["window"] == "2,9,1,8"
