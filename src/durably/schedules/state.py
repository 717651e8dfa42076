"""What is stored of a schedule: the state of its entity. Bounded, however long it lives."""

from __future__ import annotations

from typing import Literal

import msgspec

from durably.errors import EntityCorruptError
from durably.schedules.spec import Spec

BUFFER_MAX = 1_000
"""Occurrences that wait until an instance ends; further ones are dropped, and counted."""
BACKFILLS_MAX = 100
RUNNING_MAX = 100
"""Running instances that are known; of more, which only ``allow`` starts, the oldest are forgotten."""
RECENT_MAX = 10

VERSION = 1
"""Of the form of the state."""

RunKind = Literal["scheduled", "manual", "backfill"]


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """An occurrence that is to run.

    Attributes:
        at: Its instant.
        kind: Who wants it.
        past_due: It is late, because nobody could see to it in time.
        instance_id: Of one that is no occurrence by the clock; None: `occurrence_id` says it.
    """

    at: int
    kind: RunKind = "scheduled"
    past_due: bool = False
    instance_id: str | None = None


class Running(msgspec.Struct, array_like=True):
    """An instance whose end has not been reported.

    Attributes:
        seq: Which start of the schedule it is.
        at: Of its occurrence.
        ordered: It was asked to end.
    """

    instance_id: str
    seq: int
    at: int
    ordered: bool = False


class Recent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An occurrence that ran.

    Attributes:
        at: Its instant.
        started_at: When it was started.
        seq: See `Running`.
        instance_id: None: an entity was signaled.
        status: How the instance ended, see `schedules.runs.ended`; None: it has not, or will not tell.
    """

    at: int
    started_at: int
    seq: int
    kind: RunKind = "scheduled"
    past_due: bool = False
    instance_id: str | None = None
    status: str | None = None


class Backfill(msgspec.Struct, array_like=True):
    """A past range that is to run.

    Attributes:
        cursor: What is up to here has been dealt with.
        until: Its end, included.
        at_once: Without waiting for one instance before the next is started.
    """

    cursor: int
    until: int
    at_once: bool


class Counts(msgspec.Struct, omit_defaults=True):
    """How many so far.

    Attributes:
        started: Instances started, or signals sent.
        failed: Instances that ended otherwise than Completed.
        skipped: Occurrences that the overlap policy left out.
        missed: Those that the catch-up policy left out; of more than `timing.COUNT_MAX` in a row, so many are counted.
        dropped: Those for which the buffer had no room.
    """

    started: int = 0
    failed: int = 0
    skipped: int = 0
    missed: int = 0
    dropped: int = 0


class ScheduleState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All of it. FORMAT: JSON; new fields have a default. Instants in microseconds since 1970 UTC.

    Attributes:
        spec: What was asked for.
        life: Random; what was started by a schedule of the same id before it was deleted is told apart by it.
        created_at: When it was created.
        updated_at: When its spec was given, paused or resumed last.
        anchor: Where an interval is counted from.
        cursor: Occurrences up to here have been dealt with.
        from_code: An app has declared it.
        declared: The newest host declares it.
        paused: No occurrence runs.
        note: Why, for people.
        seq: Starts so far.
        running: Instances whose end will be reported.
        buffer: Occurrences that wait for that.
        backfills: Ranges that are under way.
        recent: The newest starts, the last one last.
        counts: How many of everything.
        trouble: Why it cannot go on, or None.
    """

    spec: Spec
    life: str
    created_at: int
    updated_at: int
    anchor: int
    cursor: int
    from_code: bool = False
    declared: bool = False
    paused: bool = False
    note: str | None = None
    seq: int = 0
    running: list[Running] = []
    buffer: list[Pending] = []
    backfills: list[Backfill] = []
    recent: list[Recent] = []
    counts: Counts = msgspec.field(default_factory=Counts)
    trouble: str | None = None

    @property
    def busy(self) -> bool:
        """True while the next occurrence has to wait, unless it may run beside others."""
        return bool(self.running or (self.buffer and not self.paused))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ScheduleState).decode


def encode_state(state: ScheduleState) -> bytes:
    """For the row of the entity."""
    return _encode(state)


def decode_state(stored: bytes, schedule_id: str) -> ScheduleState:
    """The reverse of `encode_state`.

    Raises:
        EntityCorruptError: It is none.
    """
    try:
        return _decode(stored)
    except msgspec.MsgspecError as error:
        raise EntityCorruptError(
            f"The state of schedule '{schedule_id}' cannot be read ({error}): it was written by a newer version of durably, or "
            "damaged; update durably, or delete the schedule"
        ) from None
