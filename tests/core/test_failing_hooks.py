"""A call that fails in any of its hooks leaves the model, the user's own hooks and torch as they were: every public function."""

import importlib
import inspect
import threading
import warnings
from collections import Counter
from contextlib import contextmanager, nullcontext
from functools import cache

import pytest
import torch

from interp.engine.attention import attention_interface
from interp.heads import Head
from interp.interventions.variants.window import window
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.tasks.task import Example, Task
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny_hf, tiny_tokenizer, tiny_tokens

ROOMS = (
    "ablation",
    "circuits",
    "confirmation",
    "detectors",
    "engine",
    "experiments",
    "figures",
    "metrics",
    "models",
    "store",
    "tasks",
)
HEADS = [Head(0, 1), Head(2, 3)]
TEXT = tuple(tiny_tokens(1, 9)[0].tolist())
LONG = [tiny_tokens(2, 11, seed=i).tolist()[0] for i in range(2)]


class Injected(Exception):
    pass


@cache
def model() -> Model:
    """A model of this file alone, with its bridge, a hook of the user's and a module that the user trains."""
    from interp.models import wrap_model

    return prepared(wrap_model(tiny_hf("llama"), tiny_tokenizer(), name="hooked"))


@cache
def mini() -> Model:
    """The same of interp-mini, which knows the words of every task."""
    from interp.models import load_model

    return prepared(load_model())


def prepared(made: Model) -> Model:
    assert made.bridge is not None
    made.hf.model.layers[1].register_forward_hook(users_hook)
    made.hf.model.layers[0].mlp.train()
    return made


CALLS = Counter()


def users_hook(module, args, output):
    CALLS["user"] += 1


@cache
def subjects() -> Task:
    """Prompts of two lengths about seven subjects."""
    examples = []
    for i in range(14):
        row = tiny_tokens(1, 6 + 3 * (i % 2), seed=i)[0].tolist()
        row[2] = 10 + i // 2
        examples.append(Example(tuple(row), (*row[:2], 30, *row[3:]), (50 + i,), (5,), {"subject": (1, 3)}))
    return Task("subjects", tuple(examples), "logit_diff")


@cache
def sides() -> Task:
    return random_task(12, 0)


@cache
def detection():
    from interp.detectors import detect

    return detect(model(), "previous_token", n_prompts=2, n_null_draws=19)


@cache
def scores():
    from interp.circuits import score_edges

    return score_edges(model(), random_task(), method="eap")


def circuit():
    return scores().circuit(20)


def metrics():
    from interp.metrics import attention_metrics

    return attention_metrics(["entropy"])


def variants():
    from interp import interventions

    return [(interventions.zero([head]),) for head in HEADS]


@cache
def columns():
    from interp.metrics import sink_columns

    return sink_columns(model(), random_task(), min_rows=1)


def detect(role, **options):
    from interp.detectors import DETECTORS
    from interp.detectors import detect as run_detector

    known = inspect.signature(DETECTORS.get(role)).parameters
    return run_detector(mini(), role, **{name: value for name, value in options.items() if name in known})


SMALL = {"n_prompts": 2, "n_null_draws": 79, "n_texts": 2, "length": 24, "lengths": (24,), "n_tokens": 4, "period": 6}
SMALL |= {"n_needles": 1, "n_lengths": 2, "n_depths": 2, "shortest": 60, "longest": 90, "min_recall": None}


def of(room, name):
    return getattr(importlib.import_module(f"interp.{room}"), name)


