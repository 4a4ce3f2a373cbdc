"""Models written by hand compute what their recipes say: by closed forms, by the exact trace, by the engine and by the library's hooks."""

import json
from math import exp

import numpy as np
import pytest
import torch

from interp.ablation import ablate_heads
from interp.engine import capture, run
from interp.heads import Head
from interp.metrics import observe_attention
from interp.models import doctor, load_model, plant
from interp.models.planted import FAMILIES, ROLES
from interp.tasks import Example, Task

HOSTS = pytest.mark.parametrize("n_kv_heads", [None, 2], ids=["gpt2", "llama"])
SEEDS = range(20)
PATTERNS = {
    "prev_token_score": {"previous_token"},
    "induction_score": {"induction", "decoy_induction"},
    "duplicate_token_score": {"duplicate_token"},
    "sink_mass": {"first_token_sink"},
}
READINGS = ["prev_token_score", "induction_score", "duplicate_token_score", "sink_mass:n_sink=1:from_row=1"]
ANSWERS = [
    ("repeats", "repeats"),
    ("backup", "ioi"),
    ("double_s_inhibition", "ioi"),
    ("needle", "needle"),
    ("two_tasks", "needle"),
]


def small(roles, seed, n_kv_heads=None, **options):
    """5 layers x 4 heads with 21 positions and 23 tokens."""
    return plant(
        roles, seed=seed, n_kv_heads=n_kv_heads, **({"n_layers": 5, "n_heads": 4, "length": 21, "n_names": 7} | options)
    )


def task_of(planted, kind, n_prompts=4):
    return Task(kind, tuple(Example(*prompt) for prompt in planted.prompts(kind, n_prompts)), "logit_diff")


def tokens_of(planted, kind, n_prompts=3, seed=0):
    return torch.tensor([prompt.clean for prompt in planted.prompts(kind, n_prompts, seed)])


def with_role(planted, names):
    return [head for head, role in planted.roles.items() if role in names]


def by_role(counterfactual, planted):
    return {planted.roles[head]: effect for head, effect in counterfactual.ablations.items()}


# -- patterns -----------------------------------------------------------------------------------------------------------------


@HOSTS
@pytest.mark.parametrize(
    ("sharpness", "seeds"),
    [
        *((sharpness, SEEDS[:7]) for sharpness in (30.0, 8.0, 3.0)),
        pytest.param(30.0, SEEDS[7:], marks=pytest.mark.slow),
    ],
    ids=["30", "8", "3", "30-other-seeds"],
)
def test_planted_heads_look_where_their_closed_forms_say_and_score_highest(n_kv_heads, sharpness, seeds):
    e, half = exp(-sharpness), exp(-sharpness / 2)
    closed = {
        "prev_token_score": lambda i: 1 / (1 + i * e),
        "sink_mass": lambda i: 1 / (1 + i * e),
        "duplicate_token_score": lambda i: 1 / (1 + half + (i - 1) * e),
        "induction_score": lambda i: 1 / (1 + half + (i - 1) * e),
    }
    for seed in seeds:
        planted = small("repeats", seed, n_kv_heads, sharpness=sharpness)
        found = observe_attention(planted.model, tokens_of(planted, "repeats", seed=seed), READINGS)
        for metric, names in PATTERNS.items():
            heads = with_role(planted, names)
            assert set(found.heads(metric).top(len(heads), by="highest")) == set(heads), (seed, metric)
            if sharpness == 3 and metric == "induction_score":
                continue  # its keys, which another head writes, are too soft for the closed form
            tolerance = 1e-2 if sharpness == 8 and metric == "induction_score" else 1e-5
            for head in heads:
                rows = found[metric][head.layer, :, head.head]
                seen = (~rows[0].isnan()).nonzero()[:, 0].tolist()
                want = torch.tensor([closed[metric](i) for i in seen])
                torch.testing.assert_close(rows[:, seen], want.expand(len(rows), -1), atol=tolerance, rtol=0)


