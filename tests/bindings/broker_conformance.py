"""What any broker has to do for a host (`durably.bindings.broker`). A broker is done when its test module passes this.

    class TestRedis(BrokerConformance):
        @pytest.fixture
        def rig(self, redis: RedisServer) -> Rig:
            return Rig(lambda: make(redis.url, SystemClock()), lambda: make(NOBODY, SystemClock()), delays=False)

A test makes queues of its own, so all may share one server.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from durably.bindings.broker import Broker, BrokerMessage, Source
from durably.errors import BrokerError

PATIENCE_S = 60.0

_numbers = itertools.count()


@dataclass(frozen=True)
class Rig:
    """A broker under test.

    Attributes:
        connect: A new `Broker` on the server.
        connect_to_nobody: A `Broker` on an address where nothing listens.
        keeps_ids: What was sent under an id is delivered under it.
        counts: What is delivered again says so, by a dequeue count above 1.
        delays: `Broker.send` can delay.
        odd_name: A name that this broker allows, and a queue of the hub would not; unique for each number.
    """

    connect: Callable[[], Broker]
    connect_to_nobody: Callable[[], Broker]
    keeps_ids: bool = True
    counts: bool = True
    delays: bool = True
    odd_name: Callable[[int], str] = "Orders_{}.v2".format


class BrokerConformance:
    """The suite; a subclass has the fixture `rig`."""

    @pytest.mark.parametrize(
        "body",
        [b"", b'{"item": "tea"}', "süß 茶".encode(), bytes(range(256)), b"\x00", os.urandom(40_000)],
        ids=["empty", "json", "text", "bytes", "zero", "large"],
    )
    def test_what_was_sent_is_delivered(self, rig: Rig, body: bytes) -> None:
        async def main() -> None:
            async with connected(rig) as broker, taking(broker, fresh()) as (queue, source):
                before = now_us()
                await broker.send(queue, body, message_id="m-1")
                (message,) = await received(source, 1)
                assert message.body == body
                assert message.dequeue_count == 1
                if rig.keeps_ids:
                    assert message.id == "m-1"
                if message.inserted_at is not None:  # of whole seconds, maybe, and of another clock
                    assert abs(message.inserted_at - before) < PATIENCE_S * 1_000_000
                await source.settle([message])

        run(main())

    def test_names_and_ids_are_those_of_the_broker(self, rig: Rig) -> None:
        async def main() -> None:
            name = rig.odd_name(next(_numbers) + os.getpid() * 1000)
            async with connected(rig) as broker, taking(broker, name) as (queue, source):
                await broker.send(queue, b"1", message_id="Größe/7 #?%")
                (message,) = await received(source, 1)
                if rig.keeps_ids:
                    assert message.id == "Größe/7 #?%"
                await source.settle([message])

        run(main())

    def test_what_is_sent_before_anybody_takes_it_is_kept(self, rig: Rig) -> None:
        async def main() -> None:
            queue = fresh()
            async with connected(rig) as broker:
                await broker.send(queue, b"early", message_id="m-1")
            async with connected(rig) as broker, taking(broker, queue) as (_, source):
                assert bodies(await received(source, 1)) == [b"early"]

        run(main())

    def test_receiving_waits_and_is_woken(self, rig: Rig) -> None:
        async def main() -> None:
            async with connected(rig) as broker, taking(broker, fresh()) as (queue, source):
                waiting = asyncio.ensure_future(source.receive(10))
                await asyncio.sleep(0.05)
                assert not waiting.done()
                await broker.send(queue, b"now", message_id="m-1")
                assert bodies(await asyncio.wait_for(waiting, PATIENCE_S)) == [b"now"]

        run(main())

    def test_never_more_than_the_limit(self, rig: Rig) -> None:
        async def main() -> None:
            async with connected(rig) as broker, taking(broker, fresh()) as (queue, source):
                await send_many(broker, queue, 10)
                seen: list[BrokerMessage] = []
                async with asyncio.timeout(PATIENCE_S):
                    while len(seen) < 10:
                        some = await source.receive(3)
                        assert 1 <= len(some) <= 3
                        seen += some
                        await source.settle(some)
                assert sorted(bodies(seen)) == numbered(10)

        run(main())

    def test_what_was_settled_is_gone(self, rig: Rig) -> None:
        async def main() -> None:
            queue = fresh()
            async with connected(rig) as broker:
                async with taking(broker, queue) as (_, source):
                    await send_many(broker, queue, 5)
                    await source.settle(await received(source, 5))
                async with taking(broker, queue) as (_, source):
                    await broker.send(queue, b"next", message_id="next")
                    assert bodies(await received(source, 1)) == [b"next"]

        run(main())

    def test_what_was_not_settled_is_delivered_again_as_it_was(self, rig: Rig) -> None:
        async def main() -> None:
            queue = fresh()
            async with connected(rig) as broker:
                async with taking(broker, queue) as (_, source):
                    await send_many(broker, queue, 3)
                    first = by_body(await received(source, 3))
                    await source.settle([first[b"1"]])
                async with taking(broker, queue) as (_, source):
                    again = by_body(await received(source, 2))
                    assert sorted(again) == [b"0", b"2"]
                    for body, message in again.items():
                        assert message.id == first[body].id
                        assert message.inserted_at == first[body].inserted_at
                        assert message.dequeue_count >= (2 if rig.counts else 1)
                    await source.settle(list(again.values()))

        run(main())

    def test_what_a_connection_held_that_is_gone_is_delivered_again(self, rig: Rig) -> None:
        async def main() -> None:
            queue = fresh()
            async with connected(rig) as sender:
                await send_many(sender, queue, 3)
            gone = rig.connect()
            source = await gone.source(queue, 10)
            first = {message.id for message in await received(source, 3)}
            await gone.close()
            await source.close()
            async with connected(rig) as broker, taking(broker, queue) as (_, source):
                again = await received(source, 3)
                assert {message.id for message in again} == first
                await source.settle(again)

        run(main())

    def test_each_message_is_with_one_of_two(self, rig: Rig) -> None:
        async def main() -> None:
            queue = fresh()
            async with (
                connected(rig) as one,
                connected(rig) as two,
                taking(one, queue, 4) as (_, left),
                taking(two, queue, 4) as (_, right),
            ):
                seen: list[BrokerMessage] = []

                async def consume(source: Source) -> None:
                    while True:
                        some = await source.receive(2)
                        seen.extend(some)
                        await source.settle(some)

                consumers = [asyncio.ensure_future(consume(source)) for source in (left, right)]
                await send_many(one, queue, 40)
                await until(lambda: len(seen) >= 40)
                for consumer in consumers:
                    consumer.cancel()
                await asyncio.gather(*consumers, return_exceptions=True)
                assert sorted(bodies(seen)) == numbered(40)

        run(main())

    def test_no_more_is_taken_than_was_asked_for(self, rig: Rig) -> None:
        """What a host has no room for is somebody else's."""

        async def main() -> None:
            queue = fresh()
            async with connected(rig) as one, connected(rig) as two, taking(one, queue, 4) as (_, full):
                await send_many(one, queue, 10)
                held = await received(full, 4)
                more = asyncio.ensure_future(full.receive(4))
                async with taking(two, queue, 10) as (_, other):
                    rest = await received(other, 6)
                    assert sorted(bodies(held + rest)) == numbered(10)
                    await other.settle(rest)
                assert not more.done()
                await full.settle(held)
                await send_many(one, queue, 1)
                assert bodies(await asyncio.wait_for(more, PATIENCE_S)) == [b"0"]

        run(main())

    def test_a_cancelled_receive_loses_nothing(self, rig: Rig) -> None:
        async def main() -> None:
            async with connected(rig) as broker, taking(broker, fresh(), 100) as (queue, source):
                sending = asyncio.ensure_future(send_many(broker, queue, 60))
                seen: list[BrokerMessage] = []
                patience_s = 0.0
                async with asyncio.timeout(PATIENCE_S):
                    while len(seen) < 60:
                        waiting = asyncio.ensure_future(source.receive(5))
                        await asyncio.wait({waiting}, timeout=patience_s)
                        waiting.cancel()
                        await asyncio.wait({waiting})
                        patience_s = (patience_s + 0.0003) % 0.01
                        if not waiting.cancelled():
                            seen += waiting.result()
                            await source.settle(waiting.result())
                await sending
                assert sorted(bodies(seen)) == numbered(60)

        run(main())

    def test_delays(self, rig: Rig) -> None:
        async def main() -> None:
            async with connected(rig) as broker, taking(broker, fresh()) as (queue, source):
                began = time.monotonic()
                if not rig.delays:
                    with pytest.raises(BrokerError, match="delay"):
                        await broker.send(queue, b"late", message_id="late", delay_s=1.0)
                    await broker.send(queue, b"now", message_id="now")
                    assert bodies(await received(source, 1)) == [b"now"]
                    return
                await broker.send(queue, b"late", message_id="late", delay_s=1.0)
                await broker.send(queue, b"now", message_id="now")
                first, second = await received(source, 2)
                assert (first.body, second.body) == (b"now", b"late")
                assert time.monotonic() - began >= 0.9  # clocks of servers tick in milliseconds
                await source.settle([first, second])

        run(main())

    def test_nobody_there(self, rig: Rig) -> None:
        async def main() -> None:
            broker = rig.connect_to_nobody()
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(BrokerError):
                    await broker.source(fresh(), 10)
                with pytest.raises(BrokerError):
                    await broker.send(fresh(), b"1", message_id="m-1")
            await broker.close()
            await broker.close()

        run(main())

    def test_closing_is_final_and_repeatable(self, rig: Rig) -> None:
        async def main() -> None:
            broker = rig.connect()
            source = await broker.source(fresh(), 10)
            waiting = asyncio.ensure_future(source.receive(10))
            await asyncio.sleep(0.02)
            await broker.close()
            with pytest.raises(BrokerError):
                await asyncio.wait_for(waiting, PATIENCE_S)
            for _ in range(2):
                await source.close()
                await broker.close()
            with pytest.raises(BrokerError):
                await broker.send(fresh(), b"1", message_id="m-1")

        run(main())


