"""The flat row changes that a store makes durable as one.

Rows are plain tuples of ints, strings and bytes: a store binds them as they are and never decodes an event. Instants
are microseconds since 1970 UTC.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import msgspec


class Unreadable(bytes):
    """Stands for bytes of a row that are there and cannot be read; written back, they are what they were.

    Attributes:
        why: A sentence for people.
    """

    why: str

    def __new__(cls, stored: bytes, why: str) -> Self:
        """Take what is stored, and why nobody can read it."""
        made = super().__new__(cls, stored)
        made.why = why
        return made


class HistoryRow(NamedTuple):
    """What one batch added to one execution.

    Attributes:
        execution: Number of the execution, unique in its hub and growing in its partition; 1 or more.
        seq: 0, 1, 2, … without gaps within the execution.
        at: Orchestration time of the newest turn in it.
        data: msgpack array of events, see `durably.core.events`.
        checksum: Covers `data` and the checksum of the row before; see `durably.core.history`.
    """

    execution: int
    seq: int
    at: int
    data: bytes
    checksum: bytes


class InstanceRow(NamedTuple):
    """The whole read model of an instance; written when an execution begins.

    `bases` is a JSON array of the numbers of executions that were rewound, whose history stays with the instance, or None.

    `updated_at` is the time of the last write of this row when written, and the newer one of that and the newest
    history row when read. `output`, `custom_status`, `input` are payloads; `failure` is msgpack of `FailureDetails`;
    `tags` is a JSON object text or None. `in_flight` marks what a recovery has to load. `start_at` is set while the
    instance is Pending for a scheduled start.
    """

    instance_id: str
    execution: int
    ordinal: int
    execution_id: str
    name: str
    version: str | None
    status: str
    created_at: int
    updated_at: int
    input: bytes | None
    output: bytes | None
    custom_status: bytes | None
    failure: bytes | None
    blocked: str | None
    parked: str | None
    in_flight: bool
    parent_instance_id: str | None
    tags: bytes | None
    start_at: int | None
    bases: bytes | None = None


class InstanceChange(NamedTuple):
    """New values of what changes during an execution; all fields are written."""

    instance_id: str
    status: str
    updated_at: int
    output: bytes | None
    custom_status: bytes | None
    failure: bytes | None
    blocked: str | None
    parked: str | None
    in_flight: bool
    start_at: int | None


class TimerKey(NamedTuple):
    """Identity of a timer. `kind` is one of the TIMER constants of `durably.core.messages`."""

    execution: int
    seq: int
    kind: int


class TimerRow(NamedTuple):
    """A timer that has not fired."""

    execution: int
    seq: int
    kind: int
    due_at: int
    instance_id: str


class InboxRow(NamedTuple):
    """A durable arrival that no history row has consumed yet.

    Attributes:
        message_id: Unique in the hub; a second one with the same id is the same message.
        instance_id: The instance it is addressed to.
        at: When it was accepted.
        body: msgpack of a message body.
        position: Given by the store, growing; 0 before it is stored. Not gapless, and not in commit order.
    """

    message_id: str
    instance_id: str
    at: int
    body: bytes
    position: int = 0


class Tombstone(NamedTuple):
    """The id of a message that was dealt with, kept so that a repeat of it is ignored and its sender learns the verdict.

    Attributes:
        message_id: The message.
        at: When it was dealt with.
        verdict: Empty: accepted. Else the error for its sender, see `durably.core.verdicts`.
    """

    message_id: str
    at: int
    verdict: bytes = b""


class ParkedMessage(NamedTuple):
    """A message that was set aside: it could not be read, nothing can be made of it, or it killed its process.

    Attributes:
        message_id: As in the inbox.
        instance_id: The instance it is addressed to, which need not exist.
        at: When it was accepted.
        body: Its bytes, as they came.
        cause: Why it was set aside, for people.
        parked_at: When.
        position: Given by the store, growing; 0 before it is stored.
    """

    message_id: str
    instance_id: str
    at: int
    body: bytes
    cause: str
    parked_at: int
    position: int = 0


class EntityRow(NamedTuple):
    """All that is stored of an entity; see `durably.core.entities.EntityState`.

    Attributes:
        instance_id: ``@name@key``.
        name: Of its class or function, in lower case.
        execution: Number of its timers.
        created_at: When it got its first row.
        updated_at: Of its last operation.
        state: Payload, or None: it is locked or waits for its time, and does not exist.
        version: Of the form of the state.
        locked_by: The orchestration that has it locked, or None.
        rest: msgpack of what else belongs to it.
        checksum: Covers id, state, version and `rest`.
    """

    instance_id: str
    name: str
    execution: int
    created_at: int
    updated_at: int
    state: bytes | None
    version: int
    locked_by: str | None
    rest: bytes
    checksum: bytes


class TaskRow(NamedTuple):
    """An attempt of an activity that any host of the hub may run.

    Attributes:
        task_id: See `durably.core.shared_tasks`; unique in the hub.
        instance_id: Whose call it is.
        name: The activity.
        at: When it was offered.
        body: msgpack of the call.
    """

    task_id: str
    instance_id: str
    name: str
    at: int
    body: bytes


class Removal(NamedTuple):
    """An instance that is deleted: its row, and history and timers of its current execution.

    Not its inbox: somebody may have posted a start, or what follows one, that the owner has not seen yet.
    """

    instance_id: str
    execution: int


class Batch(msgspec.Struct):
    """Commits of one partition that become durable together, or not at all.

    Applied in the order of the fields. `number` is one more than that of the batch before.

    Attributes:
        number: 1, 2, 3, … over the life of the partition, whoever owns it.
        removed: Instances to delete.
        history: Rows to append; a row that exists already means a broken invariant.
        executions_dropped: Executions whose history and timers are deleted (after the append: an execution may begin
            and end in one batch).
        instances: Rows to insert or to replace as a whole; the instance keeps its place in the order of creation.
        changes: Rows to update.
        entities: Rows of entities to insert or to replace.
        entities_removed: Entities to delete, with their timers.
        timers_set: Timers to insert.
        timers_cleared: Timers to delete; one that is not there is ignored.
        inbox_put: Messages to keep.
        inbox_consumed: Ids of messages to delete; one that is not there is ignored.
        tombstones: Ids to remember.
        tombstones_before: Tombstones older than this instant are deleted; 0 deletes none.
        parked: Messages to set aside; one that is there already is replaced.
        unparked: Ids of messages set aside that go back to the inbox, to its end and whatever the tombstones say; one that
            is not there is ignored.
        parked_dropped: Ids of messages set aside to delete; one that is not there is ignored.
        tasks_offered: Attempts that any host may run. Only where `Store.tasks` is not None.
        tasks_withdrawn: Ids of such attempts that nobody wants any more, claimed or not; one that is not there is ignored.
    """

    number: int
    removed: list[Removal] = []
    history: list[HistoryRow] = []
    executions_dropped: list[int] = []
    instances: list[InstanceRow] = []
    changes: list[InstanceChange] = []
    entities: list[EntityRow] = []
    entities_removed: list[Removal] = []
    timers_set: list[TimerRow] = []
    timers_cleared: list[TimerKey] = []
    inbox_put: list[InboxRow] = []
    inbox_consumed: list[str] = []
    tombstones: list[Tombstone] = []
    tombstones_before: int = 0
    parked: list[ParkedMessage] = []
    unparked: list[str] = []
    parked_dropped: list[str] = []
    tasks_offered: list[TaskRow] = []
    tasks_withdrawn: list[str] = []
