"""Attention sinks: found where they were planted and nowhere else, at the first token and later, with the activations behind them."""

from math import exp

import numpy as np
import pytest
import torch
import transformers

from interp import interventions
from interp.detectors import detect
from interp.detectors.attention_sink import attention_sink, overlap
from interp.detectors.support.random_first_key_null import draw_keys, redrawn_key_importance
from interp.detectors.support.sink_texts import knows_sentences, sink_texts
from interp.engine import capture, observe, run, sweep
from interp.heads import Head
from interp.interventions import InterventionContext
from interp.metrics import SinkColumns, calibrate_heads, improving_heads, massive_activations, sink_columns
from interp.metrics.attention.sink_rate import sink_rate
from interp.metrics.massive_activations import MassiveActivations
from interp.metrics.outcomes import OUTCOMES
from interp.models import load_model, plant, wrap_model
from interp.models.model import record_of
from interp.tasks import Example, Task, write_prompts
from tests.support.pattern_cases import given, golden_heads, random_pattern, unpadded, visible_keys
from tests.support.tiny_models import CONFIGS, TINY, tiny, tiny_hf, tiny_tokens

HOSTS = pytest.mark.parametrize("n_kv_heads", [None, 2], ids=["gpt2", "llama"])
BETAS = (30.0, 8.0, 6.0, 4.0, 3.0)


def planted_sinks(seed, n_kv_heads=None, sharpness=30.0, roles="sinks", **options):
    """5 layers x 4 heads with 21 positions and 23 tokens."""
    sizes = {"n_layers": 5, "n_heads": 4, "length": 21, "n_names": 7} | options
    return plant(roles, seed=seed, n_kv_heads=n_kv_heads, sharpness=sharpness, **sizes)


