"""One operation on all instances that some filters select, a few at a time, going on after failures."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Unpack

import msgspec

from durably.client.pacing import IN_FLIGHT, SHARE, Pace
from durably.client.selection import Filters, selection
from durably.core.ids import check_text
from durably.core.notices import OWN
from durably.core.query import Found, InstanceQuery, Place
from durably.core.status import TERMINAL, RuntimeStatus
from durably.errors import UsageError
from durably.management import Management

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
    find: Callable[[InstanceQuery], Awaitable[Found]],
    operate: Callable[[str, str], Awaitable[object]],
    query: InstanceQuery,
    *,
    dry_run: bool,
    pace: Pace,
    progress: Progress | None,
) -> BulkResult:
    """Carry out `operate` on the id of each instance that `query` finds.

    Instances that appear while it runs may be found as well. An instance that vanishes, or refuses, is counted as failed.

    Args:
        find: Finds a page.
        operate: On an instance, by its id and the name of its orchestrator.
        query: Which instances.
        dry_run: Only count.
        pace: How fast.
        progress: Is told of each page.
    """
    result = BulkResult(dry_run=dry_run)
    after: Place | None = query.after
    while after is not None:
        rows, after = await find(msgspec.structs.replace(query, payloads=False, page_size=_PAGE, after=after))
        result = replace(result, matched=result.matched + len(rows))
        if not dry_run:
            result = await _operate(result, {row.instance_id: row.name for row in rows}, operate, pace)
        if progress is not None:
            answer = progress(result)
            if inspect.isawaitable(answer):
                await answer
    return result


async def _operate(
    result: BulkResult, names: dict[str, str], operate: Callable[[str, str], Awaitable[object]], pace: Pace
) -> BulkResult:
    errors = dict(result.errors)
    done = failed = 0

    async def one(instance_id: str) -> None:
        nonlocal done, failed
        try:
            answer = await operate(instance_id, names[instance_id])
        except UsageError as error:
            failed += 1
            if len(errors) < _FAILURES_MAX:
                errors[instance_id] = str(error)
        else:
            done += answer is not False  # a purge of what is gone already

    await pace.work([*names], one)
    return replace(result, done=result.done + done, failed=result.failed + failed, errors=errors)


class BulkVerbs:
    """Part of `Client`."""

    _management: Management

    async def bulk(
        self,
        operation: Operation,
        *,
        reason: str | None = None,
        dry_run: bool = False,
        max_in_flight: int = IN_FLIGHT,
        share: float = SHARE,
        progress: Progress | None = None,
        **filters: Unpack[Filters],
    ) -> BulkResult:
        """Carry out an operation on all instances that match; it goes on after failures.

        Each instance is dealt with durably and for itself: an operation that is interrupted can be repeated. Without a
        status among the filters, the instances that the operation is for are meant: ``"purge"`` finished ones,
        ``"terminate"`` and ``"cancel"`` those that have not ended, ``"resume"`` suspended ones, and so on. ``"restart"``
        refuses instances of the runtime's own orchestrators (notices, messages of queues): their work would be done twice.

        Args:
            operation: ``"purge"``, ``"terminate"``, ``"cancel"``, ``"suspend"``, ``"resume"``, ``"rewind"``, ``"restart"``.
            reason: Recorded with each, where the operation has one.
            dry_run: Only count.
            max_in_flight: How many at once: they become durable together, which is what makes many of them cheap.
            share: Of the time, so much at most: the rest is left to the other work of the hub. 1 for as fast as it can.
            progress: Called with the result so far after each page of 500.
            filters: See `Filters`.

        Raises:
            UsageError: A filter is out of its range, or there is no such operation.
        """
        applies_to = APPLIES_TO.get(operation)
        if applies_to is None:
            raise UsageError(f"Bulk operation is {operation!r}: expected one of {', '.join(APPLIES_TO)}")
        if filters.get("runtime_status") is None:
            filters["runtime_status"] = applies_to
        check_text(reason, "reason")
        verb = getattr(self, operation)
        with_reason = operation != "purge"

        async def operate(instance_id: str, name: str) -> object:
            if operation == "restart" and name.startswith(OWN):
                raise UsageError(
                    f"Instance '{instance_id}' is of the runtime's own orchestrator '{name}': expected to be restarted by "
                    "itself, or not at all"
                )
            return await (verb(instance_id, reason=reason) if with_reason else verb(instance_id))

        return await bulk(
            self._management.query,
            operate,
            selection(filters),
            dry_run=dry_run,
            pace=Pace(max_in_flight, share),
            progress=progress,
        )

    async def purge_instances(
        self, *, dry_run: bool = False, progress: Progress | None = None, **filters: Unpack[Filters]
    ) -> BulkResult:
        """Delete all finished instances that match, with their histories; `done` is their number. See `bulk`."""
        return await self.bulk("purge", dry_run=dry_run, progress=progress, **filters)
