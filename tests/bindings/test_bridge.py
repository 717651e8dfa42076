"""Queue functions whose queue is in RabbitMQ: `@app.queue(..., connection="RABBIT")`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from durably import (
    App,
    AppHost,
    Client,
    OrchestrationContext,
    QueueMessage,
)
from durably.bindings.broker import Broker
from durably.bindings.rabbitmq import _RabbitSource, make  # pyright: ignore[reportPrivateUsage]
from durably.clock import SystemClock
from durably.codec.convert import JsonConverter
from durably.errors import BrokerError
from tests.bindings.broker_conformance import PATIENCE_S, bodies, eventually, fresh, received, taking, until
from tests.support.rabbitmq import RabbitServer

pytestmark = pytest.mark.slow_once


@pytest.fixture(autouse=True)
def rabbit(rabbitmq: RabbitServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBIT", rabbitmq.url)


@pytest.fixture
def hub(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'hub.db'}"


@asynccontextmanager
async def connected_to(rabbitmq: RabbitServer) -> AsyncIterator[Broker]:
    broker = make(rabbitmq.url, SystemClock())
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def serving(app: App, hub: str, rabbitmq: RabbitServer) -> AsyncIterator[tuple[AppHost, Broker]]:
    """A host of the app, and a broker to send by."""
    async with connected_to(rabbitmq) as broker, app.host(hub) as host:
        yield host, broker


async def outcome(host: AppHost, instance_id: str) -> Any:
    """How the message with this instance ended."""

    async def is_there() -> bool:
        return await host.client.get_status(instance_id) is not None

    await eventually(is_there)
    return await host.client.handle(instance_id).result(timeout=PATIENCE_S)


@dataclass
class Order:
    item: str
    count: int


def test_a_message_starts_one_orchestration_whose_id_says_which(rabbitmq: RabbitServer, hub: str) -> None:
    app, queue = App(), fresh()
    seen: list[QueueMessage] = []

    @app.orchestrator
    async def ship(ctx: OrchestrationContext, order: Order) -> str:
        return f"{order.count} {order.item}"

    @app.queue(queue, connection="RABBIT")
    async def take(order: Order, message: QueueMessage, client: Client) -> None:
        seen.append(message)
        await client.start(ship, order)

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (host, broker):
            for _ in range(2):  # its sender was not sure
                await broker.send(queue, b'{"item": "tea", "count": 2}', message_id="order-7")
            await broker.send(queue, b'{"item": "cup", "count": 1}', message_id="order-8")
            assert await outcome(host, f"queue:RABBIT.{queue}:order-7") == "done"
            assert await outcome(host, f"queue:RABBIT.{queue}:order-8") == "done"
            assert await host.client.handle(f"RABBIT.{queue}:order-7").result(timeout=PATIENCE_S) == "2 tea"
            assert await host.client.count_instances(name="ship") == 2
        async with connected_to(rabbitmq) as broker, taking(broker, queue) as (_, source):
            await broker.send(queue, b"last", message_id="last")
            assert bodies(await received(source, 1)) == [b"last"]  # the others were settled

    asyncio.run(main())
    assert sorted(one.id for one in seen) == ["order-7", "order-8"]
    (first,) = [one for one in seen if one.id == "order-7"]
    assert (first.queue, first.connection, first.dequeue_count) == (queue, "RABBIT", 1)
    assert first.body == {"item": "tea", "count": 2}


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (b'{"a":  [1, 2.50]}\n', {"a": [1, 2.5]}),
        (b'"text in quotes"', "text in quotes"),
        ("süß, but no JSON".encode(), "süß, but no JSON"),
        (b"", ""),
        (b"\xff\x00\xfe", "/wD+"),
        (b"[" * 200_000 + b"]" * 200_000, "[" * 200_000 + "]" * 200_000),
    ],
    ids=["json", "json text", "text", "empty", "bytes", "too deep"],
)
def test_a_body_is_what_the_function_wants(rabbitmq: RabbitServer, hub: str, body: bytes, plain: Any) -> None:
    app, queue = App(), fresh()
    got: dict[str, Any] = {}

    @app.queue(queue, connection="RABBIT")
    async def untyped(data: Any, message: QueueMessage) -> None:
        got["any"], got["shown"] = data, message.body

    @app.queue(f"{queue}-bytes", connection="RABBIT")
    async def raw(data: bytes) -> None:
        got["bytes"] = data

    @app.queue(f"{queue}-text", connection="RABBIT", max_dequeue_count=1)
    async def text(data: str) -> None:
        got["text"] = data

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (host, broker):
            for name in (queue, f"{queue}-bytes", f"{queue}-text"):
                await broker.send(name, body, message_id="m")
            assert await outcome(host, f"queue:RABBIT.{queue}:m") == "done"
            assert await outcome(host, f"queue:RABBIT.{queue}-bytes:m") == "done"
            await outcome(host, f"queue:RABBIT.{queue}-text:m")

    asyncio.run(main())
    assert got["any"] == got["shown"] == plain
    assert got["bytes"] == body
    assert got.get("text") == (None if body[:1] == b"\xff" else body.decode())


@pytest.mark.parametrize("body", [b'{"item": "tea"', b"\xff\x00{", b'{"item":"tea"}'])
def test_a_body_that_does_not_fit_is_put_aside_as_it_was_sent(
    rabbitmq: RabbitServer, hub: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app, queue = App(), fresh()
    tries: list[int] = []

    @app.queue(queue, connection="RABBIT", max_dequeue_count=3)
    async def take(order: Order) -> None:
        tries.append(1)

    async def main() -> None:
        async with (
            serving(app, hub, rabbitmq) as (host, broker),
            taking(broker, f"{queue}-poison") as (_, source),
        ):
            await broker.send(queue, body, message_id="bad")
            (message,) = await received(source, 1)
            assert (message.id, message.body) == ("bad", body)
            assert await outcome(host, f"queue:RABBIT.{queue}:bad") == "poison"

    asyncio.run(main())
    assert tries == []
    warnings = [record for record in caplog.records if record.name == "durably.queue"]
    assert len(warnings) == 3
    assert f"message 'bad' of queue '{queue}' of RABBIT failed, try 3 of 3" in warnings[2].getMessage()
    assert "annotated with bytes gets any body" in str(warnings[2].exc_info)


def test_what_fails_too_often_goes_to_the_poison_queue_of_the_broker(
    rabbitmq: RabbitServer, hub: str
) -> None:
    app, queue = App(), fresh()
    counts: list[int] = []
    again = asyncio.Event()

    @app.queue(queue, connection="RABBIT", max_dequeue_count=3)
    async def take(data: bytes, message: QueueMessage) -> None:
        counts.append(message.dequeue_count)
        if not again.is_set():
            raise ValueError("not today")

    async def main() -> None:
        body = b'  {"spaces":   "kept"}\x00\n'
        async with serving(app, hub, rabbitmq) as (host, broker):
            await broker.send(queue, body, message_id="m/1")
            async with taking(broker, f"{queue}-poison") as (_, source):
                (message,) = await received(source, 1)
                assert (message.id, message.body) == ("m/1", body)
                await source.settle([message])
            assert await outcome(host, f"queue:RABBIT.{queue}:m%2F1") == "poison"
            # Somebody has found out why, and puts it back: it was not dealt with before.
            again.set()
            await broker.send(queue, body, message_id="m/1")
            await until(lambda: len(counts) == 4)
            assert await outcome(host, f"queue:RABBIT.{queue}:m%2F1") == "done"

    asyncio.run(main())
    assert counts == [1, 2, 3, 1]


def test_what_fails_in_a_poison_queue_stays(rabbitmq: RabbitServer, hub: str) -> None:
    app, queue = App(), f"{fresh()}-poison"
    counts: list[int] = []

    @app.queue(queue, connection="RABBIT", max_dequeue_count=2)
    async def take(message: QueueMessage) -> None:
        counts.append(message.dequeue_count)
        raise ValueError("nothing to be done")

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (host, broker):
            await broker.send(queue, b"1", message_id="m")
            await until(lambda: len(counts) == 2)

            async def waits() -> bool:
                history = await host.client.get_history(f"queue:RABBIT.{queue}:m")
                return history[-1].event_type == "TimerCreated"

            await eventually(waits)

    asyncio.run(main())


def test_any_id_and_any_name_will_do(rabbitmq: RabbitServer, hub: str) -> None:
    app = App()
    queue = f"Shop/Orders: {fresh()} #?".replace("?", "@") + "x" * 100
    ids = ["a/b", "a:b", "ä€", "x" * 250, "@entity", " ", "a%2Fb", "#\\?"]
    seen: list[tuple[str, str]] = []

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        pass

    @app.queue(queue, connection="RABBIT")
    async def take(message: QueueMessage, client: Client) -> None:
        await client.start(flow)
        await client.start(flow)
        seen.append((message.queue, message.id))

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (host, broker):
            for number, message_id in enumerate(ids):
                await broker.send(queue, str(number).encode(), message_id=message_id)
            await until(lambda: len(seen) == len(ids))
            assert await host.client.count_instances(name="flow") == 2 * len(ids)

    asyncio.run(main())
    assert sorted(seen) == sorted((queue, one) for one in ids)


def test_messages_without_an_id_are_all_different(rabbitmq: RabbitServer, hub: str) -> None:
    import aiormq
    from pamqp.commands import Basic

    class NoId(Basic.Properties):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, None if name == "message_id" else value)

    app, queue = App(), fresh()
    seen: list[str] = []

    @app.queue(queue, connection="RABBIT")
    async def take(message: QueueMessage) -> None:
        seen.append(message.id)

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (_, _sender):
            connection = await aiormq.connect(rabbitmq.url)
            channel = await connection.channel(publisher_confirms=False)
            await channel.queue_declare(queue, durable=True)
            for _ in range(3):
                await channel.basic_publish(b"1", routing_key=queue, properties=NoId())
            await until(lambda: len(seen) == 3)
            await connection.close()

    asyncio.run(main())
    assert len(set(seen)) == 3
    assert all(seen)


def test_what_a_host_does_not_get_round_to_stays_with_the_broker(rabbitmq: RabbitServer, hub: str) -> None:
    app, queue = App(), fresh()
    inside: list[str] = []
    free = asyncio.Event()

    @app.queue(queue, connection="RABBIT", max_concurrent=3)
    async def take(message: QueueMessage) -> None:
        inside.append(message.id)
        await free.wait()

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (host, broker):
            for number in range(40):
                await broker.send(queue, b"1", message_id=f"m{number}")
            await until(lambda: len(inside) == 3)
            async with taking(broker, queue, 100) as (_, source):
                # 6 were taken over, 6 wait at the host's door.
                others = await received(source, 40 - 12)
                taken = await host.client.count_instances(name="durably:queue")
                assert taken <= 6
                await source.settle(others)
            free.set()
            await until(lambda: len(inside) == 12)

    asyncio.run(main())
    assert len(set(inside)) == 12


def test_retries_that_wait_hold_nobody_up(rabbitmq: RabbitServer, hub: str) -> None:
    app, queue = App(), fresh()
    good: list[str] = []
    bad: list[str] = []

    @app.queue(queue, connection="RABBIT", max_concurrent=2, visibility_timeout=3600)
    async def take(number: int, message: QueueMessage) -> None:
        if number < 20:
            bad.append(message.id)
            raise ValueError("in an hour maybe")
        good.append(message.id)

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (_, broker):
            for number in range(30):
                await broker.send(queue, str(number).encode(), message_id=f"m{number}")
            await until(lambda: len(good) == 10)

    asyncio.run(main())
    assert len(bad) == 20


def test_hosts_that_stop_lose_nothing_and_start_nothing_twice(rabbitmq: RabbitServer, hub: str) -> None:
    app, queue = App(), fresh()
    calls: list[int] = []
    works: list[int] = []

    @app.activity
    async def work(number: int) -> None:
        works.append(number)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, number: int) -> None:
        await ctx.call_activity(work, number)

    @app.queue(queue, connection="RABBIT", max_concurrent=5)
    async def take(number: int, client: Client) -> None:
        calls.append(number)
        await client.start(flow, number)

    async def main() -> None:
        async with connected_to(rabbitmq) as broker:
            await fill(broker, queue, 300)
        for most in (60, 150, 300):
            async with app.host(hub):
                await until(lambda most=most: len(set(works)) >= most)
        async with connected_to(rabbitmq) as broker, taking(broker, queue) as (_, source):
            await broker.send(queue, b"last", message_id="last")
            assert bodies(await received(source, 1)) == [b"last"]

    asyncio.run(main())
    assert sorted(set(calls)) == sorted(works) == list(range(300))


async def fill(broker: Broker, queue: str, count: int) -> None:
    """Messages with the numbers from 0 on, sent side by side."""
    numbers = iter(range(count))

    async def send() -> None:
        for number in numbers:
            await broker.send(queue, str(number).encode(), message_id=f"m{number}")

    await asyncio.gather(*(send() for _ in range(50)))


def test_a_setting_in_the_name(rabbitmq: RabbitServer, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app, queue = App(), fresh()
    seen: list[str] = []
    monkeypatch.setenv("ORDERS", queue)

    @app.queue("%ORDERS%-new", connection="RABBIT")
    async def take(message: QueueMessage) -> None:
        seen.append(message.queue)

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (_, broker):
            await broker.send(f"{queue}-new", b"1", message_id="m")
            await until(lambda: seen == [f"{queue}-new"])

    asyncio.run(main())


def test_what_the_hub_cannot_hold_is_put_aside(
    rabbitmq: RabbitServer, hub: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, queue = App(converter=JsonConverter(max_bytes=10_000)), fresh()
    seen: list[bytes] = []

    @app.queue(queue, connection="RABBIT")
    async def take(data: bytes) -> None:
        seen.append(data)

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (_, broker):
            await broker.send(queue, b"x" * 20_000, message_id="large")
            await broker.send(queue, b"small", message_id="small")
            async with taking(broker, f"{queue}-poison") as (_, source):
                (message,) = await received(source, 1)
                assert (message.id, message.body) == ("large", b"x" * 20_000)
            await until(lambda: seen == [b"small"])

    asyncio.run(main())
    assert (
        f"message 'large' of queue '{queue}' of RABBIT cannot be taken over and is put aside" in caplog.text
    )


def test_a_poison_queue_that_is_away_loses_nothing(
    rabbitmq: RabbitServer, hub: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, queue = App(), fresh()
    calls: list[int] = []

    @app.queue(queue, connection="RABBIT", max_dequeue_count=1)
    async def take(message: QueueMessage) -> None:
        calls.append(message.dequeue_count)
        raise ValueError("never")

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (host, broker):
            used = host.connections.broker("RABBIT")
            send = used.send
            refused: list[str] = []

            async def refuse(*arguments: Any, **named: Any) -> None:
                if not refused:
                    refused.append(named["message_id"])
                    raise BrokerError("the disk is full")
                await send(*arguments, **named)

            monkeypatch.setattr(used, "send", refuse)
            await broker.send(queue, b"1", message_id="m")
            async with taking(broker, f"{queue}-poison") as (_, source):
                assert bodies(await received(source, 1)) == [b"1"]
            assert refused == ["m"]
            assert await outcome(host, f"queue:RABBIT.{queue}:m") == "poison"
            history = await host.client.get_history(f"queue:RABBIT.{queue}:m")
            assert "the process ended" not in str(history)

    asyncio.run(main())
    assert calls == [1]
    assert "cannot be put aside yet: the disk is full" in caplog.text


def test_a_message_that_comes_back_from_the_poison_queue_is_not_lost_when_it_is_delivered_twice(
    rabbitmq: RabbitServer, hub: str
) -> None:
    app, queue = App(), fresh()
    counts: list[int] = []
    mended = False

    @app.queue(queue, connection="RABBIT", max_dequeue_count=1)
    async def take(message: QueueMessage) -> None:
        counts.append(message.dequeue_count)
        if not mended:
            raise ValueError("not today")

    async def main() -> None:
        nonlocal mended
        async with serving(app, hub, rabbitmq) as (host, broker):
            await broker.send(queue, b"1", message_id="m")
            assert await outcome(host, f"queue:RABBIT.{queue}:m") == "poison"
        mended = True
        async with connected_to(rabbitmq) as broker:
            await broker.send(queue, b"1", message_id="m")
            async with taking(broker, queue) as (_, source):  # a host that dies while it has it
                await received(source, 1)
        async with serving(app, hub, rabbitmq):
            await until(lambda: counts == [1, 1])

    asyncio.run(main())


def test_a_message_that_comes_back_before_it_is_quite_put_aside_is_not_lost(
    rabbitmq: RabbitServer, hub: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, queue = App(), fresh()
    calls: list[bytes] = []

    @app.queue(queue, connection="RABBIT", max_dequeue_count=1)
    async def take(data: bytes) -> None:
        calls.append(data)
        if data == b"bad":
            raise ValueError("never")

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (host, broker):
            used = host.connections.broker("RABBIT")

            async def send_slowly(name: str, body: bytes, *, message_id: str) -> None:
                await broker.send(name, body, message_id=message_id)
                await broker.send(queue, b"mended", message_id=message_id)  # its consumer is fast
                await until(lambda: "is just being put aside" in caplog.text)
                await broker.send(queue, b"other", message_id="other")  # which waits for nobody
                await until(lambda: b"other" in calls)

            monkeypatch.setattr(used, "send", send_slowly)
            await broker.send(queue, b"bad", message_id="m")
            await until(lambda: calls == [b"bad", b"other", b"mended"])

    asyncio.run(main())


def test_what_the_hub_cannot_hold_and_the_broker_does_not_take_keeps_nobody_else_waiting(
    rabbitmq: RabbitServer, hub: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, queue = App(converter=JsonConverter(max_bytes=10_000)), fresh()
    seen: list[bytes] = []
    full = True

    @app.queue(queue, connection="RABBIT", max_concurrent=1)
    async def take(data: bytes) -> None:
        seen.append(data)

    async def main() -> None:
        nonlocal full
        async with serving(app, hub, rabbitmq) as (host, broker):
            used = host.connections.broker("RABBIT")
            send = used.send

            async def refuse(*arguments: Any, **named: Any) -> None:
                if full:
                    raise BrokerError("the disk is full")
                await send(*arguments, **named)

            monkeypatch.setattr(used, "send", refuse)
            await broker.send(queue, b"x" * 20_000, message_id="large")
            await until(lambda: "the disk is full" in caplog.text)
            for number in range(5):
                await broker.send(queue, str(number).encode(), message_id=f"m{number}")
            await until(lambda: len(seen) == 5)
            full = False
            async with taking(broker, f"{queue}-poison") as (_, source):
                (message,) = await received(source, 1)
                assert message.id == "large"

    asyncio.run(main())
    assert "cannot be taken from now" not in caplog.text


def test_a_library_that_cancels_us_is_an_outage(
    rabbitmq: RabbitServer, hub: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, queue = App(), fresh()
    seen: list[str] = []
    cancelled: list[int] = []
    settle = _RabbitSource.settle

    @app.queue(queue, connection="RABBIT")
    async def take(message: QueueMessage) -> None:
        seen.append(message.id)

    async def cancel_once(source: _RabbitSource, messages: Any) -> None:
        if not cancelled:
            cancelled.append(1)
            raise asyncio.CancelledError
        await settle(source, messages)

    monkeypatch.setattr(_RabbitSource, "settle", cancel_once)

    async def main() -> None:
        async with serving(app, hub, rabbitmq) as (_, broker):
            await broker.send(queue, b"1", message_id="m1")
            await until(lambda: bool(cancelled))
            await broker.send(queue, b"1", message_id="m2")
            await until(lambda: seen == ["m1", "m2"])

    asyncio.run(main())
    assert "its client gave up" in caplog.text
