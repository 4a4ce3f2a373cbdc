"""Query-focused retrieval, write-aware retrieval and streaming substitution: each by two roads, on planted heads, and on nothing."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
import transformers as T

from interp import interventions
from interp.detectors import detect
from interp.detectors.query_retrieval import passage_sum
from interp.detectors.support.gold_and_competing_passages import passage_prompts, passage_swap_threshold
from interp.detectors.support.null_threshold import null_threshold
from interp.detectors.write_retrieval import COLUMNS, _directions, contrast
from interp.engine import run
from interp.engine.forward.run import pattern_is_writable
from interp.engine.sweep.sweep import sweep
from interp.heads import Head
from interp.interventions import InterventionContext
from interp.metrics import check_task
from interp.metrics.outcomes import OUTCOMES
from interp.models import load_model, plant, wrap_model
from interp.models.value_and_output_weights import output_weights
from interp.tasks import make_task
from interp.tasks.task import Example, Task
from tests.support.tiny_models import D_VOCAB, tiny, tiny_tokenizer

HOSTS = pytest.mark.parametrize("n_kv_heads", [None, 2], ids=["gpt2", "llama"])
ROLES = ("query_retrieval", "write_retrieval", "far_context")
LENGTH, PLACES = 24, (1, 6, 11, 16)


def passages(n: int, *, seed: int = 0, d_vocab: int = D_VOCAB, uneven: bool = True) -> Task:
    """Random tokens with two passages ``4 NAME 5 WORD`` at two of PLACES, and the question ``6 NAME 7``; 24 or, if uneven, 26 tokens."""
    rng, examples = np.random.default_rng(seed), []
    for i in range(n):
        name, other, word, foil, *filler = rng.choice(np.arange(8, d_vocab), LENGTH + 1, replace=False).tolist()
        more = filler[:2] if uneven and i % 3 == 0 else []
        start, away = rng.choice(PLACES, 2, replace=False).tolist()

        def text(first, second, start=start, away=away, name=name, word=word, foil=foil, more=more, filler=filler):
            ids = [1, *filler[:20], *more, 6, name, 7]
            ids[start : start + 4], ids[away : away + 4] = [4, first, 5, word], [4, second, 5, foil]
            return tuple(ids)

        end = LENGTH + len(more)
        marks = {"needle": (start, start + 4), "question": (end - 3, end), "query": (end - 2, end - 1)}
        examples.append(Example(text(name, other), text(other, name), (word,), (foil,), marks))
    return Task("passages", tuple(examples), "logit_diff")


def competing(example: Example) -> tuple[int, int]:
    at = max(i for i, token in enumerate(example.clean) if token == example.distractors[0])
    return at - 3, at + 1


def planted_task(planted, kind="needle", n_prompts=24, seed=0):
    return Task(kind, tuple(Example(*prompt) for prompt in planted.prompts(kind, n_prompts, seed)), "logit_diff")


def captured(model, example, *sites):
    """Activations of one prompt, site by site: [n_layers ...]."""
    names = [f"{site}.{layer}" for site in sites for layer in range(model.facts.n_layers)]
    found = run(model, [example], capture=names)
    return [torch.stack([found[f"{site}.{layer}"][0] for layer in range(model.facts.n_layers)]).double() for site in sites]


# -- the numbers, by hand -----------------------------------------------------------------------------------------------------


def test_a_token_far_below_its_passage_is_an_outlier():
    scores = np.array([[0.1] * 9 + [-1.0], [0.1] * 10, [0.1] * 5 + [-0.1] * 5])
    assert passage_sum(scores, True).tolist() == pytest.approx([0.9, 1.0, 0.0])
    assert passage_sum(scores, False).tolist() == pytest.approx([-0.1, 1.0, 0.0])
    assert passage_sum(np.array([[-0.3]]), True).tolist() == [-0.3]


def test_a_contrast_counts_other_keys_as_if_they_were_as_many():
    phi = torch.tensor([[[0.4, 0.3, 0.2, 0.1, 9.0]]])
    seen = torch.tensor([[[True, True, True, True, False]]])
    inside = torch.tensor([[[True, True, False, False, False]], [[False, False, True, False, False]]])
    found = contrast((phi * seen).expand(2, 1, 5), inside & seen, seen.expand(2, 1, 5))
    assert found.ravel().tolist() == pytest.approx([0.7 - 2 / 2 * 0.3, 0.2 - 1 / 3 * 0.8])


def test_streaming_keeps_first_and_recent_weights_and_makes_them_sum_to_one():
    context = InterventionContext(
        Head(0, 0),
        torch.tensor([0]),
        torch.tensor([[2, 3]]),
        torch.ones(1, 2, 4, dtype=torch.bool).tril(2),
        torch.arange(4)[None],
    )
    x = torch.tensor([[[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4]]])
    cut = interventions.streaming([Head(0, 0)], 1, 1)
    assert cut.apply(x, context)[0].tolist() == [pytest.approx(row) for row in ([2 / 3, 0, 1 / 3, 0], [0.2, 0, 0, 0.8])]
    assert cut.at(0.5).apply(x, context)[0, 1].tolist() == pytest.approx([0.15, 0.1, 0.15, 0.6])
    empty = torch.tensor([[[0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]])
    assert cut.apply(empty, context)[0].tolist() == [pytest.approx(row) for row in ([0.5, 0, 0.5, 0], [0.5, 0, 0, 0.5])]
    assert torch.equal(interventions.streaming([Head(0, 0)], 1, 3).apply(x, context), x)
    with pytest.raises(ValueError, match="n_sink=4, n_recent=0: a streaming head keeps at least"):
        interventions.streaming([Head(0, 0)], 4, 0)


def test_swapping_finds_weak_heads_beside_strong_ones_and_others_at_the_stated_rate():
    by_chance = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        wrong, right = rng.normal(size=(2, 40, 3, 5))
        right[:, 1, 2] += 50
        right[:, 2, 4] += 3
        threshold, rate = passage_swap_threshold(right, wrong, 99, 0.05, seed)
        found = right.mean(0) > threshold
        assert found[1, 2] and found[2, 4] and rate == 0.05
        by_chance += found.sum() > 2
    assert 1 <= by_chance <= 200 * (0.05 + 3 * np.sqrt(0.05 * 0.95 / 200))
    same, _ = passage_swap_threshold(right, right, 99, 0.05, 1)
    assert not (right.mean(0) > same).any()
    everywhere, _ = passage_swap_threshold(wrong + 9, wrong, 99, 0.05, 1)
    assert (wrong.mean(0) + 9 > everywhere).all()


def test_a_head_whose_null_varies_widely_does_not_hide_the_others():
    """One head in a hundred scores as much under the null as the planted ones do; one hardly varies, and is not found for that."""
    spread = np.linspace(0.01, 0.02, 108).reshape(9, 12)
    spread[4, 7], spread[8, 1] = 3.0, 1e-12
    by_chance = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(100, 9, 12)) * spread
        scores[0, 8, 1] = 1e-3  # 10^9 of its standard deviations, and 1/15 of another head's
        assert not scores[0, 8, 1] > null_threshold(scores[0], scores[1:])[0][8, 1]
        by_chance += bool((scores[0] > null_threshold(scores[0], scores[1:])[0]).any())
        scores[0, 2, 3] = 0.4
        threshold, rate, mean = null_threshold(scores[0], scores[1:])
        assert scores[0, 2, 3] > threshold[2, 3] and rate == 0.05 and np.allclose(mean, scores[1:].mean(0))
    assert 1 <= by_chance <= 200 * (0.05 + 3 * np.sqrt(0.05 * 0.95 / 200))


def test_the_threshold_is_the_score_at_which_a_head_would_be_detected():
    """Two heads and three draws, by hand; a score at the threshold is as far out, in its own units, as the largest of the draws."""
    observed, draws = np.array([[1.0, 4.0]]), np.array([[[0.0, 0.0]], [[1.0, 4.0]], [[2.0, 0.0]]])
    deviation = np.array([np.sqrt(0.5), 2])  # of 1, 0, 1, 2 around 1, and of 4, 0, 4, 0 around 2
    typical = deviation.mean()
    largest = 2 / (2 + typical)  # of the draws: 4 is 2 above the mean of head 1, and 2 is 1 above that of head 0
    assert largest > 1 / (deviation[0] + typical)
    threshold, rate, mean = null_threshold(observed, draws, 0.25)
    assert rate == 0.25 and mean.tolist() == [[1, pytest.approx(4 / 3)]]
    assert threshold[0, 1] == pytest.approx(4)  # the draw itself
    at = np.array([threshold[0, 0], 0, 1, 2])
    assert (at[0] - at.mean()) / (at.std() + typical) == pytest.approx(largest)


@pytest.mark.parametrize("n_draws", [19, 99])
def test_heads_above_their_thresholds_are_those_whose_standardised_score_is_beyond_the_draws(n_draws):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores = rng.exponential(size=(n_draws + 1, 7, 5)) ** 2 * rng.exponential(size=(7, 5))
        scores[0, 2, 1:3] *= 30
        scores[:, 3, 3] = np.nan
        threshold, _, _ = null_threshold(scores[0], scores[1:])
        deviation = scores.std(0)
        standardised = (scores - scores.mean(0)) / (deviation + np.nanmedian(deviation))
        others = scores[0] <= threshold
        others[3, 3] = False
        largest = np.sort(standardised[1:, others].max(1))[::-1][(n_draws + 1) // 20 - 1]
        assert np.array_equal(scores[0] > threshold, standardised[0] > largest)


# -- two roads ----------------------------------------------------------------------------------------------------------------


def test_query_retrieval_is_the_patterns_formula(model):
    task = passages(5, seed=3)
    null = model.to_tokens_without_special("N/A")
    assert null == [3, 3, 3]

    def outliers_out(x):  # by the words of the definition, token by token
        low = x.mean(-1) - 2 * x.std(-1)
        return torch.stack([torch.where(x[..., i] < low, 0, x[..., i]) for i in range(x.shape[-1])], -1).sum(-1)

    found = {"gold": 0, "competing": 0, "uncalibrated": 0}
    for example in task:
        [pattern] = captured(model, example, "pattern")
        at, end = example.marks["query"]
        tokens = (*example.clean[:at], *null, *example.clean[end:])
        [empty] = captured(model, Example(tokens, tokens, (8,), ()), "pattern")
        first = example.marks["question"][0]
        asking, asking_nothing = (p[:, :, first:, :first].mean(2) for p in (pattern, empty))
        spans = {"gold": example.marks["needle"], "competing": competing(example)}
        for name, (start, stop) in spans.items():
            found[name] += outliers_out((asking - asking_nothing)[..., start:stop]) / 5
        found["uncalibrated"] += asking[..., slice(*spans["gold"])].sum(-1) / 5
    detection = detect(model, "query_retrieval", task=task)
    for name, given in (
        ("gold", detection.scores),
        ("competing", detection.control),
        ("uncalibrated", detection.extra_scores["uncalibrated"]),
    ):
        np.testing.assert_allclose(given.values, found[name].numpy(), atol=1e-5)
    bare = detect(model, "query_retrieval", task=task, calibrate=False, mask_outliers=False)
    assert (
        np.array_equal(bare.scores.values, detection.extra_scores["uncalibrated"].values) and bare.details["null_tokens"] == []
    )


def test_write_retrieval_is_the_formula_on_whole_patterns_and_values(model):
    task = passages(4, seed=5)
    facts = model.facts
    found = dict.fromkeys(COLUMNS, 0)
    unembed = model.layout.unembed.weight.detach().double()
    for example in task:
        pattern, value, z = captured(model, example, "pattern", "v", "z")
        value = value.repeat_interleave(facts.n_heads // value.shape[2], 2) if value.dim() == 4 else value
        w_o = torch.stack([output_weights(model, layer).detach().double() for layer in range(3)])
        length = len(example.clean)
        for name, span, word in (
            ("gold", example.marks["needle"], example.answers[0]),
            ("competing", competing(example), example.distractors[0]),
        ):
            phi = pattern[:, :, -1] * torch.einsum("lkhd,lhdm,m->lhk", value, w_o, unembed[word])
            found[name] += by_words(phi, span, pattern) / 4
        found["attention_on_needle"] += by_words(pattern[:, :, -1], example.marks["needle"], pattern) / 4
        found["logit_attribution"] += torch.einsum("lhd,lhdm,m->lh", z[:, -1], w_o, unembed[example.answers[0]]) / 4
        assert z.shape[1] == length
    detection = detect(model, "write_retrieval", task=task)
    given = {"gold": detection.scores, "competing": detection.control, **detection.extra_scores}
    for name in COLUMNS:
        size = float(found[name].abs().max())
        np.testing.assert_allclose(given[name].values, found[name].numpy(), atol=2e-5 * max(size, 1))


def by_words(phi, span, pattern):
    """L+ - L-, key by key; keys that a window hides are not there."""
    total = torch.zeros(phi.shape[:2], dtype=torch.float64)
    for layer in range(len(phi)):
        seen = [key for key in range(phi.shape[-1]) if pattern[layer, :, -1, key].sum() > 0]
        own = [key for key in seen if span[0] <= key < span[1]]
        other = [key for key in seen if key not in own]
        total[layer] = phi[layer][:, own].sum(-1) - len(own) / len(other) * phi[layer][:, other].sum(-1)
    return total


def test_directions_before_the_norm_give_the_models_own_logits(model):
    examples = [e for e in passages(5, seed=7) if len(e.clean) == LENGTH]
    last = model.facts.n_layers - 1
    found = run(model, examples, capture=[f"resid_post.{last}"])
    x = found[f"resid_post.{last}"][:, -1].double()
    directions = _directions(model, examples, True).double()
    words = torch.tensor([[e.answers[0], e.distractors[0]] for e in examples])
    logits = torch.einsum("bkd,bd->bk", directions, x)
    unembed, bias = model.layout.unembed, getattr(model.layout.final_norm, "bias", None)
    logits += 0 if bias is None else unembed.weight[words].double() @ bias.double()
    logits += 0 if unembed.bias is None else unembed.bias[words].double()
    cap = getattr(model.hf.config, "final_logit_softcapping", None)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    wanted = found.logits[:, -1].gather(1, words).double()
    torch.testing.assert_close(logits, wanted, atol=1e-3, rtol=1e-3)


def test_streaming_is_the_kl_of_one_changed_pass_and_groups_are_cut_together(llama):
    task, window = passages(12, seed=2), 12
    found = detect(llama, "far_context", task=task, n_recent=window, n_sink=1, by_kv_group=True, min_score=0.0)
    alone = detect(llama, "far_context", task=task, n_recent=window, n_sink=1)
    assert found.details["n_examples"] + found.details["n_skipped"] == 12 and found.details["n_examples"] > 3
    far, near = [], []
    for example in task:
        start, spans = len(example.clean) - window, (example.marks["needle"], competing(example))
        sides = [1 if a >= start else -1 if b <= start else 0 for a, b in spans]
        twin = Example(example.corrupted, example.clean, (8,), ())
        if sorted(sides) == [-1, 1]:
            far.append(example if sides[0] < 0 else twin)
            near.append(twin if sides[0] < 0 else example)
    assert len(far) == found.details["n_examples"]

    def kl(examples, heads):
        values = []
        for example in examples:
            clean, cut = (
                run(llama, [example], intervene=some).logits[0, -1].double().log_softmax(-1)
                for some in ((), [interventions.streaming(heads, 1, window)])
            )
            values.append(float((clean.exp() * (clean - cut)).sum()))
        return np.mean(values)

    for layer, group in ((0, 1), (2, 0)):
        heads = [Head(layer, 3 * group + i) for i in range(3)]
        assert [found.scores[head] for head in heads] == pytest.approx([kl(far, heads)] * 3, rel=1e-3, abs=1e-6)
        assert found.control[heads[0]] == pytest.approx(kl(near, heads), rel=1e-3, abs=1e-6)
        assert alone.scores[heads[1]] == pytest.approx(kl(far, heads[1:2]), rel=1e-3, abs=1e-6)
    assert not np.allclose(found.scores.values, alone.scores.values, rtol=0.01)


def test_a_streaming_head_writes_what_its_cut_pattern_says(model):
    [example] = passages(1, seed=4)
    head = Head(1, 3)
    cut = interventions.streaming([head], 2, 3)
    found = run(model, [example], capture=["v.1", "z.1"], intervene=[cut])
    clean = run(model, [example], capture=["pattern.1"])["pattern.1"][0, head.head].double()
    context = torch.arange(len(example.clean))
    kept = clean * ((context < 2) | (context[:, None] - context < 3))
    value = found["v.1"][0]
    value = value[:, head.head * value.shape[1] // model.facts.n_heads].double()
    wanted = kept / kept.sum(-1, keepdim=True) @ value
    torch.testing.assert_close(found["z.1"][0, :, head.head].double(), wanted, atol=1e-4, rtol=1e-4)


def test_a_window_that_holds_the_whole_text_changes_nothing_bit_for_bit(model):
    task = passages(3, seed=6)
    whole = interventions.streaming([Head(0, 1), Head(0, 4)], 0, 26)
    changed, clean = (run(model, task.examples[1:], intervene=some).logits for some in ([whole], []))
    torch.testing.assert_close(changed, clean)
    assert torch.equal(changed, clean) or not pattern_is_writable(
        model, 0
    )  # else the engine's attention is in the place of another
    record = detect(model, "query_retrieval", task=task).record
    assert not sweep(model, task, [(whole,)], OUTCOMES.get("kl"), record=record).values.max() > 1e-6


# -- planted heads ------------------------------------------------------------------------------------------------------------


def small(roles, seed, n_kv_heads=None, **options):
    return plant(
        roles, seed=seed, n_kv_heads=n_kv_heads, **({"n_layers": 5, "n_heads": 4, "length": 21, "n_names": 7} | options)
    )


@HOSTS
@pytest.mark.parametrize("sharpness", [30.0, 6.0])
def test_the_planted_retrieval_head_alone_is_found(n_kv_heads, sharpness):
    for seed in range(2):
        planted = small("needle", seed, n_kv_heads, sharpness=sharpness, gain=3.0)
        task, heads = planted_task(planted, n_prompts=32, seed=seed), planted.heads("retrieval")
        asking = detect(planted.model, "query_retrieval", task=task, question="end")
        writing = detect(planted.model, "write_retrieval", task=task)
        cutting = detect(planted.model, "far_context", task=task, question="end", n_sink=1, n_recent=7)
        assert writing.detected == cutting.detected == heads
        # to heads of noise the passage that MARK precedes is not quite like the others
        assert asking.detected[0] == heads[0] and all(asking.scores[other] < 0.1 for other in asking.detected[1:])
        [reader] = planted.heads("anchor_reader")
        assert asking.scores[reader] < 0 and writing.scores[reader] < 0
        if sharpness == 30:
            assert asking.scores[heads[0]] == pytest.approx(1, abs=1e-4)
            assert writing.scores[heads[0]] == pytest.approx(3, abs=1e-3)
            # the reader writes the answer's logit of 3 from the delimiter, one of the 13 keys beside the needle
            assert writing.scores[reader] == pytest.approx(-3 / 13, abs=1e-3)
            assert writing.extra_scores["logit_attribution"][reader] == pytest.approx(3, abs=1e-3)


def test_cutting_the_planted_retrieval_head_costs_what_its_logit_is_worth():
    planted = small("needle", 5, gain=2.0)
    found = detect(planted.model, "far_context", task=planted_task(planted, n_prompts=9), question="end", n_sink=1, n_recent=7)
    [head] = planted.heads("retrieval")
    others = len(planted.vocabulary) - 1

    def answer(logit):
        return np.exp(logit) / (np.exp(logit) + others)

    p, q = answer(4.0), answer(2.0)  # the anchor's 2 stay
    want = p * log(p / q) + (1 - p) * log((1 - p) / (1 - q))
    assert found.scores[head] == pytest.approx(want, abs=1e-4) and found.control[head] == pytest.approx(0, abs=1e-6)
    rest = [other for other in planted.model.facts.heads() if other != head]
    assert max(found.scores[other] for other in rest) < 1e-6


@HOSTS
def test_a_decoy_looks_at_the_needle_and_writes_nothing_of_it(n_kv_heads):
    planted = small("repeats", 4, n_kv_heads)
    task = planted_task(planted, "repeats", 16)
    [head], [decoy] = planted.heads("induction"), planted.heads("decoy_induction")
    writing = detect(planted.model, "write_retrieval", task=task, gold="first_next")
    asking = detect(planted.model, "query_retrieval", task=task, gold="first_next", question="end")
    looks = writing.extra_scores["attention_on_needle"]
    assert looks[head] == pytest.approx(1, abs=1e-3) and looks[decoy] == pytest.approx(1, abs=1e-3)
    assert {*asking.detected[:2]} == {head, decoy} and all(asking.scores[other] < 0.05 for other in asking.detected[2:])
    assert writing.detected == [head] and writing.scores[head] == pytest.approx(10, abs=1e-2)
    assert writing.scores[decoy] == pytest.approx(0, abs=1e-4)


def test_the_scale_of_a_norm_that_does_nothing_is_one():
    planted = small("needle", 2)
    task = planted_task(planted, n_prompts=6)
    raw, folded = (detect(planted.model, "write_retrieval", task=task, fold_norm=fold) for fold in (False, True))
    np.testing.assert_allclose(folded.scores.values, raw.scores.values, atol=1e-3)
    assert (raw.scores.unit, folded.scores.unit) == ("logits before the final norm", "logits")


# -- models without the role --------------------------------------------------------------------------------------------------


def untrained(seed: int):
    """A freshly initialised GPT-2 of 3 layers x 5 heads or, for odd seeds, Llama of 3 layers x 6 heads in 2 groups."""
    torch.manual_seed(seed)
    if seed % 2:
        config = T.LlamaConfig(
            vocab_size=997, hidden_size=60, intermediate_size=56, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=32,
        )  # fmt: skip
        return wrap_model(T.LlamaForCausalLM(config).eval(), tiny_tokenizer(), name="untrained")
    config = T.GPT2Config(vocab_size=997, n_positions=32, n_embd=40, n_layer=3, n_head=5, bos_token_id=1, eos_token_id=2)
    return wrap_model(T.GPT2LMHeadModel(config).eval(), tiny_tokenizer(), name="untrained")


@pytest.mark.slow
def test_untrained_models_have_no_such_heads_beyond_the_stated_rate():
    shares = {role: [] for role in ROLES}
    for seed in range(50):
        model, task = untrained(seed), passages(20, seed=seed, d_vocab=997, uneven=False)
        for role in ROLES:
            options = {"n_sink": 1, "n_recent": 12, "min_score": 0.0} if role == "far_context" else {}
            found = detect(model, role, task=task, seed=seed, **options)
            assert found.fwer == 0.05
            shares[role].append(len(found.detected) / found.scores.values.size)
    bound = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 50)
    for role, found in shares.items():
        assert np.mean(found) <= 0.05, (role, np.mean(found))
        assert np.mean(np.array(found) > 0) <= bound, (role, np.mean(np.array(found) > 0))


# -- the embedded model -------------------------------------------------------------------------------------------------------


def test_the_embedded_models_retrieval_heads_have_all_three_names():
    model, steps = load_model("interp-mini"), []
    found = {role: detect(model, role, n_prompts=24, progress=lambda *at: steps.append(at)) for role in ROLES}
    assert {role: one.top(2) for role, one in found.items()} == {role: [Head(1, 3), Head(1, 2)] for role in ROLES}
    assert all(done <= total for done, total in steps) and {done for done, total in steps if done == total}
    depths = found["query_retrieval"].tables["depths"]
    assert list(depths.columns) == ["layer", "head", "depth", "score", "n"]
    own = depths[(depths["layer"] == 1) & (depths["head"] == 3)]
    assert own["n"].sum() == 24 and own["depth"].between(0, 100).all() and own["depth"].max() > 1
    assert (own["score"] * own["n"]).sum() / 24 == pytest.approx(found["query_retrieval"].scores[1, 3])


def test_the_competing_passage_is_a_sentence_of_the_same_form():
    model = load_model("interp-mini")
    task = make_task("needle", model, 20, seed=3)
    found = passage_prompts(model, "query_retrieval", task, 0, "needle", "question", 0)
    for example, gold, other in zip(task, found.gold, found.competing, strict=True):
        own, foil = (model.to_str_tokens(example.clean[slice(*span)]) for span in (gold, other))
        differing = [pair for pair in zip(own, foil, strict=True) if pair[0] != pair[1]]
        words = tuple(model.to_str_tokens([example.answers[0], example.distractors[0]]))
        assert len(differing) == 2 and words in differing


# -- what cannot be done ------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_in_one_sentence(llama):
    task = passages(4)
    with pytest.raises(ValueError, match="The detector of far_context needs a causal language model"):
        detect(tiny("bert"), "far_context", task=task)
    for role in ROLES:
        with pytest.raises(ValueError, match=f"{role} needs prompts with the mark 'value'.* has needle, query, question"):
            detect(llama, role, task=task, gold="value")
    with pytest.raises(ValueError, match="needs prompts with the mark 'asked'"):
        detect(llama, "query_retrieval", task=task, question="asked")
    with pytest.raises(ValueError, match="example 0 has no second passage like 'query'"):
        detect(llama, "write_retrieval", task=task, gold="query")
    examples = [Example(e.clean, e.corrupted, e.answers, e.distractors, {**e.marks, "competing": (22, 24)}) for e in task]
    with pytest.raises(ValueError, match="example 0: a passage ends after the question begins at 23"):
        detect(llama, "query_retrieval", task=Task("late", tuple(examples), "logit_diff"))
    with pytest.raises(ValueError, match="No prompt of task 'passages' has one passage outside its first 4 and last 24 tokens"):
        detect(llama, "far_context", task=task, n_recent=24)
    one_sided = Task(
        "one", tuple(Example(e.clean, e.clean, e.answers, e.distractors, e.marks) for e in passages(9)), "logit_diff"
    )
    with pytest.raises(ValueError, match="with a corrupted prompt that asks for the latter"):
        detect(llama, "far_context", task=one_sided, n_sink=1, n_recent=12)
    with pytest.raises(LookupError, match="has no option 'n_sinks'"):
        detect(llama, "far_context", n_sinks=3)


def test_the_record_of_far_context_says_how_the_model_does_the_prompts_as_they_are():
    model = load_model("interp-mini")
    task = make_task("needle", model, n_prompts=12, seed=2)
    found = detect(model, "far_context", task=task, n_null_draws=19).record.performance
    right = check_task(model, task).performance
    assert found is not None
    assert (found.n, found.n_right, found.n_preferred) == (12, right.n_right, right.n_preferred)
    assert right.n_preferred > 8  # prompts that ask for the other passage would be right half as often


@pytest.mark.parametrize("role", ROLES)
def test_answers_of_several_tokens_are_refused_before_anything_is_run(role):
    model = load_model("interp-mini")
    task = make_task("needle", model, n_prompts=4, seed=2)
    ends = [{**e.marks, "end": (len(e.clean) - 1, len(e.clean) + 1)} for e in task]
    several = [
        replace(e, clean=(*e.clean, 7), corrupted=(*e.corrupted, 7), distractors=(), marks=marks)
        for e, marks in zip(task, ends, strict=True)
    ]
    with pytest.raises(ValueError, match="an answer has 2 tokens"):
        detect(model, role, task=replace(task, examples=tuple(several)))


def test_passages_without_distractors_are_read_and_those_that_need_them_refused():
    model = load_model("interp-mini")
    task = make_task("needle", model, n_prompts=6, seed=2)
    marked = [{**example.marks, "competing": example.marks["distractor"]} for example in task]
    alone = replace(
        task, examples=tuple(replace(e, distractors=(), marks=marks) for e, marks in zip(task, marked, strict=True))
    )
    assert detect(model, "query_retrieval", task=alone, n_null_draws=19).record.performance.n == 6
    with pytest.raises(ValueError, match="compares answers with distractors"):
        detect(model, "write_retrieval", task=alone)
