"""Callers that wait for room are woken by who makes it, one after the other."""

from __future__ import annotations

import asyncio

from durably import App, EngineOptions, HubClosedError, OrchestrationContext
from durably.engine.gate import Gate
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import all_within, eventually


class Room:
    def __init__(self, free: int = 0) -> None:
        self.free = free
        self.looks = 0
        self.gate = Gate(self._has_room)

    def _has_room(self) -> bool:
        self.looks += 1
        return self.free > 0

    async def enter(self) -> None:
        await self.gate.passed()
        self.free -= 1


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_who_finds_room_does_not_wait() -> None:
    room = Room(free=1)
    await room.enter()
    assert room.free == 0


async def test_as_many_pass_as_there_is_room_for_and_in_their_order() -> None:
    room = Room()
    entered: list[int] = []

    async def enter(n: int) -> None:
        await room.enter()
        entered.append(n)

    waiting = [asyncio.create_task(enter(n)) for n in range(100)]
    await settle()
    room.free, room.looks = 3, 0
    room.gate.look()
    await settle()
    assert entered == [0, 1, 2]
    assert room.looks < 20  # a flood of them is not woken to wait again
    room.free = 97
    room.gate.look()
    await settle()
    await all_within(*waiting)
    assert entered == list(range(100))


async def test_who_gives_up_when_its_turn_has_come_hands_it_on() -> None:
    room = Room()
    first, second, third = (asyncio.create_task(room.enter()) for _ in range(3))
    await settle()
    second.cancel()
    await settle()
    room.free = 1
    room.gate.look()
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    await all_within(third)


async def test_a_start_that_waits_for_room_goes_on_when_there_is_some_whatever_the_clock_says(
    hub: Deployment, clock: ManualClock
) -> None:
    app, end, began = App(), asyncio.Event(), list[int]()

    @app.activity
    async def work(n: int) -> None:
        began.append(n)
        await end.wait()

    @app.orchestrator
    async def works(ctx: OrchestrationContext, n: int) -> None:
        await ctx.call_activity(work, n)

    host = await hub.start(app, clock=clock, options=EngineOptions(max_open_activities=1))
    for n in range(2):
        await host.client.start(works, n)
    await eventually(lambda: len(began) == 2)
    starting = [asyncio.create_task(host.client.start(works, n)) for n in range(2, 6)]
    await settle()
    assert not any(one.done() for one in starting)
    end.set()
    await all_within(*starting)


async def test_starts_that_wait_for_room_are_refused_when_the_host_stops(
    hub: Deployment, clock: ManualClock
) -> None:
    app = App()

    @app.activity
    async def work() -> None:
        await asyncio.Event().wait()

    @app.orchestrator
    async def works(ctx: OrchestrationContext) -> None:
        await asyncio.gather(*(ctx.call_activity(work) for _ in range(3)))

    host = await hub.start(app, clock=clock, options=EngineOptions(max_open_activities=1, drain_timeout_s=1))
    await host.client.start(works)
    await eventually(lambda: not host.engine.has_room)
    starting = [asyncio.create_task(host.client.start(works)) for _ in range(3)]
    await settle()
    stopping = asyncio.create_task(hub.stop(host))
    answers = await all_within(asyncio.gather(*starting, return_exceptions=True))
    assert [type(answer) for answer in answers[0]] == [HubClosedError] * 3  # type: ignore[union-attr, attr-defined]
    while not stopping.done():
        clock.advance(1)
        await asyncio.sleep(0)
    await stopping
