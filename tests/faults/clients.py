"""Clients in the process of the host: they start jobs, send events, wait for results, and write down what they are told.

They outlive hosts: what was in doubt with one is asked again of the next.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from durably import AppHost, EngineOptions
from durably.clock import Clock
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import RaiseEvent
from durably.errors import InstanceStateError, OperationError
from durably.storage.api import Store
from tests.faults.effects import SideFile
from tests.faults.evidence import Evidence
from tests.faults.plan import EVENTS, Job
from tests.faults.programs import build_app

QUICK: dict[str, Any] = {"slow_turn_s": 0, "inbox_poll_s": 0.02, "commit_retry_s": 0.01, "drain_timeout_s": 5}
SHARED: dict[str, Any] = {"lease_s": 1.0, "partitions": 4}
"""Of a host beside others: who dies is missed after a second."""


def options_of(evidence: Evidence, **options: Any) -> EngineOptions:
    """Options of a host; if others share its hub, it takes the place of one who died soon."""
    return EngineOptions(**{**({} if evidence.is_file else SHARED), **options})


@asynccontextmanager
async def serving(
    evidence: Evidence, store: Store | None = None, *, clock: Clock | None = None, **options: Any
) -> AsyncGenerator[AppHost]:
    """One life of a host. One that failed, or whose block raised, counts as a death."""
    side = SideFile(evidence.side, evidence.deaths)
    app = build_app(side)
    given = options_of(evidence, **{**QUICK, **options})
    host = app.host(store or evidence.url, options=given, clock=clock)
    try:
        await host.start()
        try:
            yield host
        finally:
            await host.stop()
    except BaseException:
        evidence.note("death", 1)
        raise
    else:
        evidence.note("death", int(host.engine.failure is not None))
    finally:
        side.close()


class Clients:
    """Drives jobs to their end, through as many hosts as that takes.

    Args:
        evidence: What they are told is noted there.
        jobs: What they start.
    """

    def __init__(self, evidence: Evidence, jobs: Iterable[Job]) -> None:
        self._evidence = evidence
        self._jobs = list(jobs)

    async def drive(self, host: AppHost) -> bool:
        """Follow all jobs until they have ended, or the host has stopped by itself. True in the first case."""
        watch = asyncio.ensure_future(self._watch(host))
        try:
            ended = await asyncio.gather(*(self._follow(host, job) for job in self._jobs))
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await self._look(host)
        return all(ended)

    async def _follow(self, host: AppHost, job: Job) -> bool:
        evidence = self._evidence
        if job.number in evidence.results:
            return True
        evidence.note("starting", job.number)
        if not await self._called(
            host.client.start(job.program, job.input, instance_id=job.instance_id, on_existing="attach")
        ):
            return False
        evidence.note("started", job.number)
        if job.program in EVENTS:
            for n in range(job.size):
                if not await self._called(self._post(host, job, str(n), "Item", n)):
                    return False
        elif job.program == "tally" and not await self._tell(host, job):
            return False
        with suppress(OperationError):
            result = await host.client.handle(job.instance_id).result()
            evidence.note("result", [job.number, result])
            return True
        return False

    async def _tell(self, host: AppHost, job: Job) -> bool:
        for n in range(job.size):
            token = f"{job.token(self._evidence.deaths)}.{n}"
            self._evidence.note("raising", token)
            with suppress(InstanceStateError):  # a life before had closed it
                if not await self._called(host.client.raise_event(job.instance_id, "Token", token)):
                    return False
                self._evidence.note("raised", token)
        return await self._called(self._post(host, job, "close", "TOKEN", "close"))

    async def _post(self, host: AppHost, job: Job, name: str, event: str, data: Any) -> None:
        """Send an event under its own id: who does not know whether it arrived sends it again."""
        body = encode_body(RaiseEvent(event, json.dumps(data).encode()))
        await host.engine.store.post([InboxRow(f"{job.instance_id}/{name}", job.instance_id, 0, body)])

    async def _called(self, call: Coroutine[Any, Any, Any]) -> bool:
        """True when the hub answered, also with a refusal; False when nobody knows."""
        try:
            await call
        except OperationError:
            self._evidence.note("call", "in doubt")
            return False
        except InstanceStateError:
            self._evidence.note("call", "answered")
            raise
        self._evidence.note("call", "answered")
        return True

    async def _watch(self, host: AppHost) -> None:
        while True:
            await self._look(host)
            await asyncio.sleep(0.005)

    async def _look(self, host: AppHost) -> None:
        with suppress(OperationError):
            page = await host.client.query_instances(page_size=1_000)
            for status in page.instances:
                self._evidence.note("seen", [status.instance_id, status.runtime_status.value])


def jobs(count: int, first: int = 0) -> list[Job]:
    """The first jobs of the plan: each run of eight holds each program once."""
    return [Job(number) for number in range(first, first + count)]


async def live_through(
    evidence: Evidence, work: list[Job], store: Callable[[], Store] | None = None, **options: Any
) -> bool:
    """One life, from start to stop. True when all jobs ended in it."""
    async with serving(evidence, None if store is None else store(), **options) as host:
        return await Clients(evidence, work).drive(host)
