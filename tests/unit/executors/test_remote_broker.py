"""Who gets which work, and what becomes of it when a worker is full, wants something else, gives it back, or goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durably.clock import SystemRandom
from durably.executors.remote import broker as module
from durably.executors.remote.broker import Broker, Kind, Worker
from durably.executors.remote.filters import Filters


class Task:
    def __init__(self, name: str, key: int = 0, kind: Kind = "activity", version: str = "") -> None:
        self.kind: Kind = kind
        self.name = name
        self.version = version
        self.instance_id = f"i{key}"
        self.key: tuple[str, int] = (self.instance_id, 0)

    def request(self, token: str) -> bytes:
        return f"{self.name} {self.instance_id} {token}".encode()


class Hand(Worker):
    """A worker that keeps what it gets."""

    def __init__(self, limits: dict[Kind, int] | None = None, filters: Filters | None = None) -> None:
        super().__init__(self._got, limits or {}, filters or Filters())
        self.items: list[tuple[str, str, str]] = []

    def _got(self, item: bytes) -> None:
        name, instance_id, token = item.decode().split()
        self.items.append((name, instance_id, token))

    @property
    def names(self) -> list[str]:
        return [f"{name} {instance_id}" for name, instance_id, _ in self.items]


def run(scene: Callable[[Broker], Awaitable[None]]) -> None:
    async def main() -> None:
        broker = Broker(SystemRandom())
        try:
            await scene(broker)
        finally:
            broker.close()

    asyncio.run(main())


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_work_waits_for_a_worker_and_goes_to_one_only() -> None:
    async def scene(broker: Broker) -> None:
        tasks = [Task("a", number) for number in range(6)]
        for task in tasks:
            broker.offer(task)
            broker.offer(task)  # is there already
        hands = [Hand(), Hand(), Hand()]
        for hand in hands:
            broker.connect(hand)
        await turn()
        assert [len(hand.items) for hand in hands] == [2, 2, 2]
        assert sorted(name for hand in hands for name in hand.names) == [
            f"a i{number}" for number in range(6)
        ]

    run(scene)


def test_a_worker_gets_no_more_than_it_takes_at_once() -> None:
    async def scene(broker: Broker) -> None:
        hand = Hand({"activity": 2})
        broker.connect(hand)
        for number in range(5):
            broker.offer(Task("a", number))
        broker.offer(Task("o", 9, "orchestrator"))
        await turn()
        assert sorted(hand.names) == ["a i0", "a i1", "o i9"]
        name, instance_id, token = hand.items[0]
        work = broker.answered("activity", token, ("", 0))
        assert work is not None
        assert (work.name, work.instance_id) == (name, instance_id)
        await turn()
        assert sorted(hand.names) == ["a i0", "a i1", "a i2", "o i9"]

    run(scene)


def test_filters_are_obeyed_and_hold_nobody_else_up() -> None:
    async def scene(broker: Broker) -> None:
        wanted = {("activity", "b"): frozenset[str](), ("activity", "c"): frozenset(["2"])}
        hand = Hand(filters=Filters(wanted))
        broker.connect(hand)
        broker.offer(Task("a", 1))
        broker.offer(Task("b", 2))
        broker.offer(Task("c", 3, version="1"))
        broker.offer(Task("c", 4, version="2"))
        broker.offer(Task("b", 5, "orchestrator"))
        await turn()
        assert sorted(hand.names) == ["b i2", "c i4"]
        everything = Hand()
        broker.connect(everything)
        await turn()
        assert sorted(everything.names) == ["a i1", "b i5", "c i3"]

    run(scene)


def test_what_a_worker_had_goes_to_another_one_and_its_late_answer_is_dropped() -> None:
    async def scene(broker: Broker) -> None:
        first, second = Hand(), Hand()
        broker.connect(first)
        broker.offer(Task("a", 1))
        broker.offer(Task("a", 2))
        await turn()
        broker.leave(first)
        done = first.items[0][2]
        assert broker.answered("activity", done, ("", 0)) is not None  # nobody else has it yet
        broker.connect(second)
        await turn()
        assert second.names == ["a i2"]
        assert broker.answered("activity", first.items[1][2], ("", 0)) is None
        assert broker.answered("activity", second.items[0][2], ("", 0)) is not None
        assert broker.answered("activity", second.items[0][2], ("", 0)) is None

    run(scene)


def test_without_a_token_work_is_known_by_its_key() -> None:
    async def scene(broker: Broker) -> None:
        hand = Hand()
        broker.connect(hand)
        task = Task("a", 1)
        broker.offer(task)
        await turn()
        assert broker.answered("orchestrator", "", ("i1", 0)) is None
        assert broker.answered("activity", "", ("i1", 0)) is task
        assert broker.answered("activity", "", ("i1", 0)) is None

    run(scene)


def test_what_is_withdrawn_is_not_sent_and_not_answered() -> None:
    async def scene(broker: Broker) -> None:
        hand = Hand({"activity": 1})
        tasks = [Task("a", number) for number in range(3)]
        for task in tasks:
            broker.offer(task)
        broker.withdraw(tasks[1])
        broker.connect(hand)
        await turn()
        broker.withdraw(tasks[0])
        assert broker.answered("activity", hand.items[0][2], ("", 0)) is None
        await turn()
        assert hand.names == ["a i0", "a i2"]

    run(scene)


def test_what_is_given_back_is_offered_again_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REJECTED_S", 0.01)

    async def scene(broker: Broker) -> None:
        hand = Hand()
        broker.connect(hand)
        task = Task("a", 1)
        broker.offer(task)
        await turn()
        broker.give_back("activity", hand.items[0][2])
        broker.give_back("activity", hand.items[0][2])
        await turn()
        assert len(hand.items) == 1
        assert broker.waiting("activity", task.key) is task
        async with asyncio.timeout(10):
            while len(hand.items) < 2:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)
        assert broker.answered("activity", hand.items[0][2], ("", 0)) is None
        assert broker.answered("activity", hand.items[1][2], ("", 0)) is task

    run(scene)


def test_what_a_worker_gives_back_is_for_others_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another version rejects it each time: it must not get it for ever, while the right one is idle."""
    monkeypatch.setattr(module, "_REJECTED_S", 0.001)

    async def scene(broker: Broker) -> None:
        wrong, right = Hand(), Hand()
        broker.connect(wrong)
        broker.offer(Task("o", 1, "orchestrator"))
        await turn()
        broker.connect(right)
        async with asyncio.timeout(10):
            while not right.items and len(wrong.items) < 5:
                broker.give_back("orchestrator", wrong.items[-1][2])
                await asyncio.sleep(0.005)
        assert right.names == ["o i1"]
        assert len(wrong.items) <= 2

    run(scene)


