"""The process ends, as with `kill -9`, when it comes to a named point for the k-th time."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from typing import Any, Literal

from durably.engine.activities import ActivityPool
from durably.storage.postgres.lane import Lane
from durably.storage.postgres.leases import Leases
from durably.storage.postgres.store import PostgresStore
from durably.storage.sqlite import writer
from durably.storage.sqlite.writer import Writer
from tests.faults.effects import SideFile

Moment = Literal["before", "amid", "behind"]

DEAD = 137
"""Exit code of a process that came to its point."""

EVERYWHERE: dict[str, tuple[type, str, Moment]] = {
    "before run": (ActivityPool, "_run", "before"),
    "within run": (SideFile, "note", "behind"),
    "after run": (ActivityPool, "_ended", "before"),
}

POINTS: dict[str, tuple[type, str, Moment]] = {
    "before commit": (Writer, "commit", "before"),
    "within commit": (Writer, "_apply", "behind"),
    "after commit": (Writer, "commit", "behind"),
    "after post": (Writer, "post", "behind"),
    **EVERYWHERE,
    "before checkpoint": (Writer, "checkpoint_all", "before"),
    "after checkpoint": (Writer, "checkpoint_all", "behind"),
    "before epoch": (Writer, "next_epoch", "before"),
    "after epoch": (Writer, "next_epoch", "behind"),
    "between checkpoints": (Writer, "checkpoint_if_due", "behind"),
}
"""Name of a point, and where it is: a method, and whether it lies before it, behind it, or while it waits for an answer."""

SHARED_POINTS: dict[str, tuple[type, str, Moment]] = {
    "before statement": (Lane, "_run", "before"),
    "statement sent": (Lane, "_run", "amid"),
    "after statement": (Lane, "_run", "behind"),
    "after message": (PostgresStore, "post", "behind"),
    **EVERYWHERE,
    "before lease": (Leases, "acquire", "before"),
    "after lease": (Leases, "acquire", "behind"),
    "lease let go of": (Leases, "release", "amid"),
}
"""The same on PostgreSQL."""


def arm(point: str, k: int) -> None:
    """End this process at the k-th arrival. There is no way back: for processes that are made to die."""
    owner, name, moment = {**POINTS, **SHARED_POINTS}[point]
    method: Callable[..., Any] = getattr(owner, name)
    arrivals = 0

    def reach() -> None:
        nonlocal arrivals
        arrivals += 1
        if arrivals == k:
            os._exit(DEAD)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if moment == "before":
            reach()
        answer = method(*arguments, **named)
        if moment == "behind":
            reach()
        return answer

    async def awaited(*arguments: Any, **named: Any) -> Any:
        if moment == "before":
            reach()
        answer = asyncio.ensure_future(method(*arguments, **named))
        if moment == "amid":
            for _ in range(3):  # it is sent, and the server is at work
                await asyncio.sleep(0)
            reach()
        found = await answer
        if moment == "behind":
            reach()
        return found

    setattr(owner, name, awaited if inspect.iscoroutinefunction(method) else wrapped)
    if "checkpoint" in point:
        writer._CHECKPOINT_PAGES = 10
