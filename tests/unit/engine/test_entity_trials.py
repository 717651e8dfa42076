"""What the row of an entity remembers of operations that were running when a process died, and for how long."""

from __future__ import annotations

from durably import App, AppHost
from durably.core.commit import InboxRow
from durably.core.entities import EntityId, EntityState, Interrupted, mark
from durably.core.history import encode_body
from durably.core.messages import CallEntity
from durably.storage.memory import MemoryHub
from tests.support.clock import ManualClock
from tests.support.counters import counters
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.waiting import is_quiet

COUNTER = "@counter@a"


def suspect(hub: Deployment, clock: ManualClock, *keys: str) -> MemoryHub:
    """Operations of a counter that exists no more were running when a process died, once each."""
    assert isinstance(hub.hub, MemoryHubOfTest)
    interrupted = tuple(Interrupted(key, 1, clock.now()) for key in keys)
    state = EntityState(COUNTER, 9_999, interrupted=interrupted, created_at=1, updated_at=1)
    hub.hub.hub.entities[COUNTER] = state.row()
    return hub.hub.hub


def remembered(data: MemoryHub) -> list[str]:
    row = data.entities.get(COUNTER)
    return [] if row is None else [one.key for one in EntityState.of(row).interrupted]


async def add(host: AppHost) -> int:
    return await host.client.call_entity(COUNTER, "add", 1)


async def test_what_nobody_sends_again_is_forgotten_after_ten_minutes(
    hub: Deployment, clock: ManualClock
) -> None:
    lost = mark(b"an operation with a random input")
    data = suspect(hub, clock, lost)
    async with hub.host(counters(), clock=clock) as host:
        clock.advance(599)
        assert await add(host) == 1
        assert remembered(data) == [lost]
        clock.advance(1)
        assert await add(host) == 2
        assert remembered(data) == []


async def test_what_has_a_row_is_remembered_until_it_has_been_performed(
    hub: Deployment, clock: ManualClock
) -> None:
    data = suspect(hub, clock, "a message of another host")
    async with hub.host(counters(), clock=clock) as host:
        clock.advance(86_400)
        assert await add(host) == 1
        assert remembered(data) == ["a message of another host"]


async def test_a_host_that_stops_tries_no_suspect_any_more(hub: Deployment, clock: ManualClock) -> None:
    data = suspect(hub, clock, "m")
    data.post([InboxRow("m", COUNTER, clock.now(), encode_body(CallEntity("add", b"1")))])
    host = await hub.start(counters(), clock=clock)
    host.engine._own._suspicions[0].forgive()  # as `stop` does, before what has come has been dealt with
    await is_quiet(host)
    assert list(data.inbox) == ["m"]
    await hub.stop(host)
    async with hub.host(counters(), clock=clock) as host:
        assert await add(host) == 2
        assert not data.inbox


async def test_what_is_refused_is_forgotten(hub: Deployment, clock: ManualClock) -> None:
    data = suspect(hub, clock, "m")
    data.post([InboxRow("m", COUNTER, clock.now(), encode_body(CallEntity("add", b"1")))])
    async with hub.host(App(), clock=clock) as host:
        await is_quiet(host)
        assert COUNTER not in data.entities


async def test_an_entity_that_is_only_remembered_is_none_for_users(
    hub: Deployment, clock: ManualClock
) -> None:
    suspect(hub, clock, mark(b"x"))
    async with hub.host(counters(), clock=clock) as host:
        assert await host.client.read_entity(COUNTER) is None
        assert (await host.client.query_entities()).entities == []
        (found,) = (await host.client.query_entities(include_transient=True)).entities
        assert (found.entity_id, found.exists) == (EntityId("counter", "a"), False)


async def test_signals_to_a_suspected_entity_are_performed_in_order_in_batches(
    hub: Deployment, clock: ManualClock
) -> None:
    suspect(hub, clock, mark(b"x"))
    async with hub.host(counters(), clock=clock) as host:
        for number in range(100):
            await host.client.signal_entity(COUNTER, "add", number)
        assert await add(host) == sum(range(100)) + 1
