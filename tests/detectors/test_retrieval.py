"""Retrieval heads: golden vectors, planted copiers, models that cannot copy, exact needles, and the embedded model."""

import json
from random import Random

import numpy as np
import pytest
import torch
import transformers as T

import interp.detectors.support.copied_answers as module
from interp.ablation import ablate_heads
from interp.detectors import detect
from interp.detectors.retrieval import retrieval
from interp.detectors.support.copied_answers import is_copy, share_copied
from interp.detectors.support.haystack_texts import Haystack, filler, of_text
from interp.detectors.support.needle_prompts import TEXTS, hide_needles, trials_from_prompts
from interp.detectors.support.null_threshold import prompt_digests
from interp.engine import run
from interp.heads import Head
from interp.models import load_model, plant, wrap_model
from interp.tasks import Example, Task, make_task
from tests.support.tiny_models import tiny, tiny_tokenizer
from tests.support.tokenizer_only_models import bare_model, task_model

SMALL = {"n_layers": 5, "n_heads": 4, "length": 21, "n_names": 7}
HOSTS = pytest.mark.parametrize("n_kv_heads", [None, 2], ids=["gpt2", "llama"])


@pytest.fixture(scope="module")
def mini():
    return load_model("interp-mini")


def untrained(seed, kind="gpt2"):
    """A random model of 3 layers, 5 or 6 heads, 131 words and 96 positions, as its library makes it."""
    torch.manual_seed(seed)
    if kind == "gpt2":
        config = T.GPT2Config(
            vocab_size=131, n_positions=96, n_embd=40, n_layer=3, n_head=5, bos_token_id=1, eos_token_id=2, pad_token_id=0
        )
        return wrap_model(T.GPT2LMHeadModel(config).eval(), name="untrained")
    config = T.LlamaConfig(
        vocab_size=131, hidden_size=60, intermediate_size=56, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        max_position_embeddings=96, initializer_range=0.3,
    )  # fmt: skip
    return wrap_model(T.LlamaForCausalLM(config).eval(), name="untrained")


def planted_prompts(planted, kind, n, seed=0):
    return [Example(*prompt) for prompt in planted.prompts(kind, n, seed)]


# -- the score ------------------------------------------------------------------------------------------------------------------


def test_both_scores_of_the_golden_vector():
    tokens = np.array([1, 10, 11, 50, 51, 52, 53, 50, 12, 13])
    written, argmax_positions = np.array([50, 51, 52, 53, 50]), np.array([[[3, 4, 2, 6, 7], [3, 4, 5, 3, 3]]])
    hits = is_copy(tokens, (3, 8), argmax_positions, written)
    assert hits.tolist() == [[[True, True, False, True, True], [True, True, True, False, True]]]
    assert (hits.sum(-1) / 5).tolist() == [[0.8, 0.8]]
    assert share_copied(hits, argmax_positions, (3, 8)).tolist() == [[0.8, 0.6]]  # the second head hits position 3 twice
    assert len({*written[hits[0, 0]].tolist()}) / len({50, 51, 52, 53}) == 0.75


def test_scores_are_those_of_full_patterns_read_by_hand(mini):
    options = {"n_lengths": 3, "n_depths": 3, "n_needles": 2, "longest": 90, "min_recall": None, "seed": 5}
    found = retrieval(mini, needles="repeats", **options)
    grid = hide_needles(mini, "repeats", "", (64, 90, 3), 3, 2, 5)
    scores = np.zeros((len(grid.trials), 4, 4))
    weights = np.zeros_like(scores)
    for i, trial in enumerate(grid.trials):
        start, end = trial.span
        tokens = [*trial.tokens, *trial.answer]
        kept = run(mini, tokens, capture=[f"pattern.{layer}" for layer in range(4)])
        for layer in range(4):
            rows = kept[f"pattern.{layer}"][0, :, len(trial.tokens) - 1 : -1]
            weights[i, layer] = rows[..., start:end].sum(-1).mean(-1)
            for head in range(4):
                argmax_positions = rows[head].argmax(-1).tolist()
                right = {
                    at
                    for at, token in zip(argmax_positions, trial.answer, strict=True)
                    if start <= at < end and tokens[at] == token
                }
                scores[i, layer, head] = len(right) / len(trial.answer)
    assert found.scores.values == pytest.approx(scores.mean(0), abs=1e-9)
    assert found.extra_scores["frequency"].values == pytest.approx((scores > 0).mean(0))
    assert found.extra_scores["attention"].values == pytest.approx(weights.mean(0), abs=1e-5)
    assert found.prompts == prompt_digests(trial.tokens for trial in grid.trials)
    table = found.tables["depths"]
    row = table[(table.layer == 1) & (table["head"] == 3) & (table.depth == 50)].iloc[0]
    assert row.n == 6 and row.score == pytest.approx(
        np.mean([s[1, 3] for s, t in zip(scores, grid.trials, strict=True) if t.depth == 50])
    )


