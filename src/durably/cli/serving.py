"""What a program that hosts does, from the start of its host to the end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from durably.app import App, AppHost
from durably.cli.faces import Faces, remote_workers
from durably.cli.hosting import Signals, drain
from durably.cli.output import Exit, complain, say
from durably.engine.options import EngineOptions

if TYPE_CHECKING:
    from durably.executors.rehearsal import Audience
    from durably.grpc_server.server import GrpcServer
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
        open_grpc: Opens its gRPC face. Workers may come then: what the apps do not know waits for one that does.
        stall_limit_s: See `EngineOptions`, where the environment does not say it.
        audience: Is told of what fails; for development.
        lifeline: A pipe: when its other end is closed, the host lets go at once, without waiting for what runs.
        settings: Of files and the environment.
        since: Where the time that it took to be ready began (monotonic seconds), or None: nobody is told.
        ready: Is told what is served, in the place of whoever reads stdout.
        controlled: See `Signals`.
    """

    app: App
    hub: str
    missing: int
    open_http: Callable[[AppHost], Awaitable[HttpServer | None]]
    settings: Mapping[str, str]
    open_grpc: Callable[[AppHost], Awaitable[GrpcServer]] | None = None
    stall_limit_s: float = STALL_LIMIT_S
    audience: Audience | None = None
    lifeline: int | None = None
    since: float | None = None
    ready: Callable[[AppHost, list[str]], None] | None = None
    controlled: bool = False


async def serve(service: Service) -> int:
    """Serve until somebody says that it is enough; return the exit code."""
    with Signals(controlled=service.controlled) as signals:
        host = AppHost(
            service.app,
            service.hub,
            _options(service),
            None,
            None,
            audience=service.audience,
            settings=service.settings,
            workers=None if service.open_grpc is None else remote_workers(service.settings),
        )
        await host.start()
        try:
            faces = await _open(service, host)
        except BaseException:
            await host.stop(0)
            raise
        announce(service, host, faces)
        cut = await _until_over(host, faces.http, signals, service.lifeline)
        why = _failure(service, host, faces.http)
        if cut:
            await _let_go(host, faces)
            return Exit.OK
        try:
            await faces.stop()
        except Exception:
            if why is None:
                raise
        finally:  # what runs in the hub is no part of what failed
            await drain(host, signals)
    if why is not None:
        complain(why)
        return Exit.FAILED
    say("Stopped")
    return Exit.OK


async def _open(service: Service, host: AppHost) -> Faces:
    http = await service.open_http(host)
    try:
        return Faces(http, None if service.open_grpc is None else await service.open_grpc(host))
    except BaseException:
        await Faces(http).stop()
        raise


def _options(service: Service) -> EngineOptions:
    options = engine_options(service.settings, service.stall_limit_s)
    if (
        service.missing or service.open_grpc is not None
    ):  # what they would do is not failed: it waits for a host that knows it
        options = replace(options, unknown_functions="wait")
    return options


def engine_options(settings: Mapping[str, str], stall_limit_s: float) -> EngineOptions:
    """The options of a host of ours, which may end the process: what holds up the loop gets no more time than a function.

    Args:
        settings: What is set.
        stall_limit_s: What holds where they do not say it; 0: nothing ends the process.

    Raises:
        UsageError: A setting is wrong.
    """
    options = EngineOptions.from_environment(settings)
    if "DURABLY_STALL_LIMIT_S" in settings:
        return options
    return replace(options, stall_limit_s=min(stall_limit_s, options.function_timeout_s or stall_limit_s))


def _failure(service: Service, host: AppHost, server: HttpServer | None) -> str | None:
    """Why it is over when nobody has asked for that."""
    if host.failure is not None:
        return f"The host of {host.engine.store.url} stopped by itself: {host.failure}"
    if server is not None and server.failure is not None:
        error = server.failure
        return f"HTTP is not served any more, so the host of {host.engine.store.url} stopped: {type(error).__name__}: {error}"
    return None


async def _until_over(
    host: AppHost, server: HttpServer | None, signals: Signals, lifeline: int | None
) -> bool:
    """Return when the host or its HTTP has failed, somebody has asked it to stop, or (True) the lifeline is cut."""
    cut = asyncio.Event()
    if lifeline is not None:
        asyncio.get_running_loop().add_reader(lifeline, cut.set)
    ends = [host.failed(), signals.asked.wait(), cut.wait()]
    if server is not None:
        ends.append(server.failed())
    waiting = [asyncio.ensure_future(one) for one in ends]
    rehearsal = asyncio.ensure_future(host.rehearse())
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if lifeline is not None:
        asyncio.get_running_loop().remove_reader(lifeline)
    for one in (*waiting, rehearsal):
        one.cancel()
    await asyncio.gather(*waiting, rehearsal, return_exceptions=True)
    return cut.is_set() and not signals.asked.is_set()


async def _let_go(host: AppHost, faces: Faces) -> None:
    """The hub is free for the next one on return. What runs is cancelled, and done again by the next one."""
    leaving = asyncio.ensure_future(faces.stop())
    await host.stop(0)
    await asyncio.wait({leaving}, timeout=_REQUESTS_S)


def announce(service: Service, host: AppHost, faces: Faces) -> None:
    """Say what is served."""
    lines = list(_served(service, host, faces))
    if service.ready is not None:
        service.ready(host, lines)
        return
    for line in lines:
        click.echo(line)
    took = "" if service.since is None else f" after {time.monotonic() - service.since:.2f} s"
    click.echo(f"Ready{took}; Ctrl-C stops")


def _served(service: Service, host: AppHost, faces: Faces) -> Iterator[str]:
    registry = service.app.registry
    yield f"Serving {host.engine.store.url} (pid {os.getpid()})"
    yield f"  orchestrators  {', '.join(registry.names('orchestrator')) or 'none'}"
    yield f"  activities     {', '.join(registry.names('activity')) or 'none'}"
    if entities := registry.names("entity"):
        yield f"  entities       {', '.join(entities)}"
    if queues := [str(function) for function in service.app.queue_functions]:
        yield f"  queues         {', '.join(queues)}"
    if timers := [function.name for function in service.app.timer_functions]:
        yield f"  timers         {', '.join(timers)}"
    if faces.http is not None:
        yield f"  http           {faces.http.url} ({faces.http.way_in})"
        for line in faces.http.routes:
            yield f"                 {line}"
    if faces.grpc is not None:
        yield f"  grpc           {faces.grpc.url} ({faces.grpc.way_in})"
    if service.missing:
        are = "app" if service.missing == 1 else "apps"
        yield f"  degraded       {service.missing} {are} could not be loaded, see above: the work waits"