@HOSTS
def test_uniform_and_local_heads_spread_their_attention_as_they_say(n_kv_heads):
    planted = small(["uniform", "local"], 3, n_kv_heads)
    tokens = torch.randint(len(planted.vocabulary), (2, 19), generator=torch.Generator().manual_seed(0))
    pattern = {head: run(planted.model, tokens, capture=[f"pattern.{head.layer}"]) for head in planted.roles}
    [uniform], [local] = planted.heads("uniform"), planted.heads("local")
    rows = np.arange(19)
    past = rows[:, None] - rows
    want = np.tri(19) / (rows[:, None] + 1)
    assert np.allclose(pattern[uniform][f"pattern.{uniform.layer}"][:, uniform.head].numpy(), want, atol=1e-5)
    want = ((past >= 0) & (past < 3)) / np.minimum(rows[:, None] + 1, 3)
    assert np.allclose(pattern[local][f"pattern.{local.layer}"][:, local.head].numpy(), want, atol=1e-5)


@HOSTS
def test_the_massive_activation_is_one_cell_and_the_hidden_sink_is_its_token(n_kv_heads):
    for seed in SEEDS[:2]:
        planted = small("sinks", seed, n_kv_heads)
        sign, width = planted.massive, planted.model.facts.d_model
        tokens = torch.randint(7, len(planted.vocabulary), (2, 21), generator=torch.Generator().manual_seed(seed))
        tokens[:, 0] = 0
        tokens[[0, 1], [5, 9]] = sign.token
        kept = capture(planted.model, tokens, ["resid_post"])
        for layer in range(planted.model.facts.n_layers):
            x = kept[f"resid_post.{layer}"]
            cells = ((x.abs() > 100) & (x.abs() >= 1000 * x.abs().median())).nonzero().tolist()
            assert cells == ([[0, 5, sign.dimension], [1, 9, sign.dimension]] if layer >= sign.layer else [])
            assert all(x[tuple(cell)].item() == pytest.approx(sign.value, rel=1e-5) for cell in cells)
            assert x.shape[-1] == width
        flags = observe_attention(planted.model, tokens, ["column_sinks"])["column_sinks"]
        [head] = planted.heads("hidden_sink")
        assert (flags[head.layer, :, head.head] == 1).nonzero().tolist() == [[0, 5], [1, 9]]
        pattern = run(planted.model, tokens, capture=[f"pattern.{head.layer}"])[f"pattern.{head.layer}"][0, head.head]
        want = [1 / (1 + exp(-15) + (i - 1) * exp(-30)) for i in range(5, 21)]
        assert pattern[5:, 5].tolist() == pytest.approx(want, abs=1e-5)


# -- effects ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharpness", [30.0, 6.0])
def test_mini_ioi_has_the_edge_effects_of_its_closed_forms(sharpness):
    planted = plant("mini_ioi", seed=3, sharpness=sharpness)
    [duplicate], [inhibition] = planted.heads("duplicate_token"), planted.heads("s_inhibition")
    [mover], [negative] = planted.heads("name_mover"), planted.heads("negative_name_mover")
    edges = [
        (str(inhibition), f"{mover}.q"), ("input", f"{mover}.k"), (str(mover), "logits"), ("input", f"{inhibition}.v"),
        ("input", f"{duplicate}.q"), (str(duplicate), f"{inhibition}.k"), (str(inhibition), f"{negative}.q"),
        ("input", f"{negative}.k"), (str(negative), "logits"),
    ]  # fmt: skip
    found = planted.ground_truth_effects("ioi", 8)
    sharp = [-40 / 3, -10, -10, -28 / 3, -28 / 3, -28 / 3, 4, 3, 3]
    want = sharp if sharpness == 30 else [-12.41, -9.38, -9.17, -8.70, -7.18, -6.92, 3.72, 2.81, 2.75]
    assert [found.edges[edge] for edge in edges] == pytest.approx(want, abs=1e-4 if sharpness == 30 else 0.0051)
    assert found.clean == pytest.approx(7 if sharpness == 30 else 6.420038, abs=3e-6)
    assert found.corrupted == pytest.approx(0, abs=1e-9)
    assert len(found.edges) == len(planted.structural_edges) == 17
    assert len(found.active_edges) == (9 if sharpness == 30 else 12)
    assert set(edges) <= set(found.active_edges)


