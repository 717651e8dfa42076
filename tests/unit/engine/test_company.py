"""In what company suspects run."""

from __future__ import annotations

import asyncio

from durably.engine.company import Company


class Crowd:
    """Suspects that note when they may run."""

    def __init__(self, max_deliveries: int = 5) -> None:
        self.company = Company(max_deliveries)
        self.running: list[str] = []

    def apply(self, name: str, deliveries: int) -> None:
        self.company.apply(name, deliveries, lambda: self.running.append(name))

    async def leave(self, *names: str) -> None:
        for name in names:
            self.company.leave(name)
            if name in self.running:
                self.running.remove(name)
        await settled()


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_whoever_has_one_death_left_is_alone_and_comes_first() -> None:
    crowd = Crowd()
    crowd.apply("twice", 2)
    crowd.apply("four times", 4)
    crowd.apply("also", 4)
    await settled()
    assert crowd.running == ["four times"]
    await crowd.leave("four times")
    assert crowd.running == ["also"]
    await crowd.leave("also")
    assert crowd.running == ["twice"]


async def test_company_shrinks_with_each_death() -> None:
    sizes: dict[int, int] = {}
    for deliveries in (1, 2, 3, 4):
        crowd = Crowd()
        for number in range(1_000):
            crowd.apply(f"{number}", deliveries)
        await settled()
        sizes[deliveries] = len(crowd.running)
    assert sizes == {1: 512, 2: 64, 3: 8, 4: 1}


async def test_nobody_joins_one_that_has_to_be_alone() -> None:
    crowd = Crowd()
    crowd.apply("alone", 4)
    await settled()
    crowd.apply("new", 1)
    await settled()
    assert crowd.running == ["alone"]
    await crowd.leave("nobody", "new")
    await crowd.leave("alone")
    assert crowd.running == []


async def test_one_that_has_to_be_alone_waits_and_is_not_overtaken() -> None:
    crowd = Crowd()
    crowd.apply("first", 1)
    await settled()
    crowd.apply("alone", 4)
    crowd.apply("second", 1)
    crowd.apply("alone", 4)
    await settled()
    assert crowd.running == ["first"]
    await crowd.leave("first")
    assert crowd.running == ["alone"]
    await crowd.leave("alone")
    assert crowd.running == ["second"]
