"""Schedules as users see them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from durably.core.commit import EntityRow
from durably.core.entities import EntityId, EntityState
from durably.core.timeline import instant
from durably.errors import InvalidScheduleError
from durably.schedules.spec import CatchUp, Overlap, SignalAction
from durably.schedules.state import Counts, Recent, RunKind, ScheduleState, decode_state
from durably.schedules.timing import Timing

_UPCOMING = 5

_decode_plain = msgspec.json.Decoder().decode


class ScheduleRun(msgspec.Struct, frozen=True, kw_only=True):
    """An occurrence of a schedule that ran.

    Attributes:
        scheduled_time: Its instant (aware, UTC); of one that was triggered, when.
        started_time: When it was started.
        instance_id: The instance, or None: an entity was signaled.
        kind: ``"scheduled"``, ``"manual"`` (`trigger`) or ``"backfill"``.
        past_due: It came late, because no host served the hub in time.
        status: ``"Completed"``, ``"Failed"``, ``"Canceled"`` or ``"Terminated"``; ``"AlreadyRan"``: there was an instance of
            this id, so it was not started again; None while it runs, and of signals.
    """

    scheduled_time: datetime
    started_time: datetime
    instance_id: str | None
    kind: RunKind
    past_due: bool
    status: str | None


class ScheduleDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule, as of its last committed change. All instants are aware, UTC.

    Attributes:
        schedule_id: Its id.
        orchestrator: What it starts, or None.
        version: Of the instances that it starts, or None.
        tags: Of these.
        entity_id: What it signals, or None.
        operation: What it asks the entity for, or None.
        input: Of either, as plain JSON data.
        cron: NCRONTAB, or None.
        interval: Or every so often.
        time_zone: IANA name.
        start_at: No occurrence before, or None.
        end_at: No occurrence behind, or None.
        jitter: Each occurrence comes later by up to so much.
        overlap: See `Schedules.create`.
        catch_up: The same.
        catch_up_window: The same.
        paused: No occurrence runs.
        note: Why it was paused or resumed, or None.
        origin: ``"code"``: an app declares it, or did; ``"client"``: only a client has created it.
        declared: The app of the newest host declares it. One that code does not declare any more goes on.
        trouble: Why it cannot go on, or None. One that cannot be read has nothing but this.
        created_time: When it was created.
        last_updated_time: When it was changed, paused or resumed last.
        next_time: Of its next occurrence; None when there is none, and while it is paused.
        upcoming: The next five.
        running: Instances that have not ended; the newest hundred.
        buffered: How many occurrences wait for the end of one.
        backfilling: How many backfills are under way.
        started: How many occurrences ran so far.
        failed: How many of their instances did not complete.
        skipped: How many occurrences the overlap policy left out.
        missed: How many the catch-up policy left out; of more than 1,000 in a row, 1,000 are counted.
        dropped: How many found 1,000 others waiting.
        recent: The ten newest runs, the newest one first.
    """

    schedule_id: str
    orchestrator: str | None
    version: str | None
    tags: dict[str, str]
    entity_id: EntityId | None
    operation: str | None
    input: Any
    cron: str | None
    interval: timedelta | None
    time_zone: str
    start_at: datetime | None
    end_at: datetime | None
    jitter: timedelta
    overlap: Overlap
    catch_up: CatchUp
    catch_up_window: timedelta | None
    paused: bool
    note: str | None
    origin: Literal["code", "client"]
    declared: bool
    trouble: str | None
    created_time: datetime
    last_updated_time: datetime
    next_time: datetime | None
    upcoming: list[datetime]
    running: list[str]
    buffered: int
    backfilling: int
    started: int
    failed: int
    skipped: int
    missed: int
    dropped: int
    recent: list[ScheduleRun]


class SchedulePage(msgspec.Struct, frozen=True):
    """One page of schedules.

    Attributes:
        schedules: In the order of their ids.
        continuation_token: Pass it to the same call for the next page; None when this is the last one.
    """

    schedules: list[ScheduleDescription]
    continuation_token: str | None = None


