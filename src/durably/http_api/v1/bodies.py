"""What ``/api/v1`` says and takes, as structs: the description of the API is made of them.

A field for people who may see payloads is not there for others.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

T = TypeVar("T")

Hidden: TypeAlias = T | UnsetType

Status = Literal[
    "Pending", "Running", "Suspended", "Completed", "Failed", "Canceled", "Terminated", "ContinuedAsNew"
]

Instant = Annotated[datetime, Meta(tz=True)]

Tags = dict[str, str]


class _Shown(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is said."""


class Failure(_Shown, frozen=True, kw_only=True):
    """Why something failed. `bases`: qualified names of the class of the error and of its bases."""

    type: str
    message: str
    stack_trace: str | None = None
    inner: Failure | None = None
    bases: tuple[str, ...] = ()
    non_retryable: bool = False


class Instance(_Shown, frozen=True, kw_only=True):
    """An instance, as committed.

    Attributes:
        stuck: Whether it is blocked (code and history disagree) or parked (set aside).
        stuck_because: Why, for who may see payloads.
        compensating: It undoes the steps of a saga.
        custom_status: For who may see payloads, like input, output and failure.
    """

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    status: Status
    created_at: Instant
    updated_at: Instant
    start_at: Instant | None
    parent_instance_id: str | None
    tags: Tags
    compensating: bool
    stuck: Literal["blocked", "parked"] | None
    stuck_because: Hidden[str | None] = UNSET
    custom_status: Hidden[Raw] = UNSET
    failure: Hidden[Failure | None] = UNSET
    input: Hidden[Raw] = UNSET
    output: Hidden[Raw] = UNSET


class InstancePage(_Shown, frozen=True, kw_only=True):
    """A page. While `nextCursor` is there, more may follow, also behind a page that is short or empty."""

    instances: list[Instance]
    next_cursor: str | None


class Started(_Shown, frozen=True, kw_only=True):
    """An instance that was accepted."""

    instance_id: str


class Entry(_Shown, frozen=True, kw_only=True):
    """An event of a history. `number` counts from 1."""

    number: int
    event_type: str
    timestamp: Instant
    task_id: int | None
    name: str | None
    input: Hidden[Raw] = UNSET
    result: Hidden[Raw] = UNSET
    details: Hidden[dict[str, Any]] = UNSET


class History(_Shown, frozen=True, kw_only=True):
    """Events of the current execution."""

    execution_id: str
    entries: list[Entry]
    next_cursor: str | None


class Execution(_Shown, frozen=True, kw_only=True):
    """An event: an execution, whose history follows from its beginning."""

    execution_id: str


class Ended(_Shown, frozen=True, kw_only=True):
    """An event: the instance has ended, and nothing follows."""

    status: Status


class Gone(_Shown, frozen=True, kw_only=True):
    """An event: the instance was purged, and nothing follows."""

    instance_id: str


class Trouble(_Shown, frozen=True, kw_only=True):
    """An event: the stream cannot go on. As a problem would say it."""

    status: int
    kind: str
    detail: str
    failure: Hidden[Failure] = UNSET


class Why(_Shown, frozen=True, kw_only=True):
    """What an instance waits for, or how it ended, in a sentence."""

    instance_id: str
    why: str


class Count(_Shown, frozen=True, kw_only=True):
    """How many instances of one orchestrator have one status."""

    name: str
    status: Status
    count: int


class Counts(_Shown, frozen=True, kw_only=True):
    """How many instances there are."""

    total: int
    by_status: dict[str, int]
    by_name: dict[str, int]
    counts: list[Count]


class BulkSummary(_Shown, frozen=True, kw_only=True):
    """How far a bulk operation is, or was. `errors` holds at most 1,000 ids with reasons."""

    operation: str
    dry_run: bool
    matched: int
    done: int
    failed: int
    errors: Hidden[dict[str, str]] = UNSET


class Entity(_Shown, frozen=True, kw_only=True):
    """An entity, as of its last committed operation.

    Attributes:
        waiting: How many messages wait for it; said only where one entity is asked for.
        lock_waiters: The instances that wait to lock it, in their order; likewise.
        corrupt: Why its row cannot be read, for who may see payloads, like the state.
    """

    name: str
    key: str
    exists: bool
    updated_at: Instant
    locked_by: str | None
    locked_since: Instant | None
    scheduled: int
    waiting: Hidden[int] = UNSET
    lock_waiters: Hidden[list[str]] = UNSET
    corrupt: Hidden[str | None] = UNSET
    state: Hidden[Any] = UNSET


