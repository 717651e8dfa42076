"""Schedules of an app on their way to a hub that takes nothing for now."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from durably import App, OrchestrationContext
from durably.core.commit import Batch
from durably.errors import StoreFailedError, StoreUnavailableError
from durably.storage.api import Lease
from durably.storage.memory import MemoryHub, MemoryStore
from tests.support.clock import ManualClock
from tests.support.waiting import eventually


class Troubled(MemoryStore):
    """Answers no query as long as it has an error to give."""

    error: Exception | None = None

    async def query_entities(self, query: Any) -> Any:
        if self.error is not None:
            raise self.error
        return await super().query_entities(query)


def app_with_schedule() -> App:
    app = App()

    @app.schedule("s", interval=60)
    @app.orchestrator
    async def work(ctx: OrchestrationContext) -> None:
        pass

    return app


def test_a_host_starts_and_goes_on_trying(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store, clock = Troubled(MemoryHub()), ManualClock()
        store.error = StoreUnavailableError("the disk is full")
        with caplog.at_level(logging.WARNING, "durably.schedules"):
            async with app_with_schedule().host(store, clock=clock) as host:
                assert "not declared yet, trying again: the disk is full" in caplog.text

                def has_tried_again() -> bool:
                    clock.advance(5)
                    return caplog.text.count("trying again") > 2

                await eventually(has_tried_again)
                store.error = None

                async def is_declared() -> bool:
                    clock.advance(5)
                    page = await host.client.schedules.list()
                    return [one.declared for one in page.schedules] == [True]

                await eventually(is_declared)

    asyncio.run(main())


def test_a_host_that_is_left_meanwhile_gives_up() -> None:
    async def main() -> None:
        store = Troubled(MemoryHub())
        store.error = StoreUnavailableError("the disk is full")
        async with app_with_schedule().host(store, clock=ManualClock()):
            pass
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        assert not asyncio.all_tasks() - {asyncio.current_task()}

    asyncio.run(main())


def test_what_is_no_moments_trouble_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = Troubled(MemoryHub())
        store.error = StoreFailedError("the disk is gone")
        async with app_with_schedule().host(store, clock=ManualClock()) as host:
            assert "are not declared: the disk is gone" in caplog.text
            assert host.failure is None

    asyncio.run(main())


def test_a_schedule_that_is_as_declared_costs_no_commit() -> None:
    class Counting(MemoryStore):
        commits = 0

        async def commit(self, lease: Lease, batch: Batch) -> None:
            type(self).commits += 1
            await super().commit(lease, batch)

    async def main() -> None:
        hub, clock = MemoryHub(), ManualClock()
        for expected in (1, 1, 1):
            async with app_with_schedule().host(Counting(hub), clock=clock):
                assert Counting.commits == expected

    asyncio.run(main())
