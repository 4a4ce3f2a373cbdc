"""Preplan and anchor tokens: peaks and chance by hand, planted and untrained models, and plans that steps follow."""

import re
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch

from interp.detectors import detect
from interp.detectors.support.coupling_statistics import PERMUTATIONS, STATISTICS, PeakSeries, expected, here_or_next
from interp.engine import generate, next_token_entropy, run
from interp.heads import Head
from interp.metrics import observe_attention, preplan_and_anchors, score_task
from interp.metrics.preplan_anchor_tokens import introductory_tokens, peaks
from interp.models import load_model, plant, wrap_model
from interp.tasks import Example, Task, make_task
from tests.support.pattern_cases import given
from tests.support.tiny_models import D_VOCAB, tiny, tiny_hf

NAN = float("nan")
PROMPT = [1, 17, 5, 40, 8]


@cache
def mini():
    return load_model("interp-mini")


# -- what a model writes ------------------------------------------------------------------------------------------------------


def test_tokens_written_with_a_cache_are_those_of_whole_passes(model):
    written, tokens = generate(model, PROMPT, 9), list(PROMPT)
    for _ in range(9):
        tokens.append(int(run(model, tokens).logits[0, -1].argmax()))
    assert written.tokens == tuple(tokens[5:])


def test_drawn_tokens_have_the_probabilities_of_the_temperature(llama):
    logits = generate(llama, PROMPT, 1).logits.double()
    logits = logits / logits.std()  # soft enough for several tokens to be drawn
    hot = float(generate(llama, PROMPT, 1).logits.double().std())
    drawn = [generate(llama, PROMPT, 1, temperature=hot, seed=seed).tokens[0] for seed in range(400)]
    want, found = logits.softmax(-1).numpy(), np.bincount(drawn, minlength=D_VOCAB) / 400
    top = want.argsort()[-5:]
    np.testing.assert_allclose(found[top], want[top], rtol=0, atol=4 * np.sqrt(want.max() / 400))
    assert drawn[:20] == [generate(llama, PROMPT, 1, temperature=hot, seed=seed).tokens[0] for seed in range(20)]
    assert len(set(drawn)) > 20


def test_writing_stops_before_the_end_of_text(gpt2, monkeypatch):
    free = generate(gpt2, PROMPT, 8).tokens
    monkeypatch.setattr(gpt2.hf.generation_config, "eos_token_id", free[3])
    assert generate(gpt2, PROMPT, 8, stop=True).tokens == free[: free.index(free[3])]
    assert generate(gpt2, PROMPT, 8).tokens == free
    with pytest.raises(ValueError, match=r"temperature=-1\.0 is negative"):
        generate(gpt2, PROMPT, 8, temperature=-1.0)