class EntityPage(_Shown, frozen=True, kw_only=True):
    """A page of entities, in the order of their ids."""

    entities: list[Entity]
    next_cursor: str | None


class Cleaned(_Shown, frozen=True, kw_only=True):
    """Locks that were released, and how many of their entities did not exist."""

    released: int
    removed: int


class Called(_Shown, frozen=True, kw_only=True):
    """What became of an operation; `done` false: it goes on, or waits, and may be performed later."""

    done: bool
    result: Hidden[Raw] = UNSET


class Parked(_Shown, frozen=True, kw_only=True):
    """A work item that was set aside. `deliveries`: how often it ran when its process died."""

    kind: Literal["instance", "message"]
    id: str
    instance_id: str
    since: Instant
    deliveries: int
    cause: Hidden[str] = UNSET
    payload: Hidden[Any] = UNSET


class ParkedPage(_Shown, frozen=True, kw_only=True):
    """A page: instances first, then messages."""

    items: list[Parked]
    next_cursor: str | None


class ScheduleRun(_Shown, frozen=True, kw_only=True):
    """An occurrence that ran; `instanceId` null: an entity was signalled."""

    scheduled_time: Instant
    started_time: Instant
    instance_id: str | None
    kind: str
    past_due: bool
    status: str | None


class Schedule(_Shown, frozen=True, kw_only=True):
    """A schedule, as of its last committed change. `entity` and `operation`, where it signals one."""

    schedule_id: str
    orchestrator: str | None
    version: str | None
    tags: Tags
    entity: str | None
    operation: str | None
    cron: str | None
    interval: timedelta | None
    time_zone: str
    start_at: Instant | None
    end_at: Instant | None
    jitter: timedelta
    overlap: str
    catch_up: str
    catch_up_window: timedelta | None
    paused: bool
    note: str | None
    origin: Literal["code", "client"]
    declared: bool
    created_time: Instant
    last_updated_time: Instant
    next_time: Instant | None
    upcoming: list[Instant]
    running: list[str]
    buffered: int
    backfilling: int
    started: int
    failed: int
    skipped: int
    missed: int
    dropped: int
    recent: list[ScheduleRun]
    input: Hidden[Any] = UNSET
    trouble: Hidden[str | None] = UNSET


class SchedulePage(_Shown, frozen=True, kw_only=True):
    """A page of schedules."""

    schedules: list[Schedule]
    next_cursor: str | None


class Triggered(_Shown, frozen=True, kw_only=True):
    """The instance that was started, or waits for the end of another; null: none."""

    instance_id: str | None


class Hub(_Shown, frozen=True, kw_only=True):
    """The hub, and what its host runs."""

    name: str
    is_served: bool
    now: Instant
    durably_version: str
    orchestrators: list[str]
    activities: list[str]
    entities: list[str]


class Host(_Shown, frozen=True, kw_only=True):
    """A process that serves the hub."""

    id: str
    name: str
    durably_version: str
    since: Instant
    seen_at: Instant
    partitions: int
    is_draining: bool
    backlog: int
    oldest_wait_s: float | None
    functions: list[str]


class Load(_Shown, frozen=True, kw_only=True):
    """How much there is to do. Numbers of messages, timers and instances end at 5,000.

    Attributes:
        unowned: Partitions that no live host owns.
        messages: That nobody has dealt with, but for those to instances that are held.
        timers_due: That have not fired, likewise.
        tasks: Activities in the queue of all hosts that nobody has claimed.
        activities: That wait for a place in a host.
        running: Activities that run.
        places: Activities that may run at once.
        in_flight: Instances with an activity, a child or a call of an entity under way.
        held_at: When the newest message to an instance that is held (suspended, blocked, parked, not to begin yet) came.
        recommended_hosts: How many hosts the hub should have; 0: nothing needs one now, nor soon.
    """

    at: Instant
    hosts: int
    partitions: int
    unowned: int
    messages: int
    timers_due: int
    tasks: int
    activities: int
    running: int
    places: int
    backlog: int
    in_flight: int
    oldest_wait_s: float | None
    held_at: Instant | None
    next_timer: Instant | None
    recommended_hosts: int


class Hosts(_Shown, frozen=True, kw_only=True):
    """The hosts of a hub: one, where it is a file."""

    hosts: list[Host]