CASES = {
    "ablation.ablate_heads": lambda f: [f(model(), random_task(), heads=HEADS, ablation=a) for a in ("mean", "uniform")],
    "ablation.continue_prompt": lambda f: f(model(), TEXT, n_tokens=2, intervene=variants()[0]),
    "ablation.estimate_cost": lambda f: f(model(), random_task()),
    "ablation.fidelity": lambda f: f(model(), TEXT, [window(HEADS, size=2)]),
    "ablation.gradient_importance": lambda f: f(model(), random_task()),
    "ablation.pruning_curve": lambda f: f(model(), random_task(), HEADS, steps=1, n_random=5),
    "circuits.acdc": lambda f: f(model(), random_task(2, 0), threshold=1e9),
    "circuits.backup_heads": lambda f: f(model(), random_task(), HEADS[:1]),
    "circuits.circuit_outcomes": lambda f: f(model(), random_task(), circuit_masks()),
    "circuits.completeness": lambda f: f(model(), random_task(), circuit(), n_draws=1, n_greedy_runs=1, n_greedy_steps=1),
    "circuits.decompose_mlp": lambda f: f(model(), subjects(), 1, [Head(0, 5), Head(1, 2)]),
    "circuits.direct_logit_attribution": lambda f: f(model(), random_task()),
    "circuits.direct_logit_attribution_from": lambda f: f(model(), random_task(), "middle"),
    "circuits.bisect_faithfulness": lambda f: f(model(), random_task(), scores(), 0.5, n_draws=1),
    "circuits.faithfulness_curve": lambda f: f(model(), random_task(), scores(), shares=(0.1, 1.0), n_draws=1),
    "circuits.find_codes": lambda f: f(model(), sides(), n_train=4, n_codes=4, n_permutations=4),
    "circuits.head_scaling_curve": lambda f: f(model(), random_task(), random_task(seed=2), HEADS, (0.0, 1.0)),
    "circuits.minimality": lambda f: f(model(), random_task(), circuit(), n_draws=1),
    "circuits.patch_grid": lambda f: f(model(), random_task(3, 0)),
    "circuits.path_patch": lambda f: f(model(), random_task(), [(Head(2, 3), "q")]),
    "circuits.path_patch_stages": lambda f: f(model(), random_task(), [("q", "end")], k=1),
    "circuits.repair": lambda f: f(model(), random_task(), HEADS, ["middle"], ["middle"]),
    "circuits.residual_contributions": lambda f: f(model(), random_task()),
    "circuits.score_edges": lambda f: [f(model(), random_task(2, 0), method=m, steps=2) for m in ("eap", "eap-ig", "exact")],
    "circuits.score_nodes": lambda f: [f(model(), random_task(), part) for part in ("q", "v", "z")],
    "circuits.score_positions": lambda f: f(model(), random_task(3, 0), HEADS[1], "q"),
    "circuits.subject_heads": lambda f: f(model(), subjects()),
    "circuits.suppression": lambda f: f(model(), random_task()),
    "confirmation.confirm": lambda f: f(detection(), model(), random_task(), ks=(1,), n_draws=5, metric="logit_diff"),
    "detectors.induction_family": lambda f: f(model(), n_prompts=2, period=6),
    "engine.attribute": lambda f: f(model(), random_task(), variants(), OUTCOMES.get("logit_diff"), record=record_of(model())),
    "engine.capture": lambda f: f(model(), TEXT, ["z", "pattern.1"]),
    "engine.capture_attention": lambda f: f(model(), LONG, values=True, value_norms=True),
    "engine.generate": lambda f: f(model(), TEXT, 2, intervene=variants()[0]),
    "engine.next_token_entropy": lambda f: f(model(), TEXT),
    "engine.observe": lambda f: f(model(), LONG, metrics(), intervene=variants()[0]),
    "engine.observe_query_null": lambda f: f(model(), LONG, metrics(), 3),
    "engine.run": lambda f: f(model(), random_task(3, 0), intervene=variants()[0], capture=["z.0", "pattern.1", "resid_post.2"]),
    "engine.sweep": lambda f: [
        f(model(), random_task(), variants(), OUTCOMES.get("kl"), record=record_of(model()), backend=b) for b in ("resumed", "hooked")
    ],
    "figures.show_attention": lambda f: f(model(), "w3 w5 w9 w3"),
    "metrics.calibrate_heads": lambda f: f(model(), random_task(), columns()),
    "metrics.massive_activations": lambda f: f(model(), LONG),
    "metrics.observe_attention": lambda f: f(model(), LONG, ["entropy", "value_weighted_norm"]),
    "metrics.output_similarity": lambda f: f(model(), LONG),
    "metrics.check_task": lambda f: f(model(), random_task()),
    "metrics.score_task": lambda f: f(model(), random_task()),
    "metrics.sink_columns": lambda f: f(model(), random_task(), min_rows=1),
    "models.doctor": lambda f: f(model()),
}  # fmt: skip
CASES |= {
    f"detectors.detect:{role}": (lambda f, role=role: detect(role, **SMALL))
    for role in importlib.import_module("interp.detectors").DETECTORS.names()
}
WITHOUT_RUNS = {
    "ablation.compare_next_tokens",
    "circuits.load_circuit",
    "confirmation.check_confirmation",
    "confirmation.plan_confirmation",
    "engine.observing",
    "tasks.make_task",
    "tasks.task_from_jsonl",
    "tasks.write_prompts",
}
"""They take a model and run nothing by themselves: they read its tokenizer or its facts."""
SWALLOWS = {"models.doctor"}
"""Reports what fails."""


def circuit_masks():
    import numpy as np

    return np.ones((1, len(scores().graph.edges)), dtype=bool)


