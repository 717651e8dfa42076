"""What a program that hosts does, from the start of its host to the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from durably.app import App, AppHost
from durably.cli.hosting import Signals, drain
from durably.cli.output import Exit, complain, say
from durably.engine.options import EngineOptions

if TYPE_CHECKING:
    from durably.executors.rehearsal import Audience
    from durably.http_api.server import HttpServer

STALL_LIMIT_S = 300.0
"""A host whose event loop is held up for longer ends with exit code 75: whoever supervises it starts it again."""

_REQUESTS_S = 0.2
"""Requests that are under way when a host is cut off may end in this time."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What to serve, and how.

    Attributes:
        app: The functions.
        hub: URL of the hub.
        missing: How many apps could not be loaded.
        open_http: Opens the HTTP face of a host; None when there is none.
        stall_limit_s: See `EngineOptions`, where the environment does not say it.
        audience: Is told of what fails; for development.
        lifeline: A pipe: when its other end is closed, the host lets go at once, without waiting for what runs.
        keys_hint: How to get in over HTTP.
        since: Where the time that it took to be ready began (monotonic seconds), or None: nobody is told.
    """

    app: App
    hub: str
    missing: int
    open_http: Callable[[AppHost], Awaitable[HttpServer | None]]
    stall_limit_s: float = STALL_LIMIT_S
    audience: Audience | None = None
    lifeline: int | None = None
    keys_hint: str = "keys: durably keys --help"
    since: float | None = None


async def serve(service: Service) -> int:
    """Serve until somebody says that it is enough; return the exit code."""
    with Signals() as signals:
        host = AppHost(service.app, service.hub, _options(service), None, None, audience=service.audience)
        await host.start()
        try:
            server = await service.open_http(host)
        except BaseException:
            await host.stop(0)
            raise
        announce(service, host, server)
        cut = await _until_over(host, signals, service.lifeline)
        failure = host.failure
        if cut:
            await _let_go(host, server)
            return Exit.OK
        if server is not None:
            await server.stop()
        await drain(host, signals)
    if failure is not None:
        complain(f"The host of {service.hub} stopped by itself: {failure}")
        return Exit.FAILED
    say("Stopped")
    return Exit.OK


def _options(service: Service) -> EngineOptions:
    options = EngineOptions.from_environment()
    if "DURABLY_STALL_LIMIT_S" not in os.environ:
        options = replace(options, stall_limit_s=service.stall_limit_s)
    if service.missing:  # what they would do is not failed: it waits for a host that knows it
        options = replace(options, unknown_functions="wait")
    return options


async def _until_over(host: AppHost, signals: Signals, lifeline: int | None) -> bool:
    """Return when the host has failed, somebody has asked it to stop, or (True) the lifeline is cut."""
    cut = asyncio.Event()
    if lifeline is not None:
        asyncio.get_running_loop().add_reader(lifeline, cut.set)
    waiting = [asyncio.ensure_future(one) for one in (host.failed(), signals.asked.wait(), cut.wait())]
    rehearsal = asyncio.ensure_future(host.rehearse())
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if lifeline is not None:
        asyncio.get_running_loop().remove_reader(lifeline)
    for one in (*waiting, rehearsal):
        one.cancel()
    await asyncio.gather(*waiting, rehearsal, return_exceptions=True)
    return cut.is_set() and not signals.asked.is_set()


async def _let_go(host: AppHost, server: HttpServer | None) -> None:
    """The hub is free for the next one on return. What runs is cancelled, and done again by the next one."""
    leaving = None if server is None else asyncio.ensure_future(server.stop())
    await host.stop(0)
    if leaving is not None:
        await asyncio.wait({leaving}, timeout=_REQUESTS_S)


def announce(service: Service, host: AppHost, server: HttpServer | None) -> None:
    """Say what is served."""
    import time

    registry = service.app.registry
    click.echo(f"Serving {host.engine.store.url} (pid {os.getpid()})")
    click.echo(f"  orchestrators  {', '.join(registry.names('orchestrator')) or 'none'}")
    click.echo(f"  activities     {', '.join(registry.names('activity')) or 'none'}")
    if entities := registry.names("entity"):
        click.echo(f"  entities       {', '.join(entities)}")
    if server is not None:
        click.echo(f"  http           {server.url} ({service.keys_hint})")
        for line in server.routes:
            click.echo(f"                 {line}")
    if service.missing:
        are = "app" if service.missing == 1 else "apps"
        click.echo(f"  degraded       {service.missing} {are} could not be loaded, see above: the work waits")
    took = "" if service.since is None else f" after {time.monotonic() - service.since:.2f} s"
    click.echo(f"Ready{took}; Ctrl-C stops")
