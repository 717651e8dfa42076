"""FEATURES 4.8.18, and what else clients see of entities; read-only operations, migrations, and states that idle."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    App,
    EntityContext,
    EntityId,
    EntityOperationFailedError,
    InvalidIdError,
    OrchestrationContext,
    UnknownFunctionError,
    UsageError,
)
from tests.support.clock import ManualClock
from tests.support.counters import STYLES, A, B, Counter, Gate, counters, holder, value
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, is_quiet, reaches

# --- calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
async def test_4_8_a_client_calls(hub: Deployment, style: str) -> None:
    async with hub.host(counters(style)) as host:
        assert await host.client.call_entity(A, "add", 2, returns=int, timeout=60) == 2
        with pytest.raises(EntityOperationFailedError, match="no 3") as caught:
            await host.client.call_entity(A, "fail", 3)
        assert (caught.value.details.type, caught.value.details.message) == ("ValueError", "no 3")
        with pytest.raises(EntityOperationFailedError, match="no operation 'nonsense'"):
            await host.client.call_entity(A, "nonsense")
        assert await value(host) == 2


async def test_4_8_what_cannot_be_asked_is_refused_at_once(hub: Deployment) -> None:
    async with hub.host(counters()) as host:
        for verb in (host.client.call_entity, host.client.signal_entity):
            with pytest.raises(UnknownFunctionError, match="counter"):
                await verb("@nobody@", "add", 1)
            with pytest.raises(InvalidIdError):
                await verb("counter", "add", 1)
            with pytest.raises(InvalidIdError, match="operation"):
                await verb(A, "", 1)


async def test_4_8_a_call_gives_up_while_the_entity_is_locked(hub: Deployment) -> None:
    async with hub.host(counters()) as host:
        await host.client.start("hold", {"keys": ["a"]}, instance_id="i")

        async def is_held() -> bool:
            return await holder(host) == "i"

        await eventually(is_held)
        with pytest.raises(TimeoutError, match="@counter@a"):
            await host.client.call_entity(A, "add", 1, timeout=0.001)
        await host.client.raise_event("i", "go", "return")
        await reaches(host, "i", "Completed")
        assert await host.client.call_entity(A, "add", 10) in (11, 12)  # it may be performed nevertheless


# --- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
async def test_4_8_18_the_committed_state_is_read_without_queueing(hub: Deployment, style: str) -> None:
    app, gate = counters(style), Gate()

    @app.entity
    async def slow(ctx: EntityContext) -> None:
        if ctx.has_state:
            await gate.pass_through(ctx.operation_name)
        ctx.set_state(ctx.get_input())

    async with hub.host(app) as host:
        assert await host.client.read_entity(A) is None
        await host.client.call_entity(A, "add", 1)
        await host.client.call_entity("@slow@", "set", "before")
        await host.client.start("hold", {"keys": ["a"]}, instance_id="i")
        change = asyncio.ensure_future(host.client.call_entity("@slow@", "set", "after"))
        await eventually(lambda: gate.inside, "an operation under way")

        async def is_held() -> bool:
            return await holder(host) == "i"

        await eventually(is_held)
        waits = asyncio.ensure_future(host.client.call_entity(A, "add", 1))
        assert await value(host) == 1
        assert await host.client.read_entity("@slow@") == "before"
        gate.open.set()
        await change
        assert await host.client.read_entity("@slow@") == "after"
        await host.client.raise_event("i", "go", "return")
        assert await waits == 3
        assert await value(host) == 3


async def test_4_8_18_states_are_typed_where_a_type_is_given(hub: Deployment) -> None:
    app = App()

    @dataclass
    class Point:
        x: int = 0
        y: int = 0

    @app.entity
    @dataclass
    class Robot:
        at: str = "home"
        steps: int = 0

        def go(self, to: str) -> int:
            self.at, self.steps = to, self.steps + 1
            return self.steps

    @app.entity
    def place(ctx: EntityContext) -> None:
        ctx.set_state(Point(1, 2))

    app.entity(Counter)
    async with hub.host(app) as host:
        await host.client.call_entity("@robot@", "go", "garden")
        await host.client.call_entity("@place@", "set")
        await host.client.call_entity(A, "add", 4)
        assert await host.client.read_entity("@robot@", Robot) == Robot("garden", 1)
        assert await host.client.read_entity("@place@", Point) == Point(1, 2)
        assert await host.client.read_entity("@place@") == {"x": 1, "y": 2}
        if not hub.outside:
            read = await host.client.read_entity(A, Counter)
            assert isinstance(read, Counter)
            assert read.value == 4


# --- queries ---------------------------------------------------------------------------------------------------------


async def test_4_8_entities_are_found_page_by_page(hub: Deployment, clock: ManualClock) -> None:
    app = counters()

    @app.entity
    def note(ctx: EntityContext) -> None:
        ctx.set_state(ctx.get_input())

    async with hub.host(app, clock=clock) as host:
        for number in range(7):
            await host.client.call_entity(EntityId("counter", f"k{number}"), "add", number)
        changed = clock.moment
        clock.advance(60)
        await host.client.call_entity(EntityId("counter", "k3"), "add", 1)
        await host.client.call_entity("@note@k", "set", "text")
        await host.client.signal_entity(EntityId("counter", "later"), "add", 1, at=60)

        keys: list[str] = []
        token: str | None = None
        pages = 0
        while pages == 0 or token is not None:
            page = await host.client.query_entities(name="COUNTER", page_size=3, continuation_token=token)
            keys += [one.entity_id.key for one in page.entities]
            token, pages = page.continuation_token, pages + 1
        assert keys == [f"k{number}" for number in range(7)]
        assert pages == 3

        async def found(**filters: Any) -> list[str]:
            page = await host.client.query_entities(**filters)
            return [str(one.entity_id) for one in page.entities]

        assert await found(name="note") == ["@note@k"]
        assert await found(name="counter", key_prefix="k6") == ["@counter@k6"]
        assert await found(last_modified_from=clock.moment) == ["@counter@k3", "@note@k"]
        assert len(await found(last_modified_to=changed)) == 6
        assert "@counter@later" not in await found()
        assert "@counter@later" in await found(include_transient=True)
        page = await host.client.query_entities(name="counter", key_prefix="k3")
        (one,) = page.entities
        assert (one.state, one.last_modified, one.exists) == ({"value": 4}, clock.moment, True)
        page = await host.client.query_entities(name="note", include_state=False)
        assert [one.state for one in page.entities] == [None]
        with pytest.raises(UsageError, match="key_prefix"):
            await found(key_prefix="k")
        with pytest.raises(UsageError, match="page_size"):
            await found(page_size=0)
        with pytest.raises(UsageError, match="Continuation token"):
            await found(continuation_token="none")


async def test_4_8_instances_and_entities_are_apart(hub: Deployment) -> None:
    async with hub.host(counters()) as host:
        await host.client.call_entity(A, "add", 1)
        assert (await host.client.query_instances()).instances == []
        assert await host.client.get_status("@counter@a") is None
        with pytest.raises(InvalidIdError):
            await host.client.start("noted", instance_id="@counter@a")


async def test_4_8_cleaning_releases_only_locks_without_owner(hub: Deployment) -> None:
    async with hub.host(counters()) as host:
        await host.client.start("hold", {"keys": ["a", "b"]}, instance_id="i")

        async def is_held() -> bool:
            return await holder(host, B) == "i"

        await eventually(is_held)
        for _ in range(2):
            cleaned = await host.client.clean_entity_storage()
            assert (cleaned.removed, cleaned.released) == (0, 0)
        assert (await holder(host, A), await holder(host, B)) == ("i", "i")


# --- operations that only read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("crash", [False, True])
async def test_4_8_what_only_reads_does_not_wait_for_a_lock(hub: Deployment, style: str, crash: bool) -> None:
    app = counters(style)
    host = await hub.start(app)
    await host.client.call_entity(A, "add", 5)
    await host.client.start("hold", {"keys": ["a"]}, instance_id="i")

    async def is_held() -> bool:
        return await holder(host) == "i"

    await eventually(is_held)
    if crash:
        host = await hub.recover(host, app)
    assert await host.client.call_entity(A, "get") == 5
    steps = [["call", "a", "get", None], ["signal", "a", "add", 1], ["call", "a", "get", None]]
    await host.client.start("send", steps, instance_id="reader")
    await is_quiet(host)
    status = await host.client.get_status("reader")
    assert status is not None
    assert status.runtime_status == "Running", "a read does not overtake what its own sender sent"
    await host.client.raise_event("i", "go", "return")
    assert (await host.client.wait_for_completion("reader")).output == [5, 7]


async def test_4_8_what_only_reads_may_not_change_anything(hub: Deployment) -> None:
    app = App()

    @app.entity(read_only=["peek", "tell"])
    class Liar:
        looks: int = 0

        def peek(self) -> int:
            self.looks += 1
            return self.looks

        def tell(self, ctx: EntityContext) -> None:
            ctx.signal_entity("@liar@", "peek")

        def set(self, looks: int) -> None:
            self.looks = looks

    async with hub.host(app) as host:
        await host.client.call_entity("@liar@", "set", 5)
        for operation in ("peek", "tell"):
            with pytest.raises(EntityOperationFailedError, match="read-only"):
                await host.client.call_entity("@liar@", operation)
        assert await host.client.read_entity("@liar@") == {"looks": 5}


# --- forms of the state ----------------------------------------------------------------------------------------------


async def test_4_8_a_state_of_an_older_version_is_migrated(hub: Deployment) -> None:
    old, new, bare = App(), App(), App()

    @old.entity(name="person")
    class Old:
        name: str = ""

        def rename(self, name: str) -> None:
            self.name = name

    def migrate(state: Any, version: int) -> Any:
        assert version == 0
        first, last = state["name"].split()
        return {"first": first, "last": last}

    class New:
        first: str = ""
        last: str = ""

        def marry(self, last: str) -> str:
            self.last = last
            return f"{self.first} {self.last}"

        def greet(self) -> str:
            return f"Hello {self.first}"

    new.entity(name="person", state_version=1, migrate=migrate, read_only=["greet"])(New)
    bare.entity(name="person", state_version=1)(New)
    host = await hub.start(old)
    await host.client.call_entity("@person@", "rename", "Kim Doe")
    host = await hub.restart(host, bare)
    with pytest.raises(EntityOperationFailedError, match="migrate"):
        await host.client.call_entity("@person@", "greet")
    host = await hub.restart(host, new)
    assert await host.client.call_entity("@person@", "greet") == "Hello Kim"
    assert await host.client.read_entity("@person@") == {"name": "Kim Doe"}, "who only reads changes nothing"
    assert await host.client.call_entity("@person@", "marry", "Poe") == "Kim Poe"
    assert await host.client.call_entity("@person@", "marry", "Roe") == "Kim Roe"
    host = await hub.recover(host, new)
    assert await host.client.read_entity("@person@") == {"first": "Kim", "last": "Roe"}
    host = await hub.restart(host, old)
    with pytest.raises(EntityOperationFailedError, match="newer version"):
        await host.client.call_entity("@person@", "rename", "Kim")
    assert await host.client.read_entity("@person@") == {"first": "Kim", "last": "Roe"}


async def test_4_8_18_a_typed_read_of_an_older_state_sees_it_migrated(hub: Deployment) -> None:
    old, new, bare = App(), App(), App()

    @old.entity(name="account")
    class Euros:
        euros: int = 0

        def deposit(self, euros: int) -> None:
            self.euros += euros

    def migrate(state: Any, version: int) -> Any:
        return {"cents": state["euros"] * 100}

    class Cents:
        cents: int = 0

    new.entity(name="account", state_version=1, migrate=migrate)(Cents)
    bare.entity(name="account", state_version=1)(Cents)
    host = await hub.start(old)
    await host.client.call_entity("@account@ann", "deposit", 40)
    host = await hub.restart(host, new)
    account = await host.client.read_entity("@account@ann", Cents)
    assert account is not None
    assert account.cents == 4000
    assert await host.client.read_entity("@account@ann", dict[str, int]) == {"cents": 4000}
    assert await host.client.read_entity("@account@ann") == {"euros": 40}, "as it is stored"
    host = await hub.restart(host, bare)
    with pytest.raises(UsageError, match="migrate"):
        await host.client.read_entity("@account@ann", Cents)


# --- states that idle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
async def test_4_8_a_state_that_idles_is_deleted(hub: Deployment, clock: ManualClock, crash: bool) -> None:
    app = App()
    app.entity(name="counter", idle_ttl=timedelta(seconds=100), read_only=["get"])(Counter)
    host = await hub.start(app, clock=clock)
    await host.client.call_entity(A, "add", 1)
    for passed, expected in ((60, 1), (60, 2), (60, 3)):
        assert await value(host) == expected
        clock.advance(passed)
        if crash:
            host = await hub.recover(host, app, clock=clock)
        await host.client.call_entity(A, "add", 1)
    clock.advance(99)
    await is_quiet(host)
    assert await value(host) == 4
    if crash:
        await hub.crash(host)
    clock.advance(1)
    if crash:
        host = await hub.start(app, clock=clock)
    await is_quiet(host)
    assert await host.client.get_entity(A) is None
    assert await host.client.call_entity(A, "add", 1) == 1
    clock.advance(100)
    await is_quiet(host)
    assert await host.client.get_entity(A) is None


async def test_4_8_what_is_locked_or_waited_for_does_not_idle(hub: Deployment, clock: ManualClock) -> None:
    app = App()
    app.entity(name="counter", idle_ttl=100)(Counter)

    @app.orchestrator
    async def owner(ctx: OrchestrationContext) -> int:
        async with ctx.lock_entities(A):
            before = await ctx.call_entity(A, "add", 1)
            await ctx.create_timer(1_000)
            return before + await ctx.call_entity(A, "add", 1)

    async with hub.host(app, clock=clock) as host:
        handle = await host.client.start(owner, instance_id="i")
        await is_quiet(host)
        for _ in range(10):
            clock.advance(100)
            await is_quiet(host)
        assert await handle.result() == 3
        assert await value(host) == 2
        for _ in range(2):
            clock.advance(100)
            await is_quiet(host)
        assert await host.client.get_entity(A) is None