def public_functions_of_models() -> set[str]:
    found = set()
    for room in ROOMS:
        module = importlib.import_module(f"interp.{room}")
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                kinds = [
                    str(getattr(p.annotation, "__name__", p.annotation)) for p in inspect.signature(value).parameters.values()
                ]
                if any(kind.strip("'\"").split(" | ")[0].rsplit(".", 1)[-1] == "Model" for kind in kinds):
                    found.add(f"{room}.{name}")
    return found


def test_every_public_function_that_takes_a_model_has_a_case():
    assert public_functions_of_models() == {name.split(":")[0] for name in CASES} | WITHOUT_RUNS


class Hooks:
    """Counts the calls of every hook that is registered, by the function, and fails in the one chosen."""

    def __init__(self):
        self.seen, self.target = Counter(), None

    def wrap(self, hook):
        inner = hook
        while hasattr(inner, "func"):
            inner = inner.func
        name = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', inner)}"

        def counted(*args, **kwargs):
            self.seen[name] += 1
            if (name, self.seen[name]) == self.target:
                raise Injected
            return hook(*args, **kwargs)

        return counted

    @contextmanager
    def failing(self, target=None):
        """Within the block, the n-th call of a hook raises Injected; ``target`` is its name and n."""
        self.seen, self.target = Counter(), target
        with pytest.MonkeyPatch.context() as patches:
            for owner, name in (
                (torch.nn.Module, "register_forward_hook"),
                (torch.nn.Module, "register_forward_pre_hook"),
                (torch.nn.Module, "register_full_backward_hook"),
                (torch.Tensor, "register_hook"),
            ):
                real = getattr(owner, name)
                patches.setattr(owner, name, lambda own, hook, *a, real=real, **k: real(own, self.wrap(hook), *a, **k))
            patches.setattr(attention_interface, "_function", self.wrap(attention_interface._function))
            yield


def state(made: Model):
    """Everything that a call may change and has to put back."""
    modules = [*dict.fromkeys((*made.hf.modules(), *made.bridge.modules()))]
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    hooks = [[hook for kind in kinds for hook in getattr(m, kind).values() if not is_of_transformers(hook)] for m in modules]
    flags = [(m.training, "forward" in m.__dict__, type(m)) for m in modules]
    points = [len(getattr(m, "fwd_hooks", ())) + len(getattr(m, "bwd_hooks", ())) for m in modules]
    config = {name: value for name, value in vars(made.bridge.cfg).items() if isinstance(value, bool)}
    parameters = [(p.requires_grad, p.grad is None) for p in made.hf.parameters()]
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(), [*warnings.filters]
    return (
        hooks,
        flags,
        points,
        config,
        parameters,
        modes,
        made.hf.config._attn_implementation,
        dict(attention_interface._READERS),
    )


def is_of_transformers(hook) -> bool:
    """Whether transformers installed it: once for each model that is asked for attention or hidden states, to stay there idle."""
    return getattr(hook, "__module__", "").startswith("transformers.")


def check_state(made: Model, before) -> None:
    for now, then in zip(state(made), before, strict=True):
        assert now == then


def is_free(lock) -> bool:
    """Whether another thread could take the lock."""
    taken = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)) or (taken[0] and lock.release()))
    thread.start()
    thread.join()
    return taken[0]


@pytest.mark.survey
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_a_call_that_fails_in_a_hook_leaves_everything_as_it_was(case):
    room, name = case.split(":")[0].split(".")
    call, function, hooks, used = CASES[case], of(room, name), Hooks(), mini() if name == "detect" else model()
    before, weights = state(used), [p.clone() for p in used.hf.parameters()]
    call(function)  # what is remembered of a model is measured once
    check_state(used, before)
    with hooks.failing():
        call(function)
    check_state(used, before)
    assert hooks.seen or case in NO_HOOKS
    for hook, n in hooks.seen.items():
        for nth in {1, n}:
            with hooks.failing((hook, nth)), nullcontext() if case in SWALLOWS else pytest.raises(Injected):
                call(function)
            assert hooks.seen[hook] >= nth
            check_state(used, before)
            assert is_free(used.lock), (hook, nth)
    assert all(torch.equal(p, old) for p, old in zip(used.hf.parameters(), weights, strict=True))
    called = CALLS["user"]
    with torch.no_grad():
        used.hf(torch.tensor([TEXT]))
    assert CALLS["user"] == called + 1


NO_HOOKS = {"ablation.estimate_cost", "detectors.detect:copy_ov", "engine.next_token_entropy"}
NO_HOOKS |= {"metrics.check_task", "metrics.score_task"}
"""Plain passes, or none."""