def test_a_shared_beginning_changes_nothing(mini, monkeypatch):
    options = {"n_lengths": 3, "n_depths": 4, "n_needles": 1, "longest": 110}
    shared = retrieval(mini, **options)
    monkeypatch.setattr(module, "verified_shared_prefix", lambda *given: None)
    whole = retrieval(mini, **options)
    assert shared.details["prefix_shared"] and not whole.details["prefix_shared"]
    assert shared.to_dataframe()["score"].tolist() == whole.to_dataframe()["score"].tolist()
    assert np.array_equal(shared.threshold, whole.threshold)
    assert shared.extra_scores["attention"].values == pytest.approx(whole.extra_scores["attention"].values, abs=1e-5)


# -- planted models -------------------------------------------------------------------------------------------------------------


@HOSTS
@pytest.mark.parametrize("sharpness", [30.0, 3.0])
def test_the_planted_retrieval_head_alone_is_found_and_the_anchor_reader_is_not(n_kv_heads, sharpness):
    for seed in range(2):
        planted = plant("needle", seed=seed, n_kv_heads=n_kv_heads, sharpness=sharpness, **SMALL)
        [head], [reader] = planted.heads("retrieval"), planted.heads("anchor_reader")
        found = retrieval(planted.model, prompts=planted_prompts(planted, "needle", 24, seed), seed=seed)
        assert found.detected == [head] == found.top(1)
        assert found.scores[head] == found.extra_scores["frequency"][head] == 1
        assert found.scores[reader] == 0  # it delivers the answer from another place
        assert found.details["accepted"] == 24
        assert sorted(found.tables["depths"].depth.unique()) == sorted(found.tables["cells"].depth.unique())
        assert len(found.tables["cells"]) == 3


@pytest.mark.survey
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sharpness", [30.0, 8.0, 6.0, 4.0, 3.0])
def test_of_100_seeds_the_planted_retrieval_head_has_the_highest_score(sharpness):
    by_rank = by_threshold = 0
    for seed in range(100):
        planted = plant("needle", seed=seed, n_kv_heads=2 if seed % 2 else None, sharpness=sharpness, **SMALL)
        found = retrieval(planted.model, prompts=planted_prompts(planted, "needle", 12, seed), seed=seed)
        first, second = (found.scores[head] for head in found.top(2))
        by_rank += found.top(1) == planted.heads("retrieval") and first > second
        by_threshold += found.detected == planted.heads("retrieval")
    print(sharpness, "by rank", by_rank, "by threshold", by_threshold)
    assert by_rank == 100


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(100), marks=[pytest.mark.survey, pytest.mark.timeout(1800)])])
def test_the_only_copier_of_a_model_is_its_most_important_head_and_the_only_one_with_a_retrieval_score(seeds):
    copier, others = Head(2, 3), []
    for seed in seeds:
        roles = {Head(0, seed % 4): "previous_token", copier: "induction"}
        kv = 2 if seed % 2 else None
        planted = plant(roles, seed=seed, n_kv_heads=kv, n_layers=3, n_heads=4, length=96, n_fillers=30)
        grid = {"n_lengths": 2, "n_depths": 4, "n_needles": 3, "shortest": 80, "n_null_draws": 19}
        found = retrieval(planted.model, needles="repeats", seed=seed, **grid)
        task = Task("repeats", tuple(planted_prompts(planted, "repeats", 12, seed)), "logit_diff")
        effects = ablate_heads(planted.model, task, ablation="zero", positions="end").heads().set_index("label")["effect"]
        first, second = effects.abs().sort_values(ascending=False).head(2)
        assert effects.abs().idxmax() == str(copier) and first > 100 * second
        assert found.scores[copier] > 0.9
        others.append(np.delete(found.scores.values.ravel(), 4 * copier.layer + copier.head).max())
    print("largest score of any other head:", max(others))
    assert max(others) < 0.1


@HOSTS
def test_induction_heads_copy_repeated_needles_whether_the_answer_is_given_or_written(n_kv_heads):
    planted = plant("repeats", seed=1, n_kv_heads=n_kv_heads, n_layers=3, n_heads=4, length=37)
    copiers = set(planted.heads("induction") + planted.heads("decoy_induction"))  # copying is looking; effects are for confirm
    [previous] = planted.heads("previous_token")
    given = retrieval(planted.model, n_lengths=3, n_depths=4, n_needles=2)
    written = retrieval(planted.model, mode="greedy", n_lengths=3, n_depths=4, n_needles=1, max_new_tokens=13)
    for found in (given, written):
        assert set(found.top(2)) == set(found.detected) == copiers
        assert [found.scores[head] for head in copiers] == [1, 1]
        assert found.scores[previous] < 0.1
        assert found.details["always_on"][:2] and {str(head) for head in copiers} <= set(found.details["always_on"])
        assert found.literature_threshold == 0.1 and found.fwer == 0.05
    assert given.extra_scores["score_code"].values.max() == 1
    assert written.extra_scores["score_code"].values.max() > 1  # the model goes on, and copies what follows in a circle


