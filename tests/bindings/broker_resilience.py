"""What a broker does when it, or a process that takes from it, goes away. A second suite, of brokers with servers of ours.

class TestRedis(BrokerConformance, BrokerResilience):
    @pytest.fixture
    def site(self, redis: Server) -> Site: ...
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from durably.bindings.broker import Broker
from durably.bindings.connections import Connections
from durably.clock import SystemClock
from durably.errors import BrokerError
from tests.bindings.broker_conformance import PATIENCE_S, fresh, numbered, received, run, send_many
from tests.support.servers import Server

DYING = """
import asyncio, sys
from durably.bindings.connections import Connections
from durably.clock import SystemClock

async def main():
    source = await Connections(SystemClock(), {"BROKER": sys.argv[1]}).broker("BROKER").source(sys.argv[2], 10)
    ids = []
    while len(ids) < 3:
        ids += [message.id for message in await source.receive(10)]
    print(*ids, flush=True)
    await source.receive(10)

asyncio.run(main())
"""


@dataclass(frozen=True)
class Site:
    """A broker and its server.

    Attributes:
        server: It.
        connection: To it; what a process has taken without a sign of life is handed out again after `patience_s`.
        patience_s: Seconds.
        wrong: The connection with the password `nonsense`.
        end: How the server is ended, so that it keeps what it has.
        may_forget_settled: Killed at once after that, it delivers again what was settled; under the same id.
    """

    server: Server
    connection: str
    patience_s: float
    wrong: str
    end: signal.Signals = signal.SIGKILL
    may_forget_settled: bool = False


@pytest.mark.slow_once  # it is about servers and time, not about Python
class BrokerResilience:
    """The suite; a subclass has the fixture `site`."""

    def test_a_restart_of_the_broker_loses_nothing(self, site: Site) -> None:
        async def main() -> None:
            queue = fresh()
            broker = Connections(SystemClock(), {"BROKER": site.connection}).broker("BROKER")
            source = await broker.source(queue, 10)
            await send_many(broker, queue, 4)
            held = await received(source, 4)
            await source.settle(held[:1])
            waiting = asyncio.ensure_future(source.receive(10))
            await asyncio.sleep(0.05)
            site.server.kill(site.end)
            with pytest.raises(BrokerError):
                await asyncio.wait_for(waiting, PATIENCE_S)
            with pytest.raises(BrokerError):
                await broker.send(queue, b"lost", message_id="lost")
            with pytest.raises(BrokerError):
                await source.settle(held[1:2])
            with pytest.raises(BrokerError):
                await broker.source(queue, 10)
            await source.close()
            site.server.start()
            await broker.send(queue, b"4", message_id="m-4")
            source = await broker.source(queue, 10)
            again: dict[bytes, str] = {}
            async with asyncio.timeout(PATIENCE_S):
                while not set(numbered(5)[1:]) <= set(again):
                    some = await source.receive(10)
                    again |= {message.body: message.id for message in some}
                    await source.settle(some)
            if site.may_forget_settled:
                assert again.pop(b"0", held[0].id) == held[0].id
            assert sorted(again) == numbered(5)[1:]
            await source.close()
            await broker.close()

        run(main())

    def test_what_a_process_held_that_died_is_handed_out_again(self, site: Site) -> None:
        async def main() -> None:
            queue = fresh()
            async with connected(site.connection) as broker:
                await send_many(broker, queue, 3)
                first = await asyncio.to_thread(taken_by_one_who_dies, site.connection, queue)
                source = await broker.source(queue, 10)
                again = await received(source, 3)
                assert {message.id for message in again} == first
                assert all(message.dequeue_count == 2 for message in again)
                await source.settle(again)

        run(main())

    def test_what_is_held_for_long_is_kept(self, site: Site) -> None:
        async def main() -> None:
            queue = fresh()
            async with connected(site.connection) as one, connected(site.connection) as two:
                source = await one.source(queue, 10)
                await send_many(one, queue, 3)
                held = await received(source, 3)
                other = await two.source(queue, 10)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(other.receive(10), site.patience_s * 1.5)
                await source.settle(held)
                await source.close()
                await send_many(one, queue, 1)
                (last,) = await received(other, 1)
                assert (last.body, last.dequeue_count) == (b"0", 1)

        run(main())

    def test_a_wrong_password_is_refused_and_not_shown(self, site: Site) -> None:
        async def main() -> None:
            async with connected(site.wrong) as broker:
                for work in (broker.source(fresh(), 10), broker.send(fresh(), b"1", message_id="m-1")):
                    with pytest.raises(BrokerError, match=r"127\.0\.0\.1") as refused:
                        await asyncio.wait_for(work, PATIENCE_S)
                    assert "nonsense" not in str(refused.value)

        run(main())


@asynccontextmanager
async def connected(connection: str) -> AsyncIterator[Broker]:
    connections = Connections(SystemClock(), {"BROKER": connection})
    try:
        yield connections.broker("BROKER")
    finally:
        await connections.close()


def taken_by_one_who_dies(connection: str, queue: str) -> set[str]:
    """The ids of three messages that a process has taken, which is killed, while it waits for more."""
    command = [sys.executable, "-c", DYING, connection, queue]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ids = process.stdout.readline().split()
        process.kill()
    return set(ids)
