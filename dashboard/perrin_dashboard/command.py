"""``perrin dashboard``. Importing it loads nothing heavy."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["dashboard"]


def dashboard(
    url: Annotated[str | None, typer.Option(help="Address of the gateway (PERRIN_URL).", metavar="URL")] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port to listen on (PERRIN_DASHBOARD_PORT); 0: a free one.", metavar="PORT"
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Interface to listen on (PERRIN_HOST).", metavar="HOST")] = None,
    api_key: Annotated[str | None, typer.Option(help="API key of the gateway (PERRIN_API_KEY).", metavar="KEY")] = None,
) -> None:
    """Serve the dashboard, until Ctrl-C. With no --url it shows the platform that runs on this machine."""
    import importlib.util
    import os
    import socket
    import sys
    from pathlib import Path

    from perrin.errors import Conflict, NotInstalled
    from perrin.settings import Settings

    if importlib.util.find_spec("streamlit") is None:
        raise NotInstalled("the dashboard", "dashboard")
    settings = Settings()
    address = host or settings.host
    wanted = settings.dashboard_port if port is None else port
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, wanted))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Conflict(f"port: {address}:{wanted} cannot be used ({reason}); choose another with --port") from None
        wanted = probe.getsockname()[1]
    environment = dict(os.environ)
    environment |= {name: value for name, value in (("PERRIN_URL", url), ("PERRIN_API_KEY", api_key)) if value}
    script = Path(__file__).with_name("app.py")
    flags = ["--server.address", address, "--server.port", str(wanted), "--browser.serverAddress", address]
    sys.stdout.flush()
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.headless", "true", *flags]
    os.execve(sys.executable, command, environment)