def test_roles_have_the_ablation_effects_of_their_closed_forms():
    def effects(family, kind):
        planted = small(family, 1)
        return by_role(planted.ground_truth_effects(kind), planted)

    def close(found, **want):
        assert found == pytest.approx(want, abs=1e-4)

    silent = {"duplicate_token": 0, "decoy_induction": 0, "first_token_sink": 0}
    close(effects("repeats", "repeats"), previous_token=-10, induction=-10, **silent)
    close(effects("half_gains", "repeats"), previous_token=-10, half_induction=-5)
    close(effects("cancelling", "repeats"), previous_token=0, induction=-10, negative_induction=10)
    close(effects("mini_ioi", "ioi"), duplicate_token=-28 / 3, s_inhibition=-28 / 3, name_mover=-10, negative_name_mover=3)
    sink = {"first_token_sink": 0}
    close(effects("needle", "needle"), previous_token=-20, retrieval=-10, anchor_writer=-10, anchor_reader=-10, **sink)
    close(effects("two_tasks", "needle"), previous_token=-10, retrieval=-10, induction=0)
    backup = {
        "name_mover": 7.0,
        "backup_name_mover": 7.0,
        "negative_name_mover": 10.0,
        "s_inhibition": 7.6269,
        "duplicate_token": 7.6269,
    }
    close(effects("backup", "ioi"), **{role: value - 7.0247 for role, value in backup.items()})


def test_a_backup_is_found_by_removing_it_together_with_what_it_backs_up():
    planted = small("backup", 2)
    prompts = planted.prompts("ioi", 8)
    both = planted.heads("name_mover") + planted.heads("backup_name_mover")
    logits = planted.trace([p.clean for p in prompts], ablated_heads=both).logits[:, -1]
    assert [row[p.answers[0]] - row[p.distractors[0]] for row, p in zip(logits, prompts, strict=True)] == pytest.approx(
        [-3] * 8, abs=1e-4
    )
    [backup] = planted.heads("backup_name_mover")
    pattern = planted.trace([p.clean for p in prompts]).patterns[backup]
    assert pattern[:, -1, 0] == pytest.approx([0.9975] * 8, abs=1e-4)


def test_of_two_s_inhibition_heads_noising_misses_and_denoising_finds_each():
    planted = small("double_s_inhibition", 4)
    prompts = planted.prompts("ioi", 8)
    clean, corrupted = ([getattr(p, side) for p in prompts] for side in ("clean", "corrupted"))
    runs = {"clean": planted.trace(clean), "corrupted": planted.trace(corrupted)}

    def logit_diff(tokens, source, heads):
        edges = [edge for edge in planted.structural_edges if edge[0] in map(str, heads)]
        logits = planted.trace(tokens, corrupted_edges=edges, corrupted=runs[source]).logits[:, -1]
        return np.mean([row[p.answers[0]] - row[p.distractors[0]] for row, p in zip(logits, prompts, strict=True)])

    one, two = planted.heads("s_inhibition")
    noised = [logit_diff(clean, "corrupted", heads) for heads in ([], [one], [two], [one, two])]
    assert noised == pytest.approx([10, 10, 10, -10 / 3], abs=1e-4)
    denoised = [logit_diff(corrupted, "clean", heads) for heads in ([], [one], [two], [one, two])]
    assert denoised == pytest.approx([0, 5, 5, 5], abs=1e-4)


