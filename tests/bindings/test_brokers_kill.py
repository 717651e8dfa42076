"""A host that takes from three brokers is killed under load, and so are they: nothing is lost, one start each. And speed."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from durably import App, Client, OrchestrationContext
from durably.bindings.broker import Broker
from durably.bindings.connections import Connections
from durably.clock import SystemClock
from tests.bindings.broker_conformance import fresh, until
from tests.bindings.broker_resilience import connected
from tests.support.servers import Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow_once

DEATHS = 3

PROGRAM = """
import asyncio, os, sys
from durably import App, Client, OrchestrationContext

app = App()

def note(kind, text):
    fd = os.open("effects.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{kind} {text}\\n".encode())
    os.close(fd)

@app.activity
async def work(text: str) -> str:
    note("work", text)
    return text

@app.orchestrator
async def flow(ctx: OrchestrationContext, text: str) -> str:
    return await ctx.call_activity(work, text)

async def take(text: str, client: Client) -> None:
    note("take", text)
    await client.start(flow, text)
    await asyncio.sleep(0.02)

for name in sys.argv[2:]:
    bind = app.queue(sys.argv[1], connection=name, function_name=name, max_dequeue_count=100, max_concurrent=4)
    bind(take)

async def main():
    async with app.host("sqlite:///hub.db") as host:
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass(frozen=True)
class Site:
    """A server under test.

    Attributes:
        server: It.
        connection: To it; what a dead process held is handed out again after a second.
        messages: So many are there when the host dies.
        load: So many are there to see how fast it is.
        twice: Some are sent twice; not where ids are those of the service.
        end: How it is ended, so that it keeps what it has.
    """

    server: Server
    connection: str
    messages: int = 200
    load: int = 1_000
    twice: bool = True
    end: signal.Signals = signal.SIGKILL


@pytest.fixture
def sites(redis: Server, nats: Server, azure: Server) -> dict[str, Site]:
    return {
        "REDIS": Site(redis, f"{redis.url}?idle_s=1"),
        "NATS": Site(nats, f"{nats.url}?ack_wait_s=1"),
        # Azurite writes down what it has when it ends, and every few seconds.
        "AZURE": Site(azure, f"{azure.url};VisibilityTimeout=1", 100, 100, twice=False, end=signal.SIGTERM),
    }


def test_a_host_and_its_brokers_are_killed(tmp_path: Path, sites: dict[str, Site]) -> None:
    queue = fresh()
    (tmp_path / "consumer.py").write_text(PROGRAM)
    chance = random.Random(7)
    settings = {name: site.connection for name, site in sites.items()}
    paths = os.pathsep.join(path for path in sys.path if path)
    texts = {f"{name}-{number}" for name, site in sites.items() for number in range(site.messages)}

    def life() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "consumer.py", queue, *sites],
            cwd=tmp_path,
            env={**os.environ, **settings, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def died(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def effects(kind: str) -> Counter[str]:
        lines = (tmp_path / "effects.log").read_text().splitlines()
        return Counter(line.split()[1] for line in lines if line.startswith(kind))

    async def fill() -> None:
        for name, site in sites.items():
            bodies = [f"{name}-{number}" for number in range(site.messages)]
            await send(site, queue, bodies)

    async def finished() -> int:
        async with Client(f"sqlite:///{tmp_path / 'hub.db'}") as client:

            async def done() -> bool:
                return await client.count_instances(name="flow", runtime_status="Completed") >= len(texts)

            await eventually(done)
            return await client.count_instances(name="flow")

    asyncio.run(fill())
    process = life()
    try:
        for _ in range(DEATHS):
            time.sleep(chance.uniform(0.05, 0.25))
            died(process)
            process = life()
        for site in sites.values():
            site.server.kill(site.end)
        assert all(
            len([one for one in effects("take") if one.startswith(name)]) < site.messages
            for name, site in sites.items()
        )
        for site in sites.values():
            site.server.start()
        flows = asyncio.run(finished())
    finally:
        died(process)
    takes = effects("take")
    assert set(takes) == set(effects("work")) == texts
    assert flows == len(texts)
    again = takes.total() - len(texts)
    print(f"{len(texts)} messages, {DEATHS} deaths: {again} handed out again, {flows} orchestrations")
    assert again <= DEATHS * 3 * 4 * 3


@pytest.mark.parametrize("name", ["REDIS", "NATS", "AZURE"])
def test_how_fast_it_is(
    tmp_path: Path, sites: dict[str, Site], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sites[name]
    monkeypatch.setenv(name, site.connection)
    queue, app, done = fresh(), App(), list[int]()

    @app.activity
    async def work(number: int) -> None:
        done.append(number)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, number: int) -> None:
        await ctx.call_activity(work, number)

    @app.queue(queue, connection=name)
    async def take(number: int, client: Client) -> None:
        await client.start(flow, number)

    async def main() -> float:
        began = time.perf_counter()
        await send(site, queue, [str(number) for number in range(site.load)])
        sent_s = time.perf_counter() - began
        began, used = time.perf_counter(), time.process_time()
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}"):
            await until(lambda: len(done) == site.load)
            took_s, used_s = time.perf_counter() - began, time.process_time() - used
        print(
            f"{name}: {site.load / sent_s:,.0f} messages/s sent; {site.load / took_s:,.0f} messages/s from the broker to the end "
            f"of the orchestration's activity, at {used_s / site.load * 1000:.2f} ms of our CPU each"
        )
        return took_s

    assert asyncio.run(main()) < 30  # three times slower than the slowest that was seen
    assert sorted(done) == list(range(site.load))


async def send(site: Site, queue: str, bodies: list[str]) -> None:
    """Messages, side by side; some twice, as by somebody who was not sure."""
    left = iter(enumerate(bodies))

    async def some(broker: Broker) -> None:
        for number, body in left:
            for _ in range(2 if site.twice and number % 7 == 0 else 1):
                await broker.send(queue, body.encode(), message_id=f"m{number}")

    async with connected(site.connection) as broker:
        await asyncio.gather(*(some(broker) for _ in range(20)))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {"redis": "redis://host", "nats": "nats://host", "azure": "UseDevelopmentStorage=true"}
    modules = {"redis": "redis_streams", "nats": "nats", "azure": "azure_queues"}
    for extra, url in urls.items():
        monkeypatch.setitem(sys.modules, f"durably.bindings.{modules[extra]}", None)
        connections = Connections(SystemClock(), {"BROKER": url})
        with pytest.raises(ValueError, match=rf"pip install 'durably\[{extra}\]'"):
            connections.broker("BROKER")
