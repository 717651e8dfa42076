"""Scenario 16 on PostgreSQL: user code holds up the event loop for several leases, and nobody takes the partitions over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from durably import App, EngineOptions, OrchestrationContext
from durably.errors import DurablyError
from durably.storage.postgres.store import PostgresStore
from tests.support.postgres import PostgresServer

LEASE_S = 1.0
PARTITIONS = 2
OPTIONS = EngineOptions(lease_s=LEASE_S, partitions=PARTITIONS)

Report = Callable[..., None]


class Rival:
    """Another host that would take any partition whose lease has run out, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.over = threading.Event()
        self.tries = 0
        self.taken = 0
        self._url = url
        self.thread = threading.Thread(target=lambda: asyncio.run(self._work()))

    async def _work(self) -> None:
        store = PostgresStore(self._url)
        await store.open(create=False)
        while not self.over.is_set():
            for partition in range(PARTITIONS):
                try:
                    await store.acquire(partition, "rival")
                    self.taken += 1
                except DurablyError:
                    self.tries += 1
            await asyncio.sleep(0.05)
        await store.close()


@pytest.mark.slow_once
def test_a_host_whose_loop_is_held_up_keeps_its_partitions(
    shared_server: PostgresServer, hub_name: str, report: Report
) -> None:
    held(shared_server.url(hub_name), 4 * LEASE_S, report)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_the_same_for_half_a_minute(shared_server: PostgresServer, hub_name: str, report: Report) -> None:
    held(shared_server.url(hub_name), 30.0, report)


def held(url: str, seconds: float, report: Report) -> None:
    app, runs, over = App(), [0], threading.Event()

    @app.activity
    async def rude() -> str:
        runs[0] += 1
        time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
        over.set()
        return "slept"

    @app.activity
    def polite() -> int:
        ticks = 0
        while not over.wait(0.05):
            ticks += 1
        return ticks

    @app.orchestrator
    async def both(ctx: OrchestrationContext) -> list[object]:
        thread = ctx.call_activity(polite)
        await ctx.create_timer(0.05)
        return list(await asyncio.gather(ctx.call_activity(rude), thread))

    async def main() -> list[object]:
        async with app.host(url, options=OPTIONS) as host:
            rival.thread.start()
            while not rival.tries:  # noqa: ASYNC110 - a thread is at work
                await asyncio.sleep(0.01)
            result = await (await host.client.start(both)).result(timeout=seconds + 60)
            rival.over.set()
            return result

    rival = Rival(url)
    slept, ticks = asyncio.run(main())
    rival.thread.join()
    report(seconds=seconds, tries_of_the_rival=rival.tries, ticks=ticks)
    assert slept == "slept"
    assert isinstance(ticks, int)
    assert ticks >= seconds / 0.05 / 3, "what runs in threads goes on"
    assert rival.taken == 0
    assert runs == [1]