def test_next_token_entropy_is_that_of_the_probabilities(model):
    tokens = torch.randint(4, D_VOCAB, (11,), generator=torch.Generator().manual_seed(3)).tolist()
    p = run(model, tokens).logits[0].double().softmax(-1)
    want = -(p * p.clamp(min=1e-300).log()).sum(-1)
    torch.testing.assert_close(next_token_entropy(model, tokens), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(next_token_entropy(model, tokens, 7), want[7:], atol=1e-4, rtol=1e-4)


# -- peaks and introductions --------------------------------------------------------------------------------------------------


def test_peaks_are_above_both_neighbours_and_the_median():
    series = np.array([[5.0, 1, 3, 1, 2, 1.5, 1.7, 1.6, 9], [0, 1, 1, 0, 4, 3, 3.5, 0, 0]])
    assert [np.flatnonzero(row).tolist() for row in peaks(series)] == [[2, 4], [4, 6]]  # the medians are 1.7 and 1
    assert not peaks(1 + 1e-8 * np.random.default_rng(0).standard_normal(50)).any()
    assert [np.flatnonzero(row).tolist() for row in peaks(series, 0.0)] == [[2, 4, 6], [1, 4, 6]]  # a plateau has one
    assert [np.flatnonzero(row).tolist() for row in peaks(series, 0.5)] == [[2], [1, 4]]  # 0.64 and 0.74


def test_in_chunks_of_eight_tokens_only_the_one_that_looks_back_is_a_peak():
    """heads.md 2: token 0 of each chunk looks 12 back, the others one; |delta| marks the token before as well, the peak does not."""
    length, start = 64, 16
    local, far = torch.zeros(length, length), torch.zeros(length, length)
    for row in range(length):
        local[row, max(row - (12 if row >= start and row % 8 == 0 else 1), 0)] = 1
    far[:, 0] = 1
    seen = given(torch.stack([local, far, far])[None], *_observed(low=5), marks=({"response": (start, length)},))
    found = preplan_and_anchors(seen, share=0.34, q=0.25)
    marks = peaks(found.waad.values[0, start:]) | np.eye(length - start, dtype=bool)[0]  # the first token has one neighbour
    assert (start + np.flatnonzero(marks)).tolist() == list(range(16, 64, 8))
    assert set(range(16, 64, 8)) | set(range(23, 63, 8)) == {*np.flatnonzero(found.is_preplan[0]), 16}


def test_a_head_of_the_previous_token_has_waad_one_and_no_peak():
    planted = plant(["previous_token", "first_token_sink"], seed=2, n_layers=3, n_heads=2, n_kv_heads=1, noise_scores=0.0)
    tokens = torch.randint(7, 25, (2, 29), generator=torch.Generator().manual_seed(0))
    waad = observe_attention(planted.model, tokens, ["windowed_distance"]).tokens(
        "windowed_distance", planted.heads("previous_token")
    )
    np.testing.assert_allclose(waad.values[:, 1:], 1.0, atol=1e-5)
    assert not peaks(waad.values[:, 1:]).any()


def test_introductory_tokens_stand_where_waad_changed_most_before_an_anchor_that_looks_near():
    waad = np.array([NAN, 3, 9, 1, 2, 1, 8, 7, 1, 1])
    delta = np.append(waad[:-1] - waad[1:], NAN)  # NaN -6 8 -1 1 -7 1 6 0 NaN
    anchor = np.isin(np.arange(10), [3, 4, 6, 8, 9])
    assert introductory_tokens(waad, delta, anchor, k=1) == {3: 2, 8: 7}
    assert introductory_tokens(waad, delta, anchor, k=2) == {3: 2, 4: 2, 8: 7, 9: 7}
    assert introductory_tokens(waad, delta, anchor, k=3) == {3: 2, 4: 2, 8: 5, 9: 7}
    assert introductory_tokens(waad, delta, anchor, k=3, delta_quantile=0.95) == {3: 2, 4: 2}
    assert introductory_tokens(waad, delta, anchor, k=3, waad_quantile=1.0) == {3: 2, 4: 2, 6: 5, 8: 5, 9: 7}
    with pytest.raises(ValueError, match="k=0"):
        introductory_tokens(waad, delta, anchor, k=0)


# -- chance -------------------------------------------------------------------------------------------------------------------


def _series(rng, n, rates=(0.2, 0.3, 0.25)):
    marks = [rng.random(n) < rate for rate in rates]
    return PeakSeries(*marks, rng.random(n))


def _moved(marks, null):
    """Every move of some marks."""
    if null == "circular shifts":
        return np.stack([np.roll(marks, shift) for shift in range(len(marks))])
    places = list(combinations(range(len(marks)), int(marks.sum())))
    return np.stack([np.isin(np.arange(len(marks)), place) for place in places])


@pytest.mark.parametrize("null", PERMUTATIONS)
@pytest.mark.parametrize("name", STATISTICS)
def test_the_expectation_is_the_mean_over_every_move(name, null):
    statistic, rng = STATISTICS[name], np.random.default_rng(5)
    for _ in range(7):
        text = _series(rng, 9)
        if not getattr(text, statistic.marks).any():
            continue
        changed = _moved(getattr(text, statistic.permuted), null)
        every = [statistic([type(text)(**{**vars(text), statistic.permuted: marks})]) for marks in changed]
        assert expected(statistic, [text], null) == pytest.approx(np.mean(every), abs=1e-12)


@pytest.mark.parametrize("null", PERMUTATIONS)
def test_draws_keep_the_count_and_come_to_the_expectation(null):
    rng = np.random.default_rng(1)
    texts = [_series(rng, n) for n in (23, 31, 17)]
    for text in texts:
        drawn = PERMUTATIONS[null](text.fai, 500, rng)
        assert (drawn.sum(1) == text.fai.sum()).all() and len(np.unique(drawn, axis=0)) > 15
    for statistic in STATISTICS.values():
        moved = [
            type(t)(**{**vars(t), statistic.permuted: PERMUTATIONS[null](getattr(t, statistic.permuted), 4000, rng)})
            for t in texts
        ]
        values = statistic(moved)
        assert values.mean() == pytest.approx(expected(statistic, texts, null), abs=5 * values.std() / np.sqrt(4000))


def test_of_peaks_that_are_no_neighbours_random_places_expect_fewer_hits_than_the_circle():
    """With a share r of peaks, a window of two has one with 2r, but with 1 - (1-r)^2 where they are put at random."""
    n = 1000
    waad, fai = (np.isin(np.arange(n), np.arange(1, n, step)) for step in (7, 5))
    text = PeakSeries(waad, fai, fai, np.ones(n))
    statistic = STATISTICS["fai_peak_at_or_after_waad_peak"]
    assert expected(statistic, [text], "circular shifts") == pytest.approx(2 * 0.2, abs=1e-3)
    assert expected(statistic, [text], "random positions") == pytest.approx(1 - 0.8**2, abs=1e-3)


def test_a_statistic_by_hand():
    waad, fai = (np.isin(np.arange(8), places) for places in ([1, 4, 7], [2, 6, 7]))
    text = PeakSeries(waad, fai, np.isin(np.arange(8), [2, 3]), np.arange(8.0))
    other = PeakSeries(*[np.zeros(5, dtype=bool)] * 3, np.ones(5))  # nothing is marked: it does not count
    values = {name: float(statistic([text, other])) for name, statistic in STATISTICS.items()}
    assert values == {
        "entropy_at_waad_peaks": 4.0,
        "receiver_peaks_at_fai_peaks": 0.5,
        "fai_peak_at_or_after_waad_peak": pytest.approx(2 / 3),  # 1 by 2, 7 by itself; 4 not
    }
    assert here_or_next(fai).tolist() == [False, True, True, False, False, True, True, True]


# -- the detector -------------------------------------------------------------------------------------------------------------


def _observed(low=1):
    return ("attention_distance", "windowed_distance", f"future_attention:horizon_min={low}:positions=response")


def _texts(n, length, seed=0):
    return torch.randint(4, D_VOCAB, (n, length), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_numbers_are_those_of_the_averaged_maps(name):
    """The other road: whole patterns of the hooked model, averaged over each group; texts of two lengths."""
    model, texts, starts = tiny(name), [*_texts(2, 37), *_texts(1, 29, 1)], [6, 9, 4]
    found = detect(
        model,
        "preplan_anchor",
        prompts=texts,
        response_start=starts,
        window=4,
        horizon_min=2,
        horizon_max=11,
        exclude="first",
        share=0.2,
        n_null_draws=19,
    )
    n_layers, n_heads = model.facts.n_layers, model.facts.n_heads
    maps, total, rows = [], np.zeros((n_layers, n_heads)), 0
    for ids, start in zip(texts, starts, strict=True):
        seen = run(model, ids, capture=[f"pattern.{layer}" for layer in range(n_layers)])
        pattern = torch.stack([seen[f"pattern.{layer}"][0] for layer in range(n_layers)]).double()
        back = torch.arange(len(ids))[:, None] - torch.arange(len(ids))
        kept = pattern.clone()
        kept[..., 0] = 0
        distance = ((kept * back.clamp(min=0)).sum(-1) / kept.sum(-1))[..., start:]
        total, rows = total + distance.sum(-1).numpy(), rows + len(ids) - start
        maps.append((pattern.flatten(0, 1), back))
    order = (total / rows).ravel().argsort()
    k = round(0.2 * len(order))
    groups = {"local": order[:k].tolist(), "global": order[::-1][:k].tolist()}
    assert {name: [h.layer * n_heads + h.head for h in found.heads[name]] for name in groups} == groups
    for row, ((pattern, back), ids, start) in enumerate(zip(maps, texts, starts, strict=True)):
        near, far = (pattern[groups[name]].mean(0) for name in ("local", "global"))
        waad = (near * back.clamp(0, 4)).sum(-1)
        chosen = (back >= 2) & (back <= 11) & (torch.arange(len(ids)) >= start)[:, None]
        fai = (far * chosen).sum(0) / chosen.sum(0)
        scores = {name: part.values[row, : len(ids)] for name, part in found.scores.items()}
        np.testing.assert_allclose(scores["waad"][start:], waad[start:], rtol=1e-4)
        np.testing.assert_allclose(scores["fai"], fai, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(scores["delta"][start:-1], waad[start:-1] - waad[start + 1 :], rtol=0, atol=1e-4)
        np.testing.assert_allclose(scores["entropy"][start:], next_token_entropy(model, ids)[start:], atol=1e-6)
        assert np.isnan(scores["waad"][:start]).all() and all(
            not marks[row, len(ids) :].any() for marks in found.masks.values()
        )
        n = len(ids) - start - 2  # tokens with a FAI
        assert found.masks["anchor"][row].sum() == round(0.4 * n)
        assert set(np.flatnonzero(found.masks["anchor"][row])) == {
            start + int(i) for i in fai[start:-2].topk(round(0.4 * n)).indices
        }


def test_what_is_drawn_and_chosen_is_told():
    found = detect(tiny("gpt2"), "preplan_anchor", prompts=_texts(4, 41), response_start=[8, 5, 9, 7], n_null_draws=37, seed=3)
    table = found.tables["statistics"]
    assert len(table) == 3 * (3 + 2) and table["p_value"].between(1 / 38, 1).all()
    assert (table["null_low"] <= table["null_high"]).all() and (table["n"] > 0).all()
    np.testing.assert_allclose(table["lift"], table["observed"] / table["expected"] - 1)
    heads = found.tables["groups"]
    assert (
        (heads["group"] == "local").sum()
        == (heads["group"] == "global").sum()
        == round(0.3 * 15)
        == len(found.heads["receiver"])
    )
    assert found.record.arguments["horizon_min"] == 1 and found.record.arguments["n_prompts"] == 4 and found.record.seed == 3
    tokens = found.to_dataframe()
    assert len(tokens) == 4 * 41 and {"waad", "fai", "delta", "entropy", "sink", "preplan", "anchor"} <= {*tokens}
    intro = found.tables["introductions"]
    assert found.masks["dominated"].sum() == len(intro) > 0 and not (found.masks["dominated"] & ~found.masks["anchor"]).any()
    assert ((intro["anchor"] - intro["introductory"]).between(1, 3)).all()
    again = detect(tiny("gpt2"), "preplan_anchor", prompts=_texts(4, 41), response_start=[8, 5, 9, 7], n_null_draws=37, seed=3)
    assert again.tables["statistics"].equals(table)


def test_shifted_numbers_stand_at_the_token_that_their_row_writes():
    asked = {"prompts": _texts(2, 33), "response_start": [6, 11], "n_null_draws": 9}
    plain, moved = (detect(tiny("llama"), "preplan_anchor", **asked, shift=shift) for shift in (0, 1))
    for row, start in enumerate(asked["response_start"]):
        for name in ("waad", "delta", "entropy"):
            values = moved.scores[name].values[row]
            np.testing.assert_array_equal(values[start + 1 :], plain.scores[name].values[row, start:-1])
            assert np.isnan(values[: start + 1]).all()
        np.testing.assert_array_equal(moved.scores["fai"].values, plain.scores["fai"].values)
        assert moved.masks["preplan"][row, start + 1 :].tolist() == plain.masks["preplan"][row, start:-1].tolist()


def test_heads_of_the_middle_layers_alone_are_sorted():
    found = detect(
        tiny("gpt2"), "preplan_anchor", prompts=_texts(2, 33), response_start=[6, 7], layers="middle", n_null_draws=9
    )
    chosen = {head.layer for heads in found.heads.values() for head in heads}
    assert chosen == {1, 2} and len(found.heads["local"]) == 3  # thirds of 3 layers: from 1 to 2
    assert found.tables["groups"]["distance"].isna().sum() == 5


def test_sinks_that_are_found_are_left_out_of_the_distance():
    """A head on the first token looks farthest of all; without it, it has no distance to speak of."""
    planted = plant("needle", seed=4, n_layers=5, n_heads=4, length=21, n_names=7)
    prompts = [p.clean for p in planted.prompts("needle", 3)]
    asked = {"prompts": prompts, "response_start": [4, 4, 4], "n_null_draws": 9}
    [sink] = planted.heads("first_token_sink")
    plain, first, found = (
        detect(planted.model, "preplan_anchor", **asked, exclude=how) for how in ("none", "first", "detected")
    )
    assert sink in plain.heads["global"] and sink not in first.heads["global"] and sink not in found.heads["global"]
    assert plain.masks["sink"].nonzero()[1].tolist() == [0, 0, 0]
    tables = [d.tables["groups"] for d in (plain, first, found)]
    np.testing.assert_array_equal(tables[0]["distance"], tables[1]["distance_other"])
    np.testing.assert_allclose(tables[1]["distance"], tables[2]["distance"], rtol=1e-4)


def test_the_delimiter_is_an_anchor_and_its_reader_does_not_look_at_the_needle():
    """circuits.md 7.4.6: the reader delivers the needle, and looks at the delimiter that keeps it."""
    for seed in range(3):
        for n_kv_heads in (None, 2):
            planted = plant("needle", seed=seed, n_kv_heads=n_kv_heads, n_layers=5, n_heads=4, length=21, n_names=7)
            examples = [Example(*p) for p in planted.prompts("needle", 3, seed)]
            seen = observe_attention(planted.model, examples, ["future_attention:horizon_min=1:positions=end"])[
                "future_attention"
            ]
            [reader], [retrieval] = planted.heads("anchor_reader"), planted.heads("retrieval")
            for row, example in enumerate(examples):
                needle, delimiter = example.marks["needle"][0], example.marks["delimiter"][0]
                at = {place: seen[:, row, :, place].numpy() for place in (needle, delimiter)}
                assert at[delimiter][reader] > 0.999 and at[needle][reader] < 1e-3
                assert at[needle][retrieval] > 0.999 and at[delimiter][retrieval] < 1e-3
                assert Head(*divmod(int(at[delimiter].argmax()), 4)) == reader
            found = detect(
                planted.model, "preplan_anchor", prompts=[e.clean for e in examples], response_start=[9] * 3, n_null_draws=9
            )
            fai = found.scores["fai"].values[:, 9:]
            assert np.nanargmax(fai, 1).tolist() == [1, 1, 1]  # place 10 is the delimiter
            assert reader in found.heads["global"] and found.masks["anchor"][:, 10].all()


@pytest.mark.slow
def test_on_untrained_models_random_heads_are_a_fair_comparison_and_moves_are_not():
    """Bounds are those of a fair test at 50 models: more than 8 of 50 p-values up to 0.05 come once in 600."""
    small = {name: dict.fromkeys([*PERMUTATIONS, "random heads"], 0) for name in STATISTICS}
    for seed in range(50):
        model = wrap_model(tiny_hf("gpt2", seed=seed), None, name="untrained")
        found = detect(
            model, "preplan_anchor", prompts=_texts(6, 60, seed), response_start=[8] * 6, n_null_draws=199, seed=seed
        )
        table = found.tables["statistics"]
        for row in table[table["heads"] == "groups"].itertuples():
            small[row.statistic][row.null] += row.p_value <= 0.05
    assert all(counts["random heads"] <= 8 for counts in small.values())
    assert small["entropy_at_waad_peaks"]["circular shifts"] <= 8
    assert small["fai_peak_at_or_after_waad_peak"]["circular shifts"] <= 8
    assert small["receiver_peaks_at_fai_peaks"]["circular shifts"] > 25  # both groups look at the same tokens in every model


# -- plans that steps follow --------------------------------------------------------------------------------------------------


def _steps(model, tokens, plan_start):
    text = model.to_string([*tokens[plan_start:], *generate(model, tokens, 40, stop=True).tokens])
    plan = re.search(r"Plan ?: (.*?) ?\.", text)
    assert plan is not None, text
    return [item.split()[-1] for item in plan[1].split(",")], re.findall(r"Step \w+ ?: (\w+)", text)


def test_swapping_the_plan_swaps_the_steps():
    task = make_task("plan_following", mini(), 40, seed=5)
    turned = Task("plan_following", tuple(Example(e.corrupted, e.clean, e.answers, e.distractors) for e in task), task.metric)
    assert score_task(mini(), task, "logit_diff").min() > 4 and score_task(mini(), turned, "logit_diff").max() < -4
    for example in task.examples[:6]:
        plans = []
        for tokens in (example.clean, example.corrupted):
            plan, steps = _steps(mini(), tokens, example.marks["plan"][0])
            assert steps == plan
            plans.append(plan)
        assert plans[0][:2] == plans[1][1::-1]


def test_planned_names_are_anchors_and_rows_that_look_a_word_up_are_peaks():
    task = make_task("plan_following", mini(), 12, seed=1)
    found = detect(mini(), "preplan_anchor", prompts=task, n_null_draws=199)
    anchors, looked_up, others = [], [], []
    for row, example in enumerate(task):
        words, (start, stop) = found.words[row], example.marks["plan"]
        names = [words[at] for at in (start + 3, start + 6, start + 9)]
        anchors.append([found.masks["anchor"][row, at] for at in (start + 3, start + 6, start + 9)])
        for at in range(stop, len(words) - 2):
            if words[at]:
                fetches = words[at] == "the" or (words[at] == ":" and words[at + 1] in names)
                (looked_up if fetches else others).append(found.masks["waad_peak"][row, at])
    assert np.mean(anchors) > 0.8 and np.mean(looked_up) > 0.8 and np.mean(others) < 0.4
    entropy = found.tables["statistics"].iloc[0]
    assert (
        entropy["statistic"] == "entropy_at_waad_peaks" and entropy["observed"] < entropy["null_low"]
    )  # it knows what it looks up


def test_the_model_answers_a_prompt_of_its_own():
    prompt = "Tom took the key. Mary took the pen. Lisa took the ring. Question: who took what?"
    drawn = [detect(mini(), "preplan_anchor", prompt=prompt, temperature=0.7, seed=seed, n_null_draws=9) for seed in (0, 0, 1)]
    assert drawn[0].words == drawn[1].words != drawn[2].words
    start = len(mini().to_tokens(prompt))
    assert drawn[0].words[0][start : start + 2] == ("Plan", ":")
    response = mini().to_string(mini().to_tokens(prompt + " " + " ".join(drawn[0].words[0][start:]))[start:])
    given_back = detect(mini(), "preplan_anchor", prompt=prompt, response=response, n_null_draws=9)
    np.testing.assert_allclose(given_back.scores["waad"].values, drawn[0].scores["waad"].values, rtol=1e-6)
    assert given_back.details["n_generated"] == 0 < drawn[0].details["n_generated"]


def test_the_default_is_the_plan_task_and_progress_is_told():
    told = []
    found = detect(
        mini(), "preplan_anchor", n_prompts=3, n_null_draws=9, progress=lambda done, total: told.append((done, total))
    )
    assert found.record.task == "plan_following" and found.details["n_texts"] == 3
    assert told == [(done, 8) for done in range(1, 9)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": [[1, 5, 8, 9]], "response_start": [4]}, "no response from position 4 on"),
        ({"prompts": [[1, 5, 8, 9, 4, 7, 9, 20]], "response_start": [2]}, None),
        (
            {"prompts": [[1, 5, 8, 9, 4, 7, 9, 20]], "response_start": [2], "horizon_min": 10},
            "has 6 tokens, too few for horizon_min=10",
        ),
        ({"prompts": [[1, 5, 8, 9, 4]], "response_start": [2, 3]}, "1 prompts with 2 response_start"),
        ({"prompts": []}, "0 prompts"),
        ({"response": "w3 w4"}, "response needs the prompt it answers"),
        ({"layers": "top"}, "layers='top' is unknown. There are: all, middle."),
        ({"exclude": "last"}, "exclude='last' is unknown. There are: none, first, detected."),
        ({"n_null_draws": 0}, "n_null_draws=0 is too small"),
        ({}, "Task 'plan_following' needs at least"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(gpt2, options, message):
    if message is None:
        assert detect(gpt2, "preplan_anchor", **options, n_null_draws=9).details["n_response_tokens"] == 6
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        detect(gpt2, "preplan_anchor", **options)


def test_encoders_are_refused():
    with pytest.raises(ValueError, match="preplan_anchor needs a causal language model"):
        detect(tiny("bert"), "preplan_anchor", prompts=_texts(1, 20))
