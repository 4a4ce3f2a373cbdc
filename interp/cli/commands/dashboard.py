"""`interp dashboard`: the app in the browser, on this machine alone."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from interp.cli.command import command
from interp.cli.exit_codes import UsageError
from interp.cli.options import DEFAULT_DEVICE, DEFAULT_DTYPE, DEFAULT_MODEL, Device, Dtype, ModelName, Offline
from interp.cli.terminal import Terminal

LOCAL = "127.0.0.1"
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
"""Nobody else on the network reaches the app, no other page may talk to it, and nothing is reported to anyone."""

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
"""The paper and ink of the figures (``interp.figures.style``, ``interp.figures.dark_theme``)."""


@command
def dashboard(
    terminal: Terminal,
    model: ModelName = DEFAULT_MODEL,
    run: Annotated[Path | None, typer.Option(help="A run directory to open first.")] = None,
    runs: Annotated[Path, typer.Option(help="The folder whose run directories are shown.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Start the server, open nothing.")] = False,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    offline: Offline = False,
) -> None:
    """Open the dashboard in the browser: every head on one screen, and what it does when it is taken out.

    It listens on 127.0.0.1 only. Stop it with Ctrl-C; sweeps that it started go on.
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

    opened = run.resolve().name if run else ""
    asked = Settings(model=model, device=device, dtype=dtype, offline=offline, runs=str(runs), run=opened)
    place = [("server.port", str(port)), ("server.headless", "true" if no_browser else "false")]
    _serve(asked.to_environment(), [*SECURITY_FLAGS, *THEME_FLAGS, *place])


def _serve(settings: dict[str, str], options: list[tuple[str, str]]) -> None:
    """Becomes the server."""
    import interp_dashboard

    script = Path(str(interp_dashboard.__file__)).parent / "server" / "script.py"
    flags = [f"--{name}={value}" for name, value in options]
    os.environ.update(settings)
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(script), *flags])  # noqa: S606
