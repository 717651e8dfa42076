"""JetStream of NATS, as a broker of queues."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats as library
import pytest

from durably.bindings.nats import make
from durably.clock import SystemClock
from durably.errors import BrokerError, RegistrationError
from tests.bindings.broker_conformance import (
    BrokerConformance,
    Rig,
    bodies,
    connected,
    fresh,
    received,
    run,
    taking,
)
from tests.bindings.broker_resilience import BrokerResilience, Site
from tests.support.servers import Server, free_port, nats_server_with_tls


@pytest.fixture
def rig(nats: Server) -> Rig:
    return Rig(
        lambda: make(nats.url, SystemClock()),
        lambda: make(f"nats://127.0.0.1:{free_port()}", SystemClock()),
        delays=False,
        odd_name="Shop.Orders_{}.v2".format,
    )


class TestNats(BrokerConformance, BrokerResilience):
    @pytest.fixture
    def site(self, nats: Server) -> Site:
        return Site(
            nats,
            f"{nats.url}?ack_wait_s=1",
            1.0,
            nats.url.replace("secret", "nonsense"),
            may_forget_settled=True,  # it confirms before that is on disk
        )


def test_a_queue_is_a_stream_that_is_there(nats: Server, rig: Rig) -> None:
    async def main() -> None:
        name = fresh()
        async with outside(nats) as jet, connected(rig) as broker:
            await jet.add_stream(name=name, subjects=[f"{name}.in"])
            await jet.publish(f"{name}.in", b"early", headers={"Other": "1"})
            async with taking(broker, name) as (_, source):
                await broker.send(name, b"ours", message_id="m")
                early, ours = await received(source, 2)
                assert (early.body, ours.body, ours.id) == (b"early", b"ours", "m")
                assert early.id.startswith(
                    f"1-{(early.inserted_at or 0) // 1000}"
                )  # sequence, and nanoseconds
                await source.settle([early, ours])
            assert (await jet.stream_info(name)).state.messages == 2  # it keeps them: its own decision

    run(main())


def test_queues_may_be_subjects_of_one_stream(nats: Server, rig: Rig) -> None:
    async def main() -> None:
        name = fresh()
        async with outside(nats) as jet, connected(rig) as broker:
            await jet.add_stream(name=name, subjects=[f"{name}.>"], retention="workqueue")
            async with (
                taking(broker, f"{name}.a.x") as (_, one),
                taking(broker, f"{name}.b") as (_, other),
            ):
                await broker.send(f"{name}.a.x", b"a", message_id="1")
                await broker.send(f"{name}.b", b"b", message_id="2")
                for source, body in ((one, b"a"), (other, b"b")):
                    held = await received(source, 1)
                    assert bodies(held) == [body]
                    await source.settle(held)
            assert (await jet.stream_info(name)).state.messages == 0
            with pytest.raises(BrokerError, match="patterns: expected one of its subjects"):
                await broker.send(name, b"where to?", message_id="3")

    run(main())


def test_a_stream_that_is_made_anew_gives_other_ids(nats: Server, rig: Rig) -> None:
    async def main() -> None:
        queue, seen = fresh(), list[str]()
        async with outside(nats) as jet, connected(rig) as broker:
            for _ in range(2):
                async with taking(broker, queue) as (_, source):
                    await jet.publish(queue, b"1")
                    seen += [message.id for message in await received(source, 1)]
                await jet.delete_stream(queue)
        assert seen[0] != seen[1]
        assert [one.partition("-")[0] for one in seen] == ["1", "1"]

    run(main())


def test_what_was_sent_twice_under_one_id_is_kept_once(nats: Server, rig: Rig) -> None:
    async def main() -> None:
        queue = fresh()
        async with outside(nats) as jet, connected(rig) as broker:
            for _ in range(2):
                await broker.send(queue, b"1", message_id="m")
            assert (await jet.stream_info(queue)).state.messages == 1

    run(main())


def test_a_consumer_that_is_deleted_is_an_error_and_made_by_the_next_source(
    nats: Server, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durably.bindings.nats_source._BEAT_S", 0.2)

    async def main() -> None:
        queue = fresh()
        async with outside(nats) as jet, connected(rig) as broker:
            async with taking(broker, queue) as (_, source):
                await jet.delete_consumer(queue, "durably")
                with pytest.raises(BrokerError):
                    await source.receive(10)
            async with taking(broker, queue) as (_, source):
                await broker.send(queue, b"1", message_id="m")
                await source.settle(await received(source, 1))

    run(main())


def test_a_consumer_of_another_kind_is_refused(nats: Server, rig: Rig) -> None:
    async def main() -> None:
        queue = fresh()
        async with outside(nats) as jet, connected(rig) as broker:
            await jet.add_stream(name=queue, subjects=[queue])
            await jet.add_consumer(queue, durable_name="durably", ack_policy="all")
            with pytest.raises(BrokerError, match=r"'durably' of the stream .*explicit"):
                await broker.source(queue, 10)

    run(main())


def test_names_that_no_subject_may_have_are_refused(rig: Rig) -> None:
    async def main() -> None:
        async with connected(rig) as broker:
            for name in ("two words", "", "a..b", "orders.*"):
                with pytest.raises(BrokerError):
                    await broker.source(name, 10)
                with pytest.raises(BrokerError):
                    await broker.send(name, b"1", message_id="m")

    run(main())


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(RegistrationError, match="ack_wait_s='soon'"):
        make("nats://u:secret@127.0.0.1?ack_wait_s=soon", SystemClock())
    with pytest.raises(RegistrationError, match="such"):
        make("nats://u:secret@127.0.0.1?such=1", SystemClock())
    with pytest.raises(RegistrationError, match="cafile='/none'"):
        make("tls://u:secret@127.0.0.1?cafile=/none", SystemClock())


def test_over_tls_and_only_with_a_certificate_that_is_known(tmp_path: Path) -> None:
    server = nats_server_with_tls(tmp_path)
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
async def outside(nats: Server) -> AsyncIterator[Any]:
    """A client of JetStream that is not ours."""
    client = await library.connect(nats.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


def test_queues_of_one_stream_may_have_messages_of_one_id(nats: Server, rig: Rig) -> None:
    """What is put aside keeps its id, and NATS knows ids for each stream."""

    async def main() -> None:
        name = fresh()
        async with outside(nats) as jet, connected(rig) as broker:
            await jet.add_stream(name=name, subjects=[f"{name}.>"], retention="workqueue")
            await jet.publish(f"{name}.orders", b"1", headers={"Nats-Msg-Id": "m"})  # not by us
            async with (
                taking(broker, f"{name}.orders") as (_, orders),
                taking(broker, f"{name}.orders-poison") as (_, poison),
            ):
                (first,) = await received(orders, 1)
                for _ in range(2):  # whoever sends is not sure
                    await broker.send(f"{name}.orders-poison", first.body, message_id=first.id)
                (copy,) = await received(poison, 1)
                assert (copy.id, copy.body) == (first.id, first.body) == ("m", b"1")
                await orders.settle([first])
                await poison.settle([copy])
            assert (await jet.stream_info(name)).state.messages == 0

    run(main())


def test_what_was_dealt_with_is_sent_again_under_its_id(nats: Server, rig: Rig) -> None:
    """Within the window in which NATS drops it: it may come from a poison queue, where it was taken out."""

    async def main() -> None:
        async with connected(rig) as broker, taking(broker, fresh()) as (queue, source):
            for number in range(3):
                await broker.send(queue, str(number).encode(), message_id="m")
                (message,) = await received(source, 1)
                assert (message.id, message.body) == ("m", str(number).encode())
                await source.settle([message])

    run(main())
