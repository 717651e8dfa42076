"""What ``/api/v1`` says, as the rest of durably knows it. Fields that a later version adds are passed over.

What a credential may not see is not there; it is None here.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from durably.client.entities import EntityInfo
from durably.core import load as core
from durably.core.commit import InstanceRow
from durably.core.entities import EntityId
from durably.core.history import encode_failure
from durably.core.hosts import HostStatus
from durably.core.parked import ParkedKind, ParkedRow
from durably.core.timeline import HistoryEntry
from durably.errors import FailureDetails
from durably.program.durations import micros_of
from durably.schedules.description import ScheduleDescription, ScheduleRun
from durably.schedules.spec import CatchUp, Overlap
from durably.schedules.state import RunKind

_NULL = b"null"


class _Said(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is said."""


class Failure(_Said, frozen=True, kw_only=True):
    """Why something failed."""

    type: str
    message: str
    stack_trace: str | None = None
    inner: Failure | None = None
    bases: tuple[str, ...] = ()
    non_retryable: bool = False

    @property
    def details(self) -> FailureDetails:
        """The same."""
        inner = None if self.inner is None else self.inner.details
        return FailureDetails(
            self.type, self.message, self.stack_trace, inner, self.bases, self.non_retryable
        )


class Instance(_Said, frozen=True, kw_only=True):
    """An instance."""

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    status: str
    created_at: datetime
    updated_at: datetime
    start_at: datetime | None
    parent_instance_id: str | None
    tags: dict[str, str]
    stuck: Literal["blocked", "parked"] | None
    stuck_because: str | None = None
    custom_status: Raw = Raw(_NULL)
    failure: Failure | None = None
    input: Raw = Raw(_NULL)
    output: Raw = Raw(_NULL)

    @property
    def row(self) -> InstanceRow:
        """Its row. What is not told is as it is of an instance without it."""
        because = self.stuck_because or f"It is {self.stuck}"
        return InstanceRow(
            instance_id=self.instance_id,
            execution=0,
            ordinal=0,
            execution_id=self.execution_id,
            name=self.name,
            version=self.version,
            status=self.status,
            created_at=micros_of(self.created_at),
            updated_at=micros_of(self.updated_at),
            input=payload_in(self.input),
            output=payload_in(self.output),
            custom_status=payload_in(self.custom_status),
            failure=None if self.failure is None else encode_failure(self.failure.details),
            blocked=because if self.stuck == "blocked" else None,
            parked=because if self.stuck == "parked" else None,
            in_flight=False,
            parent_instance_id=self.parent_instance_id,
            tags=msgspec.json.encode(self.tags) if self.tags else None,
            start_at=None if self.start_at is None else micros_of(self.start_at),
        )


class InstancePage(_Said, frozen=True, kw_only=True):
    """A page of instances."""

    instances: list[Instance]
    next_cursor: str | None


class Started(_Said, frozen=True, kw_only=True):
    """An instance that was accepted."""

    instance_id: str


class Entry(_Said, frozen=True, kw_only=True):
    """An event of a history."""

    event_type: str
    timestamp: datetime
    task_id: int | None
    name: str | None
    input: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    details: dict[str, Any] = {}

    @property
    def entry(self) -> HistoryEntry:
        """The same."""
        return HistoryEntry(
            event_type=self.event_type,
            timestamp=self.timestamp,
            task_id=self.task_id,
            name=self.name,
            input=None if self.input is UNSET else bytes(self.input).decode(),
            result=None if self.result is UNSET else bytes(self.result).decode(),
            details=self.details,
        )


class History(_Said, frozen=True, kw_only=True):
    """A page of a history."""

    entries: list[Entry]
    next_cursor: str | None


class Why(_Said, frozen=True, kw_only=True):
    """What an instance waits for."""

    why: str


class Count(_Said, frozen=True, kw_only=True):
    """How many instances of one orchestrator have one status."""

    name: str
    status: str
    count: int


class Counts(_Said, frozen=True, kw_only=True):
    """How many instances there are."""

    counts: list[Count]


class Hub(_Said, frozen=True, kw_only=True):
    """The hub."""

    is_served: bool


class Host(_Said, frozen=True, kw_only=True):
    """A host."""

    id: str
    name: str
    durably_version: str
    since: datetime
    seen_at: datetime
    partitions: int
    is_draining: bool
    backlog: int = 0
    oldest_wait_s: float | None = None
    functions: tuple[str, ...] = ()

    @property
    def status(self) -> HostStatus:
        """The same, as a client shows it."""
        oldest = None if self.oldest_wait_s is None else timedelta(seconds=self.oldest_wait_s)
        return HostStatus(
            host_id=self.id,
            name=self.name,
            version=self.durably_version,
            since=self.since,
            seen_at=self.seen_at,
            partitions=self.partitions,
            draining=self.is_draining,
            backlog=self.backlog,
            oldest_wait=oldest,
            functions=self.functions,
        )


