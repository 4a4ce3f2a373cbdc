"""`interp dashboard`: the dashboard in the browser, on this machine only."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from interp.cli.command_decorator import command
from interp.cli.options import DEFAULT_DEVICE, DEFAULT_DTYPE, DEFAULT_MODEL, Device, Dtype, ModelName, Offline
from interp.cli.terminal import Terminal
from interp.experiments.experiment import RUNS
from interp.experiments.usage_error import UsageError

LOCAL = "127.0.0.1"
HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*")
SECURITY_FLAGS = (
    ("server.address", LOCAL),
    ("server.allowedHosts", "localhost"),
    ("server.allowedHosts", LOCAL),
    ("server.enableXsrfProtection", "true"),
    ("server.enableCORS", "true"),
    ("server.enableStaticServing", "false"),
    ("server.fileWatcherType", "none"),
    ("server.maxUploadSize", "20"),
    ("server.showEmailPrompt", "false"),
    ("browser.gatherUsageStats", "false"),
    ("client.toolbarMode", "minimal"),
    ("client.showErrorDetails", "none"),
    ("runner.magicEnabled", "false"),
)
"""No other machine can reach the app, no other page can open its WebSocket, over which all data goes, and it reports nothing to anyone."""

THEME_FLAGS = (
    ("theme.light.primaryColor", "#2473b0"),
    ("theme.light.backgroundColor", "#ffffff"),
    ("theme.light.secondaryBackgroundColor", "#f4f6f9"),
    ("theme.light.textColor", "#1f2430"),
    ("theme.dark.primaryColor", "#5aa0dc"),
    ("theme.dark.backgroundColor", "#0e1117"),
    ("theme.dark.secondaryBackgroundColor", "#1a1f2a"),
    ("theme.dark.textColor", "#e8eaee"),
)
"""The colours of the figures (``interp.figures.style``, ``interp.figures.dark_theme``)."""


@command
def dashboard(
    terminal: Terminal,
    model: ModelName = DEFAULT_MODEL,
    run: Annotated[Path | None, typer.Option(help="Run directory to open first.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder whose run directories are shown.")] = RUNS,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Start the server without opening a browser.")] = False,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    offline: Offline = False,
    allow_host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Host of a proxy, as in the browser's address: hub.example.org.")
    ] = None,
) -> None:
    """Open the dashboard in the browser: the attention patterns of every head, and the effects of ablating them.

    It listens on 127.0.0.1 only, under this name, localhost and, behind a proxy such as JupyterHub's, --allow-host. Stop it with Ctrl-C;
    runs that it started continue.
    """
    if find_spec("streamlit") is None or find_spec("interp_dashboard") is None:
        raise UsageError("The dashboard is not installed: pip install 'interp-workbench[app]'.")
    from interp.models.embedded import PLANTED
    from interp.models.load import find_folder

    if not model.startswith(PLANTED):
        find_folder(model)
    if run is not None:
        from interp.store import open_run

        runs = open_run(run).path.resolve().parent
    from interp_dashboard.settings import Settings

    first = run.resolve().name if run else ""
    chosen = Settings(model=model, device=device, dtype=dtype, offline=offline, runs=str(runs), run=first)
    server = [("server.port", str(port)), ("server.headless", "true" if no_browser else "false")]
    _serve(chosen.to_environment(), [*SECURITY_FLAGS, *_proxy_flags(allow_host), *THEME_FLAGS, *server])


def _proxy_flags(host: str | None) -> list[tuple[str, str]]:
    """Lets pages of this host open the WebSocket, whether or not the proxy keeps the ``Host`` header."""
    if host is None:
        return []
    if not HOST.fullmatch(host):
        example = "such as hub.example.org, without https://, port, path or *"
        raise UsageError(
            f"--allow-host {host!r} is not the name of one host: give it as it stands in the browser's address, {example}."
        )
    return [("server.allowedHosts", host.lower()), ("browser.serverAddress", host.lower())]


def _serve(settings: dict[str, str], options: list[tuple[str, str]]) -> None:
    """Replaces this process by the server."""
    import interp_dashboard

    script = Path(str(interp_dashboard.__file__)).parent / "server" / "script.py"
    flags = [f"--{name}={value}" for name, value in options]
    os.environ.update(settings)
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(script), *flags])  # noqa: S606
