"""A package of one's own adds a metric, an outcome, a task, a detector and an intervention, and each is used from everywhere."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

import interp
from interp.detectors import DETECTORS, detect
from interp.errors import ExtensionError
from interp.experiments import AblationSpec, AttentionSpec, DetectionSpec
from interp.heads import Head
from interp.interventions import INTERVENTIONS
from interp.metrics import ATTENTION_METRICS, OUTCOMES, attention_metrics, observe_attention
from interp.models import load_model
from interp.tasks import TASKS
from tests.support.dashboard_apps import ROOT, new_session, open_address

MODEL = "interp-mini"
REGISTRIES = {
    "recent_mass": ATTENTION_METRICS,
    "answer_rank": OUTCOMES,
    "repeated_names": TASKS,
    "current_token": DETECTORS,
    "sharpen": INTERVENTIONS,
}


@pytest.fixture(scope="module")
def mini():
    return load_model(MODEL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, which is where the dashboard looks for runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    return tmp_path


def command(*words):
    """What the command prints, once as text and once read from its JSON."""
    from interp.cli.app import app

    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def page(name, **query):
    app = open_address(new_session(name), **query)
    assert not app.exception, app.exception[0].value
    return app


def options(app, label):
    """What the boxes of this label offer."""
    return [option for box in [*app.selectbox, *app.multiselect] if box.label == label for option in box.options]


@pytest.mark.parametrize(("name", "registry"), REGISTRIES.items(), ids=REGISTRIES)
def test_an_entry_of_another_package_is_listed_described_and_loaded(lab, name, registry):
    assert name in registry.names() and name in registry.entries()
    assert registry.get(name) is getattr(sys.modules[f"lab_heads.{name}"], name)
    assert registry.describe(name) and registry.module(name).__name__ == f"lab_heads.{name}"


@pytest.mark.parametrize("name", REGISTRIES)
def test_contributing_shows_the_file_and_its_entry_point(lab, name):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"```python\n# {name}.py\n{(lab / f'{name}.py').read_text(encoding='utf-8')}```" in text
    assert f'[project.entry-points."{REGISTRIES[name].group}"]\n{name} = "lab_heads.{name}"' in text


@pytest.mark.parametrize(("name", "registry"), REGISTRIES.items(), ids=REGISTRIES)
def test_without_the_package_there_is_no_such_entry(name, registry):
    with pytest.raises(LookupError, match=f"No {registry.noun} is called '{name}'. There are: "):
        registry.get(name)


def test_listing_names_of_installed_packages_imports_neither_them_nor_torch(lab, site):
    code = (
        "import sys; from interp.tasks import TASKS; from interp.metrics.outcomes import OUTCOMES; from interp.detectors import DETECTORS;"
        "from interp.metrics.attention import ATTENTION_METRICS as M; from interp.interventions import INTERVENTIONS as I;"
        "names = [n for r in (TASKS, OUTCOMES, DETECTORS, M, I) for n in r.names()];"
        f"assert {{*{[*REGISTRIES]!r}}} <= {{*names}}; assert not {{'torch', 'lab_heads'}} & {{*sys.modules}}"
    )
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], check=True, timeout=60)


def test_an_attention_metric_from_python(lab, mini):
    observed = observe_attention(mini, "the cat sat on the mat", ["recent_mass:n=2"])
    assert observed.heads("recent_mass").values.shape == (mini.facts.n_layers, mini.facts.n_heads)
    (metric,) = attention_metrics(["recent_mass:n=1"])
    own = observe_attention(mini, "the cat sat on the mat", [metric, "self_attention_score"])
    np.testing.assert_allclose(own.heads("recent_mass").values, own.heads("self_attention_score").values, atol=1e-6)


def test_an_observed_metric_is_read_by_its_name_and_as_it_was_requested(mini):
    observed = observe_attention(mini, "the cat sat on the mat", ["windowed_distance:window=3"])
    named, written = (observed.heads(name) for name in ("windowed_distance", "windowed_distance:window=3"))
    assert (named.values == written.values).all() and named.name == written.name
    with pytest.raises(LookupError, match=r"window=4' was not observed, but windowed_distance\(window=3\): observe each"):
        observed.tokens("windowed_distance:window=4")


def test_an_attention_metric_on_the_command_line(lab, folder):
    assert "recent_mass" in [row["name"] for row in command("metrics")["attention"]]
    command("attention", "--text", "the cat sat on the mat", "--metrics", "recent_mass:n=2", "--out", folder / "run")
    shown = command("show", folder / "run")
    assert "recent_mass" in json.dumps(shown)


def test_an_attention_metric_in_the_dashboard(lab, folder):
    app = page("heads", task="", text="the cat sat", metric="recent_mass")
    assert any(option.startswith("recent_mass: Weight on recent tokens") for option in options(app, "Metric"))
    assert not app.warning and "recent_mass" in " ".join(block.value for block in app.code)


def test_a_task_and_an_outcome_from_python(lab, mini):
    task = interp.make_task("repeated_names", mini, n_prompts=4, n_names=2)
    assert task.marks == ["last"] and task.arguments["n_names"] == 2
    ranks = interp.score_task(mini, task, "answer_rank")
    assert (ranks >= 0).all() and (ranks == ranks.round()).all()
    assert ((ranks == 0) == (interp.score_task(mini, task, "accuracy") == 1)).all()


def test_a_task_an_outcome_and_an_intervention_on_the_command_line(lab, folder):
    assert "repeated_names" in [row["name"] for row in command("tasks")["tasks"]]
    assert "answer_rank" in [row["name"] for row in command("metrics")["answers"]]
    assert "sharpen" in [row["name"] for row in command("ablations")["ablations"]]
    words = "ablate --task repeated_names --ablation sharpen:power=0 -n 8 --metric answer_rank --layers 1-3"
    command(*words.split(), "--out", folder / "run")
    stored = interp.open_run(folder / "run").heads()
    assert set(stored["task"]) == {"repeated_names"} and set(stored["metric"]) == {"answer_rank"}
    assert set(stored["ablation"]) == {"sharpen:power=0"} and len(stored) == 3 * load_model(MODEL).facts.n_heads


def test_a_task_an_outcome_and_an_intervention_in_the_dashboard(lab, folder):
    chosen = {"ablation": "sharpen", "ablation_options": "power=4", "outcome": "answer_rank"}
    app = page("ablate", task="repeated_names", n_prompts="8", **chosen)
    assert "repeated_names" in options(app, "Prompts")
    assert "answer_rank" in options(app, "Metric")
    assert "sharpen" in options(app, "Ablation")
    code = " ".join(block.value for block in app.code)
    assert "sharpen:power=4" in code and "answer_rank" in code and "repeated_names" in code


def test_an_intervention_by_hand_in_the_dashboard(lab, folder):
    app = page("ablate", mode="manual", task="", text="the cat sat", ablated="L1H2", manual_ablation="sharpen")
    assert any(option.startswith("sharpen: The head's attention weights") for option in options(app, "Ablation"))
    assert "change = [interventions.sharpen(ablated)]" in " ".join(block.value for block in app.code)


def test_an_outcome_declares_its_direction_and_whether_it_has_a_gradient(lab, mini):
    from interp.ablation.effect_tables import sign_meaning

    assert sign_meaning("answer_rank") == "positive = the head helped"
    task = interp.make_task("repeated_names", mini, n_prompts=4)
    with pytest.raises(ValueError, match="'answer_rank' has no gradient"):
        interp.ablate_heads(mini, task, estimator="attribution", metric="answer_rank")


def test_an_intervention_is_an_attribute_of_its_room(lab):
    assert interp.interventions.sharpen is INTERVENTIONS.get("sharpen")
    with pytest.raises(AttributeError, match="has no attribute 'blunt'"):
        _ = interp.interventions.blunt


def test_an_intervention_from_python(lab, mini):
    task = interp.make_task("repeated_names", mini, n_prompts=6)
    result = interp.ablate_heads(mini, task, ablation="sharpen:power=4", heads=[Head(1, 2), Head(2, 0)])
    assert np.abs(result.effects).max() > 0 and result.ablation == "sharpen:power=4"
    with pytest.raises(LookupError, match=r"Ablation 'sharpen' has no option 'powr'\. There are: power"):
        interp.ablate_heads(mini, task, ablation="sharpen:powr=4")
    same = interp.ablate_heads(mini, task, ablation="sharpen:power=1", heads=[Head(1, 2)])
    np.testing.assert_allclose(same.effects, 0, atol=1e-4)


def test_a_detector_from_python(lab, mini):
    from interp.detectors import default_task, quick_detectors

    found = detect(mini, "current_token", n_prompts=2)
    assert found.scores.values.shape == (mini.facts.n_layers, mini.facts.n_heads) and (found.threshold > 0).all()
    assert default_task("current_token") == "induction" and "current_token" in quick_detectors()


def test_a_detector_on_the_command_line(lab, folder):
    from interp.cli.app import app

    assert "current_token" in [row["name"] for row in command("detect")["roles"]]
    command("detect", "current_token", "--set", "n_prompts=2", "--out", folder / "run")
    assert interp.open_run(folder / "run").manifest["details"]["detection"]["role"] == "current_token"
    shown = CliRunner().invoke(app, ["show", str(folder / "run")]).stdout
    assert "\ncurrent_token on interp-mini: " in f"\n{shown}"


def test_a_detector_in_the_dashboard(lab, folder):
    app = page("heads", task="", text="the cat sat", head="L1H3", roles="yes", role="current_token")
    assert any(option.startswith("current_token: Heads that attend to the current token") for option in options(app, "Role"))


TASK = """\"\"\"Greetings.\"\"\"
from interp.tasks import Prompt, task_definition


