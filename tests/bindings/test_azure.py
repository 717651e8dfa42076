"""Queues of Azure Storage, as a broker of queues: Azurite is in its place."""

import signal
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from azure.storage.queue.aio import QueueServiceClient

from durably.bindings.azure_queues import make
from durably.clock import SystemClock
from durably.errors import BrokerError, RegistrationError
from tests.bindings.broker_conformance import BrokerConformance, Rig, connected, fresh, received, run, taking
from tests.bindings.broker_resilience import BrokerResilience, Site
from tests.support.servers import Server, azure_connection, free_port

pytestmark = pytest.mark.slow_once  # Node.js, and half a second here and there until somebody looks again


@pytest.fixture
def rig(azure: Server) -> Rig:
    return Rig(
        lambda: make(azure.url, SystemClock()),
        lambda: make(azure_connection(free_port()), SystemClock()),
        keeps_ids=False,
        odd_name="4-orders-{}".format,
    )


class TestAzureStorage(BrokerConformance, BrokerResilience):
    @pytest.fixture
    def site(self, azure: Server) -> Site:
        wrong = b64encode(b"nonsense" * 8).decode()
        key = azure.url.partition("AccountKey=")[2].partition(";")[0]
        return Site(
            azure,
            f"{azure.url};VisibilityTimeout=1;MaxPollingInterval=0.2",
            1.0,
            azure.url.replace(key, wrong),
            signal.SIGTERM,  # Azurite writes down what it has when it ends, and every few seconds
        )


def test_a_text_that_is_no_base64_is_taken_as_it_is(azure: Server, rig: Rig) -> None:
    async def main() -> None:
        async with (
            outside(azure) as service,
            connected(rig) as broker,
            taking(broker, fresh()) as (queue, source),
        ):
            client = service.get_queue_client(queue)
            sent = [
                await client.send_message(text) for text in ('{"item": "tea"}', b64encode(b"\xff").decode())
            ]
            first, second = await received(source, 2)
            assert (first.body, second.body) == (b'{"item": "tea"}', b"\xff")
            assert [first.id, second.id] == [message.id for message in sent]
            await source.settle([first, second])
            await source.settle([first])  # gone already
            assert await client.peek_messages(2) == []
            await broker.send(queue, b"\xff", message_id="m")
            assert [message.content for message in await client.peek_messages(2)] == ["/w=="]

    run(main())


def test_texts_without_an_encoding(azure: Server) -> None:
    async def main() -> None:
        broker = make(f"{azure.url};MessageEncoding=none", SystemClock())
        queue = fresh()
        source = await broker.source(queue, 10)
        await broker.send(queue, b"1234", message_id="m")
        async with outside(azure) as service:
            seen = await service.get_queue_client(queue).peek_messages(2)
            assert [message.content for message in seen] == ["1234"]
        assert [message.body for message in await received(source, 1)] == [b"1234"]
        with pytest.raises(BrokerError, match="no UTF-8"):
            await broker.send(queue, b"\xff", message_id="m")
        await broker.close()

    run(main())


def test_a_message_that_somebody_else_has_by_now_is_his(azure: Server) -> None:
    async def main() -> None:
        broker = make(f"{azure.url};VisibilityTimeout=1;MaxPollingInterval=0.1", SystemClock())
        queue = fresh()
        source, other = await broker.source(queue, 10), await broker.source(queue, 10)
        await broker.send(queue, b"1", message_id="m")
        held = await received(source, 1)
        source._keeping.cancel()  # the process was suspended
        again = await received(other, 1)
        await source.settle(held)
        await other._keep(again)
        await other.settle(again)
        async with outside(azure) as service:
            state = await service.get_queue_client(queue).get_queue_properties()
            assert state.approximate_message_count == 0
        await broker.close()

    run(main())


def test_a_queue_that_is_deleted_is_an_error_and_made_again_by_who_sends(azure: Server, rig: Rig) -> None:
    async def main() -> None:
        async with outside(azure) as service, connected(rig) as broker:
            async with taking(broker, fresh()) as (queue, source):
                await service.delete_queue(queue)
                with pytest.raises(BrokerError, match=f"'{queue}': QueueNotFound"):
                    await source.receive(10)
            await broker.send(queue, b"1", message_id="m")
            async with taking(broker, queue) as (_, source):
                await source.settle(await received(source, 1))

    run(main())


def test_names_that_no_queue_may_have_are_refused(rig: Rig) -> None:
    async def main() -> None:
        async with connected(rig) as broker:
            for name in ("Orders", "a", "a--b", ""):
                with pytest.raises(BrokerError):
                    await broker.source(name, 10)

    run(main())


@pytest.mark.parametrize(
    ("connection", "text"),
    [
        ("AccountName=me", "is not usable"),
        ("UseDevelopmentStorage=true;MessageEncoding=zip", "MessageEncoding='zip': expected base64 or none"),
        ("UseDevelopmentStorage=true;MaxPollingInterval=often", "MaxPollingInterval='often'"),
        ("UseDevelopmentStorage=true;visibilitytimeout=0", "VisibilityTimeout='0'"),
    ],
)
def test_connection_strings_that_mean_nothing_are_refused(connection: str, text: str) -> None:
    with pytest.raises(RegistrationError, match=text):
        make(connection, SystemClock())


def test_development_storage_is_known(rig: Rig) -> None:
    async def main() -> None:
        broker = make("UseDevelopmentStorage=true", SystemClock())
        with pytest.raises(BrokerError, match=r"127\.0\.0\.1:10001"):
            await broker.send("orders", b"1", message_id="m")
        await broker.close()

    run(main())


@asynccontextmanager
async def outside(azure: Server) -> AsyncIterator[Any]:
    """A client of Azure Storage that is not ours."""
    async with QueueServiceClient.from_connection_string(azure.url) as service:
        yield service