@pytest.mark.parametrize(("family", "kind"), ANSWERS)
def test_all_structural_edges_together_carry_the_whole_difference(family, kind):
    planted = small(family, 6, sharpness=5.0)
    prompts = planted.prompts(kind, 3)
    other = planted.trace([p.corrupted for p in prompts])
    patched = planted.trace([p.clean for p in prompts], corrupted_edges=planted.structural_edges, corrupted=other)
    assert np.allclose(patched.logits, other.logits, atol=1e-9)
    assert not np.allclose(planted.trace([p.clean for p in prompts]).logits, other.logits, atol=1e-2)


def test_gradients_see_what_is_written_to_the_logits_and_not_what_goes_through_saturated_attention():
    planted = small("mini_ioi", 8)
    found = ablate_heads(planted.model, task_of(planted, "ioi"), estimator="attribution", ablation="zero")
    effects = {
        planted.roles.get(head, "noise"): effect for (head,), effect in zip(found.variants, found.effects.mean(1), strict=True)
    }
    direct = {"name_mover": -10, "negative_name_mover": 3, "s_inhibition": 0, "duplicate_token": 0, "noise": 0}
    assert effects == pytest.approx(direct, abs=1e-3)


@pytest.mark.parametrize("sharpness", [30.0, 6.0])
def test_corrupting_one_edge_with_the_librarys_own_hooks_has_the_exact_effect(sharpness):
    planted = small("mini_ioi", 9, dtype="float64", sharpness=sharpness)
    bridge, width = planted.model.bridge, planted.model.facts.d_head
    bridge.set_use_split_qkv_input(True)
    exact = planted.ground_truth_effects("ioi", 4)
    clean, corrupted = (torch.tensor([getattr(p, side) for p in exact.prompts]) for side in ("clean", "corrupted"))
    outputs = [block.attn.c_proj.weight.detach() for block in planted.model.hf.transformer.h]

    def written(tokens, writer):
        if writer == "input":
            return bridge.run_with_cache(tokens)[1]["blocks.0.hook_resid_pre"]
        layer, head = Head.parse(writer)
        z = run(planted.model, tokens, capture=[f"z.{layer}"])[f"z.{layer}"]
        return z[:, :, head] @ outputs[layer][head * width : (head + 1) * width]

    def logit_diff(hooks):
        last = bridge.run_with_hooks(clean, fwd_hooks=hooks)[:, -1]
        return np.mean([(row[p.answers[0]] - row[p.distractors[0]]).item() for row, p in zip(last, exact.prompts, strict=True)])

    with torch.no_grad():
        before = logit_diff([])
        for (writer, reader), effect in exact.edges.items():
            delta = written(corrupted, writer) - written(clean, writer)
            if reader == "logits":
                hooks = [(f"blocks.{planted.model.facts.n_layers - 1}.hook_resid_post", lambda x, hook, d=delta: x + d)]
            else:
                layer, head = Head.parse(reader.split(".")[0])

                def add(x, hook, d=delta, head=head):
                    x = x.clone()
                    x[:, :, head] += d
                    return x

                hooks = [(f"blocks.{layer}.attn.hook_{reader[-1]}_input", add)]
            assert logit_diff(hooks) - before == pytest.approx(effect, abs=1e-6), (writer, reader)


def test_in_double_precision_the_model_is_its_trace_to_rounding():
    planted = small("needle", 10, dtype="float64")
    tokens = tokens_of(planted, "needle")
    with torch.no_grad():
        assert np.allclose(planted.model.hf(tokens).logits.numpy(), planted.trace(tokens.tolist()).logits, atol=1e-11)


# -- models -------------------------------------------------------------------------------------------------------------------


