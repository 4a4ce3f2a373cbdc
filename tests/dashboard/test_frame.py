"""What stands in an address is read back or refused, and no address makes the app fail, load, write or start anything."""

import json
import os
import sys

import hypothesis
import pytest
from hypothesis import HealthCheck, given, seed
from hypothesis import strategies as st

from interp.heads import Head
from interp_dashboard import jobs, url
from interp_dashboard.model_cache import ModelCache
from interp_dashboard.page_definition import pages
from interp_dashboard.settings import VARIABLE, settings
from tests.support.dashboard_apps import new_session, open_address

HOSTILE = [
    *("</script>", "<img src=x onerror=alert(1)>", "\x00", "\u202eabc", "=HYPERLINK(1)", "~", "~AAAA", "a,b&c=d#e%20"),
    *("é" * 700, "x" * 10_000),
]


def opened(page: str, **query: str):
    """The page as it stands after its address was opened."""
    return open_address(new_session(page), **query)


@pytest.mark.parametrize("value", HOSTILE)
def test_any_text_survives_the_address(value):
    field = url.text("text")
    assert field.read(field.write(value)) == value
    assert len(field.write(value)) <= url.PLAIN + 200


def test_a_text_that_unpacks_to_more_than_a_megabyte_is_refused():
    packed = url.text("text").write("a" * (url.LONGEST + 1))
    with pytest.raises(ValueError, match="damaged or cut"):
        url.text("text").read(packed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (url.choice("c", ["a", "b"]), "b"),
        (url.several("s", ["a", "b", "c"]), ["c", "a"]),
        (url.number("n", 3, 0, 9), 7),
        (url.number("x", 0.5, 0.0, 1.0), 0.25),
        (url.flag("f"), True),
        (url.head(), Head(3, 11)),
        (url.heads("hs"), [Head(0, 1), Head(2, 0)]),
        (url.numbers("w", 4), (0, 12, 3, 40)),
    ],
    ids=lambda part: getattr(part, "name", ""),
)
def test_a_value_is_read_back_from_the_address(field, value):
    assert field.read(field.write(value)) == value


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (url.choice("c", ["a", "b"]), "z"),
        (url.number("n", 3, 0, 9), "nan"),
        (url.number("n", 3, 0, 9), "10"),
        (url.number("x", 0.5, 0.0, 1.0), "nan"),
        (url.head(), "L1"),
        (url.numbers("w", 2), "1,-2"),
        (url.numbers("w", 2), "1,²"),
        (url.text("t"), "~not base64"),
    ],
    ids=lambda part: part if isinstance(part, str) else part.name,
)
def test_what_a_field_does_not_take_is_refused_in_a_sentence(field, text):
    with pytest.raises((ValueError, LookupError), match=r"\w+.*\."):
        field.read(text)


@pytest.mark.parametrize("page", pages())
def test_a_page_opens_at_once_on_the_embedded_model(page):
    app = opened(page)
    assert not app.exception
    assert not app.error
    assert app.title[0].value == pages()[page].title


@pytest.mark.parametrize("page", pages())
def test_an_address_loads_no_model_that_the_server_does_not_know(page, monkeypatch):
    loaded = []
    monkeypatch.setattr(ModelCache, "add", lambda self, name: loaded.append(name))
    app = opened(page, model="/etc/passwd")
    assert not app.exception
    assert not loaded
    assert "may not load" in app.warning[0].value
    assert app.selectbox(key="field:model").value == "interp-mini"


def test_a_model_for_which_there_is_no_memory_is_answered_with_what_fits(monkeypatch):
    from interp.models import memory

    cache = ModelCache()
    monkeypatch.setattr("interp_dashboard.app.model_cache", lambda: cache)
    monkeypatch.setattr("interp_dashboard.page_definition.model_cache", lambda: cache)
    monkeypatch.setattr(memory, "available_memory", lambda place: 5 << 20)
    app = opened("attention")
    assert not app.exception
    said = app.error[0].value.replace("\\", "")
    assert said.startswith("Loading interp-mini in float32 needs about") and "--dtype bfloat16 (in Python" in said


QUERIES = 2000
"""Addresses in all, divided among the pages."""
ODD = [
    *(
        "L1H2",
        "L99H99",
        "L0H0,L3H3",
        "0",
        "3",
        "-1",
        "64",
        "4096",
        "1e309",
        "nan",
        "0.5",
        "inf",
        "yes",
        "no",
        "0,9,0,9",
        "5,2,9,9",
        "0,1",
    ),
    *(
        "manual",
        "prompts",
        "models",
        "runs",
        "adaptive",
        "attribution",
        "resample",
        "zero",
        "uniform",
        "tokens",
        "ranking",
        "layers",
    ),
    *(
        "induction",
        "ioi",
        "needle",
        "docstring",
        "entropy",
        "value_weighted_norm",
        "head_similarity",
        "logit_diff",
        "end",
        "interp-mini",
    ),
    *(
        "",
        "../..",
        "/etc/passwd",
        "000000000000/prompts",
        ".jobs",
        "~AAAA",
        "~eJzLSM3JyVcozy_KSQEAGgsEXQ",
        "gpt2",
        "the cat sat " * 40,
    ),
]
"""Values that some field takes, or nearly takes."""


