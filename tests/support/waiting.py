"""Waiting for signals, never for time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from durably import AppHost, InstanceStatus

T = TypeVar("T")

PATIENCE_S = 60.0
"""Real seconds after which something that should have happened has not."""


async def eventually(probe: Callable[[], T | Awaitable[T]], what: str = "the condition") -> T:
    """The first true answer of a probe."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    looks = 0
    while True:
        answer = probe()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer  # type: ignore[return-value]
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{what} did not come true")
        looks += 1
        await asyncio.sleep(0 if looks < 50 else 0.001)


async def reaches(host: AppHost, instance_id: str, status: str) -> InstanceStatus:
    """The status of an instance, once its runtime status is the given one."""

    async def look() -> InstanceStatus | None:
        found = await host.client.get_status(instance_id)
        return found if found is not None and found.runtime_status == status else None

    return await eventually(look, f"{instance_id} {status}")


async def has_event(host: AppHost, instance_id: str, event_type: str, count: int = 1) -> None:
    """Return when the history holds so many events of a type."""

    async def look() -> bool:
        history = await host.client.get_history(instance_id)
        return sum(entry.event_type == event_type for entry in history) >= count

    await eventually(look, f"{count} {event_type} in the history of {instance_id}")


async def is_quiet(host: AppHost) -> None:
    """Return when the host has dealt with all that it was given: what has not happened by then does not happen."""
    for _ in range(5):
        await asyncio.sleep(0)
    engine = host.engine
    for _ in range(3):
        partition = await eventually(lambda: engine.partition, "a loaded partition")
        await partition.becomes_quiet()
        for _ in range(3):
            await asyncio.sleep(0)


async def all_within(*awaitables: Awaitable[object]) -> list[object]:
    """Gather, but not for ever."""
    async with asyncio.timeout(PATIENCE_S):
        return list(await asyncio.gather(*awaitables))
