"""Instances: find them, look at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from durably.client.selection import selection
from durably.core.commit import InstanceRow
from durably.core.events import ExecutionStarted, HistoryEvent
from durably.core.query import FIRST, place_of, token_of
from durably.core.timeline import timeline
from durably.errors import InstanceNotFoundError
from durably.http_api.access import require
from durably.http_api.refusals import Refusal
from durably.http_api.served import Served
from durably.http_api.v1 import bodies, requests, shown
from durably.http_api.v1.operation import Call, Operation
from durably.http_api.v1.search import search
from durably.http_api.v1.where import parse_conditions
from durably.management import Management

ONE: Final = "/instances/{instanceId}"


class Looking:
    """Operations that change nothing."""

    def __init__(self, served: Served) -> None:
        self._client = served.client
        self._management = served.management

    @property
    def operations(self) -> list[Operation]:
        """Their rows."""
        return [
            Operation(
                id="getInstance",
                method="GET",
                path=ONE,
                needs="read",
                summary="One instance; with `waitS`, once it has ended or the time is over",
                act=self._get,
                query=requests.OneInstance,
                answers={200: bodies.Instance},
            ),
            Operation(
                id="listInstances",
                method="GET",
                path="/instances",
                needs="read",
                summary="Instances that match, in the order of creation, page by page",
                act=self._list,
                query=requests.InstanceQuery,
                answers={200: bodies.InstancePage},
            ),
            Operation(
                id="countInstances",
                method="GET",
                path="/counts",
                needs="read",
                summary="How many instances match, by status and by orchestrator",
                act=self._count,
                query=requests.InstanceFilters,
                answers={200: bodies.Counts},
            ),
            Operation(
                id="getHistory",
                method="GET",
                path=f"{ONE}/history",
                needs="read",
                summary="The history of the current execution, page by page",
                act=self._history,
                query=requests.HistoryQuery,
                answers={200: bodies.History},
            ),
            Operation(
                id="explainInstance",
                method="GET",
                path=f"{ONE}/why",
                needs="payloads",
                summary="What an instance waits for, or how it ended, in a sentence",
                act=self._why,
                answers={200: bodies.Why},
            ),
        ]

    async def _get(self, call: Call) -> bodies.Instance:
        instance_id = call.path["instanceId"]
        query: requests.OneInstance = call.query
        if query.wait_s:
            await _ended(self._management, instance_id, query.wait_s)
        inputs = query.payloads and call.sees_payloads
        row = await self._management.get(instance_id, payloads=inputs)
        if row is None:
            raise InstanceNotFoundError(instance_id)
        return shown.instance_of(row, payloads=call.sees_payloads, inputs=inputs)

    async def _list(self, call: Call) -> bodies.InstancePage:
        query: requests.InstanceQuery = call.query
        conditions = parse_conditions(query.where)
        inputs = query.payloads and call.sees_payloads
        asked = selection(
            query.filters,
            page_size=query.limit,
            after=FIRST if query.cursor is None else place_of(query.cursor),
            payloads=inputs,
        )
        rows: Sequence[InstanceRow]
        if conditions:
            require(call.principal, "payloads", None)
        if conditions or inputs:
            rows, after = await search(self._management, asked, conditions)
        else:
            rows, after = await self._management.query(asked)
        return bodies.InstancePage(
            instances=[shown.instance_of(row, payloads=call.sees_payloads, inputs=inputs) for row in rows],
            next_cursor=None if after is None else token_of(after),
        )

    async def _count(self, call: Call) -> bodies.Counts:
        asked: requests.InstanceFilters = call.query
        counts = await self._management.count(selection(asked.filters))
        by_status, by_name = Counter[str](), Counter[str]()
        for (name, status), count in counts.items():
            by_status[status] += count
            by_name[name] += count
        return bodies.Counts(
            total=sum(counts.values()),
            by_status=dict(by_status),
            by_name=dict(by_name),
            counts=[
                bodies.Count(name=name, status=status, count=count)  # type: ignore[arg-type]
                for (name, status), count in sorted(counts.items())
            ],
        )

    async def _history(self, call: Call) -> bodies.History:
        query: requests.HistoryQuery = call.query
        execution_id, events = await read_history(self._management, call.path["instanceId"])
        seen = _seen(query.cursor, execution_id)
        page = timeline(events)[seen : seen + query.limit]
        upto = seen + len(page)
        return bodies.History(
            execution_id=execution_id,
            entries=[
                shown.entry_of(number, entry, payloads=call.sees_payloads)
                for number, entry in enumerate(page, seen + 1)
            ],
            next_cursor=f"{execution_id}.{upto}" if upto < len(events) else None,
        )

    async def _why(self, call: Call) -> bodies.Why:
        instance_id = call.path["instanceId"]
        return bodies.Why(instance_id=instance_id, why=await self._client.why(instance_id))


async def _ended(management: Management, instance_id: str, timeout_s: float) -> None:
    try:
        await management.outcome(instance_id, timeout_s)
    except TimeoutError:
        return


async def read_history(management: Management, instance_id: str) -> tuple[str, list[HistoryEvent]]:
    """The id of the current execution and its events; none before its first turn.

    Raises:
        InstanceNotFoundError: No such instance.
    """
    row = await management.get(instance_id, payloads=False)
    if row is None:
        raise InstanceNotFoundError(instance_id)
    try:
        events = await management.history(instance_id)
    except InstanceNotFoundError:  # it waits for its first turn
        events = []
    for event in events[:2]:
        if isinstance(event, ExecutionStarted):
            return event.execution_id, events  # another one may have begun since the row was read
    return row.execution_id, events


def mark(text: str | None) -> tuple[str, int]:
    """Execution and number of a place in a history; nothing when it is none."""
    execution_id, _, number = (text or "").rpartition(".")
    return (
        (execution_id, int(number))
        if number.isascii() and number.isdecimal() and len(number) < 10
        else ("", 0)
    )


def _seen(cursor: str | None, execution_id: str) -> int:
    if cursor is None:
        return 0
    given, number = mark(cursor)
    if not given:
        raise Refusal(
            400, f"Cursor {cursor[:60]!r} is none of a history: expected the one of the page before"
        )
    if given != execution_id:
        raise Refusal(
            409,
            "The instance has begun another execution: read its history from the beginning",
            "NewExecution",
        )
    return number
