"""Outputs of functions: written when the function has returned, once for each message, and not when it raised."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest

from durably import (
    App,
    BlobOutput,
    Client,
    EngineOptions,
    Out,
    QueueMessage,
    QueueOutput,
    RegistrationError,
    TimerRequest,
    UsageError,
)
from durably.bindings.blobs.accounts import BlobAccounts
from durably.bindings.broker import Source
from durably.bindings.connections import Connections
from durably.bindings.outlets import Outlets
from durably.bindings.placeholders import Occasion
from durably.clock import SystemClock
from durably.testing import DurableEnvironment
from tests.triggers.test_queue import until

PATIENCE_S = 30.0


@dataclass
class Order:
    item: str
    count: int = 1


Orders = Annotated[Out[Order], QueueOutput("shipments")]


async def bodies(client: Client, queue: str) -> list[Any]:
    """What is in a queue that no function takes from."""
    return sorted((one.body for one in await client.queue(queue).peek(1_000)), key=str)


def test_what_was_set_is_written_when_the_function_has_returned(tmp_path: Path) -> None:
    app = App()

    @app.queue("orders")
    async def take(
        order: Order,
        shipments: Orders,
        mails: Annotated[Out[str], QueueOutput("mails")],
        never: Annotated[Out[str], QueueOutput("never-set")],
        receipt: Annotated[Out[Order], BlobOutput("receipts/{id}/{item}.json")],
    ) -> None:
        shipments.set(Order("wrong"))
        shipments.set(order)
        for number in range(3):
            mails.add(f"mail {number}")
        receipt.set(order)

    async def main() -> None:
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}") as host:
            client = host.client
            await client.queue("orders").send(Order("tea", 2), message_id="m1")
            await until(client.queue("orders").count, 0)
            # It counts as done only when all of it is there.
            assert await bodies(client, "shipments") == [{"item": "tea", "count": 2}]
            assert await bodies(client, "mails") == ["mail 0", "mail 1", "mail 2"]
            assert await bodies(client, "never-set") == []
            assert await host.blobs("receipts").read("m1/tea.json") == b'{"item":"tea","count":2}'

    asyncio.run(main())
    assert (tmp_path / "blobs" / "receipts" / "m1" / "tea.json").is_file()


def test_nothing_is_written_when_it_raised_and_a_later_try_writes_once(tmp_path: Path) -> None:
    app = App()
    tries: list[str] = []

    @app.queue("orders", max_dequeue_count=10)
    def take(
        order: Order, shipments: Orders, copy: Annotated[Out[bytes], BlobOutput("copies/{item}")]
    ) -> None:
        shipments.add(order)
        shipments.add(order)  # the same value twice is two messages
        copy.set(b"copy")
        tries.append(order.item)
        if len(tries) == 1:
            raise ValueError("at the first try")

    async def main() -> None:
        # The first try raises. In the second one the messages are sent, and the blob cannot be written.
        (tmp_path / "blobs").mkdir()
        blocker = tmp_path / "blobs" / "copies"
        blocker.write_text("a file is where a folder should be")
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}") as host:
            client = host.client
            await client.queue("orders").send(Order("tea"), message_id="m1")

            async def tried() -> bool:
                return len(tries) >= 3

            await until(tried, True)
            blocker.unlink()
            await until(client.queue("orders").count, 0)
            assert await client.queue("orders-poison").count() == 0
            assert await bodies(client, "shipments") == [{"item": "tea", "count": 1}] * 2
            assert await host.blobs("copies").read("tea") == b"copy"

    asyncio.run(main())


def test_a_host_that_dies_behind_the_outputs_sends_them_once() -> None:
    app = App()
    tries: list[int] = []

    @app.queue("orders")
    async def take(order: Order, message: QueueMessage, shipments: Orders) -> None:
        tries.append(message.dequeue_count)
        shipments.add(order)
        shipments.add(Order("again"))

    async def main() -> None:
        async with DurableEnvironment(app) as env:
            died = env.kill_after("durably:queue:orders", times=3)
            await env.client.queue("orders").send(Order("tea"), message_id="m1")
            await until(env.client.queue("orders").count, 0)
            assert died.happened == 3
            assert await bodies(env.client, "shipments") == [
                {"item": "again", "count": 1},
                {"item": "tea", "count": 1},
            ]

    asyncio.run(main())
    assert tries == [1, 2, 3, 4]


def test_a_value_that_cannot_be_written_keeps_the_others_from_being_written() -> None:
    app = App()

    @app.queue("orders", max_dequeue_count=1)
    async def take(shipments: Orders, later: Annotated[Out[Any], QueueOutput("later")]) -> None:
        shipments.set(Order("tea"))
        later.set(object())

    async def main() -> None:
        async with DurableEnvironment(app) as env:
            await env.client.queue("orders").send(None, message_id="m1")
            await until(env.client.queue("orders-poison").count, 1)
            (poison,) = await env.client.queue("orders-poison").peek()
            assert "object" in (poison.failure or "")
            assert await bodies(env.client, "shipments") == []

    asyncio.run(main())


def test_the_same_id_after_it_was_forgotten_is_another_message() -> None:
    app = App()

    @app.queue("orders")
    async def take(order: Order, shipments: Orders) -> None:
        shipments.set(order)

    async def main() -> None:
        options = EngineOptions(queue_keep_s=60)
        async with DurableEnvironment(app, options=options) as env:
            for count in (1, 2):
                await env.client.queue("orders").send(Order("tea"), message_id="m1")
                await until(lambda: env.client.queue("shipments").count(), count)
                await env.advance(timedelta(seconds=120))
                await env.client.queue("orders").send(Order("other"), message_id=f"forgets-{count}")
                await until(env.client.queue("orders").count, 0)
                for one in await env.client.queue("shipments").peek():
                    if one.body["item"] == "other":
                        await env.client.queue("shipments").delete(one.id)

    asyncio.run(main())


def test_a_timer_has_outputs_too() -> None:
    app = App()

    @app.timer("0 0 * * * *")
    async def hourly(timer: TimerRequest, report: Annotated[Out[str], QueueOutput("%REPORTS%")]) -> None:
        report.set(f"{timer.due:%H}")

    async def main() -> None:
        async with DurableEnvironment(app, start=datetime(2026, 3, 2, 12, tzinfo=UTC)) as env:
            await env.advance(timedelta(hours=3))
            assert await bodies(env.client, "reports") == ["13", "14", "15"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPORTS", "reports")
        asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Out[Order], r"Queue function 'take' has the parameter 'out', which is an output that goes nowhere"),
        (Out, "goes nowhere"),
        (Annotated[Order, QueueOutput("shipments")], "goes nowhere"),
        (Annotated[Out[Order], QueueOutput("one"), QueueOutput("two")], "several places"),
        (Annotated[Out[Order], QueueOutput("No")], "'take', output 'out',.*'No' is not usable"),
        (Annotated[Out[Order], QueueOutput("%NOWHERE%")], "'take', output 'out', needs the setting NOWHERE"),
        (Annotated[Out[Order], QueueOutput("shipments", connection="NOWHERE")], "NOWHERE.*not set"),
        (Annotated[Out[bytes], BlobOutput("only-a-container")], "expected the name of a container"),
        (Annotated[Out[bytes], BlobOutput("{any}/{name}")], "'{any}' is not usable"),
        (Annotated[Out[bytes], BlobOutput("files/{name")], "braces"),
        (Annotated[Out[bytes], BlobOutput("files/a", connection="NOWHERE")], "NOWHERE.*not set"),
    ],
)
def test_outputs_that_cannot_be_are_found_out_when_a_host_starts(kind: Any, said: str) -> None:
    app = App()

    @app.queue("orders")
    async def take(order: Order, out: kind) -> None: ...

    async def main() -> None:
        async with app.host("memory://"):
            pass

    with pytest.raises(RegistrationError, match=said):
        asyncio.run(main())


def test_a_timer_fills_no_names_of_its_own() -> None:
    app = App()

    @app.timer("0 0 * * * *")
    async def hourly(report: Annotated[Out[str], BlobOutput("reports/{due}.txt")]) -> None: ...

    async def main() -> None:
        async with app.host("memory://"):
            pass

    with pytest.raises(
        RegistrationError, match=r"'hourly', output 'report', has \{due\}, which nothing would"
    ):
        asyncio.run(main())


@pytest.mark.parametrize(
    "make",
    [
        lambda: QueueOutput(""),
        lambda: QueueOutput(7),  # type: ignore[arg-type]
        lambda: QueueOutput("orders", connection="amqp://host"),
        lambda: BlobOutput("a/b", connection=""),
    ],
)
def test_annotations_that_cannot_be(make: Any) -> None:
    with pytest.raises(RegistrationError):
        make()


def test_an_output_is_made_by_tests_themselves() -> None:
    out = Out[int]()
    out.add(1)
    out.add(2)
    assert out.values == [1, 2]
    out.set(3)
    assert out.values == [3]
    with pytest.raises(UsageError, match="one content"):
        Out[bytes](single=True).add(b"")


@pytest.mark.parametrize("name", ["../up", "a/../b", "..", "/etc/passwd", "a\\b", "a\0b", "", "con", "x."])
def test_names_that_come_from_others_stay_in_the_container(tmp_path: Path, name: str) -> None:
    """S13. The message fails, and ends in the poison queue."""
    app = App()

    @app.queue("orders", max_dequeue_count=1)
    async def take(body: dict[str, Any], copy: Annotated[Out[str], BlobOutput("copies/{name}")]) -> None:
        copy.set("written")

    async def main() -> None:
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}") as host:
            await host.client.queue("orders").send({"name": name}, message_id="m1")
            await until(host.client.queue("orders-poison").count, 1)
            (poison,) = await host.client.queue("orders-poison").peek()
            assert (poison.failure or "").startswith("InvalidTextError")

    asyncio.run(main())
    assert not [one for one in tmp_path.rglob("*") if one.is_file() and "hub.db" not in one.name]


class Recording:
    """A broker that writes down what it gets: what is sent is looked at here, real ones are elsewhere."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, str]] = []

    async def source(self, queue: str, prefetch: int) -> Source:
        raise NotImplementedError

    async def send(self, queue: str, body: bytes, *, message_id: str, delay_s: float = 0.0) -> None:
        self.sent.append((queue, body, message_id))

    async def close(self) -> None: ...