@HOSTS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*slower hooked backend")  # logits that cancel leave the proof of the faster one no scale
def test_every_family_is_a_sound_model_on_which_every_road_gives_the_exact_effects(family, n_kv_heads):
    planted = small(family, 11, n_kv_heads, sharpness=6.0)
    assert [check.name for check in doctor(planted.model) if not check.passed] == []
    assert sorted(planted.roles.values()) == sorted(FAMILIES[family])
    assert planted.model.facts.n_kv_heads == (n_kv_heads or 4)
    for kind in planted.tasks():
        task, exact = task_of(planted, kind), planted.ground_truth_effects(kind, 4)
        want = planted.trace([e.clean for e in task]).logits
        assert np.allclose(run(planted.model, list(task)).logits.numpy(), want, atol=2e-5)
        zeroed = ablate_heads(planted.model, task, ablation="zero")
        assert len(zeroed.variants) == 20 and (zeroed.backend == "resumed" or family == "cancelling")
        for (head,), effect in zip(zeroed.variants, zeroed.effects.mean(1), strict=True):
            assert effect == pytest.approx(exact.ablations.get(head, 0), abs=2e-5), (str(head), planted.roles.get(head))


def test_hard_attention_is_sound_in_double_precision():
    assert all(check.passed for check in doctor(small("backup", 11, dtype="float64").model))


@HOSTS
def test_the_same_arguments_give_the_same_weights_by_name_too_and_no_others_do(n_kv_heads):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    planted = small("two_tasks", 12, n_kv_heads)
    assert torch.equal(torch.get_rng_state(), state)
    assert load_model(planted.model.facts.name).facts == planted.model.facts
    others = [small("two_tasks", 13, n_kv_heads), small("two_tasks", 12, n_kv_heads, noise_scores=0.4)]
    assert len({planted.model.facts.weights_digest, *(other.model.facts.weights_digest for other in others)}) == 3
    assert planted.roles != others[0].roles


@HOSTS
def test_a_saved_model_loads_with_its_weights_and_its_words(n_kv_heads, tmp_path):
    planted = small("sinks", 14, n_kv_heads)
    planted.model.hf.save_pretrained(tmp_path)
    planted.model.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert loaded.facts.weights_digest == planted.model.facts.weights_digest
    text = "word2 DELIMITER name3 QUERY elsewhere"
    assert loaded.to_tokens(text) == planted.model.to_tokens(text) == [0, 15, 4, 9, 2, 5]
    assert torch.equal(run(loaded, text).logits, run(planted.model, text).logits)


def test_no_coordinate_shows_what_it_stands_for():
    planted = small("mini_ioi", 15)
    for weights in (planted.model.hf.transformer.wte.weight, planted.model.hf.lm_head.weight):
        size = weights.abs() / weights.norm(dim=1, keepdim=True)
        assert size.max() < 0.5


def test_noise_that_writes_everywhere_disturbs_effects_and_not_their_order():
    planted = small("mini_ioi", 16, noise_everywhere=True, noise_writes=0.05)
    zeroed = ablate_heads(planted.model, task_of(planted, "ioi", 8), ablation="zero")
    effects = {head: effect for (head,), effect in zip(zeroed.variants, zeroed.effects.mean(1), strict=True)}
    noise = max(abs(effect) for head, effect in effects.items() if head not in planted.roles)
    assert 1e-3 < noise < min(abs(effects[head]) for head in planted.roles)


def test_roles_stand_where_they_are_told_to():
    places = {Head(0, 3): "previous_token", Head(3, 1): "induction", Head(1, 0): "first_token_sink"}
    planted = small(places, 17, n_kv_heads=2)
    assert planted.roles == places and planted.model.facts.name.startswith("planted:custom")
    found = observe_attention(planted.model, tokens_of(planted, "repeats"), READINGS)
    assert found.heads("prev_token_score").top(1) == [Head(0, 3)] and found.heads("induction_score").top(1) == [Head(3, 1)]


def test_any_size_that_fits():
    planted = plant("needle", seed=18, n_layers=3, n_heads=2, n_kv_heads=1, length=90, n_names=33, n_fillers=40, sharpness=25.0)
    exact = planted.ground_truth_effects("needle", 3)
    tokens = torch.cat([tokens_of(planted, "needle"), torch.randint(40, 70, (3, 76))], 1)
    assert np.allclose(run(planted.model, tokens).logits.numpy(), planted.trace(tokens.tolist()).logits, atol=1e-3)
    assert exact.clean == pytest.approx(20, abs=1e-3)


