"""Residents: instances held in memory with their live code, and what waits for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

import msgspec

from durably.core.commit import InboxRow, InstanceRow
from durably.core.events import ExecutionStarted, HistoryEvent, ParentRef, Payload, TurnInterrupted
from durably.core.history import chain_start, decode_body, decode_failure, decode_rows, encode_body
from durably.core.instance import InstanceState, turn_deliveries
from durably.core.messages import MessageBody, StartInstance, unknown_call_of
from durably.core.orchestration import Commit
from durably.core.status import TERMINAL, RuntimeStatus
from durably.engine.executor import Run
from durably.errors import HistoryCorruptError, InvariantError
from durably.storage.api import StoredInstance

_RUNNING = RuntimeStatus.Running.value

_WITHOUT_START = (
    "It is Pending, and the message that starts it is not in its inbox: redrive that message if it was set aside, restore "
    "a backup, or terminate the instance and start it again"
)


class Delivery(msgspec.Struct, eq=False):
    """A message on its way to a resident.

    Attributes:
        target: The instance.
        body: What it says.
        reply: Whom to answer, with a result or an error, once the commit that dealt with it is durable; or None.
        row: Its id when it is (or is about to be) a row of the inbox, else None.
        stored: True once that row is part of a batch.
        at: When it was accepted, of one that came from the inbox.
    """

    target: str
    body: MessageBody
    reply: asyncio.Future[Payload] | None = None
    row: str | None = None
    stored: bool = False
    at: int | None = None


class Resident:
    """One instance in memory.

    Attributes:
        execution: Number of its current execution.
        execution_id: Id of that execution.
        ordinal: Which execution of the instance it is.
        state: What its history says.
        run: Its live code, or None until something arrives.
        history: Its events, kept only until `run` has been made of them.
        next_seq: Seq of its next history row.
        checksum: Of its newest history row.
        commit: What the batch that is gathering holds of it, or None.
        queue: Messages that wait for a turn.
        held: Messages that wait for it to be resumed, unblocked or started.
        is_new: Its row has not been written.
        written: Status, custom status and in-flight flag as its row has them.
        batches: Batches in flight that hold rows of it; it cannot be evicted meanwhile.
        blocked: Why code and history disagree, or None.
        parked: Why it was set aside, or None.
        detained: Its turn was running when a process died: what arrives waits until it may be tried again.
        pending: The start that is not due yet, or None.
        over: Its end is durable; whoever waited for it has been told.
        bases: Executions that were rewound; their rows stay as long as this one.
        stored: Its rows, of one that had ended when it was read, or whose history cannot be read; a rewind or a restart
            begins with them.
        turns: Turns it has had in the batch that is gathering.
        idle_since: Number of the pump that touched it last.
    """

    __slots__ = (
        "bases",
        "batches",
        "blocked",
        "checksum",
        "commit",
        "created_at",
        "detained",
        "execution",
        "execution_id",
        "held",
        "history",
        "idle_since",
        "instance_id",
        "is_new",
        "next_seq",
        "ordinal",
        "over",
        "parked",
        "pending",
        "queue",
        "run",
        "state",
        "stored",
        "turns",
        "written",
    )

    def __init__(
        self, instance_id: str, execution: int, ordinal: int, execution_id: str, created_at: int
    ) -> None:
        self.instance_id = instance_id
        self.execution = execution
        self.ordinal = ordinal
        self.execution_id = execution_id
        self.created_at = created_at
        self.state = InstanceState(instance_id)
        self.run: Run | None = None
        self.history: list[HistoryEvent] | None = None
        self.next_seq = 0
        self.checksum = chain_start(execution_id)
        self.commit: Commit | None = None
        self.queue: deque[Delivery] = deque()
        self.held: list[Delivery] = []
        self.is_new = True
        self.written: tuple[str, bytes | None, bool] = ("", None, False)
        self.batches = 0
        self.blocked: str | None = None
        self.parked: str | None = None
        self.detained = False
        self.pending: StartInstance | None = None
        self.over = False
        self.bases: tuple[int, ...] = ()
        self.stored: StoredInstance | None = None
        self.turns = 0
        self.idle_since = 0

    @property
    def closed(self) -> bool:
        """True when only an operator, a resume or a due start can make it move: what arrives is held."""
        return (
            self.state.suspended
            or self.blocked is not None
            or self.parked is not None
            or self.pending is not None
            or self.detained
        )

    @property
    def parent(self) -> ParentRef | None:
        """The call that waits for its result, or None."""
        source = self.state.started if self.state.started is not None else self.pending
        if source is None and self.stored is not None:
            source = _started(self.stored)
            if source is None:
                return unknown_call_of(self.stored.row.parent_instance_id)
        return None if source is None else source.parent

    @property
    def name(self) -> str | None:
        """Its orchestrator; None when its history cannot be read."""
        source = self.state.started if self.state.started is not None else self.pending
        if source is None:
            return None if self.stored is None else self.stored.row.name
        return source.name

    @property
    def normal(self) -> bool:
        """True when a result can be applied without further questions: the code is in memory and nothing is closed."""
        return (
            self.run is not None
            and self.state.status == _RUNNING
            and not self.state.continuing
            and self.blocked is None
            and self.parked is None
            and self.pending is None
        )

    @property
    def interrupted_turn(self) -> TurnInterrupted | None:
        """What counts against its next turn, of one whose code has not run since it came into memory; or None."""
        return turn_deliveries(self.history or ())

    @property
    def is_poisonous(self) -> bool:
        """True when it is parked, or may be, for what it does to its process: its history is as good as any."""
        return bool(self.state.poison()) or self.interrupted_turn is not None

    @property
    def is_unread_in_flight(self) -> bool:
        """True when its history is not in memory, and its row says that there is work in it: so it stays."""
        return self.parked is not None and self.stored is not None and self.stored.row.in_flight

    @property
    def idle(self) -> bool:
        """True when nothing but its rows would be lost by dropping it."""
        return not (
            self.queue
            or self.held
            or self.detained
            or self.commit is not None
            or self.batches
            or self.state.is_working
        )

    @property
    def lacks_start(self) -> bool:
        """True when it waits for its time, or its first turn, and nobody can read the message that starts it."""
        is_pending = self.state.status == RuntimeStatus.Pending.value
        return is_pending and self.stored is not None and self.pending is None

    def with_start(self, start: StartInstance) -> Resident | None:
        """The resident that it is with its start, and not parked any more; None when its history cannot be read either."""
        if self.stored is None:
            return None
        row = InboxRow("", self.instance_id, 0, encode_body(start))
        found = Resident.of(self.stored._replace(row=self.stored.row._replace(parked=None), inbox=[row]))
        return None if found.parked is not None else found

    def take_from(self, row: InstanceRow) -> None:
        """Stand for an instance whose history is not read: what its row says must survive the next write of it."""
        state = self.state = InstanceState(self.instance_id)
        state.status = row.status
        state.now = row.updated_at
        state.output = row.output
        state.custom_status = row.custom_status
        state.failure = decode_failure(row.failure)

    def read_history(self) -> None:
        """Know all that its rows say, of one that had ended when it was read.

        Raises:
            HistoryCorruptError: They cannot be read.
        """
        stored, self.stored = self.stored, None
        if stored is not None:
            events, self.checksum = decode_rows(self.instance_id, self.execution_id, stored.history)
            self.state = InstanceState.fold(self.instance_id, events)
            self.next_seq = len(stored.history)

    def begin_execution(self, execution: int, execution_id: str) -> None:
        """Turn to the next execution of the instance."""
        self.bases = ()
        self.execution = execution
        self.execution_id = execution_id
        self.ordinal += 1
        self.state = InstanceState(self.instance_id)
        self.next_seq = 0
        self.checksum = chain_start(execution_id)
        self.commit = None
        self.history = None
        self.is_new = True

    def close(self) -> None:
        """Tear its live code down."""
        if self.run is not None:
            self.run.close()
            self.run = None

    @classmethod
    def of(cls, stored: StoredInstance) -> Resident:
        """The resident that the rows describe. A history that cannot be read parks it; nothing of it is lost."""
        row = stored.row
        resident = cls(row.instance_id, row.execution, row.ordinal, row.execution_id, row.created_at)
        resident.is_new = False
        resident.written = (row.status, row.custom_status, row.in_flight)
        resident.blocked = row.blocked
        resident.parked = row.parked
        if row.bases is not None:
            resident.bases = decode_bases(row.bases)
        if row.status in TERMINAL:
            resident.over = True
            resident.take_from(row)  # its history is of no use to most who ask for it
            resident.stored = stored
            return resident
        if row.status == RuntimeStatus.Pending.value:
            pending = pending_start(stored.inbox, row.execution_id)
            if pending is None:
                resident._set_aside(stored, _WITHOUT_START)
                return resident
            # Its message may leave open what was decided when it came.
            resident.pending = msgspec.structs.replace(pending, version=row.version)
        if stored.oversize is not None:
            resident._set_aside(stored, stored.oversize)
            return resident
        try:
            events, resident.checksum = decode_rows(row.instance_id, row.execution_id, stored.history)
            resident.state = InstanceState.fold(row.instance_id, events)
            resident.history = events
            resident.next_seq = len(stored.history)
        except HistoryCorruptError as error:
            resident._set_aside(stored, str(error))
        except (InvariantError, KeyError, AttributeError) as error:
            cause = f"Its history makes no sense ({error}): restore a backup, or terminate the instance"
            resident._set_aside(stored, cause)
        return resident

    def _set_aside(self, stored: StoredInstance, cause: str) -> None:
        self.parked = cause
        self.take_from(stored.row)
        self.stored = stored


def encode_bases(bases: tuple[int, ...]) -> bytes | None:
    """For `InstanceRow.bases`."""
    return msgspec.json.encode(bases) if bases else None


def decode_bases(stored: bytes) -> tuple[int, ...]:
    """The reverse of `encode_bases`."""
    return msgspec.json.decode(stored, type=tuple[int, ...])


def _started(stored: StoredInstance) -> ExecutionStarted | None:
    """The first event of a history that was not folded; None when it cannot be read."""
    try:
        events, _ = decode_rows(stored.row.instance_id, stored.row.execution_id, stored.history[:1])
    except HistoryCorruptError:
        return None
    return next((event for event in events if isinstance(event, ExecutionStarted)), None)


def pending_start(inbox: list[InboxRow], execution_id: str) -> StartInstance | None:
    """The start that a scheduled instance keeps; others may lie before it, which came for an instance that was there."""
    starts: list[StartInstance] = []
    for row in inbox:
        with contextlib.suppress(msgspec.MsgspecError):  # the inbox sets it aside
            body = decode_body(row.body)
            if isinstance(body, StartInstance):
                starts.append(body)
    return next(
        (start for start in starts if start.execution_id == execution_id), starts[0] if starts else None
    )