def texts_with_one_delimiter(planted, n_prompts=6, seed=0):
    """Random names and fillers behind BOS, and one delimiter between places 3 and 8; the texts and these places."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(6, len(planted.vocabulary), (n_prompts, 21))
    places = rng.integers(3, 9, n_prompts)
    tokens[:, 0], tokens[np.arange(n_prompts), places] = 0, planted.massive.token
    return tokens.tolist(), places.tolist()


def examples(rows):
    return tuple(Example(tuple(row), tuple(row), (row[0],), (row[1],)) for row in rows)


# -- calibration --------------------------------------------------------------------------------------------------------------


def place(n_queries, n_keys, batch=1, first=0, head=0):
    rows, keys = torch.arange(batch), torch.arange(n_keys)[None]
    return InterventionContext(Head(0, head), rows, torch.arange(first, first + n_queries)[None], None, keys)


def test_the_golden_row_of_act():
    """heads.md 8.3."""
    sinks = torch.tensor([False, False, True, False, False])[None, None, None]
    row = torch.tensor([[[0.30, 0.05, 0.40, 0.05, 0.20]]])
    found = interventions.calibrate_sinks([Head(0, 0)], sinks).apply(row, place(1, 5, first=4))
    torch.testing.assert_close(found, torch.tensor([[[0.42, 0.07, 0.16, 0.07, 0.28]]]))


@pytest.mark.parametrize("beta", [0.0, 0.4, 0.75])
def test_calibration_hands_the_weight_of_sinks_to_the_other_keys_in_proportion(beta):
    pattern = random_pattern(1, 3, unpadded(2, 7))[0]
    sinks = torch.zeros(1, 2, 3, 7, dtype=torch.bool)
    sinks[0, 0, 1, [2, 4]] = sinks[0, 1, 1, 3] = True
    for head in range(3):
        change = interventions.calibrate_sinks([Head(0, head)], sinks, beta)
        found = change.apply(pattern[:, head], place(7, 7, batch=2, head=head))
        assert change.label == f"calibrate {beta:g}"
        torch.testing.assert_close(found.sum(-1), torch.ones(2, 7))
        for text in range(2):
            own = sinks[0, text, head]
            for t in range(7):
                old, new = pattern[text, head, t].double(), found[text, t].double()
                if not (old[own] > 0).any():
                    assert new.equal(old)
                    continue
                torch.testing.assert_close(new[own], beta * old[own], rtol=1e-5, atol=1e-7)
                freed = (1 - beta) * old[own].sum()
                back = old[~own] + freed * old[~own] / old[~own].sum()
                torch.testing.assert_close(new[~own], back, rtol=1e-5, atol=1e-7)


def test_calibration_with_beta_1_is_the_identity_and_rows_without_anything_to_share_stay():
    pattern = random_pattern(1, 1, unpadded(2, 6))[0, :, 0]
    everything, nothing = (torch.full((1, 2, 1, 6), fill) for fill in (True, False))
    assert interventions.calibrate_sinks([Head(0, 0)], everything, 1.0).apply(pattern, place(6, 6, 2)) is pattern
    for sinks in (everything, nothing):
        assert interventions.calibrate_sinks([Head(0, 0)], sinks, 0.0).apply(pattern, place(6, 6, 2)).equal(pattern)


def test_calibration_leaves_rows_beyond_the_texts_alone_and_takes_keys_by_their_place():
    sinks = torch.tensor([False, True, False])[None, None, None]
    row = torch.tensor([[[0.25, 0.5, 0.125, 0.125]]])
    change = interventions.calibrate_sinks([Head(0, 0)], sinks, 0.0)
    assert change.apply(row, place(1, 4, first=3)).equal(row)  # a generated token that comes from a cache
    padded = InterventionContext(Head(0, 0), torch.arange(1), torch.tensor([[2]]), None, torch.tensor([[-1, 0, 1, 2]]))
    row = torch.tensor([[[0.0, 0.5, 0.25, 0.25]]])
    torch.testing.assert_close(change.apply(row, padded), torch.tensor([[[0.0, 2 / 3, 0.0, 1 / 3]]]))


def test_sinks_cannot_keep_more_than_everything():
    with pytest.raises(ValueError, match=r"beta=1\.5 is not a share: sinks keep between 0 and 1"):
        interventions.calibrate_sinks([Head(0, 0)], torch.zeros(1, 1, 1, 3, dtype=torch.bool), 1.5)


def test_heads_without_sinks_are_bit_identical_when_others_are_calibrated(model):
    rows = tiny_tokens(3, 23).tolist()
    heads, task = model.facts.heads(), Task("texts", examples(rows), "answer_loss")
    sinks = sink_columns(model, task, alpha=2.0, min_rows=4)
    sinks = SinkColumns(sinks.is_sink.clone(), sinks.weight)
    sinks.is_sink[2] = False
    last = [head for head in heads if head.layer == 2]

    def z(beta):
        return run(model, task.examples, capture=["z.2"], intervene=[interventions.calibrate_sinks(last, sinks.is_sink, beta)])[
            "z.2"
        ]

    clean = z(1.0)
    assert z(0.4).equal(clean)
    sinks.is_sink[2, 0, 3, 1] = True
    assert z(1.0).equal(clean)
    same = (z(0.4) == clean).all(-1).all(1)
    assert same.tolist() == [[head != 3 or text != 0 for head in range(model.facts.n_heads)] for text in range(3)]


def test_calibrating_each_head_is_one_hooked_run_each(model):
    rows = tiny_tokens(3, 23, seed=4).tolist()
    task = Task("texts", examples(rows), "logit_diff")
    sinks = sink_columns(model, task, alpha=2.0, min_rows=4)
    assert len(sinks.heads) > 2
    found = calibrate_heads(model, task, sinks, beta=0.25, metric="logit_diff")
    assert found.variants == tuple((head,) for head in sinks.heads) and found.metric == "logit_diff"
    variants = [(interventions.calibrate_sinks(group, sinks.is_sink, 0.25),) for group in found.variants]
    hooked = sweep(model, task, variants, OUTCOMES.get("logit_diff"), record=record_of(model), backend="hooked")
    np.testing.assert_allclose(found.values, hooked.values, atol=5e-4, rtol=1e-4)
    assert (np.abs(found.effects) > 1e-3).any()
    nothing = calibrate_heads(model, task, sinks, beta=1.0, metric="logit_diff")
    np.testing.assert_allclose(nothing.effects, 0, atol=5e-4)
    assert improving_heads(found) == [
        group[0]
        for effect, group in sorted(zip(found.effects.mean(1), found.variants, strict=True), reverse=True)
        if effect > 0
    ]


def test_random_columns_carry_as_much_weight_as_the_sinks_and_are_none_of_them(gpt2):
    task = Task("texts", examples(tiny_tokens(3, 23).tolist()), "answer_loss")
    sinks = sink_columns(gpt2, task, alpha=2.0, min_rows=4)
    control = sinks.random(5)
    assert not (control.is_sink & sinks.is_sink).any() and not control.is_sink[..., 0].any()
    assert control.is_sink.any(-1).equal(sinks.is_sink.any(-1))
    mass = [
        torch.where(is_sink, sinks.weight, 0).nansum(-1)[sinks.is_sink.any(-1)] for is_sink in (sinks.is_sink, control.is_sink)
    ]
    left = torch.where(~sinks.is_sink, sinks.weight, 0).nansum(-1)[sinks.is_sink.any(-1)]
    assert (mass[1] >= torch.minimum(mass[0], left) - 1e-6).all()
    assert not sinks.random(6).is_sink.equal(control.is_sink) and sinks.random(5).is_sink.equal(control.is_sink)


def test_without_sinks_there_is_nothing_to_calibrate(gpt2):
    task = Task("texts", examples(tiny_tokens(2, 23).tolist()), "answer_loss")
    with pytest.raises(ValueError, match="No head of tiny-gpt2 has a sink in the prompts of task 'texts'"):
        calibrate_heads(gpt2, task, sink_columns(gpt2, task, alpha=1e6))


# -- massive activations ------------------------------------------------------------------------------------------------------


def test_one_large_entry_is_found_from_its_layer_on_and_nothing_else(model):
    rows = tiny_tokens(2, 9).tolist()

    def write(module, args, output):
        (output[0] if isinstance(output, tuple) else output)[1, 4, 17] += 1e5
        return output

    plain = massive_activations(model, rows, min_magnitude=100.0, ratio=1000.0)
    assert plain.entries == [] and plain.onset is None
    hook = model.layout.blocks[1].register_forward_hook(write)
    try:
        found = massive_activations(model, rows, min_magnitude=100.0, ratio=1000.0)
    finally:
        hook.remove()
    at = [cell[:4] for cell in found.entries]
    assert at[0] == (1, 1, 4, 17) and found.onset == 1 and {cell[1:3] for cell in at} == {(1, 4)}
    assert found.tokens(1).nonzero().tolist() == [[1, 4]] and not found.tokens(0).any()
    assert plain.sizes[0] == found.sizes[0]


@pytest.mark.parametrize("lengths", [(9, 9), (9, 5)])
def test_sizes_and_cells_are_those_of_the_captured_stream(lengths):
    model = tiny("llama")
    rows = [tiny_tokens(1, n, seed=n)[0].tolist() for n in lengths]
    found = massive_activations(model, rows, min_magnitude=0.5, ratio=4.0)
    streams = [capture(model, torch.tensor([row]), ["resid_post"]) for row in rows]
    want = []
    for layer in range(3):
        x = [stream[f"resid_post.{layer}"][0] for stream in streams]
        size = torch.cat([part.abs().flatten() for part in x])
        median = size.median()
        assert found.sizes[layer] == pytest.approx((float(median), float(size.max())), rel=1e-4)
        large = [(part.abs() > 0.5) & (part.abs() >= 4 * median) for part in x]
        want += [
            (layer, text, *at, float(x[text][tuple(at)])) for text, own in enumerate(large) for at in own.nonzero().tolist()
        ]
    table = found.to_dataframe()
    assert len(want) > 10 and list(table.columns) == ["layer", "example", "pos", "dimension", "value", "ratio"]
    np.testing.assert_allclose(table[["layer", "example", "pos", "dimension", "value"]].to_numpy(), want, rtol=1e-3)


def test_overlap_of_sinks_and_massive_tokens_by_hand():
    """6 judged tokens of 8: massive are 2, sinks 1 and 2 of two heads in layer 1; in layer 0 nothing can be massive yet."""
    found = MassiveActivations(torch.ones(1, 8, dtype=torch.bool), sizes={0: (0.5, 1000.0), 1: (0.25, 2000.0)})
    found.entries = [(0, 0, 2, 3, -1000.0, 2000.0)]
    is_sink = torch.zeros(2, 1, 2, 8)
    is_sink[..., 6:] = torch.nan
    is_sink[:, 0, 0, 1] = is_sink[:, 0, 1, 2] = 1
    table = overlap(found, is_sink)
    assert table[["tokens", "massive", "sinks", "both"]].to_numpy().tolist() == [[6, 0, 2, 0], [6, 1, 2, 1]]
    assert np.isnan(table["correlation"][0])
    assert table["correlation"][1] == pytest.approx((6 * 1 - 1 * 2) / np.sqrt(1 * 5 * 2 * 4))
    assert table["largest"].tolist() == [1000.0, 2000.0] and table["median"].tolist() == [0.5, 0.25]


# -- the score ----------------------------------------------------------------------------------------------------------------


def drawn(n_texts, length, d_head, n=4, seed=0):
    return draw_keys((n_texts, length), d_head, n, np.random.default_rng(seed))


@pytest.mark.parametrize("block", [1, 500, 10**6])
@pytest.mark.parametrize(("name", "q", "k"), [("gpt2", "q", "k"), ("llama", "rot_q", "rot_k")])
def test_importance_with_another_key_is_that_of_the_pattern_made_with_it(name, q, k, block):
    model, tokens = tiny(name), tiny_tokens(4, 9)
    turns, mixtures = drawn(4, 9, 8)
    found = observe(model, tokens, [redrawn_key_importance(turns, mixtures)], block=block)["redrawn_key_importance"]
    kept = capture(model, tokens, [q, k])
    for layer in range(3):
        queries, keys = (kept[f"{part}.{layer}"].double().numpy() for part in (q, k))
        keys = keys.repeat(model.facts.group_size, axis=2)
        mean = keys[:, 1:].mean((0, 1))
        apart = keys[:, 0] - mean
        mixed = np.einsum("nbs,bshd->nhd", mixtures, keys[:, 1:] - mean)
        mixed = mixed[:, None] / np.linalg.norm(mixed, axis=-1)[:, None, :, None] * np.linalg.norm(apart, axis=-1)[..., None]
        for i, other in enumerate([*(apart @ turns.swapaxes(1, 2)[:, None]), *mixed]):
            with_other = np.concatenate([(mean + other)[:, None], keys[:, 1:]], 1)
            scores = np.einsum("bqhd,bshd->bhqs", queries, with_other) / np.sqrt(8)
            weights = np.exp(scores) * np.tri(9)
            want = (weights[..., 0] / weights.sum(-1)).mean(-1)
            np.testing.assert_allclose(found[layer, ..., i].numpy(), want, atol=1e-5)


def test_the_first_tokens_own_key_gives_its_own_importance(model):
    """Windows, soft caps and shared keys included: a rotation by nothing changes nothing."""
    size = model.facts.d_head
    metric = redrawn_key_importance(np.eye(size)[None], drawn(3, 22, size, n=1)[1])
    found = observe(model, tiny_tokens(3, 22).tolist(), [metric, sink_rate])
    torch.testing.assert_close(found[metric.name][..., 0], found["sink_rate"][..., 0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[metric.name][..., 1], found["sink_rate"][..., 0], atol=1e-3)


def test_golden_importance_of_the_first_token():
    """heads.md 8.3."""
    metric = redrawn_key_importance(np.eye(8)[None], drawn(1, 8, 8, n=1)[1])
    found = given(golden_heads(), metric)["redrawn_key_importance"][0, 0, :, 0]
    torch.testing.assert_close(found, torch.tensor([0.25, 0.3397, 1.0, 0.125]), atol=5e-5, rtol=0)


def test_rotations_are_orthogonal_and_go_everywhere():
    turns, mixtures = drawn(3, 7, 5, n=500)
    np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), np.broadcast_to(np.eye(5), turns.shape), atol=1e-12)
    assert np.abs(turns.mean(0)).max() < 5 / np.sqrt(5 * 500)  # entries have variance 1 / d_head
    assert mixtures.shape == (500, 3, 6)


def test_the_score_and_its_parts_are_means_of_the_patterns(model):
    rows = tiny_tokens(3, 25).tolist()
    found = attention_sink(model, prompts=rows, length=23, min_rows=5, n_null_draws=79)
    pattern = torch.stack(
        [run(model, torch.tensor(rows)[:, :23], capture=[f"pattern.{layer}"])[f"pattern.{layer}"] for layer in range(3)]
    )
    pattern = pattern.double().numpy()
    seen = [visible_keys(unpadded(3, 23), window=window).numpy() for window in model.facts.sliding_windows]
    np.testing.assert_allclose(found.scores.values, pattern[..., 0].mean((1, 3)), atol=1e-5)
    np.testing.assert_allclose(found.extra_scores["sink_mass"].values, pattern[..., 11:, :4].sum(-1).mean((1, 3)), atol=1e-5)
    rows_of_keys = [(pattern * visible).sum(-2) / visible.sum(-2) for pattern, visible in zip(pattern, seen, strict=True)]
    columns = np.stack(rows_of_keys)[..., :19]  # the last that 5 rows follow is 18
    assert found.extra_scores["max_later_column"].values == pytest.approx(columns[..., 1:].max(-1).mean(1), abs=1e-5)
    assert found.details["length"] == 23 and found.details["text"] == "given"
    assert found.details["uniform"] == pytest.approx(sum(1 / n for n in range(1, 24)) / 23)
    assert found.details["sink_0"]["given"] == pytest.approx((pattern[..., 0].mean(-1) > 0.3).mean())
    for rule, limit in {"ratio": 5 / 23, "abs": 0.1}.items():
        table = found.tables["later_sinks"]
        table = table[table["rule"] == rule]
        want = {(layer, head, text, key) for layer, text, head, key in np.argwhere(columns > limit).tolist() if key}
        assert set(table[["layer", "head", "example", "pos"]].itertuples(index=False, name=None)) == want


# -- planted models -----------------------------------------------------------------------------------------------------------


def check_planted_sinks(seed, n_kv_heads, sharpness):
    """Both kinds of sink by rank, and where the later sink is, on texts with one delimiter."""
    planted = planted_sinks(seed, n_kv_heads, sharpness)
    rows, places = texts_with_one_delimiter(planted, seed=seed)
    found = attention_sink(planted.model, prompts=rows, seed=seed)
    assert found.top(1) == planted.heads("first_token_sink"), (seed, sharpness)
    hidden = planted.heads("hidden_sink")
    assert found.extra_scores["max_later_column"].top(1, by="highest") == hidden, (seed, sharpness)
    columns = found.tables["later_sinks"].query("layer == @hidden[0].layer and head == @hidden[0].head and rule == 'ratio'")
    assert columns[["example", "pos"]].to_numpy().tolist() == [[text, at] for text, at in enumerate(places)], (seed, sharpness)


@HOSTS
@pytest.mark.parametrize("sharpness", BETAS)
def test_planted_sinks_are_found_by_rank_at_every_sharpness(n_kv_heads, sharpness):
    for seed in range(2):
        check_planted_sinks(seed, n_kv_heads, sharpness)


@pytest.mark.survey
@HOSTS
@pytest.mark.parametrize("sharpness", BETAS)
def test_planted_sinks_are_found_by_rank_at_every_sharpness_in_100_models(n_kv_heads, sharpness):
    for seed in range(100):
        check_planted_sinks(seed, n_kv_heads, sharpness)


@HOSTS
@pytest.mark.parametrize("sharpness", [30.0, 8.0])
def test_planted_first_token_sinks_have_the_importance_of_their_closed_form(n_kv_heads, sharpness):
    for seed in range(2):
        planted = planted_sinks(seed, n_kv_heads, sharpness)
        found = attention_sink(planted.model, seed=seed)
        assert found.details["text"] == "random" and found.details["length"] == 21 and found.details["first_tokens"] == ["<s>"]
        want = np.mean([1 / (1 + i * exp(-sharpness)) for i in range(21)])
        [head], [uniform] = planted.heads("first_token_sink"), planted.heads("uniform")
        assert found.scores[head] == pytest.approx(want, abs=1e-5)
        assert found.scores[uniform] == pytest.approx(found.details["uniform"], abs=1e-5)
        assert found.scores[head] > found.threshold[head] and found.scores[uniform] <= found.threshold[uniform]


@HOSTS
def test_the_massive_activation_is_one_cell_and_its_token_the_later_sink(n_kv_heads):
    for seed in range(2):
        planted = planted_sinks(seed, n_kv_heads)
        rows, places = texts_with_one_delimiter(planted, seed=seed)
        found, sign = attention_sink(planted.model, prompts=rows), planted.massive
        assert found.details["onset_layer"] == sign.layer
        table = found.tables["massive_activations"]
        cells = [[layer, text, at, sign.dimension] for layer in range(sign.layer, 5) for text, at in enumerate(places)]
        assert table[["layer", "example", "pos", "dimension"]].to_numpy().tolist() == cells
        assert set(table["token"]) == {"DELIMITER"}
        assert table["value"].to_numpy() == pytest.approx(sign.value, rel=1e-5)
        [hidden] = planted.heads("hidden_sink")
        both = found.tables["overlap"].set_index("layer").loc[hidden.layer]
        assert both["massive"] == both["both"] == len(rows)  # each delimiter is massive, and a sink
        assert both["correlation"] > 0.6


def test_a_head_with_nothing_to_match_rests_on_the_first_token():
    """An induction head is found on random text, and not where every token has an earlier copy for most of the rows."""
    planted = planted_sinks(2, roles="repeats", length=32, n_fillers=40)
    [induction], [sink] = planted.heads("induction"), planted.heads("first_token_sink")
    rng = np.random.default_rng(0)
    distinct = [[0, *rng.permutation(np.arange(6, 53))[:31].tolist()] for _ in range(6)]
    repeated = [[0, *(rng.permutation(np.arange(6, 53))[:3].tolist() * 11)[:31]] for _ in range(6)]
    resting, busy = (attention_sink(planted.model, prompts=rows) for rows in (distinct, repeated))
    assert resting.scores[induction] > 0.999 and induction in resting.detected
    assert busy.scores[induction] == pytest.approx(4 / 32, abs=0.01) and induction not in busy.detected
    assert resting.top(1) == busy.top(1) == [sink]


# -- untrained models ---------------------------------------------------------------------------------------------------------


def untrained(name, seed, sharp):
    """A model as its authors initialise it, or (``sharp``) with weights ten times as large, whose attention is peaked."""
    if sharp:
        return wrap_model(tiny_hf(name, seed=seed), name=name)
    torch.manual_seed(seed)
    return wrap_model(transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()), name=name)


def check_untrained(name, sharp, bos):
    """50 models: at most the stated share of them, with three standard deviations of chance, has a head above the threshold."""
    found = [attention_sink(untrained(name, seed, sharp), length=24, n_prompts=8, bos=bos, seed=seed) for seed in range(50)]
    rate = found[0].fwer
    assert rate == pytest.approx(0.04)
    assert np.mean([bool(f.detected) for f in found]) <= rate + 3 * np.sqrt(rate * (1 - rate) / len(found))
    assert np.mean([len(f.detected) / f.scores.values.size for f in found]) <= rate


def test_untrained_models_have_no_sinks_beyond_the_stated_rate():
    check_untrained("gpt2", True, True)


@pytest.mark.survey
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("sharp", [True, False])
@pytest.mark.parametrize("name", TINY)
def test_untrained_models_of_every_architecture_have_no_sinks_beyond_the_stated_rate(name, sharp, bos):
    check_untrained(name, sharp, bos)


# -- a trained model, texts, and what cannot be measured ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mini():
    return load_model("interp-mini")


def test_the_embedded_model_rests_on_bos_in_few_heads_and_on_a_later_sign(mini):
    """`#` begins some of its training texts, and acts as a second start in L2H0 wherever it stands (its model card)."""
    found = detect(mini, "attention_sink", n_prompts=12)
    assert found.details["text"] == "task" and found.details["length"] == 64 and found.details["first_tokens"] == ["<bos>"]
    assert found.top(1) == [Head(2, 0)] == found.detected[:1]
    assert found.details["onset_layer"] is None and found.tables["massive_activations"].empty
    [sign] = mini.to_tokens_without_special("#")
    rows = np.array([mini.to_tokens(prompt.clean)[:64] for prompt in write_prompts("needle", mini, 12, n_filler=16)])
    rows[:, 20] = sign
    with_sign = attention_sink(mini, prompts=rows.tolist())
    columns = with_sign.tables["later_sinks"].query("pos == 20 and rule == 'abs'")
    texts = columns.groupby(["layer", "head"]).size().sort_values(ascending=False)
    assert texts.index[0] == (2, 0) and texts.iloc[0] > 6 and set(columns["token"]) == {"#"}
    assert with_sign.scores[2, 0] < found.scores[2, 0]


def test_kinds_of_text(mini):
    random, repeated = (sink_texts(mini, kind, 5, 17, None, 3) for kind in ("random", "repeated"))
    assert (random[:, 0] == mini.facts.bos_token_id).all() and random.shape == repeated.shape == (5, 17)
    assert (repeated == repeated[:, :1]).all() and len(set(repeated[:, 0].tolist())) > 1
    assert not set(random[:, 1:].ravel().tolist()) & set(mini.tokenizer.all_special_ids)
    assert (sink_texts(mini, "random", 5, 17, False, 3)[:, :16] == random[:, 1:]).all()
    words = sink_texts(mini, "task", 5, 40, None, 3)
    assert words.shape == (5, 40) and len({tuple(row) for row in words.tolist()}) == 5
    assert not knows_sentences(tiny("llama")) and knows_sentences(mini)


def test_controls_are_measured_beside_the_text(mini):
    seen = []
    found = attention_sink(mini, text="random", n_prompts=5, length=20, progress=lambda done, total: seen.append((done, total)))
    assert set(found.extra_scores) == {"repeated", "sink_mass", "max_later_column"} and seen == [(1, 2), (2, 2)]
    again = attention_sink(mini, text="repeated", n_prompts=5, length=20)
    np.testing.assert_allclose(again.scores.values, found.extra_scores["repeated"].values, atol=1e-6)
    np.testing.assert_allclose(again.extra_scores["random"].values, found.scores.values, atol=1e-6)
    assert found.prompts.isdisjoint(again.prompts) and len(found.prompts) == 5


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("length=65 exceeds the context of tiny-gpt2, 64 tokens", {"length": 65}),
        ("Texts of 9 tokens are too short for min_rows=8", {"length": 9}),
        ("Prompt 1 has 12 tokens, fewer than length=13", {"prompts": [[5] * 14, [6] * 12], "length": 13}),
        ("text='prose' is unknown. There are: task, random, repeated", {"text": "prose"}),
        ("needs at least", {"text": "task"}),
        ("n_prompts=0 is too few: use at least 1", {"n_prompts": 0}),
        ("fwer=0.05 needs at least 79 null draws, and n_null_draws=20", {"n_null_draws": 20}),
    ],
)
def test_what_cannot_be_measured_is_answered_in_one_sentence(sentence, options):
    with pytest.raises(ValueError, match=sentence):
        attention_sink(tiny("gpt2"), **options)


def test_encoders_and_missing_start_tokens_are_refused():
    for name in ("bert", "vit"):
        with pytest.raises(ValueError, match="An attention sink at the first token needs a causal language model"):
            attention_sink(tiny(name))
    hf = tiny_hf("gpt2")
    hf.config.bos_token_id = None
    with pytest.raises(ValueError, match="bos=True, but bare has no BOS token"):
        attention_sink(wrap_model(hf, name="bare"), text="random", bos=True)