class OneBroker(Connections):
    def __init__(self, broker: Recording) -> None:
        super().__init__(SystemClock())
        self._brokers["RABBIT"] = broker


def test_brokers_get_bytes_and_text_as_they_are_and_the_same_ids_at_each_try(tmp_path: Path) -> None:
    app, broker = App(), Recording()
    output = QueueOutput("ship.ments", connection="RABBIT")

    async def attempt(host: Any, values: Sequence[Any], origin: str) -> None:
        outlets = Outlets(
            host.client, OneBroker(broker), BlobAccounts(f"sqlite:///{tmp_path}/x.db"), app.converter
        )
        opened = outlets.open(output, "x", Occasion(origin, 0, dict[str, Any]))
        for value in values:
            opened.out.add(value)
        await outlets.write([opened], origin)

    async def main() -> None:
        async with app.host("memory://") as host:
            for origin in ("m1", "m1", "m2"):
                await attempt(host, [b"\xff", "text", Order("tea")], origin)

    asyncio.run(main())
    first, again, other = broker.sent[:3], broker.sent[3:6], broker.sent[6:]
    assert [body for _, body, _ in first] == [b"\xff", b"text", b'{"item":"tea","count":1}']
    assert {queue for queue, _, _ in first} == {"ship.ments"}
    assert first == again
    assert len({one[2] for one in (*first, *other)}) == 6


def test_an_output_that_was_put_aside_is_not_sent_again_by_a_second_try(tmp_path: Path) -> None:
    app, tries = App(), list[int]()

    @app.queue("out", max_dequeue_count=1)
    async def take(number: int) -> None:
        tries.append(number)
        raise RuntimeError("never")

    async def main() -> None:
        async with app.host("memory://") as host:
            outlets = Outlets(
                host.client,
                Connections(SystemClock()),
                BlobAccounts(f"sqlite:///{tmp_path}/x.db"),
                app.converter,
            )
            for _ in range(2):
                opened = outlets.open(QueueOutput("out"), "x", Occasion("m", 0, dict[str, Any]))
                opened.out.set(1)
                await outlets.write([opened], "m")
                await until(host.client.queue("out-poison").count, 1)
                await until(host.client.queue("out").count, 0)

    asyncio.run(main())
    assert tries == [1]
