"""Starts an instance or finds the one that is there, hosts it, and follows it to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from durably.app import App
from durably.cli.hosting import Signals, drain
from durably.cli.reader import TreeReader
from durably.cli.steps import Tree
from durably.cli.views import View
from durably.client import Client, OnExisting
from durably.clock import Clock
from durably.core.status import InstanceStatus
from durably.core.timeline import instant
from durably.errors import InstanceNotFoundError, InstanceStateError, StoreUnavailableError, UsageError

How: TypeAlias = Literal["ended", "blocked", "interrupted", "timeout"]

_SHARE = 20
"""Reading and drawing takes at most this part of the time: the event loop is for the work."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to execute.

    Attributes:
        app: Has the functions.
        hub: URL of the hub.
        orchestrator: Its name.
        input: As plain JSON data.
        instance_id: The instance.
        on_existing: What to do when it is there.
        timeout_s: How long to follow it, or None.
        missing_input: Why it cannot be started without an input that was not given; or None.
        settings: Of files and the environment.
    """

    app: App
    hub: str
    orchestrator: str
    input: Any
    instance_id: str
    on_existing: OnExisting
    timeout_s: float | None
    missing_input: str | None = None
    settings: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """Why nobody follows the instance any more.

    Attributes:
        how: It ended; it cannot go on; somebody interrupted; the time is over.
        status: Of the instance.
        blocked: Why it, or one of its sub-orchestrations, cannot go on; or None.
    """

    how: How
    status: InstanceStatus
    blocked: str | None = None


async def execute(
    job: Job,
    view_for: Callable[[InstanceStatus | None], View],
    tell: Callable[[Ending], None],
    *,
    quiet: bool,
) -> Ending:
    """Host the hub until the instance has ended.

    Args:
        job: What to execute.
        view_for: Makes the view, given the instance as it was before, or None.
        tell: Called with the ending before the host drains: a result must not wait for that.
        quiet: Do not announce a long drain.

    Raises:
        HubLockedError: Another host serves the hub.
        InstanceAlreadyExistsError: The id is taken, and not to be attached to.
        InstanceStateError: The id is taken by an instance of another orchestrator.
        UsageError: It has to be started, and its input is missing.
    """
    with Signals() as signals:
        host = job.app.host(job.hub, settings=job.settings)
        await host.start()
        try:
            existing = await _start(host.client, job)
            with closing(view_for(existing)) as view:
                ending = await follow(
                    host.client,
                    job.instance_id,
                    view,
                    signals.asked,
                    host.engine.clock,
                    timeout_s=job.timeout_s,
                )
            tell(ending)
        finally:
            await drain(host, signals, quiet=quiet)
    return ending


async def _start(client: Client, job: Job) -> InstanceStatus | None:
    """Start the instance, or attach to it; return what was there."""
    existing = await client.get_status(job.instance_id)
    if existing is not None and job.on_existing == "attach":
        if existing.name != job.orchestrator:
            is_of, wanted = f"an instance of '{existing.name}'", f"one of '{job.orchestrator}'"
            raise InstanceStateError(job.instance_id, is_of, "attach to", f"{wanted}; choose another id")
        if existing.runtime_status.is_terminal:
            return existing
    elif job.missing_input is not None:
        raise UsageError(f"{job.missing_input}. Give it with --input")
    await client.start(
        job.orchestrator, job.input, instance_id=job.instance_id, on_existing=job.on_existing
    )  # attaching also waits until the host has looked at it again: a fixed deployment unblocks it
    return existing if job.on_existing == "attach" else None


async def follow(
    client: Client,
    instance_id: str,
    view: View,
    asked: asyncio.Event,
    clock: Clock,
    *,
    timeout_s: float | None = None,
    through_blocks: bool = False,
) -> Ending:
    """Show an instance until it has ended, or nobody wants to see it any more.

    Args:
        client: Of the hub.
        instance_id: The instance.
        view: Shows it.
        asked: Set when somebody interrupts.
        clock: Of the hub.
        timeout_s: How long to follow it, or None.
        through_blocks: Stay when it cannot go on: somebody else may deploy a fix.

    Raises:
        InstanceNotFoundError: There is none; or it was purged meanwhile.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout_s is None else loop.time() + timeout_s
    tree: Tree | None = None
    ended = loop.create_task(client.wait_for_completion(instance_id))
    stopped = loop.create_task(asked.wait())
    try:
        async with client.looking() as looks:
            reader = TreeReader(looks, instance_id)
            while True:
                began = loop.time()
                how = _how(ended, stopped, late=deadline is not None and began >= deadline)
                with suppress(StoreUnavailableError):  # busy for now: the picture stays as it is
                    tree = await reader.read(
                        None if how is None else client
                    )  # the last one is not of a moment ago
                blocked = None if tree is None or how == "ended" or through_blocks else _blocked(tree)
                how = how if blocked is None else "blocked"
                if tree is not None:
                    view.show(tree, instant(clock.now()), final=how is not None)
                if how is not None:
                    return Ending(how, await _status(client, instance_id), blocked)
                pause_s = max(view.pause_s, (loop.time() - began) * _SHARE)
                if deadline is not None:
                    pause_s = min(pause_s, max(0.0, deadline - loop.time()))
                await asyncio.wait({ended, stopped}, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        stopped.cancel()
        await asyncio.gather(ended, stopped, return_exceptions=True)


def _how(ended: asyncio.Task[InstanceStatus], stopped: asyncio.Task[Any], *, late: bool) -> How | None:
    if ended.done():
        ended.result()  # an error of the host, or of somebody who purged it
        return "ended"
    if stopped.done():
        return "interrupted"
    return "timeout" if late else None


def _blocked(tree: Tree) -> str | None:
    return next((one.blocked for one in tree.walk() if one.blocked is not None), None)


async def _status(client: Client, instance_id: str) -> InstanceStatus:
    status = await client.get_status(instance_id)
    if status is None:
        raise InstanceNotFoundError(instance_id)
    return status
