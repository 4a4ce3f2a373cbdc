"""Models that are installed by name: fetched once, compared with their digest, dequantised, and loaded from the cache from then on."""

import json
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from typer.testing import CliRunner

from tests.support.gguf_models import write_gguf
from tests.support.tiny_models import tiny_tokens


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel with the GGUF file of a tiny model, and the module that it holds."""
    pytest.importorskip("gguf", reason="the package gguf, which reads and writes GGUF files, is not installed")
    folder = tmp_path_factory.mktemp("index")
    original = write_gguf(folder / "tiny.gguf")
    with ZipFile(folder / "tiny_package-1-py3-none-any.whl", "w") as archive:
        archive.write(folder / "tiny.gguf", "tiny_package/tiny.gguf")
        archive.writestr("tiny_package/__init__.py", "")
    return folder / "tiny_package-1-py3-none-any.whl", original


@pytest.fixture
def index(wheel, tmp_path, monkeypatch):
    """The only model to install is "tiny"; pip is a function that copies the wheel, or says ``fails``."""
    from interp.files import sha256
    from interp.models import install_from_package as install
    from interp.models import installed_models as installed

    run = subprocess.run

    class Index:
        calls, fails, content = 0, "", wheel[0].read_bytes()

        def run(self, argv, **options):
            if "pip" not in argv:  # git, for the record
                return run(argv, **options)
            self.calls += 1
            assert argv[1:4] == ["-m", "pip", "download"] and "--no-deps" in argv and argv[-1] == "tiny-package==1"
            if not self.fails:
                Path(argv[argv.index("--dest") + 1], wheel[0].name).write_bytes(self.content)
            return subprocess.CompletedProcess(argv, bool(self.fails), "", f"WARNING: old\n{self.fails}\n")

    made, digest = Index(), sha256(wheel[0].read_bytes())
    source = installed.InstallableModel(
        "tiny", "tiny model", "MIT", "tiny-package==1", 1, digest, "tiny_package/tiny.gguf", "a/tiny"
    )
    monkeypatch.setattr(installed, "installable_models", lambda: {"tiny": source})
    monkeypatch.setattr(install, "installable_models", lambda: {"tiny": source})
    monkeypatch.setattr(install.subprocess, "run", made.run)
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    return made


def test_an_installed_model_is_that_of_the_file_under_a_name(index, wheel, tmp_path):
    from interp.models import install_model, installed_names, load_model
    from interp.models.model import record_of

    said = []
    folder = install_model("tiny", said.append)
    model, tokens = load_model("tiny", offline=True), tiny_tokens()
    with torch.no_grad():
        assert torch.equal(model.hf(tokens).logits, wheel[1](tokens).logits)
    assert record_of(model).weights_form == "dequantised from Q8_0, F32 (GGUF)" and model.facts.name == "tiny"
    assert model.to_str_tokens(model.to_tokens("abc d")) == ["ab", "c", " d"]
    assert said == ["Fetching tiny-package==1 (1 MB, MIT) ...", "Dequantising to float32 ..."]
    assert folder == tmp_path / "cache" / "models" / "tiny" and [*folder.parent.iterdir()] == [folder]
    assert install_model("tiny") == folder and index.calls == 1 and installed_names() == ["tiny"]


def test_a_model_that_is_not_installed_is_answered_with_the_command(index):
    from interp.errors import ModelUnavailable
    from interp.models import installed_names, load_model

    assert installed_names() == []
    with pytest.raises(
        ModelUnavailable, match=r"tiny is not installed: `interp models install tiny` fetches tiny-package==1 .* \(1 MB\)"
    ):
        load_model("tiny")


def test_a_package_that_cannot_be_fetched_is_named_with_the_reason_of_pip(index, tmp_path):
    from interp.errors import ModelUnavailable
    from interp.models import install_model

    index.fails = "ERROR: No matching distribution found for tiny-package==1"
    with pytest.raises(
        ModelUnavailable, match=r"could not be fetched \(No matching distribution found for tiny-package==1\): connect"
    ):
        install_model("tiny")
    assert [*(tmp_path / "cache" / "models").iterdir()] == []


def test_another_file_under_the_same_name_is_not_used(index, tmp_path):
    from interp.errors import ModelUnavailable
    from interp.models import install_model

    index.content = index.content + b" "
    with pytest.raises(
        ModelUnavailable, match=r"has the SHA-256 [0-9a-f]{12}\.\.\., not [0-9a-f]{12}\.\.\., which is listed here"
    ):
        install_model("tiny")
    assert [*(tmp_path / "cache" / "models").iterdir()] == []


def test_a_machine_without_memory_for_float32_cannot_install(index, tmp_path, monkeypatch):
    from interp.errors import MemoryBudgetExceeded
    from interp.models import install_model, memory

    monkeypatch.setattr(memory, "available_memory", lambda place: 1000)
    sentence = (
        r"in float32 needs about .*, and 1000 B are available on cpu: tiny is dequantised in float32 once, .* try again\.$"
    )
    with pytest.raises(MemoryBudgetExceeded, match=sentence):
        install_model("tiny")
    assert [*(tmp_path / "cache" / "models").iterdir()] == []


@pytest.mark.parametrize("damage", ["cut weights", "no state", "other format", "other wheel", "state is a list", "no digest"])
def test_a_damaged_cache_or_one_of_another_version_is_made_anew(index, damage):
    from interp.errors import ModelUnavailable
    from interp.models import install_model, load_model
    from interp.models.installed_models import STATE

    folder = install_model("tiny")
    state = json.loads((folder / STATE).read_text())
    if damage == "cut weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "no state":
        (folder / STATE).unlink()
    else:
        changed = {
            "other format": state | {"format": 0},
            "other wheel": state | {"wheel_sha256": "0"},
            "state is a list": [state],
            "no digest": {key: value for key, value in state.items() if key != "weights_digest"},
        }
        (folder / STATE).write_text(json.dumps(changed[damage]))
    with pytest.raises(
        ModelUnavailable, match=r"tiny is damaged, or was made by another version: `interp models install tiny`"
    ):
        load_model("tiny")
    install_model("tiny")
    assert load_model("tiny").facts.weights_form and index.calls == 2


def test_one_changed_byte_of_the_weights_is_noticed(index):
    from interp.errors import ArtefactInvalid
    from interp.models import install_model, load_model

    file = install_model("tiny") / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        ArtefactInvalid, match=r"its weights are not those that were stored\. `interp models install tiny` makes it anew"
    ):
        load_model("tiny")
    install_model("tiny")
    assert load_model("tiny").facts.weights_form and index.calls == 2


def interp(*words):
    from interp.cli.app import app

    return CliRunner().invoke(app, ["models", *words])


def test_the_command_lists_and_installs(index):
    listed = json.loads(interp("--json").stdout)
    assert listed["installable"] == ["tiny"] and "tiny" not in [row["name"] for row in listed["models"]]
    assert "`interp models install tiny` (1 MB)" in interp().stdout
    assert json.loads(interp("install", "tiny", "--json").stdout)["name"] == "tiny"
    listed = json.loads(interp("--json").stdout)
    assert listed["installable"] == [] and {"name": "tiny", "n_layers": 2, "n_heads": 4}.items() <= listed["models"][-1].items()
    assert "tiny: installed. tiny model; MIT." in interp().stdout
    assert "install needs the name of a model: tiny." in interp("install").stderr
    unknown = interp("install", "tinny")
    assert (unknown.exit_code, "No model to install is called 'tinny'. There are: tiny." in unknown.stderr) == (2, True)


def test_the_real_list_names_a_wheel_and_its_digest():
    from interp.models.installed_models import installable_models

    for name, model in installable_models().items():
        assert name == model.folder.name and "==" in model.package and model.file.endswith(".gguf")
        assert len(model.wheel_sha256) == 64 and model.license and "/" in model.unquantised


def test_a_run_says_once_which_weights_its_numbers_are_those_of(index, tmp_path):
    from interp.cli.app import app
    from interp.models import install_model, load_model
    from interp.models.installed_models import quantised_remark

    install_model("tiny")
    facts = load_model("tiny", offline=True).facts
    remark = quantised_remark("tiny", facts.weights_form)
    assert remark == (
        "Numbers are those of weights dequantised from Q8_0, F32 (GGUF); the Hub has them unquantised: --model a/tiny."
    )
    assert quantised_remark("interp-mini", "") == quantised_remark("my.gguf", facts.weights_form) == ""
    (tmp_path / "text.txt").write_text("abc defgh")
    out = ["--out", str(tmp_path / "run")]
    made = CliRunner().invoke(app, ["attention", "--model", "tiny", "--file", str(tmp_path / "text.txt"), *out])
    assert made.exit_code == 0 and made.stderr.count(remark) == 1 and remark not in made.stdout
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "run")])
    assert shown.stdout.count(remark) == 1
