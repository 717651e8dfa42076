"""The checker: what must hold after any fault, decided from the hub file, the side file and what clients were told.

The rules are those of RELIABILITY 5.4, by number. C6 is part of C1 here (tokens), C7 and C16 wait for entities, C9 holds by
construction: a SQLite file, or a schema, is one hub.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing, suppress
from typing import Any, NamedTuple, cast

import apsw
import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import msgspec

from durably.core.commit import InstanceRow
from durably.core.events import (
    AttemptStarted,
    ChildScheduled,
    EventAwaited,
    EventRaised,
    HistoryEvent,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    TurnStarted,
)
from durably.core.history import decode_rows
from durably.core.invariants import check_instance
from durably.core.query import FIRST, InstanceQuery, Place
from durably.core.status import TERMINAL
from durably.errors import HubLockedError
from durably.executors.native import NativeExecutor, NativeOptions
from durably.storage.api import Lease, Store
from durably.storage.open import open_store
from durably.storage.postgres.address import Address
from durably.storage.postgres.schema import quoted
from tests.faults.effects import Attempt, Effects, SideFile, read_effects
from tests.faults.evidence import Evidence
from tests.faults.plan import Job, job_of
from tests.faults.programs import build_app

_FOREVER = 2**62


class Verdict(NamedTuple):
    """What was checked, for people and for floors.

    Attributes:
        instances: In the hub.
        completed: Of those that clients started.
        reruns: Runs of activities beyond the first of each attempt.
        answered: Share of the calls of clients that were answered.
    """

    instances: int
    completed: int
    reruns: int
    answered: float

    def __str__(self) -> str:
        return (
            f"{self.completed} of {self.instances} instances started by clients and completed, "
            f"{self.reruns} reruns, {self.answered:.0%} of calls answered"
        )


class _Found(NamedTuple):
    row: InstanceRow
    events: list[HistoryEvent]


_Hub = dict[str, _Found]


def check(evidence: Evidence, *, floor: float) -> Verdict:
    """Check every rule.

    Args:
        evidence: Of a run that has come to its end: no host serves the hub any more.
        floor: Share of the calls of clients that must have been answered (C15).

    Raises:
        AssertionError, InvariantError: A rule is broken; the message names it.
    """
    check_file(evidence)
    hub = asyncio.run(_read(evidence))
    effects = read_effects(evidence.side)
    for instance_id, found in hub.items():
        if instance_id not in evidence.lost:
            _check_completions(instance_id, found.events)
            _check_time(instance_id, found.events)
    _check_replay(hub, evidence)
    _check_commands(hub, evidence)
    _check_children(hub)
    _check_activities(hub, effects, evidence)
    _check_seen(hub, evidence)
    answered = _share_of_answers(evidence, floor)
    return Verdict(len(hub), len(evidence.started - _numbers(evidence.lost)), effects.reruns, answered)


def check_file(evidence: Evidence) -> None:
    """C2 for epochs, C11, and what SQLite says of its own file."""
    if evidence.is_file:
        assert ask(evidence, "PRAGMA integrity_check") == [("ok",)]
    partitions = "partition" if evidence.is_file else "partitions"
    for epoch, batch_epoch in ask(evidence, f"SELECT epoch, batch_epoch FROM {partitions}"):
        assert batch_epoch <= epoch, f"C2: epoch {batch_epoch} has committed, and the newest is {epoch}"
    left = {table: ask(evidence, text) for table, text in _LEFT.items()}
    for table in ("history", "timers"):
        assert not left[table], f"C11: {table} holds rows of executions {left[table]}, which nobody has"
    assert not left["inbox"], f"C11: the inbox holds messages to {left['inbox']}, which do not exist"


def count_rows(evidence: Evidence, table: str) -> int:
    """How many rows a table of the hub has."""
    return ask(evidence, f"SELECT count(*) FROM {table}")[0][0]


def ask(evidence: Evidence, text: str) -> list[tuple[Any, ...]]:
    """Ask the database of a hub that nobody serves."""
    if not evidence.is_file:
        return asyncio.run(_ask_server(evidence.url, text))
    with closing(apsw.Connection(str(evidence.hub), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        return cast("Any", connection).execute(text).fetchall()


async def _ask_server(url: str, text: str) -> list[tuple[Any, ...]]:
    connection: Any = await cast("Any", asyncpg).connect(url.partition("?")[0])
    try:
        await connection.execute(f"SET search_path TO {quoted(Address.of(url).schema)}")
        return [tuple(row) for row in await connection.fetch(text)]
    finally:
        await connection.close()


_LEFT = {
    "history": "SELECT DISTINCT execution FROM history WHERE execution NOT IN (SELECT execution FROM instances)",
    "timers": "SELECT DISTINCT execution FROM timers WHERE execution NOT IN "
    "(SELECT execution FROM instances UNION ALL SELECT execution FROM entities)",
    "inbox": "SELECT instance_id FROM inbox WHERE instance_id NOT IN "
    "(SELECT instance_id FROM instances UNION ALL SELECT instance_id FROM entities)",
}
"""What belongs to nobody, by table; an execution number is unique in a hub, whatever its partition."""


# --- the hub, by way of its store ------------------------------------------------------------------------------------


async def _read(evidence: Evidence) -> _Hub:
    """C2 and C10: every instance obeys the invariants, and nothing is left to do but what an injector destroyed."""
    store = open_store(evidence.url)
    await store.open(create=False)
    try:
        alive: set[str] = set()
        waiting: list[str] = []
        for partition in range(store.capabilities.partitions):
            lease = await _acquired(store, partition)
            snapshot = await store.load(lease, _FOREVER)
            alive |= {stored.row.instance_id for stored in snapshot.in_flight}
            waiting += [row.instance_id for row in (*snapshot.inbox, *snapshot.timers)]
            await store.release(lease)
        assert alive | set(waiting) <= evidence.lost, (
            f"C10: left are {alive} and messages or timers of {waiting}"
        )
        found: _Hub = {}
        after: Place | None = FIRST
        while after is not None:
            page = await store.query(InstanceQuery(page_size=1_000, after=after))
            for row in page.rows:
                history = await store.read_history(row.instance_id)
                if row.instance_id in evidence.lost:
                    assert row.parked is not None, f"{row.instance_id} was damaged and is not parked"
                    found[row.instance_id] = _Found(row, [])
                else:
                    assert row.status in TERMINAL, f"C10: {row.instance_id} is {row.status}"
                    found[row.instance_id] = _Found(row, check_instance(row, history, [], []))
            after = page.next_after
        return found
    finally:
        await store.close()


async def _acquired(store: Store, partition: int) -> Lease:
    """The lease of somebody who has just died may last for a moment."""
    async with asyncio.timeout(10):
        while True:
            with suppress(HubLockedError):
                return await store.acquire(partition, "checker")
            await asyncio.sleep(0.05)


def _check_replay(hub: _Hub, evidence: Evidence) -> None:
    """C4: the same code takes the same decisions."""
    side = SideFile("/dev/null", 0)
    try:
        app = build_app(side)
        judge = NativeExecutor(app.registry, app.converter, NativeOptions(slow_turn_s=0))
        for instance_id, (row, events) in hub.items():
            if instance_id not in evidence.lost and judge.serves("orchestrator", row.name):
                judge.replay(events).close()
    finally:
        side.close()


# --- one history -----------------------------------------------------------------------------------------------------


def _check_completions(instance_id: str, events: list[HistoryEvent]) -> None:
    """C3: at most one completion for what was scheduled, none for what was not."""
    scheduled: set[int] = set()
    completed: set[int] = set()
    for event in events:
        if isinstance(event, TaskScheduled | ChildScheduled | TimerCreated | EventAwaited):
            assert event.seq not in scheduled, f"C3: {instance_id} scheduled #{event.seq} twice"
            scheduled.add(event.seq)
        elif isinstance(event, TaskCompleted | TaskFailed | TimerFired):
            assert event.seq in scheduled, (
                f"C3: {instance_id} completed #{event.seq}, which it did not schedule"
            )
            assert event.seq not in completed, f"C3: {instance_id} completed #{event.seq} twice"
            completed.add(event.seq)


def _check_time(instance_id: str, events: list[HistoryEvent]) -> None:
    """C8: no timer before it is due, and time never goes back."""
    now = 0
    due: dict[int, int] = {}
    for event in events:
        if isinstance(event, TurnStarted):
            assert event.at >= now, f"C8: time of {instance_id} went back from {now} to {event.at}"
            now = event.at
        elif isinstance(event, TimerCreated | EventAwaited) and event.fire_at is not None:
            due[event.seq] = event.fire_at
        elif isinstance(event, TimerFired):
            early = due[event.seq] - now
            assert early <= 0, f"C8: timer #{event.seq} of {instance_id} fired {early} µs early"


# --- what clients were told ------------------------------------------------------------------------------------------


def _check_commands(hub: _Hub, evidence: Evidence) -> None:
    """C1 and C14: what was acknowledged is there, once, with the result that was foretold; and nothing else is."""
    for number in evidence.started:
        job = Job(number)
        assert job.instance_id in hub, f"C1: {job.instance_id} was acknowledged and is lost"
        if job.instance_id in evidence.lost:
            continue
        row, events = hub[job.instance_id]
        assert row.status == "Completed", f"C14: {job.instance_id} is {row.status}: {row.failure}"
        result = None if row.output is None else msgspec.json.decode(row.output)
        told = evidence.results.get(number, result)
        assert told == result, f"C1: {job.instance_id} told its caller {told} and says {result} now"
        scheduled = sum(isinstance(event, TaskScheduled) for event in events)
        assert scheduled == job.activities, f"C14: {job.instance_id} scheduled {scheduled} activities"
        if job.program == "tally":
            _check_tokens(evidence, job, result, events)
        else:
            assert result == job.result, f"C14: {job.instance_id} returned {result}, expected {job.result}"
    for instance_id, (row, _) in hub.items():
        job = job_of(instance_id)
        known = row.parent_instance_id is not None or (job is not None and job.number in evidence.starting)
        assert known, f"C1: nobody started {instance_id}"


def _check_tokens(evidence: Evidence, job: Job, result: Any, events: list[HistoryEvent]) -> None:
    """C1 and C6: an acknowledged event exactly once, one in doubt at most once, in the order in which they were sent.

    A life may post the event that closes a tally, and die. What the next one sends may be accepted behind that: then it is
    in the history and not in the result; or, where the tally was kept waiting, it ends before that event's turn comes.
    """
    sent = [token for token in evidence.raising if token.startswith(f"{job.instance_id}/")]
    got = [msgspec.json.decode(event.input or b"null") for event in events if isinstance(event, EventRaised)]
    assert len(got) == len(set(got)), f"C6: {job.instance_id} has an event twice: {got}"
    tokens = [token for token in got if token != "close"]
    assert tokens == [token for token in sent if token in tokens], (
        f"C6: {job.instance_id} got {got} of {sent}"
    )
    closed_in = min((_life(token) for token in sent if _may_close(job, token)), default=None)
    certain = [
        token
        for token in sent
        if token in evidence.raised and (closed_in is None or _life(token) <= closed_in)
    ]
    assert set(certain) <= set(tokens), f"C1: {job.instance_id} got {got}; acknowledged were {certain}"
    expected = got[: got.index("close")]
    assert result == expected, f"C6: {job.instance_id} got {got} and returned {result}"


def _life(token: str) -> int:
    """The life in which a token was sent; tokens of other processes have none, and count for the first one."""
    life = token.rpartition("/")[2].partition(".")[0]
    return int(life) if life.isdigit() else 0


def _may_close(job: Job, token: str) -> bool:
    """True when the life that sent it may have posted the event that closes the tally; those that send several always do."""
    return "." in token or job.closes_in(_life(token))


def _check_children(hub: _Hub) -> None:
    """C13: each child that was scheduled exists, once, and nobody has one that was not."""
    parents = Counter(row.parent_instance_id for row, _ in hub.values() if row.parent_instance_id is not None)
    for instance_id, (_, events) in hub.items():
        scheduled = [event.instance_id for event in events if isinstance(event, ChildScheduled)]
        assert len(set(scheduled)) == len(scheduled), f"C13: {instance_id} scheduled a child twice"
        missing = [child for child in scheduled if child not in hub]
        assert not missing, f"C13: children {missing} of {instance_id} are missing"
        children = parents.pop(instance_id, 0)
        assert children == len(scheduled), f"C13: {instance_id} has {children} children of {len(scheduled)}"
    assert not parents, f"C13: there are children of {list(parents)}, which do not exist"


def _check_seen(hub: _Hub, evidence: Evidence) -> None:
    """C12: what has ended stays as it ended."""
    for instance_id, seen in evidence.seen.items():
        ends = [status for status in seen if status in TERMINAL]
        assert seen[-len(ends) :] == ends[:1] if ends else True, f"C12: {instance_id} was seen as {seen}"
        if ends and instance_id not in evidence.lost:
            now = hub[instance_id].row.status
            assert now == ends[0], f"C12: {instance_id} was seen as {ends[0]} and is {now}"


def _share_of_answers(evidence: Evidence, floor: float) -> float:
    """C15: a run in which nothing was answered proves nothing."""
    total = evidence.calls.total()
    assert total, "C15: no client called"
    answered = evidence.calls["answered"] / total
    assert answered >= floor, f"C15: {answered:.0%} of {total} calls were answered; expected {floor:.0%}"
    return answered


# --- the side file ---------------------------------------------------------------------------------------------------


def _check_activities(hub: _Hub, effects: Effects, evidence: Evidence) -> None:
    """C5: what was scheduled ran; runs beyond the first are at most the deaths that hit it; nothing else ran."""
    for attempt, found in effects.runs.items():
        lives = [run.life for run in found]
        # Each life ends with a death: an attempt that was open during k of them ran at most k + 1 times.
        assert len(set(lives)) == len(lives), f"C5: {attempt} ran twice between two deaths: {found}"
        assert len(found) - 1 <= lives[-1] - lives[0], f"C5: {attempt} ran {found}"
        again = [run for run in found[1:] if run.delivery == 1]
        assert not again, f"C5: {attempt} ran again as if for the first time: {found}"
    current = {row.execution_id for instance_id, (row, _) in hub.items() if instance_id not in evidence.lost}
    expected: set[Attempt] = set()
    for instance_id, (row, events) in hub.items():
        if instance_id in evidence.lost:
            continue
        prefix = f"{instance_id}:{row.execution_id}"
        tasks = {event.seq for event in events if isinstance(event, TaskScheduled)}
        for event in events:
            if isinstance(event, TaskScheduled):
                expected.add(Attempt(f"{prefix}:{event.seq}", 1))
            elif isinstance(event, AttemptStarted) and event.seq in tasks:
                expected.add(Attempt(f"{prefix}:{event.seq}", event.attempt))
            elif isinstance(event, TaskCompleted) and event.seq in tasks:
                given = any(effects.ended[Attempt(f"{prefix}:{event.seq}", n)] for n in (1, 2, 3))
                assert given, f"C5: {instance_id} has a result of #{event.seq} that no activity gave"
    ran = {attempt for attempt in effects.runs if attempt.key.split(":")[-2] in current}
    assert expected <= ran, f"C5: scheduled and never ran: {expected - ran}"
    assert ran <= expected, f"C5: ran without a committed schedule: {ran - expected}"


def _numbers(instance_ids: set[str]) -> set[int]:
    return {job.number for instance_id in instance_ids if (job := job_of(instance_id)) is not None}


async def read_events(evidence: Evidence, instance_id: str) -> list[HistoryEvent]:
    """The events of one instance, chain checked, of a hub that nobody serves."""
    store = open_store(evidence.url)
    await store.open(create=False)
    try:
        row = await store.get_instance(instance_id)
        assert row is not None, f"{instance_id} does not exist"
        return decode_rows(instance_id, row.execution_id, await store.read_history(instance_id))[0]
    finally:
        await store.close()
