"""Scenario 37 for entities: operations that kill their process are set aside one by one, and nothing else is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from durably import App, EntityContext, EntityId, OrchestrationContext
from durably.core.parked import ParkedItem
from durably.core.status import TERMINAL
from tests.simulation.test_poison import MAX_DELIVERIES, DiedError, World, play_in, quiet
from tests.support.shares import once_but

LEDGER = EntityId("ledger", "shared")
"""Where all poisons and most innocents meet."""

CALLS = ("call", "call_async", "call_locked", "call_read")
"""Poisons whose orchestrations wait for a result."""

SIGNALS = ("signal", "signal_async", "later", "relay", "outside", "outside_call")
POISONS = (*CALLS, *SIGNALS)
INNOCENTS = 8
OPERATIONS = 6


class EntityWorld(World):
    """The world of poison, with a ledger that all write to."""

    def _build(self) -> App:
        app = App()
        self._entities(app)
        self._writers(app)
        self._killers(app)
        return app

    def _entities(self, app: App) -> None:
        world = self

        @app.entity(name="ledger", read_only=["peek"])
        class Ledger:
            entries: tuple[str, ...] = ()

            def write(self, text: str) -> int:
                self.entries = (*self.entries, text)
                return len(self.entries)

            async def write_slowly(self, text: str) -> int:
                await asyncio.sleep(0.2)
                return self.write(text)

            def bite(self, text: str) -> str:
                world.bite()
                self.write(text)
                return "alive"

            async def bite_slowly(self, text: str) -> str:
                await asyncio.sleep(0.3)
                try:
                    world.bite()
                except DiedError:
                    await asyncio.Event().wait()  # nothing is heard of it any more
                self.write(text)
                return "alive"

            def peek(self) -> str:
                world.bite()
                return "alive"

        @app.entity(name="relay")
        def relay(ctx: EntityContext) -> None:
            ctx.signal_entity(LEDGER, "bite", ctx.get_input(str))

        del Ledger, relay

    def _writers(self, app: App) -> None:
        @app.orchestrator
        async def writer(ctx: OrchestrationContext, how: str) -> int:
            for number in range(OPERATIONS):
                text = f"{ctx.instance_id}.{number}"
                if how == "signals":
                    ctx.signal_entity(LEDGER, "write", text)
                elif how == "locks":
                    async with ctx.lock_entities(LEDGER, EntityId("ledger", ctx.instance_id)):
                        await ctx.call_entity(LEDGER, "write", text)
                else:
                    await ctx.call_entity(LEDGER, "write_slowly" if number == 2 else "write", text)
            return OPERATIONS

        del writer

    def _killers(self, app: App) -> None:
        @app.orchestrator
        async def call(ctx: OrchestrationContext) -> str:
            ctx.signal_entity(LEDGER, "write", f"{ctx.instance_id} before")
            result = ctx.call_entity(LEDGER, "bite", ctx.instance_id)
            ctx.signal_entity(LEDGER, "write", f"{ctx.instance_id} after")
            return await result

        @app.orchestrator
        async def call_async(ctx: OrchestrationContext) -> str:
            return await ctx.call_entity(LEDGER, "bite_slowly", ctx.instance_id)

        @app.orchestrator
        async def call_read(ctx: OrchestrationContext) -> str:
            return await ctx.call_entity(LEDGER, "peek")

        @app.orchestrator
        async def call_locked(ctx: OrchestrationContext) -> str:
            own = EntityId("ledger", "locked")
            async with ctx.lock_entities(own):
                return await ctx.call_entity(own, "bite", ctx.instance_id)

        @app.orchestrator
        async def signal(ctx: OrchestrationContext, operation: str = "bite") -> None:
            ctx.signal_entity(LEDGER, operation, ctx.instance_id)

        @app.orchestrator
        async def later(ctx: OrchestrationContext) -> None:
            ctx.signal_entity(LEDGER, "bite", ctx.instance_id, at=timedelta(seconds=1.5))

        @app.orchestrator
        async def relayed(ctx: OrchestrationContext) -> None:
            ctx.signal_entity(EntityId("relay", "r"), "go", ctx.instance_id)

        del call, call_async, call_read, call_locked, signal, later, relayed

    # --- the run -----------------------------------------------------------------------------------------------------

    async def begin(self, poisons: list[str]) -> None:
        for number in range(INNOCENTS):
            how = self.chance.choice(("signals", "calls", "locks"))
            await self.client.start("writer", how, instance_id=f"innocent-{number}")
        for number, poison in enumerate(poisons):
            await self._send(poison, f"{poison}-{number}")
            if self.chance.random() < 0.5:
                await asyncio.sleep(self.chance.choice((0.1, 1.0)))

    async def _send(self, poison: str, name: str) -> None:
        match poison:
            case "outside":
                await self.client.signal_entity(LEDGER, "bite", name)
            case "outside_call":
                self.outside = asyncio.ensure_future(self.client.call_entity(LEDGER, "bite", name))
            case "signal_async":
                await self.client.start("signal", "bite_slowly", instance_id=name)
            case "relay":
                await self.client.start("relayed", instance_id=name)
            case _:
                await self.client.start(poison, instance_id=name)

    async def entries(self, entity: EntityId = LEDGER) -> list[str]:
        return (await self.client.read_entity(entity) or {"entries": []})["entries"]

    def innocents_ended(self) -> bool:
        return super().innocents_ended() and not any(
            row.instance_id == str(LEDGER) for row in self.hub.inbox.values()
        )


def play(seed: int, poisons: list[str], then: Any = None) -> tuple[EntityWorld, list[ParkedItem]]:
    world, items = play_in(EntityWorld, seed, poisons, then)
    assert isinstance(world, EntityWorld)
    return world, items


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    yield from quiet()


async def innocents_lost_nothing(world: EntityWorld) -> None:
    entries = await world.entries()
    for number in range(INNOCENTS):
        mine = [text for text in entries if text.startswith(f"innocent-{number}.")]
        assert mine == [f"innocent-{number}.{step}" for step in range(OPERATIONS)]


@pytest.mark.parametrize("poison", POISONS)
def test_an_operation_that_kills_its_process_five_times_is_set_aside_and_all_others_are_performed(
    poison: str,
) -> None:
    async def look(world: EntityWorld) -> None:
        await innocents_lost_nothing(world)
        assert not [text for text in await world.entries() if text == f"{poison}-0"]
        if poison in CALLS:
            assert world.hub.instances[f"{poison}-0"][1].status == "Running"
            assert "(parked) since" in await world.client.why(f"{poison}-0")
        if poison == "call":
            mine = [text for text in await world.entries() if text.startswith("call-0")]
            assert mine == ["call-0 before", "call-0 after"]
        if poison == "outside_call":
            error = (await asyncio.gather(world.outside, return_exceptions=True))[0]
            assert "WorkParkedError" in str(error)
            assert "performed later" in str(error)

    world, (item,) = play(1, [poison], look)
    own = "@ledger@locked" if poison == "call_locked" else str(LEDGER)
    assert (item.kind, item.instance_id) == ("message", own)
    assert f"each of the {MAX_DELIVERIES} times" in item.cause
    # The first death can be attributed to nobody, and at the next one the message had no row: each may cost one more.
    assert MAX_DELIVERIES <= world.deaths <= MAX_DELIVERIES + 2


@pytest.mark.parametrize("seed", once_but(range(30), range(5)))
def test_several_poisons_are_set_aside_and_no_innocent_is(seed: int) -> None:
    chance = random.Random(seed)
    poisons = [*chance.sample(POISONS, 3), "signal"]
    _, items = play(seed, poisons, innocents_lost_nothing)
    assert len({item.id for item in items}) == len(items) == len(poisons)
    assert {item.kind for item in items} == {"message"}


def test_after_a_cure_redrive_performs_all_of_them() -> None:
    async def cure(world: EntityWorld) -> None:
        world.cured = True
        assert await world.client.redrive_all() == len(POISONS)
        for number, poison in enumerate(POISONS):
            if poison in CALLS:
                assert (await world.client.wait_for_completion(f"{poison}-{number}")).output == "alive"
        while world.hub.inbox:  # noqa: ASYNC110 - until everything has been performed
            await asyncio.sleep(0.1)
        assert (await world.client.query_parked()).items == []
        entries = await world.entries()
        for number, poison in enumerate(POISONS):
            if poison not in {"call_read", "call_locked"}:
                assert entries.count(f"{poison}-{number}") == 1
        rows = world.hub.entities.values()
        assert not [row for row in rows if row.locked_by is not None]

    play(3, list(POISONS), cure)


def test_discard_fails_the_calls_and_lets_go_of_their_locks() -> None:
    async def give_up(world: EntityWorld) -> None:
        assert await world.client.discard_all() == len(POISONS)
        for number, poison in enumerate(POISONS):
            if poison in CALLS:
                status = await world.client.wait_for_completion(f"{poison}-{number}")
                assert status.runtime_status == "Failed"
                assert status.failure is not None
                assert status.failure.is_caused_by("EntityOperationFailedError")
                assert "discarded by an operator" in status.failure.message
        assert (await world.client.query_parked()).items == []
        assert await world.client.call_entity(EntityId("ledger", "locked"), "write", "free", timeout=60) == 1
        assert not world.hub.inbox
        assert not [row for row in world.hub.entities.values() if row.locked_by is not None]

    play(5, list(POISONS), give_up)


def test_only_what_its_entity_has_to_remember_stays() -> None:
    """An entity that was suspected and got over it leaves no trace."""

    async def look(world: EntityWorld) -> None:
        world.cured = True
        await world.client.discard_all()
        await asyncio.sleep(1)
        await world.client.signal_entity(EntityId("ledger", "locked"), "delete")
        await asyncio.sleep(1)
        assert "@ledger@locked" not in world.hub.entities
        assert all(row.status in TERMINAL for _, row in world.hub.instances.values())

    play(6, ["call_locked", "relay"], look)


@pytest.mark.parametrize("first", ["redrive", "discard"])
def test_of_two_orders_about_an_operation_one_is_obeyed(first: str) -> None:
    async def order(world: EntityWorld) -> None:
        world.cured = True
        (item,) = (await world.client.query_parked()).items
        orders = [world.client.redrive(item.id), world.client.discard(item.id)]
        await asyncio.gather(*(orders if first == "redrive" else reversed(orders)))
        status = await world.client.wait_for_completion("call-0")
        await asyncio.sleep(1)
        performed = (await world.entries()).count("call-0")
        assert (status.runtime_status, performed) == (
            ("Completed", 1) if first == "redrive" else ("Failed", 0)
        )

    play(7, ["call"], order)
