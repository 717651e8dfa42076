"""RabbitMQ, as a broker of queues."""

import asyncio

import aiormq
import pytest

from durably.bindings.rabbitmq import make
from durably.clock import SystemClock
from durably.errors import BrokerError
from tests.bindings.broker_conformance import BrokerConformance, Rig, bodies, fresh, received, taking
from tests.support.rabbitmq import RabbitServer, free_ports

pytestmark = pytest.mark.slow_once


class TestRabbitMq(BrokerConformance):
    @pytest.fixture
    def rig(self, rabbitmq: RabbitServer) -> Rig:
        nobody = f"amqp://guest:guest@127.0.0.1:{free_ports(1)[0]}/"
        return Rig(
            lambda: make(rabbitmq.url, SystemClock()),
            lambda: make(nobody, SystemClock()),
            delays=False,
            odd_name="Shop/Orders/{}: #v2, @home".format,  # as far as the library goes
        )


def test_over_tls_and_only_with_a_certificate_that_is_known(rabbitmq: RabbitServer) -> None:
    async def main() -> None:
        broker = make(rabbitmq.tls_url, SystemClock())
        async with taking(broker, fresh()) as (queue, source):
            await broker.send(queue, b"1", message_id="m")
            assert bodies(await received(source, 1)) == [b"1"]
        await broker.close()
        stranger = make(rabbitmq.tls_url.partition("?")[0], SystemClock())
        with pytest.raises(BrokerError, match="certificate"):
            await stranger.send(queue, b"1", message_id="m")

    asyncio.run(main())


def test_who_is_refused_is_told_so_without_the_password(rabbitmq: RabbitServer) -> None:
    async def main() -> None:
        broker = make(rabbitmq.url.replace("guest:guest", "guest:wrong"), SystemClock())
        with pytest.raises(BrokerError, match="ACCESS_REFUSED") as told:
            await broker.source(fresh(), 10)
        assert "wrong" not in str(told.value)

    asyncio.run(main())


def test_a_queue_that_was_made_otherwise_is_taken_as_it_is(rabbitmq: RabbitServer) -> None:
    """And a quorum queue counts."""

    async def main() -> None:
        connection = await aiormq.connect(rabbitmq.url)
        channel = await connection.channel()
        queue = fresh()
        await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        broker = make(rabbitmq.url, SystemClock())
        await broker.send(queue, b"1", message_id="m")
        for count in (1, 2, 3):
            async with taking(broker, queue) as (_, source):
                (message,) = await received(source, 1)
                assert message.dequeue_count == count
        await channel.queue_delete(queue)
        await broker.send(queue, b"2", message_id="m")  # it is made anew
        async with taking(broker, queue) as (_, source):
            waiting = asyncio.ensure_future(source.receive(1))
            assert bodies(await waiting) == [b"2"]
            waiting = asyncio.ensure_future(source.receive(1))
            await channel.queue_delete(queue)
            with pytest.raises(BrokerError, match="the queue was deleted"):
                await waiting
        await broker.close()
        await connection.close()

    asyncio.run(main())


def test_what_the_library_cancels_is_an_error(
    rabbitmq: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cancels what waits on a connection that goes away: whoever settles is not cancelled by that."""

    async def main() -> None:
        broker = make(rabbitmq.url, SystemClock())
        async with taking(broker, fresh()) as (queue, source):
            await broker.send(queue, b"1", message_id="m")
            held = await received(source, 1)

            async def cancelled(*arguments: object, **named: object) -> None:
                raise asyncio.CancelledError

            with monkeypatch.context() as patched:
                patched.setattr(aiormq.channel.Channel, "basic_ack", cancelled)
                with pytest.raises(BrokerError, match="was lost"):
                    await source.settle(held)
        await broker.close()

    asyncio.run(main())