def state_of(row: EntityRow | None) -> ScheduleState | None:
    """The schedule in the row of its entity; None when there is none.

    Raises:
        EntityCorruptError: It cannot be read.
    """
    stored = None if row is None else EntityState.of(row).state
    if row is None or stored is None:
        return None
    return decode_state(stored, EntityId.parse(row.instance_id).key)


def describe(schedule_id: str, state: ScheduleState) -> ScheduleDescription:
    """A schedule for users."""
    spec, action, counts = state.spec, state.spec.action, state.counts
    signal = action if isinstance(action, SignalAction) else None
    start = None if isinstance(action, SignalAction) else action
    upcoming = _upcoming(state)
    return ScheduleDescription(
        schedule_id=schedule_id,
        orchestrator=None if start is None else start.name,
        version=None if start is None else start.version,
        tags={} if start is None else dict(start.tags or {}),
        entity_id=None if signal is None else EntityId.parse(signal.entity),
        operation=None if signal is None else signal.operation,
        input=None if action.input is None else _decode_plain(action.input),
        cron=spec.cron,
        interval=_length(spec.interval),
        time_zone=spec.time_zone,
        start_at=_instant(spec.start_at),
        end_at=_instant(spec.end_at),
        jitter=timedelta(microseconds=spec.jitter),
        overlap=spec.overlap,
        catch_up=spec.catch_up,
        catch_up_window=_length(spec.catch_up_window),
        paused=state.paused,
        note=state.note,
        origin="code" if state.from_code else "client",
        declared=state.declared,
        trouble=state.trouble,
        created_time=instant(state.created_at),
        last_updated_time=instant(state.updated_at),
        next_time=upcoming[0] if upcoming else None,
        upcoming=upcoming,
        running=[run.instance_id for run in state.running],
        buffered=len(state.buffer),
        backfilling=len(state.backfills),
        recent=[_run(recent) for recent in reversed(state.recent)],
        **_counted(counts),
    )


def describe_unreadable(schedule_id: str, row: EntityRow, why: str) -> ScheduleDescription:
    """A schedule whose row cannot be read, so that a list shows it with all others."""
    return ScheduleDescription(
        schedule_id=schedule_id,
        orchestrator=None,
        version=None,
        tags={},
        entity_id=None,
        operation=None,
        input=None,
        cron=None,
        interval=None,
        time_zone="UTC",
        start_at=None,
        end_at=None,
        jitter=timedelta(0),
        overlap="skip",
        catch_up="latest",
        catch_up_window=None,
        paused=False,
        note=None,
        origin="client",
        declared=False,
        trouble=why,
        created_time=instant(row.created_at),
        last_updated_time=instant(row.updated_at),
        next_time=None,
        upcoming=[],
        running=[],
        buffered=0,
        backfilling=0,
        recent=[],
        **_counted(Counts()),
    )


def _counted(counts: Counts) -> dict[str, int]:
    return msgspec.structs.asdict(counts)


def _upcoming(state: ScheduleState) -> list[datetime]:
    if state.paused:
        return []
    try:
        timing = Timing(state.spec, state.anchor)
    except InvalidScheduleError:  # its time zone is not known here
        return []
    found: list[datetime] = []
    moment = timing.after(state.cursor)
    while moment is not None and len(found) < _UPCOMING:
        found.append(instant(moment))
        moment = timing.after(moment)
    return found


def _run(recent: Recent) -> ScheduleRun:
    return ScheduleRun(
        scheduled_time=instant(recent.at),
        started_time=instant(recent.started_at),
        instance_id=recent.instance_id,
        kind=recent.kind,
        past_due=recent.past_due,
        status=recent.status,
    )


def _length(micros: int | None) -> timedelta | None:
    return None if micros is None else timedelta(microseconds=micros)


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else instant(micros)
