"""The window of what was taken over and not tried yet."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from durably.triggers.window import Window


class Alarms:
    """A clock whose wake-ups ring when the test says so."""

    def __init__(self) -> None:
        self.delays: list[int] = []
        self.ring: Callable[[], None] = lambda: None

    def call_later(self, delay: int, callback: Callable[[], None]) -> Any:
        self.delays.append(delay)
        self.ring = callback
        return SimpleNamespace(cancel=lambda: None)


class Hub:
    """Knows how instances are."""

    def __init__(self, **rows: Any) -> None:
        self.rows = rows

    async def get(self, instance_id: str, *, payloads: bool) -> Any:
        return self.rows.get(instance_id)


def row(status: str, *, parked: str | None = None) -> Any:
    return SimpleNamespace(status=status, parked=parked, blocked=None)


def test_who_was_tried_makes_room() -> None:
    async def main() -> None:
        window, clock, hub = Window(2), Alarms(), Hub()
        assert await window.room(hub, clock) == 2  # type: ignore[arg-type]
        window.enter("a")
        window.enter("b")
        waiting = asyncio.ensure_future(window.room(hub, clock))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not waiting.done()
        window.leave("a")
        window.leave("unknown")
        assert await waiting == 1

    asyncio.run(main())


def test_who_will_never_be_tried_does_not_hold_it_up_for_good() -> None:
    async def main() -> None:
        window, clock = Window(4), Alarms()
        for name in ("runs", "suspended", "parked", "deleted"):
            window.enter(name)
        hub = Hub(
            runs=row("Running"), suspended=row("Running"), parked=row("Running"), deleted=row("Running")
        )
        waiting = asyncio.ensure_future(window.room(hub, clock))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        clock.ring()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        hub.rows.update(suspended=row("Suspended"), parked=row("Running", parked="it kills"), deleted=None)
        clock.ring()
        assert await waiting == 3
        assert clock.delays[0] < clock.delays[1]

    asyncio.run(main())
