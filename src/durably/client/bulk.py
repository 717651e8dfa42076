"""One operation on all instances that some filters select, a few at a time, going on after failures."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import msgspec

from durably.core.commit import InstanceRow
from durably.core.query import InstanceQuery, Place
from durably.core.status import TERMINAL, RuntimeStatus
from durably.errors import UsageError

Operation = Literal["purge", "terminate", "cancel", "suspend", "resume", "rewind", "restart"]

_LIVE = (RuntimeStatus.Pending.value, RuntimeStatus.Running.value, RuntimeStatus.Suspended.value)

APPLIES_TO: Final[dict[str, tuple[str, ...]]] = {
    "purge": tuple(sorted(TERMINAL)),
    "terminate": _LIVE,
    "cancel": _LIVE,
    "suspend": (RuntimeStatus.Pending.value, RuntimeStatus.Running.value),
    "resume": (RuntimeStatus.Suspended.value,),
    "rewind": (RuntimeStatus.Failed.value,),
    "restart": tuple(sorted(TERMINAL)),
}
"""Statuses that an operation is for: what it selects when no status is asked for."""

_PAGE: Final = 500
_FAILURES_MAX: Final = 1_000
"""So many failures are kept with their texts; beyond that they are counted."""


@dataclass(frozen=True, slots=True)
class BulkResult:
    """How far a bulk operation is, or was.

    Attributes:
        matched: Instances that were selected so far.
        done: Those on which it was carried out (in a dry run: none).
        failed: How many refused.
        errors: Their ids, and why, as far as there is room for them (1,000).
        dry_run: Nothing was changed.
    """

    matched: int = 0
    done: int = 0
    failed: int = 0
    errors: dict[str, str] = field(default_factory=dict[str, str])
    dry_run: bool = False


Progress = Callable[[BulkResult], object]
"""Called after each page; may be a coroutine function."""


async def bulk(
    find: Callable[[InstanceQuery], Awaitable[tuple[list[InstanceRow], Place | None]]],
    operate: Callable[[str], Awaitable[object]],
    query: InstanceQuery,
    *,
    dry_run: bool,
    max_in_flight: int,
    share: float,
    progress: Progress | None,
) -> BulkResult:
    """Carry out `operate` on the id of each instance that `query` finds.

    Instances that appear while it runs may be found as well. An instance that vanishes, or refuses, is counted as failed.
    """
    if max_in_flight < 1:
        raise UsageError(f"max_in_flight is {max_in_flight}: expected 1 or more")
    if not 0 < share <= 1:
        raise UsageError(f"share is {share}: expected more than 0, and 1 at most")
    result = BulkResult(dry_run=dry_run)
    after: Place | None = query.after
    while after is not None:
        rows, after = await find(msgspec.structs.replace(query, page_size=_PAGE, after=after))
        result = replace(result, matched=result.matched + len(rows))
        for start in range(0, 0 if dry_run else len(rows), max_in_flight):
            some = [row.instance_id for row in rows[start : start + max_in_flight]]
            began = time.perf_counter()
            result = await _together(result, some, operate)
            if after is not None or start + max_in_flight < len(rows):
                await asyncio.sleep((time.perf_counter() - began) * (1 / share - 1))
        if progress is not None:
            answer = progress(result)
            if inspect.isawaitable(answer):
                await answer
    return result


async def _together(
    result: BulkResult, ids: list[str], operate: Callable[[str], Awaitable[object]]
) -> BulkResult:
    """All at once, so that they share commits."""
    errors = dict(result.errors)
    done = failed = 0

    async def one(instance_id: str) -> None:
        nonlocal done, failed
        try:
            answer = await operate(instance_id)
        except UsageError as error:
            failed += 1
            if len(errors) < _FAILURES_MAX:
                errors[instance_id] = str(error)
        else:
            done += answer is not False  # a purge of what is gone already

    async with asyncio.TaskGroup() as group:
        for instance_id in ids:
            group.create_task(one(instance_id))
    return replace(result, done=result.done + done, failed=result.failed + failed, errors=errors)