# -- models without the role ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_untrained_models_have_no_more_hits_than_the_rate(kind):
    passed = 0
    for seed in range(50):
        grid = {"n_lengths": 3, "n_depths": 4, "n_needles": 1, "shortest": 24, "longest": 60}
        found = retrieval(untrained(seed, kind), min_recall=None, seed=seed, **grid)
        passed += bool(found.detected)
    assert passed <= 50 * found.fwer


def test_prompts_whose_answers_stand_at_one_place_prove_nothing():
    """The previous-token head looks at one place too; no threshold can tell the two apart."""
    planted = plant("repeats", seed=0, **SMALL)
    found = retrieval(planted.model, prompts=planted_prompts(planted, "repeats", 17), mark="first_next")
    copiers = {*planted.heads("induction"), *planted.heads("decoy_induction")}
    assert set(found.top(2)) == copiers and (found.threshold == 1).all() and found.detected == []


# -- needles --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("word", "secrets"), ("bpe", "texts"), ("bpe", "secrets"), ("piece", "secrets")])
def test_needles_stand_word_for_word_after_a_sentence_in_prompts_of_the_right_length(name, kind):
    model = task_model(name)
    grid = hide_needles(model, kind, "", (150, 400, 4), 5, 2, seed=3)
    assert len(grid.trials) == 4 * 5 * 2
    assert sorted({t.length for t in grid.trials})[0] == 150
    for trial in grid.trials:
        start, end = trial.span
        assert len(trial.tokens) == trial.length
        assert trial.tokens[start:end] == trial.answer
        assert trial.tokens[: trial.n_shared_prefix] == grid.prefix[: trial.n_shared_prefix]
        if 0 < trial.depth < 100:
            assert model.to_string(trial.tokens[: trial.n_shared_prefix]).rstrip().endswith(".")
        if trial.depth == 0:
            assert trial.n_shared_prefix == int(model.facts.prepend_bos)
        assert model.to_string(trial.tokens).rstrip().endswith(("Answer:", "is", "Answer :"))
    for length in {t.length for t in grid.trials}:
        shared = [t.n_shared_prefix for t in grid.trials if t.length == length and t.needle % 2 == 0]
        assert shared == sorted(shared) and shared[0] < shared[-1]
    texts = ["".join(model.to_string(t.answer).split()) for t in grid.trials]
    if kind == "texts":
        assert set(texts) == {"".join(needle["answer"].split()) for needle in TEXTS[:2]}
    else:
        assert len(set(texts)) > 20


def test_a_needle_moves_back_to_the_end_of_a_sentence():
    hay = Haystack(tuple(range(20)), (0, 6, 11, 17))
    assert [hay.insertion(18, depth) for depth in (0, 30, 33, 34, 60, 62, 99, 100)] == [0, 0, 0, 6, 6, 11, 17, 18]


def test_sentences_end_at_marks_before_white_space_and_nowhere_else():
    model = task_model("bpe")
    text = 'The dog is 3.5 years. "No!" It is... so? Yes.'
    hay = of_text(model, text, 100)
    cuts = [model.to_string(hay.tokens[:end]) for end in hay.ends]
    assert cuts == ["", text[:21], text[:36], text[:40], text]
    assert (text[20], text[35], text[39]) == (".", ".", "?")
    assert len(filler(model, 333, Random(0)).tokens) == 333


def test_own_needles_and_haystack(tmp_path, mini):
    needles, hay = tmp_path / "own.jsonl", tmp_path / "hay.txt"
    form = {"question": "what is the secret word of Grace?"}
    lines = [form | {"needle": f"The secret word of Grace is {word}.", "answer": word} for word in ("tin", "lamp")]
    needles.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    hay.write_text("The dog sees the park. " * 40)
    found = retrieval(mini, needles=str(needles), haystack=str(hay), n_lengths=2, n_depths=2, n_needles=2, longest=90)
    assert found.tables["trials"].answer.tolist() == ["tin", "lamp"] * 4
    assert found.details["needles"] == "own.jsonl"
    assert Head(1, 3) in found.top(3)
    with pytest.raises(ValueError, match="has 240 tokens, and 399 are needed"):
        retrieval(mini, needles=str(needles), haystack=str(hay), longest=400, n_needles=2)