def test_the_manifest_is_json_and_says_it_all():
    planted = small("mini_ioi", 19)
    manifest = json.loads(json.dumps(planted.manifest(), allow_nan=False))
    assert manifest["roles"] == {str(head): role for head, role in planted.roles.items()}
    assert (manifest["family"], manifest["seed"], manifest["d_head"], manifest["sharpness"]) == ("mini_ioi", 19, 51, 30.0)
    assert len(manifest["structural_edges"]) == 17 and manifest["weights"] == planted.model.facts.weights_digest
    assert list(manifest["counterfactuals"]) == ["ioi"]
    found = manifest["counterfactuals"]["ioi"]
    assert len(found["active_edges"]) == 9 and len(found["effects"]) == 17 and found["clean"] == pytest.approx(7, abs=1e-5)


@pytest.mark.parametrize(
    ("error", "sentence", "roles", "options"),
    [
        (LookupError, "No family of roles is called 'ioi'. There are: repeats", "ioi", {}),
        (LookupError, "No role is called 'mover'. There are: previous_token", ["mover"], {}),
        (LookupError, "No role is called 'mover'", {Head(0, 0): "mover"}, {}),
        (ValueError, "3 levels of roles do not fit into n_layers=2", "mini_ioi", {"n_layers": 2}),
        (ValueError, "No head is left for 'induction'", ["previous_token", "induction", "induction"], {"n_heads": 1}),
        (ValueError, "'uniform' cannot be planted at L5H0: there are layers 0-4", {Head(5, 0): "uniform"}, {}),
        (ValueError, "'induction' at L1H0 reads previous_token", {Head(1, 0): "induction", Head(1, 1): "previous_token"}, {}),
        (ValueError, "'hidden_sink' at L0H0 reads a neuron", {Head(0, 0): "hidden_sink"}, {}),
        (ValueError, "length=13", "repeats", {"length": 13}),
        (ValueError, "n_heads=4, n_kv_heads=3", "repeats", {"n_kv_heads": 3}),
        (ValueError, "n_heads=4 times d_head=40 is the width of a GPT-2, and 172 are needed", "repeats", {"d_head": 40}),
        (ValueError, "d_head=43 is too small: heads that share a key need 44", "repeats", {"d_head": 43}),
        (ValueError, "d_head=40 is too small: heads that share a key need 24", "repeats", {"d_head": 40, "n_kv_heads": 2}),
        (ValueError, "n_layers=0", "repeats", {"n_layers": 0}),
        (ValueError, "sharpness=0", "repeats", {"sharpness": 0.0}),
        (ValueError, "dtype='half' is not one of", "repeats", {"dtype": "half"}),
        (ValueError, "3 names and 10 fillers", "repeats", {"n_names": 3}),
    ],
)
def test_what_cannot_be_planted_is_answered_in_one_sentence(error, sentence, roles, options):
    with pytest.raises(error, match=sentence):
        small(roles, 0, **options)


def test_names_of_planted_models_and_of_their_parts_are_checked():
    with pytest.raises(LookupError, match=r"A planted model has no option 'size'. There are: seed, n_layers"):
        load_model("planted:repeats,size=3")
    with pytest.raises(ValueError, match="'seed=x': the value must be a whole number"):
        load_model("planted:repeats,seed=x")
    planted = small("repeats", 0)
    with pytest.raises(LookupError, match=r"is 'retrieval'. There are: decoy_induction"):
        planted.heads("retrieval")
    with pytest.raises(LookupError, match=r"No prompts are called 'names'. There are: repeats, ioi, needle"):
        planted.prompts("names")


def test_every_role_is_in_a_family_and_needs_only_roles_of_lower_levels():
    assert set().union(*FAMILIES.values()) == set(ROLES)
    for role in ROLES.values():
        assert all(ROLES[need].level < role.level for need in role.requires)