def run(main: object) -> None:
    """A test on a loop of its own."""
    asyncio.run(main)  # type: ignore[arg-type]


def fresh() -> str:
    """A name that no other test has."""
    return f"queue-{os.getpid()}-{next(_numbers)}"


def now_us() -> int:
    return time.time_ns() // 1000


def numbered(count: int) -> list[bytes]:
    return sorted(str(number).encode() for number in range(count))


def bodies(messages: list[BrokerMessage]) -> list[bytes]:
    return [message.body for message in messages]


def by_body(messages: list[BrokerMessage]) -> dict[bytes, BrokerMessage]:
    return {message.body: message for message in messages}


@asynccontextmanager
async def connected(rig: Rig) -> AsyncIterator[Broker]:
    broker = rig.connect()
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def taking(broker: Broker, queue: str, prefetch: int = 10) -> AsyncIterator[tuple[str, Source]]:
    """A source of a queue, and its name."""
    source = await broker.source(queue, prefetch)
    try:
        yield queue, source
    finally:
        await source.close()


async def send_many(broker: Broker, queue: str, count: int) -> None:
    """Messages with the bodies 0, 1, 2…, ids of their own, one after the other."""
    for number in range(count):
        await broker.send(queue, str(number).encode(), message_id=f"m-{number}-{next(_numbers)}")


async def received(source: Source, count: int) -> list[BrokerMessage]:
    """The next so many, not settled."""
    found: list[BrokerMessage] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            found += await source.receive(count - len(found))
    return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - probes of real servers have no event
            await asyncio.sleep(0.002)


async def eventually(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await ask():  # noqa: ASYNC110 - probes of real servers have no event
            await asyncio.sleep(0.002)