ANYTHING = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.from_regex(r"-?[0-9]{1,30}(,[0-9]{1,4}){0,4}", fullmatch=True),
)


@pytest.fixture
def written(monkeypatch, tmp_path):
    """Files that were opened for writing, and jobs that were begun or ended, while the list ``watching`` of the fixture is not empty."""
    found = []

    def hook(event, arguments):
        if (
            watching
            and event == "open"
            and isinstance(arguments[2], int)
            and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            found.append(str(arguments[0]))
        if watching and event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.kill", "shutil.rmtree"):
            found.append(f"{event} {arguments[0]}")

    watching = []
    sys.addaudithook(hook)
    for name in ("start", "cancel", "save_uploaded_prompts"):
        monkeypatch.setattr(jobs, name, lambda *asked, name=name: found.append(name))
    monkeypatch.setattr(ModelCache, "add", lambda self, name: found.append(f"load {name}"))
    monkeypatch.setenv(VARIABLE, json.dumps({"runs": str(tmp_path / "runs")}))
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    watching.append(True)
    (tmp_path / "noticed").touch()
    watching.clear()
    assert found.pop() == str(tmp_path / "noticed")
    (tmp_path / "noticed").unlink()
    yield found, watching
    watching.clear()
    settings.cache_clear()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", pages())
def test_no_address_makes_a_page_fail_start_load_or_write_anything(page, written, tmp_path):
    found, watching = written
    names = [field.name for field in pages()[page].all_fields()]
    app = opened(page)  # loads the model
    history = []

    @seed(0)
    @hypothesis.settings(
        max_examples=QUERIES // len(pages()), deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(st.dictionaries(st.sampled_from([*names, "x"]), ANYTHING, min_size=1, max_size=6))
    def check(query):
        app.query_params.clear()
        for name, value in query.items():
            app.query_params[name] = value
        history.append(query)
        watching.append(True)
        app.run()
        watching.clear()
        assert not app.exception, (app.exception[0].value, history[-5:])
        assert not found, (found, history[-5:])

    check()
    assert len(history) >= QUERIES // len(pages())
    assert not [*tmp_path.rglob("*")]


def test_an_address_says_everything_of_its_view():
    app = opened("attention", corrupted="yes", seed="3")
    assert app.toggle(key="field:corrupted").value
    app.query_params.clear()
    app.query_params["seed"] = "4"
    app.run()
    assert not app.toggle(key="field:corrupted").value
    assert app.number_input(key="field:seed").value == 4


@pytest.fixture
def started(monkeypatch):
    """Runs ``interp dashboard`` with these options; the options of the server that it would start, or its answer."""
    from typer.testing import CliRunner

    from interp.cli.app import app

    words = []
    monkeypatch.setattr(os, "execv", lambda path, given: words.append(given))
    monkeypatch.setattr(os, "environ", {**os.environ})

    def start(*options):
        answer = CliRunner().invoke(app, ["dashboard", *options])
        return words.pop() if words else answer

    return start


def test_a_host_of_a_proxy_is_allowed_beside_this_machine(started):
    words = started("--allow-host", "Hub.example.org")
    assert "--browser.serverAddress=hub.example.org" in words
    hosts = [word.partition("=")[2] for word in words if "allowedHosts" in word]
    assert hosts == ["localhost", "127.0.0.1", "hub.example.org"]
    assert not [word for word in words if "corsAllowed" in word] and "--server.address=127.0.0.1" in words


@pytest.mark.parametrize("host", ["*", "*.example.org", "https://hub.example.org", "hub:8000", "hub/user", "", "a b", "-x.org"])
def test_what_is_no_host_is_refused(started, host):
    answer = started(f"--allow-host={host}")
    assert (
        answer.exit_code == 2 and repr(host) in answer.output.replace("\n", "") and "such as hub.example.org" in answer.output
    )


def test_the_command_starts_a_server_of_this_machine_alone_that_asks_nothing(monkeypatch, tmp_path):
    """Streamlit's own defaults listen on every address and ask for an e-mail address in the terminal first."""
    import os

    from typer.testing import CliRunner

    from interp.cli.app import app

    started = []
    monkeypatch.setattr(os, "execv", lambda path, words: started.append(words))
    monkeypatch.setattr(os, "environ", {**os.environ})
    answer = CliRunner().invoke(app, ["dashboard", "--runs", str(tmp_path), "--port", "8123"])
    assert answer.exit_code == 0, answer.output
    (words,) = started
    assert {
        "--server.address=127.0.0.1",
        "--server.port=8123",
        "--server.headless=false",
        "--server.showEmailPrompt=false",
        "--server.enableXsrfProtection=true",
        "--browser.gatherUsageStats=false",
    } <= {*words}
    assert [word for word in words if "allowedHosts" in word] == [
        f"--server.allowedHosts={h}" for h in ("localhost", "127.0.0.1")
    ]
    assert not [word for word in words if "corsAllowed" in word]