class Load(_Said, frozen=True, kw_only=True):
    """The load of a hub."""

    at: datetime
    hosts: int
    partitions: int
    unowned: int
    messages: int
    timers_due: int
    tasks: int
    activities: int
    running: int
    places: int
    in_flight: int
    oldest_wait_s: float | None = None
    held_at: datetime | None = None
    next_timer: datetime | None = None

    @property
    def load(self) -> core.HubLoad:
        """The same, as a client shows it."""
        said = msgspec.structs.asdict(self)
        oldest = said.pop("oldest_wait_s")
        return core.HubLoad(**said, oldest_wait=None if oldest is None else timedelta(seconds=oldest))


class Hosts(_Said, frozen=True, kw_only=True):
    """The hosts of a hub."""

    hosts: list[Host]


class Entity(_Said, frozen=True, kw_only=True):
    """An entity."""

    name: str
    key: str
    exists: bool
    updated_at: datetime
    locked_by: str | None
    locked_since: datetime | None
    scheduled: int
    waiting: int = 0
    lock_waiters: list[str] = []
    corrupt: str | None = None
    state: Raw | UnsetType = UNSET

    @property
    def info(self) -> EntityInfo:
        """The same."""
        return EntityInfo(
            entity_id=EntityId(self.name, self.key),
            state=None if self.state is UNSET else msgspec.json.decode(self.state),
            exists=self.exists,
            last_modified=self.updated_at,
            locked_by=self.locked_by,
            locked_since=self.locked_since,
            waiting=self.waiting,
            scheduled=self.scheduled,
            lock_waiters=self.lock_waiters,
            corrupt=self.corrupt,
        )


class EntityPage(_Said, frozen=True, kw_only=True):
    """A page of entities."""

    entities: list[Entity]
    next_cursor: str | None


class Called(_Said, frozen=True, kw_only=True):
    """What became of an operation."""

    result: Raw = Raw(_NULL)


class Trouble(_Said, frozen=True, kw_only=True):
    """The end of a stream that cannot go on."""

    status: int
    kind: str
    detail: str
    failure: Any = None


class Parked(_Said, frozen=True, kw_only=True):
    """A work item that was set aside."""

    kind: ParkedKind
    id: str
    instance_id: str
    since: datetime
    deliveries: int
    cause: str = "(not shown to this credential)"
    payload: Raw = Raw(_NULL)

    @property
    def row(self) -> ParkedRow:
        """The same. The bytes of a message come in Base64."""
        payload = payload_in(self.payload)
        if payload is not None and self.kind == "message":
            payload = base64.b64decode(msgspec.json.decode(payload, type=str))
        return ParkedRow(
            self.kind, self.id, self.instance_id, self.cause, payload, micros_of(self.since), self.deliveries
        )


class ParkedPage(_Said, frozen=True, kw_only=True):
    """A page of what is parked."""

    items: list[Parked]
    next_cursor: str | None


class ScheduleRunSaid(_Said, frozen=True, kw_only=True):
    """An occurrence that ran."""

    scheduled_time: datetime
    started_time: datetime
    instance_id: str | None
    kind: RunKind
    past_due: bool
    status: str | None


class Schedule(_Said, frozen=True, kw_only=True):
    """A schedule."""

    schedule_id: str
    orchestrator: str | None
    version: str | None
    tags: dict[str, str]
    entity: str | None
    operation: str | None
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
    recent: list[ScheduleRunSaid]
    input: Any = None
    trouble: str | None = None

    @property
    def description(self) -> ScheduleDescription:
        """The same."""
        said = msgspec.structs.asdict(self)
        entity = said.pop("entity")
        said["recent"] = [ScheduleRun(**msgspec.structs.asdict(run)) for run in self.recent]
        return ScheduleDescription(**said, entity_id=None if entity is None else EntityId.parse(entity))


class SchedulePage(_Said, frozen=True, kw_only=True):
    """A page of schedules."""

    schedules: list[Schedule]
    next_cursor: str | None


class Triggered(_Said, frozen=True, kw_only=True):
    """The instance that was started, or None."""

    instance_id: str | None


class Cleaned(_Said, frozen=True, kw_only=True):
    """What was cleaned."""

    released: int
    removed: int


def payload_in(said: Raw) -> bytes | None:
    """A payload as it is stored; none of them is null."""
    payload = bytes(said)
    return None if payload == _NULL else payload