def test_an_instance_stays_with_its_worker() -> None:
    async def scene(broker: Broker) -> None:
        hands = [Hand(), Hand()]
        for hand in hands:
            broker.connect(hand)
        had: set[int] = set()
        for _ in range(6):
            broker.offer(Task("o", 1, "orchestrator"))
            await turn()
            (place,) = [place for place, hand in enumerate(hands) if hand.items]
            had.add(place)
            broker.answered("orchestrator", hands[place].items.pop()[2], ("", 0))
        assert len(had) == 1
        broker.leave(hands[had.pop()])
        broker.offer(Task("o", 1, "orchestrator"))
        await turn()
        assert sum(len(hand.items) for hand in hands) == 1

    run(scene)


def test_a_worker_that_is_silent_for_too_long_loses_its_turns_and_keeps_its_activities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_TURN_S", 0.01)
    monkeypatch.setattr(module, "_SWEEP_S", 0.02)

    async def scene(broker: Broker) -> None:
        silent = Hand({"orchestrator": 1})
        broker.connect(silent)
        broker.offer(Task("o", 1, "orchestrator"))
        broker.offer(Task("a", 2))
        await turn()
        other = Hand()
        broker.connect(other)
        async with asyncio.timeout(10):
            while len(silent.items) + len(other.items) < 3:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)
        names = sorted(silent.names + other.names)
        assert names == ["a i2", "o i1", "o i1"]

    run(scene)