@task_definition(metric="logit_diff", marks=(), paper="")
def greeting(rng, usable, n_words: int = 2):
    \"\"\"A greeting.\"\"\"
    yield {}
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "[][n_words]",
            r"The task 'greeting' of package 'my_lab' raised IndexError: list index out of range, in greeting\.py:8\.",
        ),
        ("'Hello'", r"Task 'greeting' must yield interp\.tasks\.Prompt, not str\."),
    ],
)
def test_an_error_in_the_code_of_a_task_names_task_package_and_line(site, mini, line, message):
    package = site("my_lab", "[interp.tasks]\ngreeting = my_lab.greeting\n") / "my_lab"
    package.mkdir()
    (package / "greeting.py").write_text(TASK.format(line), encoding="utf-8")
    with pytest.raises(ExtensionError, match=message):
        interp.make_task("greeting", mini)
    del sys.modules["my_lab.greeting"]


def test_a_broken_entry_gives_one_warning_and_leaves_the_others(lab, site):
    site("broken_lab", "[interp.metrics]\nlost_metric = broken_lab.nowhere\n")
    with pytest.warns(
        RuntimeWarning, match="attention metric 'lost_metric' of package 'broken_lab' cannot be loaded"
    ) as caught:
        entries = ATTENTION_METRICS.entries()
    assert "recent_mass" in entries and "entropy" in entries and "lost_metric" not in entries and len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ATTENTION_METRICS.entries().keys() == entries.keys()
    with pytest.raises(LookupError, match=r"from 'broken_lab\.nowhere': ModuleNotFoundError: No module named 'broken_lab'"):
        ATTENTION_METRICS.get("lost_metric")


