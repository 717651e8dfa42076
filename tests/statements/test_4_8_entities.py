"""FEATURES 4.8: what an entity is, its operations, and signals. Locks and clients have files of their own."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    App,
    EngineOptions,
    EntityContext,
    EntityId,
    EntityOperationFailedError,
    InvalidIdError,
    OrchestrationContext,
    TaskFailedError,
)
from tests.support.clock import ManualClock
from tests.support.counters import STYLES, A, B, Gate, counters, value
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, is_quiet, reaches

# --- who an entity is ------------------------------------------------------------------------------------------------


def test_4_8_1_a_name_is_lowered_and_a_key_is_kept() -> None:
    assert EntityId("Counter", "Kim") == EntityId("cOUNTER", "Kim") != EntityId("counter", "kim")
    assert EntityId("Counter", "Kim").name == "counter"
    assert EntityId("counter", "").key == ""


@pytest.mark.parametrize("sign", ["/", "\\", "#", "?", "\n", "\x00", "\x9f"])
def test_4_8_1_some_signs_are_refused(sign: str) -> None:
    with pytest.raises(InvalidIdError, match="Key"):
        EntityId("counter", f"a{sign}b")
    with pytest.raises(InvalidIdError, match="name"):
        EntityId(f"a{sign}b", "key")


def test_4_8_2_the_id_as_text() -> None:
    assert str(EntityId("Counter", "Kim@home")) == "@counter@Kim@home"
    assert EntityId.parse("@counter@Kim@home") == EntityId("counter", "Kim@home")
    for text in ("counter", "counter@a", "@counter", "@@a"):
        with pytest.raises(InvalidIdError):
            EntityId.parse(text)


async def test_4_8_2_entities_are_addressed_by_either_form(hub: Deployment) -> None:
    async with hub.host(counters()) as host:
        assert await host.client.call_entity("@Counter@a", "add", 1) == 1
        assert await host.client.call_entity(EntityId("COUNTER", "a"), "add", 1) == 2
        assert await host.client.call_entity(EntityId("counter", "A"), "add", 5) == 5
        assert await host.client.call_entity(EntityId("counter", ""), "add", 7) == 7
        page = await host.client.query_entities()
        assert [str(one.entity_id) for one in page.entities] == ["@counter@", "@counter@A", "@counter@a"]


# --- operations ------------------------------------------------------------------------------------------------------


async def test_4_8_3_operations_of_one_entity_never_overlap(hub: Deployment) -> None:
    app, gate = App(), Gate()

    @app.entity(name="counter")
    class Slow:
        value: int = 0

        async def add(self, number: int) -> int:
            before = self.value
            await gate.pass_through(number)
            self.value = before + number
            return self.value

    async with hub.host(app) as host:
        calls = [asyncio.ensure_future(host.client.call_entity(A, "add", 1)) for _ in range(5)]
        other = asyncio.ensure_future(host.client.call_entity(B, "add", 1))
        await eventually(lambda: gate.inside == 2, "an operation of each of two entities")
        await is_quiet_but_for(host)
        assert len(gate.log) == 2
        gate.open.set()
        assert sorted(await asyncio.gather(*calls)) == [1, 2, 3, 4, 5]
        assert await other == 1
        assert gate.most == 2


async def is_quiet_but_for(host: Any) -> None:
    """What may happen while an operation hangs has happened: an operation of another entity was asked for and done."""
    await host.client.get_entity(EntityId("counter", "none"))
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("style", STYLES)
async def test_4_8_4_signals_of_one_sender_arrive_in_order_and_once(hub: Deployment, style: str) -> None:
    app = counters(style)
    log: list[Any] = []

    @app.entity
    def recorder(ctx: EntityContext) -> None:
        ctx.set_state([*ctx.get_state(list[int], []), ctx.get_input(int)])
        log.append(ctx.caller_instance_id)

    @app.entity
    def relay(ctx: EntityContext) -> None:
        for number in range(20):
            ctx.signal_entity(EntityId("recorder", "of relay"), "note", number)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[int]:
        for number in range(20):
            ctx.signal_entity(EntityId("recorder", "of flow"), "note", number)
        ctx.signal_entity(EntityId("relay", ""), "go")
        return await ctx.call_entity(A, "add", 3)

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    for _ in range(3):
        await asyncio.sleep(0)
    host = await hub.recover(host, app)
    if await host.client.get_status("i") is None:  # the start was never durable
        await host.client.start(flow, instance_id="i")
    assert (await host.client.wait_for_completion("i")).output == 3
    await is_quiet(host)
    for sender in ("flow", "relay"):
        assert await host.client.read_entity(EntityId("recorder", f"of {sender}")) == list(range(20))
    assert set(log) == {"i", "@relay@"}


@pytest.mark.parametrize("crash", [False, True])
async def test_4_8_5_a_scheduled_signal_comes_when_it_is_due(
    hub: Deployment, clock: ManualClock, crash: bool
) -> None:
    app = counters()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        ctx.signal_entity(A, "add", 10, at=timedelta(seconds=120))
        ctx.signal_entity(A, "add", 1, at=ctx.current_utc_datetime + timedelta(seconds=60))

    host = await hub.start(app, clock=clock)
    await host.client.start(flow, instance_id="i")
    await host.client.wait_for_completion("i")
    await host.client.signal_entity(A, "add", 100, at=180)
    await is_quiet(host)
    found = await host.client.get_entity(A)
    assert found is not None
    assert (found.scheduled, found.exists) == (3, False)
    assert await value(host) is None
    for expected in (1, 11, 111):
        if crash:
            await hub.crash(host)
        clock.advance(59.999999)
        if crash:
            host = await hub.start(app, clock=clock)
        await is_quiet(host)
        assert await value(host) == ({1: None, 11: 1, 111: 11}[expected])
        if crash:
            await hub.crash(host)
        clock.advance(0.000001)
        if crash:
            host = await hub.start(app, clock=clock)
        await is_quiet(host)
        assert await value(host) == expected
    found = await host.client.get_entity(A)
    assert found is not None
    assert found.scheduled == 0


@pytest.mark.parametrize("style", STYLES)
async def test_4_8_6_a_failed_operation_leaves_no_trace_and_the_next_ones_run(
    hub: Deployment, style: str
) -> None:
    app = counters(style)
    host = await hub.start(app)
    steps = [["signal", "a", "add", 1], ["signal", "a", "fail", 100], ["call", "a", "add", 1]]
    await host.client.start("send", steps, instance_id="i")
    assert (await host.client.wait_for_completion("i")).output == [2]
    for number in (1, 2):
        with pytest.raises(EntityOperationFailedError, match="no 7"):
            await host.client.call_entity(A, "fail", 7)
        assert await value(host) == 2
        assert await host.client.call_entity(A, "get") == 2
        if number == 1:
            host = await hub.recover(host, app)
    await is_quiet(host)
    assert await host.client.read_entity(EntityId("counter", "traces")) is None
    assert await host.client.get_status("traces") is None


async def test_4_8_6_what_an_operation_sends_leaves_with_it(hub: Deployment) -> None:
    app = counters()

    @app.entity
    class Door:
        opened: int = 0

        def open(self, ctx: EntityContext) -> str:
            self.opened += 1
            ctx.signal_entity(A, "add", 3)
            return ctx.start_orchestration("noted", instance_id=f"open-{self.opened}")

    host = await hub.start(app)
    assert await host.client.call_entity(EntityId("door", "front"), "open") == "open-1"
    host = await hub.recover(host, app)
    await is_quiet(host)
    assert (await host.client.wait_for_completion("open-1")).output == "open-1"
    assert await value(host) == 3


@pytest.mark.parametrize("style", STYLES)
async def test_4_8_7_a_failed_call_raises_in_the_orchestration(hub: Deployment, style: str) -> None:
    app = counters(style)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        seen: list[Any] = []
        for operation in ("fail", "nonsense"):
            try:
                await ctx.call_entity(A, operation, 9)
            except TaskFailedError as error:
                seen.append([type(error).__name__, error.details.message])
        return seen

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    (failed, unknown) = (await host.client.wait_for_completion("i")).output
    assert failed == ["EntityOperationFailedError", "no 9"]
    assert "no operation 'nonsense'" in unknown[1]
    assert await value(host) is None
    assert await host.client.get_entity(A) is None


async def test_4_8_7_a_failed_signal_is_in_the_log(hub: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    async with hub.host(counters()) as host:
        with caplog.at_level(logging.ERROR, logger="durably.entity"):
            await host.client.signal_entity(A, "fail", 4)
            await is_quiet(host)
        (record,) = [one for one in caplog.records if one.name == "durably.entity"]
        assert all(word in record.getMessage() for word in ("fail", "@counter@a", "ValueError", "no 4"))


# --- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
async def test_4_8_8_state_is_made_by_the_first_change_and_deleted(hub: Deployment, style: str) -> None:
    app = counters(style)
    host = await hub.start(app)
    assert await host.client.call_entity(A, "get") == 0
    assert await host.client.get_entity(A) is None, "looking at it does not make it"
    await host.client.call_entity(A, "add", 2)
    host = await hub.recover(host, app)
    found = await host.client.get_entity(A)
    assert found is not None
    assert found.exists
    await host.client.call_entity(A, "delete")
    assert await host.client.get_entity(A) is None
    assert (await host.client.query_entities()).entities == []
    host = await hub.recover(host, app)
    assert await host.client.read_entity(A) is None
    assert await host.client.call_entity(A, "add", 3) == 3
    host = await hub.recover(host, app)
    assert await value(host) == 3


async def test_4_8_8_none_and_zero_are_states(hub: Deployment) -> None:
    app = App()

    @app.entity
    def box(ctx: EntityContext) -> bool:
        if ctx.operation_name == "put":
            ctx.set_state(ctx.get_input())
        return ctx.has_state

    async with hub.host(app) as host:
        assert await host.client.call_entity("@box@", "look") is False
        empty: list[Any] = [None, 0, "", [], {}]
        for nothing in empty:
            assert await host.client.call_entity("@box@", "put", nothing) is True
            (found,) = (await host.client.query_entities()).entities
            assert (found.exists, found.state) == (True, nothing)


async def test_4_8_9_delete_may_be_overridden(hub: Deployment) -> None:
    app = App()

    @app.entity
    class Account:
        euros: int = 0

        def put(self, euros: int) -> None:
            self.euros += euros

        def delete(self, ctx: EntityContext) -> str:
            if self.euros:
                raise ValueError("not empty")
            ctx.delete_state()
            return "closed"

    @app.entity
    def tin(ctx: EntityContext) -> str:
        ctx.set_state("kept")
        return f"{ctx.operation_name} is refused"

    async with hub.host(app) as host:
        await host.client.call_entity("@account@", "put", 1)
        with pytest.raises(EntityOperationFailedError, match="not empty"):
            await host.client.call_entity("@account@", "delete")
        assert await host.client.read_entity("@account@") == {"euros": 1}
        await host.client.call_entity("@account@", "put", -1)
        assert await host.client.call_entity("@account@", "delete") == "closed"
        assert await host.client.get_entity("@account@") is None
        assert await host.client.call_entity("@tin@", "delete") == "delete is refused"
        assert await host.client.read_entity("@tin@") == "kept"


async def test_4_8_10_the_state_that_is_read_is_a_copy(memory: Deployment) -> None:
    app = App()

    @app.entity
    def items(ctx: EntityContext) -> list[int]:
        held = ctx.get_state(list[int], list)
        held.append(1)
        if ctx.operation_name == "keep":
            ctx.set_state(held)
            held.append(2)
        return ctx.get_state(list[int], list)

    async with memory.host(app) as host:
        assert await host.client.call_entity("@items@", "look") == []
        assert await host.client.call_entity("@items@", "keep") == [1]
        assert await host.client.call_entity("@items@", "look") == [1]
        assert await host.client.read_entity("@items@") == [1]


async def test_4_8_11_an_entity_signals_itself_with_a_delay_and_awaits_nobody(
    hub: Deployment, clock: ManualClock
) -> None:
    app = App()

    @app.entity
    class Ticker:
        ticks: int = 0

        def tick(self, ctx: EntityContext) -> None:
            self.ticks += 1
            ctx.signal_entity(ctx.entity_id, "tick", at=timedelta(seconds=60))

    assert not hasattr(EntityContext, "call_entity")
    assert not hasattr(EntityContext, "call_activity")
    host = await hub.start(app, clock=clock)
    await host.client.signal_entity("@ticker@", "tick")
    for ticks in (1, 2, 3):
        await is_quiet(host)
        assert await host.client.read_entity("@ticker@") == {"ticks": ticks}
        host = await hub.recover(host, app, clock=clock)
        clock.advance(60)
    await is_quiet(host)
    assert await host.client.read_entity("@ticker@") == {"ticks": 4}


@pytest.mark.parametrize("limit", [1, 3, 1_000])
async def test_4_8_12_a_batch_has_so_many_operations_at_most(hub: Deployment, limit: int) -> None:
    app = counters()
    async with hub.host(app, options=EngineOptions(entity_operations_per_batch=limit)) as host:
        steps = [["signal", "a", "add", 1] for _ in range(20)]
        seen: list[int] = []
        commit = host.engine.store.commit

        def watch(lease: Any, batch: Any) -> Any:
            seen.append(batch.number)
            return commit(lease, batch)

        host.engine.store.commit = watch
        await host.client.start("send", [*steps, ["call", "a", "add", 1]], instance_id="i")
        await reaches(host, "i", "Completed")
        assert await value(host) == 21
        assert len(seen) >= 21 / limit
