"""Puts parent and child together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from durably.cli.dev.child import Plan
from durably.cli.dev.parent import Supervisor
from durably.cli.output import warn

if TYPE_CHECKING:
    from durably.cli.run import Face
    from durably.config.settings import Settings


def run_dev(
    context: click.Context, apps: tuple[str, ...], hub: str, face: Face | None, settings: Settings
) -> int:
    """Serve apps for development until somebody stops it; return the exit code.

    Each child reads the settings again; hub and port stay.

    Raises:
        OperationError: The port is taken.
    """
    if hub.lower().startswith("memory:"):
        warn("A hub in memory ends with each reload, and its instances with it; sqlite:///dev.db keeps them")
    _import_what_takes_long()
    plan = Plan(apps, hub, None, None) if face is None else _with_http(apps, hub, face, settings)
    return Supervisor(context, plan).run()


def _with_http(apps: tuple[str, ...], hub: str, face: Face, settings: Settings) -> Plan:
    try:
        from durably.http_api.options import HttpOptions
        from durably.http_api.server import listen
    except ImportError as error:
        warn(
            f"This host serves no HTTP, which needs the extra 'server' ({error}): pip install 'durably[server]'"
        )
        return Plan(apps, hub, None, None)
    options = HttpOptions.from_environment(settings, bind=face.bind, port=face.port, insecure=face.insecure)
    if options.is_local and options.names:  # where any name will do, a page of another site could reach it
        options = replace(options, insecure=True, oidc_issuer="", oidc_audience="", oidc_jwks_url="")
    return Plan(apps, hub, options, listen(options))


def _import_what_takes_long() -> None:
    """Once, before the forks. Nothing of it starts a thread."""
    import contextlib
    import importlib

    for name in (
        "durably",
        "durably.http_api.serving",
        "durably.http_api.server",
        "durably.storage.sqlite.store",
        "starlette.requests",
        "uvicorn.loops.auto",
        "uvicorn.protocols.http.auto",
        "uvicorn.lifespan.off",
        "uvloop",
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
