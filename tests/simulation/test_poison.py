"""Scenario 37 under seeds: work items that kill their process are parked after five deaths, and nobody else ever is."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NoReturn

import pytest

from durably.app import App, AppHost
from durably.client import Client
from durably.client.connection import Connection
from durably.client.outside import OutsideOperations
from durably.core.commit import Batch
from durably.core.history import decode_body
from durably.core.invariants import check_instance
from durably.core.messages import StartInstance
from durably.core.parked import ParkedItem
from durably.core.status import TERMINAL
from durably.engine.options import EngineOptions
from durably.program.context import OrchestrationContext
from durably.storage.api import Lease, StoredInstance
from durably.storage.memory import MemoryHub, MemoryStore
from durably.testing.sim_loop import SimClock, SimLoop, SimRandom
from tests.support.shares import once_but

POISONS = (
    "activity",
    "aside",
    "slow_activity",
    "first_turn",
    "on_event",
    "on_timer",
    "on_result",
    "next_execution",
)
MAX_DELIVERIES = 5


class DiedError(BaseException):
    """Ends the turn in which the process died."""


class CheckedStore(MemoryStore):
    """Checks every instance after every commit."""

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._commit(lease, batch))

    async def _commit(self, lease: Lease, batch: Batch) -> None:
        await super().commit(lease, batch)
        for _, row in self.hub.instances.values():
            timers = [timer for timer in self.hub.timers.values() if timer.instance_id == row.instance_id]
            inbox = [message for message in self.hub.inbox.values() if message.instance_id == row.instance_id]
            check_instance(row, self.hub.history_of(row), timers, inbox)


class World:
    """One hub, a supervisor that starts a host whenever there is none, and work some of which kills it."""

    def __init__(self, seed: int, loop: SimLoop, *, max_deliveries: int = MAX_DELIVERIES) -> None:
        self.chance = random.Random(seed)
        self.clock = SimClock(loop)
        self.random = SimRandom(self.chance)
        self.hub = MemoryHub()
        self.deaths = 0
        self.cured = False
        self.runs: Counter[str] = Counter()
        self.max_deliveries = max_deliveries
        self.host: AppHost | None = None
        self.died = asyncio.Event()
        self.app = self._build()
        connection = Connection(MemoryStore(self.hub))
        outside = OutsideOperations(connection, self.clock, self.random)
        self.client = Client.of(outside, self.app.registry, self.app.converter, self.clock, self.random)

    # --- work --------------------------------------------------------------------------------------------------------

    def die(self) -> NoReturn:
        """What is called ends here, and the process with it."""
        host, self.host = self.host, None
        if host is None:  # what runs on for a moment in a process that has died
            raise DiedError
        self.deaths += 1
        assert isinstance(host.engine.store, MemoryStore)
        host.engine.store.abandon()
        host.engine._own._suspicions[0].abandon()
        self.loop.call_soon(host.engine.abandon)
        self.died.set()
        raise DiedError

    def bite(self) -> None:
        if not self.cured:
            self.die()

    def _build(self) -> App:
        app = App()
        self._activities(app)
        self._innocents(app)
        self._poisons(app)
        return app

    def _activities(self, app: App) -> None:
        @app.activity
        async def work(given: list[Any]) -> Any:
            name, seconds = given
            self.runs[name] += 1
            await asyncio.sleep(seconds)
            return name

        @app.activity
        async def bites(seconds: float) -> str:
            if seconds:
                await asyncio.sleep(seconds)
            try:
                self.bite()
            except DiedError:
                await asyncio.Event().wait()  # nothing is heard of it any more
            return "alive"

        @app.activity
        async def bites_aside(seconds: float) -> str:
            """In a task of its own, where nobody can see which activity it belongs to."""
            return await asyncio.create_task(bites(seconds))

        del work, bites_aside

    def _innocents(self, app: App) -> None:
        @app.orchestrator
        async def chain(ctx: OrchestrationContext, seconds: list[float]) -> int:
            for number, second in enumerate(seconds):
                await ctx.call_activity("work", [f"{ctx.instance_id}.{number}", second])
            return len(seconds)

        @app.orchestrator
        async def fan(ctx: OrchestrationContext, seconds: list[float]) -> int:
            await asyncio.gather(
                *(ctx.call_activity("work", [ctx.instance_id, second]) for second in seconds)
            )
            await ctx.create_timer(timedelta(seconds=seconds[0]))
            return len(seconds)

        del chain, fan

    def _poisons(self, app: App) -> None:
        @app.orchestrator
        async def activity(ctx: OrchestrationContext) -> str:
            return await ctx.call_activity("bites", 0)

        @app.orchestrator
        async def aside(ctx: OrchestrationContext) -> str:
            return await ctx.call_activity("bites_aside", 0.7)

        @app.orchestrator
        async def slow_activity(ctx: OrchestrationContext) -> str:
            return await ctx.call_activity("bites", 2.5)

        @app.orchestrator
        async def first_turn(ctx: OrchestrationContext) -> str:
            self.bite()
            return "alive"

        @app.orchestrator
        async def on_event(ctx: OrchestrationContext) -> str:
            await ctx.wait_for_external_event("harmless")
            await ctx.wait_for_external_event("go")
            self.bite()
            return "alive"

        @app.orchestrator
        async def on_timer(ctx: OrchestrationContext) -> str:
            await ctx.create_timer(timedelta(seconds=1.5))
            self.bite()
            return "alive"

        @app.orchestrator
        async def on_result(ctx: OrchestrationContext) -> str:
            await ctx.call_activity("work", [ctx.instance_id, 0.5])
            self.bite()
            return "alive"

        @app.orchestrator
        async def next_execution(ctx: OrchestrationContext, again: bool = False) -> str:
            if not again:
                await ctx.create_timer(timedelta(seconds=1))
                ctx.continue_as_new(True)
            else:
                self.bite()
            return "alive"

        del activity, aside, slow_activity, first_turn, on_event, on_timer, on_result, next_execution

    # --- the supervisor ----------------------------------------------------------------------------------------------

    async def supervise(self) -> None:
        while True:
            self.died.clear()
            await asyncio.sleep(0.01)
            options = EngineOptions(
                max_deliveries=self.max_deliveries, slow_turn_s=0, max_resident_instances=8
            )
            host = AppHost(self.app, CheckedStore(self.hub), options, self.clock, self.random)
            self.host = host
            start = asyncio.ensure_future(host.start())
            death = asyncio.ensure_future(self.died.wait())
            await asyncio.wait({start, death}, return_when=asyncio.FIRST_COMPLETED)
            if not death.done():
                start.result()
            await death
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)

    async def run(self, poisons: list[str]) -> list[ParkedItem]:
        self.loop = asyncio.get_running_loop()
        supervisor = asyncio.ensure_future(self.supervise())
        await asyncio.sleep(0.01)
        await self.begin(poisons)
        items: list[ParkedItem] = []
        for _ in range(400):
            await asyncio.sleep(1)
            items = (await self.client.query_parked()).items
            if len(items) >= len(poisons) and self.innocents_ended():
                break
            if self.deaths > 20 * len(poisons):
                break
        supervisor_over = supervisor.done()
        if supervisor_over:
            supervisor.result()
        self.supervisor = supervisor
        return items

    async def begin(self, poisons: list[str]) -> None:
        for number in range(20):
            seconds = [self.chance.choice((0.0, 0.01, 0.3, 1.0)) for _ in range(3)]
            program = self.chance.choice(("chain", "fan"))
            await self.client.start(program, seconds, instance_id=f"innocent-{number}")
        await self.client.start("chain", [40.0], instance_id="innocent-long")
        for number, poison in enumerate(poisons):
            await self.client.start(poison, instance_id=f"{poison}-{number}")
            if poison == "on_event":
                for name in ("harmless", "go"):
                    await self.client.raise_event(f"{poison}-{number}", name)

    def innocents_ended(self) -> bool:
        return all(
            row.status in TERMINAL
            for name, (_, row) in self.hub.instances.items()
            if name.startswith("innocent")
        )

    async def stop(self) -> None:
        self.supervisor.cancel()
        await asyncio.gather(self.supervisor, return_exceptions=True)
        if self.host is not None:
            await self.host.stop()
        await self.client.close()


def play(seed: int, poisons: list[str], then: Any = None, **options: Any) -> tuple[World, list[ParkedItem]]:
    return play_in(World, seed, poisons, then, **options)


def play_in(
    kind: type[World], seed: int, poisons: list[str], then: Any = None, **options: Any
) -> tuple[World, list[ParkedItem]]:
    loop = SimLoop()
    loop.set_exception_handler(lambda loop, context: None)  # what the dead left behind
    made: list[World] = []

    async def main() -> list[ParkedItem]:
        made.append(kind(seed, loop, **options))
        items = await made[0].run(poisons)
        if then is not None:
            await then(made[0])
        await made[0].stop()
        return items

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        items = runner.run(main())
    return made[0], items


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    yield from quiet()


def quiet() -> Iterator[None]:
    """Keep the log of what dies on purpose to ourselves."""
    log = logging.getLogger("durably")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    yield
    log.setLevel(level)


def rows(world: World, prefix: str) -> dict[str, str]:
    found = world.hub.instances.items()
    return {name: row.status for name, (_, row) in found if name.startswith(prefix)}


@pytest.mark.parametrize("poison", POISONS)
def test_what_kills_its_process_five_times_is_parked_and_all_others_finish(poison: str) -> None:
    world, items = play(1, [poison])
    assert [(item.kind, item.id, item.deliveries) for item in items] == [
        ("instance", f"{poison}-0", MAX_DELIVERIES)
    ]
    assert set(rows(world, "innocent").values()) == {"Completed"}
    # The first death can be attributed to nobody; where the item was not in flight then, one more is needed.
    assert world.deaths in {MAX_DELIVERIES, MAX_DELIVERIES + 1}


@pytest.mark.parametrize("seed", once_but(range(40), range(5)))
def test_several_poisons_are_parked_and_no_innocent_is(seed: int) -> None:
    chance = random.Random(seed)
    poisons = chance.sample(POISONS, 3)
    world, items = play(seed, poisons)
    assert {item.instance_id for item in items} == {f"{name}-{n}" for n, name in enumerate(poisons)}
    assert set(rows(world, "innocent").values()) == {"Completed"}, rows(world, "innocent")
    assert all(item.deliveries == MAX_DELIVERIES for item in items)


def test_without_counting_it_would_never_end() -> None:
    world, items = play(1, ["activity"], max_deliveries=1_000_000)
    assert items == []
    assert world.deaths > 20


def test_after_a_cure_redrive_completes_all_of_them() -> None:
    async def cure(world: World) -> None:
        world.cured = True
        assert await world.client.redrive_all() == len(POISONS)
        for number, poison in enumerate(POISONS):
            assert (await world.client.wait_for_completion(f"{poison}-{number}")).output == "alive"
        assert (await world.client.query_parked()).items == []

    world, _ = play(3, list(POISONS), cure)
    assert not world.hub.inbox
    assert not world.hub.timers


def test_a_redrive_without_a_cure_parks_it_again_after_as_many_deaths() -> None:
    async def again(world: World) -> None:
        before = world.deaths
        await world.client.redrive("activity-0")
        for _ in range(30):
            await asyncio.sleep(1)
        assert [item.id for item in (await world.client.query_parked()).items] == ["activity-0"]
        assert world.deaths - before in {MAX_DELIVERIES, MAX_DELIVERIES + 1}

    play(4, ["activity"], again)


def test_discard_fails_the_call_or_terminates_the_instance() -> None:
    async def give_up(world: World) -> None:
        assert await world.client.discard_all() == len(POISONS)
        for number, poison in enumerate(POISONS):
            status = await world.client.wait_for_completion(f"{poison}-{number}")
            failed = poison in {"activity", "aside", "slow_activity"}
            assert status.runtime_status == ("Failed" if failed else "Terminated"), poison
            if failed:
                assert status.failure is not None
                assert status.failure.is_caused_by("WorkDiscardedError")
        assert (await world.client.query_parked()).items == []

    world, _ = play(5, list(POISONS), give_up)
    assert not world.hub.inbox
    assert not world.hub.timers


class Gate(CheckedStore):
    """Its answers wait until they are let through."""

    def __init__(self, hub: MemoryHub) -> None:
        super().__init__(hub)
        self.shut = False
        self.waiting: dict[str, asyncio.Future[None]] = {}

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        applied = super().commit(lease, batch)
        return self._answer("commit") if self.shut else applied

    async def read_instances(self, lease: Lease, instance_ids: Sequence[str]) -> list[StoredInstance | None]:
        found = await super().read_instances(lease, instance_ids)
        if self.shut:
            await self._answer("read")
        return found

    def _answer(self, what: str) -> asyncio.Future[None]:
        self.waiting[what] = asyncio.get_running_loop().create_future()
        return self.waiting[what]


def test_the_row_of_a_suspect_is_never_durable_without_its_start() -> None:
    """The answer of a commit comes between the end of its read and its turn, and takes along what is gathered by then."""
    loop = SimLoop()
    loop.set_exception_handler(lambda loop, context: None)

    async def main() -> None:
        world = World(0, loop)
        world.loop = loop
        for _ in range(2):
            host = await boot(world, CheckedStore(world.hub))
            lost = asyncio.ensure_future(start(host, "first_turn", "suspect"))
            await world.died.wait()
            world.died.clear()
            lost.cancel()
        world.cured = True
        gate = Gate(world.hub)
        host = await boot(world, gate)
        gate.shut = True
        work = [asyncio.ensure_future(start(host, "chain", "other"))]
        await until(lambda: "read" in gate.waiting)
        gate.waiting.pop("read").set_result(None)
        await until(lambda: "commit" in gate.waiting)
        work.append(asyncio.ensure_future(start(host, "first_turn", "suspect")))
        await until(lambda: "read" in gate.waiting)
        gate.shut = False
        gate.waiting["read"].set_result(None)
        gate.waiting["commit"].set_result(None)
        await until(lambda: "suspect" in world.hub.instances)
        inbox = [decode_body(row.body) for row in world.hub.inbox.values() if row.instance_id == "suspect"]
        assert [type(body) for body in inbox] == [StartInstance]
        for one in work:
            one.cancel()
        await host.stop()
        await world.client.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


async def boot(world: World, store: MemoryStore) -> AppHost:
    host = world.host = AppHost(world.app, store, EngineOptions(slow_turn_s=0), world.clock, world.random)
    await host.start()
    return host


async def start(host: AppHost, program: str, instance_id: str) -> None:
    given = [[0.01]] if program == "chain" else []
    await host.client.start(program, *given, instance_id=instance_id, on_existing="attach")


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")