def test_an_entry_of_another_kind_or_name_is_refused(lab, site):
    site("odd_lab", "[interp.metrics]\nodd = lab_heads.answer_rank:answer_rank\nrecent = lab_heads.recent_mass:recent_mass\n")
    with pytest.raises(
        LookupError, match="'odd' of package 'odd_lab' is the Outcome 'answer_rank', and must be an AttentionMetric"
    ):
        ATTENTION_METRICS.get("odd")
    with pytest.raises(
        LookupError, match="is the AttentionMetric 'recent_mass', and must be an AttentionMetric called 'recent'"
    ):
        ATTENTION_METRICS.get("recent")


def test_a_name_of_interp_cannot_be_taken_by_another_package(site):
    site("bold_lab", "[interp.metrics]\nentropy = bold_lab.entropy\n")
    with pytest.warns(
        RuntimeWarning, match="'entropy' of package 'bold_lab' is ignored, since interp has one of this name: rename"
    ):
        names = ATTENTION_METRICS.names()
    assert names.count("entropy") == 1
    assert ATTENTION_METRICS.get("entropy").paper.startswith("Shannon")


def test_the_second_of_two_packages_with_one_name_is_ignored(lab, site):
    site("late_lab", "[interp.tasks]\nrepeated_names = late_lab.repeated_names\n")
    with pytest.warns(RuntimeWarning, match="of package 'late_lab' is ignored, since lab_heads has one of this name"):
        assert TASKS.names().count("repeated_names") == 1
    assert TASKS.get("repeated_names").about == "The last name of a list of names that is written twice."


def test_changed_code_of_an_extension_makes_another_run(lab, mini, tmp_path):
    def digests():
        specs = [
            AttentionSpec(task="induction", metrics=("recent_mass:n=2",), n_prompts=2),
            DetectionSpec(role="current_token"),
            AblationSpec(task="repeated_names", metric="answer_rank", n_prompts=2),
            AttentionSpec(task="induction", metrics=("entropy",), n_prompts=2),
        ]
        return [spec.bind(mini).digest() for spec in specs]

    before = digests()
    for name in ("recent_mass", "current_token", "answer_rank"):
        file = tmp_path / "site" / "lab_heads" / f"{name}.py"
        file.write_text(file.read_text() + "# changed\n")
    after = digests()
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, True, True, False]
    (tmp_path / "site" / "lab_heads" / "shared_by_all.py").write_text(
        "N = 2\n"
    )  # a detector may read a metric or a helper beside it
    assert [one != other for one, other in zip(after, digests(), strict=True)] == [True, True, True, False]


def test_an_error_inside_an_extension_names_it_and_a_wrong_shape_is_a_sentence(lab, folder, monkeypatch):
    from interp.cli.app import app

    words = ["attention", "--text", "the cat sat", "--metrics", "recent_mass"]
    right = ATTENTION_METRICS.get("recent_mass").function
    metric = ATTENTION_METRICS.get("recent_mass")
    monkeypatch.setitem(metric.__dict__, "function", lambda rows, **options: rows.tokens[0])
    failed = CliRunner().invoke(app, words)
    assert failed.exit_code == 1
    assert "It was raised in the attention metric 'recent_mass'. Run the command again with --debug" in failed.output
    monkeypatch.setitem(metric.__dict__, "function", lambda rows, **options: right(rows, **options)[0])
    failed = CliRunner().invoke(app, words)
    assert failed.exit_code == 1
    assert "Metric 'recent_mass' must return [batch head query]" in failed.output
    assert "Unexpected" not in failed.output and ".." not in failed.output
