"""Without a network everything works on a local model, and no file that is written asks for anything on another machine."""

import re
import socket

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from streamlit.testing.v1 import AppTest

import interp
from interp.figures import figure_bytes
from interp.store import export_headvis, open_run
from tests.support.dashboard_apps import SCRIPT
from tests.support.tiny_models import save_tiny

OUTSIDE = re.compile(
    r"""(?:src|href|action|poster|data)\s*=\s*["']?\s*(?:https?:)?//|@import|url\(\s*["']?(?:https?:)?//""", re.IGNORECASE
)
CDN = re.compile(r"cdn\.jsdelivr|unpkg\.com|cdnjs|googleapis|gstatic|cdn\.plot\.ly/plotly|esm\.sh|skypack", re.IGNORECASE)


@pytest.fixture
def no_network(monkeypatch):
    """Whoever looks up a name or connects to anything fails."""

    def refuse(*asked, **_):
        raise AssertionError(f"asked the network for {asked}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    with pytest.raises(AssertionError, match="asked the network"):
        socket.create_connection(("127.0.0.1", 9))


@pytest.mark.slow
def test_models_runs_figures_and_exports_work_without_a_network(tmp_path, no_network):
    model = interp.load_model(str(save_tiny("llama", tmp_path / "model")))
    observation = interp.observe_attention(model, "w1 w2 w3 w1 w2", ["entropy", "attention_distance"])
    interp.save_observation(observation, model.facts, tmp_path / "run")
    scores = open_run(tmp_path / "run").scores()
    pages = {
        "figure.html": figure_bytes(scores.plot(), ".html").decode(),
        "figure.svg": figure_bytes(scores.plot(), ".svg").decode(),
    }
    view = interp.show_attention(model, "w1 w2 w3 w1 w2")
    pages |= {"notebook": view._repr_html_(), "viewer.html": view.save(tmp_path / "view.html").read_text()}
    pages |= {"table": open_run(tmp_path / "run")._repr_html_()}
    from interp.engine import capture_attention

    tree = export_headvis(capture_attention(model, "w1 w2 w3 w1 w2"), tmp_path / "tree", "words")
    pages |= {path.name: path.read_text() for path in (*tree.rglob("*.json"), tmp_path / "run" / "run.json")}
    for name, page in pages.items():
        bare = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
        assert not OUTSIDE.search(bare) and not re.search(r"<script[^>]*\bsrc=", page), name
        own = page.replace(get_plotlyjs(), "")  # it names places that only maps ask for; browser tests watch for requests
        assert not CDN.search(own), name
    assert len(pages) >= 20 and np.isfinite(scores.values).all()


@pytest.mark.slow
@pytest.mark.parametrize("page", ["attention", "heads", "ablate", "runs"])
def test_pages_work_without_a_network(page, no_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = AppTest.from_string(SCRIPT.format(page), default_timeout=120).run()
    assert not app.exception and not app.error