def test_answers_of_tasks_are_found_in_their_marked_span(mini):
    task = make_task("needle", mini, 9, seed=2)
    for trial, example in zip(trials_from_prompts(mini, task.examples, "needle"), task, strict=True):
        assert trial.tokens[trial.span[0]] == example.answers[0] == trial.answer[0]
        assert trial.span == example.marks["needle_value"]
        assert trial.context == (1, example.marks["question"][0])
    found = detect(mini, "retrieval", prompts=task)
    assert found.scores.record.task == "needle" and found.details["total"] == 9


# -- the embedded model ---------------------------------------------------------------------------------------------------------


def test_the_embedded_model_retrieves_with_heads_of_layer_one(mini):
    calls = []
    options = {"n_lengths": 4, "n_depths": 4, "n_needles": 2, "longest": 200}
    found = retrieval(mini, **options, progress=lambda done, total: calls.append((done, total)))
    assert found.detected[:3] == [Head(1, 3), Head(1, 2), Head(1, 1)]
    assert found.scores[Head(1, 3)] > 0.9
    assert calls == [(i + 1, 32) for i in range(32)]
    assert found.details["total"] == 32 == len(found.tables["trials"])
    cells = found.tables["cells"]
    assert cells.n.tolist() == [2] * 16 and cells.accepted.sum() == found.details["accepted"]
    written = retrieval(mini, mode="greedy", max_new_tokens=6, **options)
    assert written.top(3) == found.top(3)
    assert all(len(r.split()) <= 6 for r in written.tables["trials"].response)


# -- bad input ------------------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_in_one_sentence(mini, tmp_path):
    small = {"n_lengths": 2, "n_depths": 2, "n_needles": 1}
    with pytest.raises(
        ValueError,
        match=r"answers none of 4 prompts: at most \d+% of an answer is right, and min_recall=0.5 requires more than 50%",
    ):
        retrieval(untrained(0), **small)
    with pytest.raises(ValueError, match="Retrieval needs a causal language model"):
        retrieval(tiny("bert"))
    with pytest.raises(ValueError, match="mode='free' is unknown: use teacher or greedy"):
        retrieval(mini, mode="free")
    with pytest.raises(ValueError, match=r"needles='gold' is unknown. Use auto, texts, secrets, repeats or the path"):
        retrieval(mini, needles="gold")
    with pytest.raises(ValueError, match="does not know 'lighthouse'"):
        retrieval(mini, needles="texts")
    with pytest.raises(ValueError, match=r"The longest needle has \d+ tokens with its question, but only 11 fit"):
        retrieval(mini, needles="secrets", longest=12)
    with pytest.raises(ValueError, match=r"n_depths=0.* must be at least 1"):
        retrieval(mini, n_depths=0)
    with pytest.raises(ValueError, match="n_needles=6 is more than the 5 needles"):
        retrieval(bare_model(task_model("bpe").tokenizer), needles="texts", n_needles=6)
    with pytest.raises(ValueError, match=r"fwer=0.01 needs at least 99 null draws, and n_null_draws=9"):
        retrieval(mini, n_null_draws=9, fwer=0.01, longest=80, **small)
    path = tmp_path / "needles.jsonl"
    for needle, message in (
        (
            {"needle": "The secret word of Tom is tin.", "answer": "ti", "question": "what is it?"},
            "is not a run of whole tokens in the needle",
        ),
        (
            {"needle": "The secret word of Tom is tin.", "answer": "lamp", "question": "what is it?"},
            "is not a run of whole tokens in the needle",
        ),
        ({"needle": "The secret word of Tom is tin."}, "line 1: expected"),
    ):
        path.write_text(json.dumps(needle))
        with pytest.raises(ValueError, match=message):
            retrieval(mini, needles=str(path), **small, longest=80)
    path.write_text("\n")
    with pytest.raises(ValueError, match="contains no needle"):
        retrieval(mini, needles=str(path))
    bare = Example((1, 5, 6, 7), (1, 5, 6, 7), (5,), (), {"needle": (2, 3)})
    llama = tiny("llama")
    with pytest.raises(ValueError, match="The answer token of prompt 0 is not in its 'needle' span"):
        retrieval(llama, prompts=[bare])
    with pytest.raises(ValueError, match=r"Prompt 0 has no mark 'gold'. It has: needle"):
        retrieval(llama, prompts=[bare], mark="gold")


def test_models_without_words_or_tokenizer_repeat_random_tokens():
    model = wrap_model(tiny("llama").hf, None, name="bare")
    found = retrieval(model, n_lengths=2, n_depths=2, n_needles=1, min_recall=None)
    assert found.details["needles"] == "repeats" and found.tables["trials"].answer[0].count(" ") == 7
    assert hide_needles(bare_model(tiny_tokenizer()), "auto", "", (20, 60, 2), 2, 1, 0).kind == "repeats"
