"""What must hold after any number of kills, checked on the file, the side file and what clients were told."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec

from durably.core.commit import InstanceRow
from durably.core.events import AttemptStarted, EventRaised, HistoryEvent, TaskCompleted, TaskScheduled
from durably.core.invariants import check_instance
from durably.core.query import InstanceQuery
from durably.storage.open import open_store
from tests.integration.kill.hammer import Hammer
from tests.integration.kill.plan import Job, job_of

FOREVER = 2**62


class Run(NamedTuple):
    """One execution of an attempt, from the side file."""

    life: int
    delivery: int


class Attempt(NamedTuple):
    """An attempt of a logical call."""

    key: str
    number: int


def check(hammer: Hammer) -> int:
    """Check everything; returns how many attempts of activities ran more than once, in runs too many."""
    hub = asyncio.run(_read(hammer.hub))
    runs, ended = _side_file(hammer.side)
    _check_instances(hammer, hub)
    _check_activities(hub, runs, ended)
    _check_file(hammer.hub)
    return sum(len(found) - 1 for found in runs.values())


# --- the hub, by way of its store ------------------------------------------------------------------------------------


Hub = dict[str, tuple[InstanceRow, list[HistoryEvent]]]


async def _read(path: Path) -> Hub:
    """All instances with their events; invariants hold for each, and nothing is left to do."""
    store = open_store(f"sqlite:///{path}")
    await store.open(create=False)
    try:
        snapshot = await store.load(await store.acquire(0, "checker"), FOREVER)
        assert (snapshot.inbox, snapshot.timers, snapshot.in_flight) == ([], [], [])
        found: Hub = {}
        after: int | None = 0
        while after is not None:
            page = await store.query(InstanceQuery(page_size=1_000, after=after))
            for row in page.rows:
                history = await store.read_history(row.instance_id)
                found[row.instance_id] = row, check_instance(row, history, [], [])
            after = page.next_after
        return found
    finally:
        await store.close()


def _check_instances(hammer: Hammer, hub: Hub) -> None:
    jobs = {number: Job(number) for number in hammer.started}
    children: Counter[str | None] = Counter(row.parent_instance_id for row, _ in hub.values())
    for number, job in jobs.items():
        assert job.instance_id in hub, f"{job.instance_id} was acknowledged and is lost"
        row, events = hub[job.instance_id]
        result = None if row.output is None else msgspec.json.decode(row.output)
        assert row.status == "Completed", f"{job.instance_id} is {row.status}"
        assert hammer.results.get(number, result) == result, (
            f"{job.instance_id} told its caller something else"
        )
        assert children[job.instance_id] == job.children, (
            f"{job.instance_id} has {children[job.instance_id]} children"
        )
        scheduled = sum(isinstance(event, TaskScheduled) for event in events)
        assert scheduled == job.activities, f"{job.instance_id} scheduled {scheduled} activities"
        if job.program == "tally":
            _check_tokens(hammer, job, result, events)
        else:
            assert result == job.result, f"{job.instance_id} returned {result}, expected {job.result}"
    strangers = [
        row.instance_id for row, _ in hub.values() if row.parent_instance_id is None and not _known(row, jobs)
    ]
    assert not strangers, f"nobody started {strangers}"


def _known(row: InstanceRow, jobs: dict[int, Job]) -> bool:
    job = job_of(row.instance_id)
    return job is not None and job.number in jobs


def _check_tokens(hammer: Hammer, job: Job, result: Any, events: list[HistoryEvent]) -> None:
    """Every acknowledged event exactly once, in order; one without an answer at most once; nothing else."""
    sent = [token for token in hammer.raising if token.startswith(f"{job.instance_id}/")]
    certain = [token for token in sent if token in hammer.raised]
    assert result == [token for token in sent if token in result], f"{job.instance_id} got {result} of {sent}"
    assert set(certain) <= set(result), f"{job.instance_id} got {result}; acknowledged were {certain}"
    in_history = [event.input for event in events if isinstance(event, EventRaised)]
    assert len(in_history) == len(set(in_history)), f"{job.instance_id} has an event twice: {in_history}"


# --- the side file ---------------------------------------------------------------------------------------------------


def _side_file(path: Path) -> tuple[dict[Attempt, list[Run]], dict[Attempt, int]]:
    """Each attempt with its runs, and how often it came to its end."""
    runs: dict[Attempt, list[Run]] = defaultdict(list)
    ended: Counter[Attempt] = Counter()
    for line in path.read_text().splitlines():
        life, what, key, number, delivery = line.split(" ")
        attempt = Attempt(key, int(number))
        if what == "start":
            runs[attempt].append(Run(int(life), int(delivery)))
        else:
            ended[attempt] += 1
    return runs, ended


def _check_activities(hub: Hub, runs: dict[Attempt, list[Run]], ended: dict[Attempt, int]) -> None:
    for attempt, found in runs.items():
        lives = [run.life for run in found]
        # Each life ends with a kill: an attempt that was open during k of them ran at most k + 1 times.
        assert len(set(lives)) == len(lives), f"{attempt} ran twice between two kills: {found}"
        assert len(found) - 1 <= lives[-1] - lives[0], f"{attempt} ran {found}"
        assert all(run.delivery > 1 for run in found[1:]), (
            f"{attempt} ran again as if for the first time: {found}"
        )
    last = {row.execution_id: row for row, _ in hub.values()}
    expected: set[Attempt] = set()
    for row, events in hub.values():
        for event in events:
            if isinstance(event, TaskScheduled):
                expected.add(Attempt(f"{row.instance_id}:{row.execution_id}:{event.seq}", 1))
            elif isinstance(event, AttemptStarted):
                expected.add(Attempt(f"{row.instance_id}:{row.execution_id}:{event.seq}", event.attempt))
            elif isinstance(event, TaskCompleted) and not _is_child(hub, row.instance_id):
                assert any(
                    attempt in ended
                    for attempt in (
                        Attempt(f"{row.instance_id}:{row.execution_id}:{event.seq}", n) for n in (1, 2, 3)
                    )
                ), f"{row.instance_id} has a result of #{event.seq} that no activity gave"
    ran = {attempt for attempt in runs if attempt.key.split(":")[-2] in last}
    assert expected - ran == set(), "scheduled and never ran"
    assert ran - expected == set(), "ran without a committed schedule"


def _is_child(hub: Hub, instance_id: str) -> bool:
    """True for parents: their tasks are children."""
    return instance_id.startswith("parent-") and ":" not in instance_id


# --- the file itself -------------------------------------------------------------------------------------------------


def _check_file(path: Path) -> None:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        assert [row[0] for row in connection.execute("PRAGMA integrity_check")] == ["ok"]
        for table in ("inbox", "timers"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
        orphans = "SELECT count(*) FROM history WHERE execution NOT IN (SELECT execution FROM instances)"
        assert connection.execute(orphans).fetchall() == [(0,)]
    finally:
        connection.close()
