"""What `ablate_heads` returns: sizes, tables, scores, figure and run directory in one form."""

import numpy as np
import pandas as pd
import pytest

from interp.ablation import ablate_heads, estimate_cost
from interp.heads import Head
from interp.store import open_run
from tests.support.sweep_cases import random_task
from tests.support.sweep_results import N_HEADS, N_LAYERS, planted, sweep_result


def test_it_carries_the_sizes_of_the_model_and_how_the_numbers_were_estimated(llama):
    for estimator in ("exact", "attribution", "adaptive"):
        result = ablate_heads(llama, random_task(), ablation="zero", estimator=estimator)
        facts = llama.facts
        assert (result.n_layers, result.n_heads, result.n_kv_heads) == (facts.n_layers, facts.n_heads, facts.n_kv_heads)
        assert (result.estimator, result.ablation, result.record.arguments["estimator"]) == (estimator, "zero", estimator)
        table = result.heads()
        assert set(table["ablation"]) == {"zero"} and set(table["estimator"]) == {estimator}
        assert table["kv_head"].tolist() == [facts.kv_head(Head(row.layer, row.head)) for row in table.itertuples()]


def test_an_empty_list_of_heads_and_a_pair_of_one_are_refused(llama):
    with pytest.raises(ValueError, match="heads is empty: name at least one head, or leave it out"):
        ablate_heads(llama, random_task(), heads=[])
    with pytest.raises(ValueError, match="pairs=True needs at least two heads, and heads names only L0H1"):
        ablate_heads(llama, random_task(), heads=[Head(0, 1)], pairs=True)


@pytest.mark.parametrize("estimator", ["exact", "attribution", "adaptive"])
def test_the_cost_counts_the_units_of_its_estimator(llama, estimator):
    seen = []
    given = {"ablation": "zero", "estimator": estimator, "positions": "end", "top_share": 0.4, "memory": 1 << 22}
    ablate_heads(llama, random_task(), **given, progress=lambda *at: seen.append(at))
    assert estimate_cost(llama, random_task(), **given).n_units == seen[-1][1] == seen[-1][0]


def test_top_and_scores_are_columns_of_the_table_of_heads():
    result = sweep_result(planted())
    assert (
        set(result.top(2)) == {Head(1, 1), Head(2, 3)}
        and result.top(-1) == []
        and result.top(1, by="lowest") == result.scores().top(1, by="lowest")
    )
    q_values = result.scores("q_value")
    assert q_values.values.shape == (N_LAYERS, N_HEADS)
    np.testing.assert_array_equal(q_values.values.ravel(), result.heads()["q_value"])
    pd.testing.assert_frame_equal(result.to_dataframe(), result.heads())


def test_a_changed_table_leaves_the_result_as_it_is():
    result = sweep_result(planted())
    result.heads()["effect"] = 0
    assert result.heads()["effect"].any()


def test_a_saved_result_is_a_run_that_reads_back_equal(tmp_path):
    result = sweep_result(planted())
    path = result.save(tmp_path / "run")
    assert path == result.save(tmp_path / "run")  # the same result is the same run
    run = open_run(path)
    pd.testing.assert_frame_equal(run.heads().drop(columns="run_id"), result.heads(), check_dtype=False)  # int32 on disk
    pd.testing.assert_frame_equal(run.examples().drop(columns="run_id"), result.examples(), check_dtype=False)
    np.testing.assert_array_equal(run.scores().values, result.scores().values)
    assert run.record == result.record


def test_its_short_forms_name_model_task_and_size_and_escape_them():
    result = sweep_result(planted())
    assert repr(result) == "AblationResult(toy on ioi: 15 x zero ablation, 17 prompts, logit_diff)"
    assert "L1H1" in result._repr_html_() and "q_value" in result._repr_html_()
    hostile = sweep_result(planted(), metric="<b>")
    assert "<b>" not in hostile._repr_html_()


@pytest.mark.parametrize("options", [{}, {"title": "Zero ablation"}])
def test_its_figure_is_the_map_of_effects(options):
    figure = sweep_result(planted()).plot(**options)
    assert figure.data[0].z.shape == (N_LAYERS, N_HEADS)
