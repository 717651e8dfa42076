"""Scenario 25: several processes write to one hub while its owner checkpoints as often as it can."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from durably.storage.sqlite import writer
from tests.faults.checker import check
from tests.faults.children import child, line_of, tell
from tests.faults.clients import Clients, jobs, serving
from tests.faults.evidence import Evidence
from tests.faults.plan import Job
from tests.support.waiting import eventually

WRITERS = 4
TALLIES = [job for job in jobs(200) if job.program == "tally"]
BESIDE = [job for job in jobs(64, first=8) if job.program != "tally"]


async def hammer(evidence: Evidence, tallies: list[Job], posts: int) -> None:
    """Each writer posts to each tally; other jobs run beside them."""
    async with serving(evidence) as host:
        for job in tallies:
            evidence.note("starting", job.number)
            await host.client.start(job.program, job.input, instance_id=job.instance_id)
            evidence.note("started", job.number)
        with ExitStack() as stack:
            numbers = [job.number for job in tallies]
            others = [
                stack.enter_context(child("post_many", evidence.hub, number, posts, *numbers))
                for number in range(WRITERS)
            ]
            for other in others:
                assert await asyncio.to_thread(line_of, other) == "ready"
            for other in others:
                tell(other)
            beside = asyncio.ensure_future(Clients(evidence, BESIDE).drive(host))
            for other in others:
                assert await asyncio.to_thread(line_of, other) == "posted"
            assert await beside
        for job in tallies:

            async def is_read(name: str = job.instance_id) -> bool:
                return not await host.engine.store.read_messages(name)

            # What was posted is durable, and the host reads it when it hears of it: what is raised in the host may be first.
            await eventually(is_read, f"the messages to {job.instance_id} to be read")
            await host.client.raise_event(job.instance_id, "token", "close")
            got = await host.client.handle(job.instance_id).result(timeout=60)
            for number in range(WRITERS):  # each exactly once, in the order of its sender
                mine = [token for token in got if token.startswith(f"{job.instance_id}/w{number}.")]
                assert mine == [f"{job.instance_id}/w{number}.{n}" for n in range(posts)]
            assert len(got) == WRITERS * posts
            for token in got:  # for the checker, which looks at them again
                evidence.note("raising", token)
                evidence.note("raised", token)


def storm(evidence: Evidence, tallies: list[Job], posts: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_CHECKPOINT_PAGES", 1)
        patch.setattr(writer, "_CHECKPOINT_RETRY_PAGES", 1)
        asyncio.run(hammer(evidence, tallies, posts))
    verdict = check(evidence, floor=0.9)
    sys.stdout.write(f"{WRITERS} processes posted {WRITERS * posts * len(tallies)} events: {verdict}\n")


@pytest.mark.slow_once
def test_what_several_processes_post_arrives_once_and_in_order(tmp_path: Path) -> None:
    storm(Evidence.in_folder(tmp_path), TALLIES[:4], posts=20)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_what_several_processes_post_for_minutes(tmp_path: Path) -> None:
    storm(Evidence.in_folder(tmp_path), TALLIES, posts=400)
