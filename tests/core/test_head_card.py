"""Head cards: what they collect, the tokens a head attends to, and how they are shown."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from interp.ablation import ablate_heads
from interp.engine import run
from interp.head_card import head_card, head_cards
from interp.heads import Head, HeadScores
from interp.records import RunRecord
from tests.support.planted_detections import SHAPE, planted_case, ranked_first


def test_a_card_gathers_what_is_known_of_a_head():
    planted, tasks = planted_case(n_kv_heads=2)
    model, [head] = planted.model, planted.heads("retrieval")
    parts = {"frequency": HeadScores("frequency", np.arange(20.0).reshape(SHAPE) / 20, "share", (0.0, 1.0), RunRecord("toy"))}
    detection = replace(ranked_first(model, [head]), extra_scores=parts)
    sweep = ablate_heads(model, tasks["needle"], ablation="zero", pairs=False).heads()
    cards = head_cards(model, [detection], tables=[sweep], prompts=tasks["needle"])
    assert list(cards) == model.facts.heads()
    card = cards[head]
    assert card.roles == ["retrieval"] and all(not other.roles for h, other in cards.items() if h != head)
    assert card.kv_head == head.head // 2
    assert card.sharing == (Head(head.layer, head.head ^ 1),)
    rows = card.table.set_index("kind")
    role = rows.loc["role"]
    assert (role["value"], role["rank"], role["n_ranked"], role["detected"]) == (0.9, 1, 20, True)
    assert (role["threshold"], role["control"], role["literature_threshold"], role["measured_on"]) == (0.5, 0.01, 0.1, "needle")
    place = head.layer * 4 + head.head
    assert (rows.loc["extra_score", "name"], rows.loc["extra_score", "value"]) == ("retrieval: frequency", place / 20)
    assert rows.loc["extra_score", "rank"] == 20 - place
    effect, measured = rows.loc["effect"], sweep.set_index("label").loc[str(head)]
    assert (effect["value"], effect["ci_low"], effect["ci_high"]) == (
        measured["effect"],
        measured["ci_low"],
        measured["ci_high"],
    )
    assert (effect["name"], effect["measured_on"]) == ("zero ablation on logit_diff", "needle, positions all")
    assert {"attention_distance", "entropy", "self_attention_score"} <= set(card.table.query("kind == 'metric'")["name"])
    single = head_card(model, str(head), [detection], tables=[sweep], prompts=tasks["needle"])
    pd.testing.assert_frame_equal(single.table, card.table)


def test_attended_tokens_are_the_largest_column_means_of_the_first_text():
    planted, tasks = planted_case()
    [head] = planted.heads("retrieval")
    card = head_card(planted.model, head, [], prompts=tasks["needle"])
    example = tasks["needle"].examples[0]
    pattern = run(planted.model, [example], capture=[f"pattern.{head.layer}"])[f"pattern.{head.layer}"][0, head.head].numpy()
    length = len(example.clean)
    means = np.array([pattern[key:, key].mean() if length - key >= 4 else -1 for key in range(length)])
    order = np.argsort(-means, kind="stable")[:5]
    assert card.attended_tokens["pos"].tolist() == order.tolist()
    assert np.allclose(card.attended_tokens["weight"], means[order], atol=1e-6)
    assert card.table.query("kind == 'role'").empty


def test_cards_are_shown_with_tokens_escaped_and_say_where_there_is_nothing():
    planted, tasks = planted_case()
    card = head_card(planted.model, "L0H0", [], prompts=tasks["needle"])
    assert "<s>" in card.attended_tokens["token"].tolist()
    assert "<s>" not in card._repr_html_() and "&lt;s&gt;" in card._repr_html_()
    bare = head_card(planted.model, "L0H0", [])
    assert bare.table.empty and bare.attended_tokens.empty and "no role detected" in bare._repr_html_()
    with pytest.raises(LookupError, match="L9H0"):
        head_card(planted.model, "L9H0", [])


def test_a_detector_that_fails_is_named_in_the_card_and_hides_no_other(monkeypatch):
    from interp import head_card as module
    from interp.detectors import detect, quick_detectors

    def one_fails(model, role):
        if role == "theirs":
            raise TypeError("a <b> is\nnot a number.")
        if role == "refusing":
            raise ValueError("This model has no such heads.")
        return detect(model, role)

    monkeypatch.setattr(module, "quick_detectors", lambda: ["theirs", "refusing", "previous_token"])
    monkeypatch.setattr(module, "detect", one_fails)
    model = planted_case()[0].model
    card = head_card(model, "L0H0")
    assert "previous_token" in quick_detectors() and card.table["name"].tolist() == ["previous_token"]
    assert card.not_measured == {
        "theirs": "the detector failed (TypeError: a <b> is).",
        "refusing": "This model has no such heads.",
    }
    assert "<p>theirs: the detector failed (TypeError: a &lt;b&gt; is).</p>" in card._repr_html_()
    assert head_card(model, "L0H0", []).not_measured == {}
