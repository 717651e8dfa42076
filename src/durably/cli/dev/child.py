"""The process that serves the code as it is now. It was forked, so what takes long to import is there already."""

from __future__ import annotations

import os
import signal
import socket
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from durably.app import AppHost
from durably.cli.apps import load_what_loads
from durably.cli.dev.audience import Terminal
from durably.cli.from_files import settings_of_apps, take
from durably.cli.hosting import run_loop
from durably.cli.logs import set_up_logging
from durably.cli.main import guarded
from durably.cli.serving import Service, serve
from durably.cli.settings import settings_of
from durably.cli.traces import FormatterForUsers
from durably.program.failures import is_ours

if TYPE_CHECKING:
    from durably.http_api.options import HttpOptions
    from durably.http_api.server import HttpServer


@dataclass(frozen=True)
class Plan:
    """What each child does.

    Attributes:
        apps: As on the command line.
        hub: URL of the hub.
        http: How to serve HTTP, or None.
        listening: The port, which the parent holds, or None.
    """

    apps: tuple[str, ...]
    hub: str
    http: HttpOptions | None
    listening: socket.socket | None


def live(context: click.Context, plan: Plan, lifeline: int, report: int, since: float | None) -> NoReturn:
    """Load, serve, end the process.

    Args:
        context: Of the command.
        plan: What to do.
        lifeline: See `Service.lifeline`.
        report: A pipe: the folders of the user's modules are written to it, a line each.
        since: See `Service.since`.
    """
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        sys.dont_write_bytecode = (
            True  # a file that is saved twice in a second may have the cache of the first
        )
        code = guarded(lambda: _serve(context, plan, lifeline, report, since), settings_of(context))
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # what is up the stack belongs to the parent


def _serve(context: click.Context, plan: Plan, lifeline: int, report: int, since: float | None) -> int:
    settings = settings_of_apps(plan.apps)
    take(settings)
    before = set(sys.modules)
    try:
        app, failed = load_what_loads(plan.apps)
    finally:
        with open(report, "w", encoding="utf-8") as pipe:
            pipe.write("\n".join(_folders_since(before)))
    for error in failed:
        error.show()
    if settings_of(context).debug:
        set_up_logging(context, "info", settings)
    else:
        set_up_logging(context, "info", settings, FormatterForUsers)

    async def open_http(host: AppHost) -> HttpServer | None:
        if plan.http is None:
            return None
        server = host.serve_http(plan.http)
        await server.start(plan.listening)
        return server

    service = Service(
        app=app,
        hub=plan.hub,
        missing=len(failed),
        open_http=open_http,
        settings=settings,
        stall_limit_s=0,  # a debugger holds the loop up for as long as somebody thinks
        audience=Terminal(),
        lifeline=lifeline,
        since=since,
    )
    return run_loop(serve(service))


def _folders_since(before: set[str]) -> list[str]:
    """The folders of modules that were imported since, but for those of Python, of libraries and of durably."""
    paths = sysconfig.get_paths()
    libraries = tuple(paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    found: set[str] = set()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and not file.startswith(libraries) and not is_ours(file):
            found.add(str(Path(file).resolve().parent))
    return sorted(found)
