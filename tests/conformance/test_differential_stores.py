"""Random batches: the SQLite store and the executable specification answer alike, whatever they are sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.core.commit import (
    Batch,
    EntityRow,
    HistoryRow,
    InboxRow,
    InstanceChange,
    InstanceRow,
    ParkedMessage,
    Removal,
    TimerKey,
    TimerRow,
    Tombstone,
)
from durably.core.query import FIRST, EntityQuery, InstanceQuery, Place
from durably.errors import DurablyError
from durably.storage.api import Lease, Store
from durably.storage.memory import MemoryHub, MemoryStore
from durably.storage.memory_hub import Execution
from durably.storage.sqlite.store import SqliteStore
from tests.support.payloads import payloads_aside

_IDS = ("a", "b", "c", "ab")
_STATUSES = ("Running", "Completed", "Failed")
_SURROGATE = "\ud800"

ids = st.sampled_from(_IDS)
executions = st.integers(1, 2 * len(_IDS))
instants = st.integers(0, 9)
texts = st.sampled_from(["", "x", "x\0y", "é"])
payloads = st.none() | st.binary(max_size=3)
messages = st.sampled_from(["m1", "m2", "m3", "m4", "m5"])
unstorable = st.sampled_from([_SURROGATE, *["fine"] * 6])


def _owned(row: InstanceRow) -> InstanceRow:
    """An execution belongs to one instance: each id has two of the numbers."""
    return row._replace(execution=1 + _IDS.index(row.instance_id) + len(_IDS) * (row.execution % 2))


instance_rows = st.builds(
    InstanceRow,
    instance_id=ids,
    execution=executions,
    ordinal=st.integers(0, 3),
    execution_id=texts,
    name=texts,
    version=st.none() | texts,
    status=st.sampled_from(_STATUSES),
    created_at=instants,
    updated_at=instants,
    input=payloads,
    output=payloads,
    custom_status=payloads,
    failure=payloads,
    blocked=st.none() | texts,
    parked=st.none() | texts,
    in_flight=st.booleans(),
    parent_instance_id=st.none() | ids,
    tags=st.sampled_from([None, b"{}", b'{"k":"v"}', b'{"k":"w","l":""}']),
    bases=st.sampled_from([None, b"[1]", b"[1,2]"]),
    start_at=st.none() | instants,
).map(_owned)
changes = st.builds(
    InstanceChange,
    instance_id=ids,
    status=st.sampled_from(_STATUSES),
    updated_at=instants,
    output=payloads,
    custom_status=payloads,
    failure=payloads,
    blocked=st.none() | texts,
    parked=st.none() | texts,
    in_flight=st.booleans(),
    start_at=st.none() | instants,
)
entity_ids = st.sampled_from(["@x@", "@x@a", "@x@b", "@y@a"])
# An execution belongs to one entity, and none of them to an instance.
entity_rows = st.builds(
    EntityRow,
    instance_id=entity_ids,
    name=st.sampled_from(["x", "y"]),
    execution=st.integers(20, 23),
    created_at=instants,
    updated_at=instants,
    state=payloads,
    version=st.integers(0, 2),
    locked_by=st.none() | ids,
    rest=st.binary(max_size=3),
    checksum=st.binary(max_size=3),
)
inbox_rows = st.builds(
    InboxRow,
    message_id=messages,
    instance_id=ids,
    at=instants,
    body=st.binary(max_size=3),
    position=st.just(0),
)
# Of a history row only the execution is drawn, and whether it repeats an older one: gaps are checked by memory alone.
appends = st.tuples(executions, st.sampled_from([0] * 15 + [1]), instants)


def few(rows: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(rows, max_size=3)


batches = st.fixed_dictionaries(
    {},
    optional={
        "removed": few(st.builds(Removal, ids, executions)),
        "history": st.lists(appends, max_size=5),
        "executions_dropped": few(executions),
        "instances": few(instance_rows),
        "changes": few(changes),
        "entities": few(entity_rows),
        "entities_removed": few(st.builds(Removal, entity_ids, st.integers(20, 23))),
        "timers_set": few(
            st.builds(
                TimerRow,
                executions | st.integers(20, 23),
                st.integers(0, 2),
                st.integers(0, 1),
                instants,
                ids,
            )
        ),
        "timers_cleared": few(st.builds(TimerKey, executions, st.integers(0, 2), st.integers(0, 1))),
        "inbox_put": few(inbox_rows),
        "inbox_consumed": few(messages),
        "tombstones": few(st.builds(Tombstone, messages | unstorable, instants)),
        "tombstones_before": instants,
        "parked": few(
            st.builds(
                ParkedMessage,
                message_id=messages,
                instance_id=ids,
                at=instants,
                body=st.binary(max_size=3),
                cause=texts,
                parked_at=instants,
                position=st.just(0),
            )
        ),
        "unparked": few(messages),
        "parked_dropped": few(messages),
    },
)
queries = st.builds(
    InstanceQuery,
    name=st.none() | texts,
    statuses=st.none() | st.lists(st.sampled_from(_STATUSES), max_size=2).map(tuple),
    created_from=st.none() | instants,
    created_to=st.none() | instants,
    instance_id_prefix=st.none() | st.sampled_from(["", "a", "ab", "b\0"]),
    tags=st.none() | st.just({"k": "v"}),
    parent_instance_id=st.none() | ids,
    parked=st.booleans(),
    payloads=st.booleans(),
    page_size=st.integers(1, 3),
)
entity_queries = st.builds(
    EntityQuery,
    name=st.none() | st.sampled_from(["x", "y", "z"]),
    prefix=st.none() | st.sampled_from(["", "@x", "@x@a"]),
    updated_from=st.none() | instants,
    updated_to=st.none() | instants,
    with_transient=st.booleans(),
    locked=st.booleans(),
    page_size=st.integers(1, 3),
)
steps = st.one_of(
    st.tuples(st.just("commit"), batches),
    st.tuples(st.just("commit"), batches),
    st.tuples(st.just("post"), few(inbox_rows)),
    st.tuples(st.just("again"), st.just({})),
    st.tuples(st.just("query"), queries),
    st.tuples(st.just("entities"), entity_queries),
)


class Twins:
    """The same calls to both; the answers, or the kinds of error, must be equal."""

    def __init__(self, path: str) -> None:
        self.hub = MemoryHub()
        self.stores: list[Store] = [MemoryStore(self.hub), SqliteStore(path, inline_max=1)]
        self.leases: list[Lease] = []
        self.number = 0
        self.last = Batch(0)

    async def open(self) -> None:
        for store in self.stores:
            await store.open()
        self.leases = [await store.acquire(0, "twin") for store in self.stores]

    async def commit(self, fields: dict[str, Any]) -> None:
        history = self._rows(
            fields.pop("history", []), {removal.execution for removal in fields.get("removed", [])}
        )
        batch = Batch(self.number + 1, history=history, **fields)
        if await self._send(batch):
            self.number += 1
            self.last = batch

    def _rows(self, drawn: list[tuple[int, int, int]], removed: set[int]) -> list[HistoryRow]:
        rows: list[HistoryRow] = []
        following: dict[int, int] = {}
        for execution, back, at in drawn:
            stored = 0 if execution in removed else len(self.hub.history.get(Execution(0, execution), []))
            seq = following.get(execution, stored)
            rows.append(HistoryRow(execution, max(0, seq - back), at, b"%d" % at, b""))
            following[execution] = seq + 1
        return rows

    async def _send(self, batch: Batch) -> bool:
        outcomes: list[type[DurablyError] | None] = []
        for store, lease in zip(self.stores, self.leases, strict=True):
            try:
                await store.commit(lease, batch)
                outcomes.append(None)
            except DurablyError as error:
                outcomes.append(type(error))
        assert (outcomes[0] is None) == (outcomes[1] is None)
        if all(tombstone.message_id != _SURROGATE for tombstone in batch.tombstones):
            # Of a batch that is wrong twice, either error may be told.
            assert outcomes[0] == outcomes[1]
        return outcomes[0] is None

    async def again(self) -> None:
        if self.number:
            assert await self._send(self.last)

    async def post(self, rows: list[InboxRow]) -> None:
        for store in self.stores:
            await store.post(rows)

    async def query(self, query: InstanceQuery) -> None:
        first, second = [await self._pages(store, query) for store in self.stores]
        assert first == second
        assert sum(map(len, first)) == sum((await self.stores[0].count(query)).values())
        assert await self.stores[0].count(query) == await self.stores[1].count(query)

    async def query_entities(self, query: EntityQuery) -> None:
        first, second = [await self._entities(store, query) for store in self.stores]
        assert first == second

    async def _entities(self, store: Store, query: EntityQuery) -> list[list[EntityRow]]:
        pages: list[list[EntityRow]] = []
        after: str | None = ""
        while after is not None:
            page = await store.query_entities(msgspec.structs.replace(query, after=after))
            pages.append(page.rows)
            after = page.next_after
        return pages

    async def _pages(self, store: Store, query: InstanceQuery) -> list[list[InstanceRow]]:
        pages: list[list[InstanceRow]] = []
        after: Place | None = FIRST
        while after is not None:
            page = await store.query(msgspec.structs.replace(query, after=after))
            pages.append(page.rows)
            after = page.next_after
        return pages

    async def compare(self) -> None:
        first, second = [
            await self._all(store, lease) for store, lease in zip(self.stores, self.leases, strict=True)
        ]
        assert first == second

    async def _all(self, store: Store, lease: Lease) -> dict[str, Any]:
        snapshot = await store.load(lease, 5)
        read = await store.read_instances(lease, _IDS)
        timers = await store.read_timers(lease, 2, 7)
        inbox = await store.read_inbox(lease)
        assert inbox == snapshot.inbox
        return {
            "snapshot": snapshot._replace(inbox=_unplaced(inbox)),
            "read": [stored and stored._replace(inbox=_unplaced(stored.inbox)) for stored in read],
            "timers": timers,
            "parked": _unplaced(await store.read_parked()),
            "rows": await self._pages(store, InstanceQuery(page_size=2)),
            "waiting": [
                row._replace(position=0)
                for row in (await store.query_with_waiting(InstanceQuery(page_size=3))).waiting
            ],
            "entities": await self._entities(store, EntityQuery(with_transient=True, page_size=2)),
            "histories": [await store.read_history(instance_id) for instance_id in _IDS],
            "single": [await store.get_instance(instance_id) for instance_id in _IDS],
        }

    async def close(self) -> None:
        for store in self.stores:
            await store.delete()


Placed = TypeVar("Placed", InboxRow, ParkedMessage)


def _unplaced(rows: list[Placed]) -> list[Placed]:
    """Positions need not be equal, only their order; that is checked here."""
    positions = [row.position for row in rows]
    assert positions == sorted(set(positions))
    return [row._replace(position=0) for row in rows]


async def _play(path: str, drawn: list[tuple[str, Any]]) -> None:
    twins = Twins(path)
    await twins.open()
    try:
        for call, argument in drawn:
            match call:
                case "commit":
                    await twins.commit(dict(argument))
                case "post":
                    await twins.post(argument)
                case "again":
                    await twins.again()
                case "entities":
                    await twins.query_entities(argument)
                case _:
                    await twins.query(argument)
        await twins.compare()
        payloads_aside(path)
    finally:
        await twins.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "twin.db")


@pytest.mark.slow_once
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(drawn=st.lists(steps, min_size=1, max_size=12))
def test_both_stores_answer_alike(path: str, drawn: list[tuple[str, Any]]) -> None:
    asyncio.run(_play(path, drawn))
