"""Redis streams, as a broker of queues."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from durably.bindings.redis_streams import make
from durably.clock import SystemClock
from durably.errors import BrokerError, RegistrationError
from tests.bindings.broker_conformance import (
    BrokerConformance,
    Rig,
    connected,
    fresh,
    received,
    run,
    send_many,
    taking,
)
from tests.bindings.broker_resilience import BrokerResilience, Site
from tests.support.servers import Server, free_port, redis_server_with_tls
from tests.support.waiting import eventually


@pytest.fixture
def rig(redis: Server) -> Rig:
    return Rig(
        lambda: make(redis.url, SystemClock()),
        lambda: make(f"redis://127.0.0.1:{free_port()}", SystemClock()),
        delays=False,
        odd_name="Shop/Orders {}: #v2, süß".format,
    )


class TestRedis(BrokerConformance, BrokerResilience):
    @pytest.fixture
    def site(self, redis: Server) -> Site:
        return Site(
            redis,
            f"{redis.url}?idle_s=1",
            1.0,
            redis.url.replace("secret", "nonsense"),
        )


def test_entries_of_others_are_messages_too(redis: Server, rig: Rig) -> None:
    async def main() -> None:
        async with (
            outside(redis) as client,
            connected(rig) as broker,
            taking(broker, fresh()) as (queue, source),
        ):
            entry = await client.xadd(queue, {"item": "tea", "size": "7", "bytes": b"\xff"})
            await client.xadd(queue, {"body": "text", "more": "1"})
            await client.xadd(queue, {"body": "by hand"}, id="99999999999999-5")
            first, second, third = await received(source, 3)
            assert json.loads(first.body) == {"item": "tea", "size": "7", "bytes": "\\xff"}
            assert first.id == entry.decode()
            assert first.inserted_at == int(entry.split(b"-")[0]) * 1000
            assert (second.body, third.body) == (b"text", b"by hand")
            assert third.id == "99999999999999-5"

    run(main())


def test_what_was_settled_is_deleted(redis: Server, rig: Rig) -> None:
    async def main() -> None:
        async with (
            outside(redis) as client,
            connected(rig) as broker,
            taking(broker, fresh()) as (queue, source),
        ):
            await send_many(broker, queue, 5)
            await source.settle(await received(source, 5))
            assert await client.xlen(queue) == 0
            assert (await client.xpending(queue, "durably"))["pending"] == 0

    run(main())


def test_two_entries_with_one_message_id_are_two_deliveries_of_it(rig: Rig) -> None:
    async def main() -> None:
        async with connected(rig) as broker, taking(broker, fresh()) as (queue, source):
            await broker.send(queue, b"1", message_id="m")
            await broker.send(queue, b"1", message_id="m")
            held = await received(source, 2)
            assert [message.id for message in held] == ["m", "m"]
            await source.settle(held)

    run(main())


def test_consumers_that_are_gone_leave_no_trace(redis: Server, rig: Rig) -> None:
    async def main() -> None:
        queue = fresh()
        async with outside(redis) as client:
            async with connected(rig) as broker:
                for _ in range(3):
                    async with taking(broker, queue):
                        pass
            assert await client.xinfo_consumers(queue, "durably") == []
            await client.xadd(queue, {"body": "1"})
            dead: Any = {queue: ">"}
            await client.xreadgroup("durably", "dead", dead)  # and it never comes back
            broker = make(f"{redis.url}?idle_s=0.2", SystemClock())
            source = await broker.source(queue, 10)
            (message,) = await received(source, 1)
            assert message.dequeue_count == 2
            await source.settle([message])

            async def alone() -> bool:
                found = await client.xinfo_consumers(queue, "durably")
                return [one["name"] for one in found] == [source.name.encode()]

            await eventually(alone)
            await broker.close()

    run(main())


def test_an_entry_that_was_deleted_under_our_hands_is_no_message(redis: Server) -> None:
    async def main() -> None:
        queue = fresh()
        broker = make(f"{redis.url}?idle_s=0.2", SystemClock())
        async with outside(redis) as client:
            source = await broker.source(queue, 10)
            await send_many(broker, queue, 2)
            held = await received(source, 2)
            await client.xdel(queue, held[0].receipt)
            await source.close()
            source = await broker.source(queue, 10)
            assert [message.body for message in await received(source, 1)] == [b"1"]
            await broker.close()

    run(main())


def test_a_key_that_is_no_stream_is_refused(redis: Server, rig: Rig) -> None:
    async def main() -> None:
        queue = fresh()
        async with outside(redis) as client, connected(rig) as broker:
            await client.set(queue, "1")
            with pytest.raises(BrokerError, match="WRONGTYPE"):
                await broker.source(queue, 10)
            with pytest.raises(BrokerError, match="WRONGTYPE"):
                await broker.send(queue, b"1", message_id="m")

    run(main())


def test_a_stream_that_is_deleted_is_an_error_and_made_by_the_next_source(redis: Server, rig: Rig) -> None:
    async def main() -> None:
        queue = fresh()
        async with outside(redis) as client, connected(rig) as broker:
            async with taking(broker, queue) as (_, source):
                await client.delete(queue)
                with pytest.raises(BrokerError, match="refuses"):
                    await source.receive(10)
            async with taking(broker, queue) as (_, source):
                await broker.send(queue, b"1", message_id="m")
                await source.settle(await received(source, 1))

    run(main())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("idle_s=soon", "idle_s='soon': expected a number of seconds"),
        ("idle_s=0", "idle_s='0'"),
        ("no_such=1", "no_such"),
        ("socket_timeout=x", "socket_timeout"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: str, text: str) -> None:
    with pytest.raises(RegistrationError, match=text) as refused:
        make(f"redis://:secret@127.0.0.1/0?{options}", SystemClock())
    assert "secret" not in str(refused.value)


def test_over_tls_and_only_with_a_certificate_that_is_known(tmp_path: Path) -> None:
    server = redis_server_with_tls(tmp_path)
    server.start()

    async def main() -> None:
        broker = make(server.url, SystemClock())
        source = await broker.source("orders", 10)
        await broker.send("orders", b"1", message_id="m")
        await source.settle(await received(source, 1))
        await broker.close()
        stranger = make(server.url.partition("?")[0], SystemClock())
        with pytest.raises(BrokerError, match=r"(?i)certificate"):
            await stranger.source("orders", 10)
        await stranger.close()

    try:
        run(main())
    finally:
        server.kill()


@asynccontextmanager
async def outside(redis: Server) -> AsyncIterator[Any]:
    """A client of Redis that is not ours."""
    client = Redis.from_url(redis.url, protocol=2)
    try:
        yield client
    finally:
        await client.aclose()
