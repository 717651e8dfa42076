"""What an orchestrator may know of itself: who it is, what time it is, chance, and its log."""

from __future__ import annotations

import random
import uuid
from datetime import datetime, timedelta
from typing import Final, TypeVar

from durably.codec.convert import Converter
from durably.core.entities import is_entity
from durably.core.events import ContinuedAsNew, ExecutionStarted
from durably.core.external_events import EventMatcher
from durably.core.ids import INSTANCE_ID_CHARS_MAX, check_instance_id, child_id
from durably.core.timeline import instant
from durably.errors import InvalidIdError
from durably.program.decisions import Decisions
from durably.program.durations import micros_of, microseconds
from durably.program.futures import LoopFuture
from durably.program.loop import ProgramLoop
from durably.program.registry import Registry
from durably.program.replay_logger import ReplaySafeLogger
from durably.program.tasks import DurableTask

_NAMESPACE: Final = uuid.UUID("6f3f9f52-1c5e-5b0e-8a35-0c8f0f1f6d1b")
"""Of `new_uuid`. Never change it: ids of running instances would change under them."""

_Task = TypeVar("_Task", bound=DurableTask)


class Identity:
    """The part of the context that asks for nothing.

    Attributes:
        instance_id: The id of the instance.
        execution_id: The id of this execution; a new one after each continue-as-new, the same after a rewind.
        name: The name of the orchestrator.
        version: The version the instance was started with, or None.
        parent_instance_id: The orchestration that waits for the result, or None.
        tags: What the caller set at start.
        next_execution: What `continue_as_new` asked for last, or None. For the engine.
    """

    __slots__ = (
        "_converter",
        "_decisions",
        "_logger",
        "_loop",
        "_matcher",
        "_ordinal",
        "_random",
        "_registry",
        "_uuids",
        "execution_id",
        "instance_id",
        "name",
        "next_execution",
        "parent_instance_id",
        "tags",
        "version",
    )

    def __init__(
        self,
        started: ExecutionStarted,
        loop: ProgramLoop,
        matcher: EventMatcher,
        registry: Registry,
        converter: Converter,
    ) -> None:
        self.instance_id = started.instance_id
        self.execution_id = started.origin
        self.name = started.name
        self.version = started.version
        parent = None if started.parent is None else started.parent.instance_id
        self.parent_instance_id = (
            None if parent is None or is_entity(parent) else parent
        )  # a schedule is none
        self.tags: dict[str, str] = dict(started.tags) if started.tags else {}
        self.next_execution: ContinuedAsNew | None = None
        self._ordinal = started.ordinal
        self._loop = loop
        self._decisions: Decisions = loop.decisions
        self._matcher = matcher
        self._registry = registry
        self._converter = converter
        self._random: random.Random | None = None
        self._logger: ReplaySafeLogger | None = None
        self._uuids = 0

    # --- time, chance, log -------------------------------------------------------------------------------------------

    @property
    def is_replaying(self) -> bool:
        """True while recorded history is applied, False as soon as the code runs for the first time."""
        return self._loop.is_replaying

    @property
    def current_utc_datetime(self) -> datetime:
        """Orchestration time: aware, UTC, constant within a turn, the same on every replay."""
        self._decisions.check()
        return instant(self._loop.now)

    @property
    def logger(self) -> ReplaySafeLogger:
        """A logger that writes each line once, however often the code is replayed.

        It writes at once, before the turn is durable: when the process dies in between, the turn runs again and so do its
        lines. Records have ``instance_id`` and ``orchestrator`` as extra fields.
        """
        if self._logger is None:
            extra: dict[str, object] = {"instance_id": self.instance_id, "orchestrator": self.name}
            self._logger = ReplaySafeLogger(self._loop, self._decisions, extra)
        return self._logger

    @property
    def random(self) -> random.Random:
        """Chance that is the same on every replay, and another one in each instance and execution. Not for secrets."""
        self._decisions.check()
        if self._random is None:
            self._random = random.Random(f"{self.instance_id}:{self.execution_id}")  # noqa: S311 - not for secrets
        return self._random

    def new_uuid(self) -> uuid.UUID:
        """An id that is the same on every replay, and unique otherwise."""
        self._decisions.check()
        self._uuids += 1
        return uuid.uuid5(_NAMESPACE, f"{self.instance_id}:{self.execution_id}:{self._uuids}")

    # --- for the calls -----------------------------------------------------------------------------------------------

    def _open(self, task: _Task, seq: int) -> _Task:
        loop, decisions = self._loop, self._decisions
        loop.number = task.number = loop.number + 1
        task.decisions = decisions
        task.seq = seq
        decisions.open[seq] = task
        return task

    def _done(self, value: object) -> LoopFuture:
        future = self._loop.create_future()
        future.set_result(value)
        return future

    def _child_id(self) -> str:
        made = child_id(self.instance_id, self._ordinal, self._decisions.upcoming)
        if len(made) > INSTANCE_ID_CHARS_MAX:
            raise InvalidIdError(
                f"Instance id '{made[:40]}…' of a child has {len(made)} characters: expected {INSTANCE_ID_CHARS_MAX} at most; "
                "pass instance_id='…', or nest less deeply"
            )
        return made

    def _check_child(self, instance_id: str) -> str:
        check_instance_id(instance_id)
        if instance_id in (self.instance_id, self.parent_instance_id):
            raise InvalidIdError(
                f"Instance id '{instance_id}' belongs to this instance or its parent, which is running: expected another one"
            )
        return instance_id

    def _instant(self, value: datetime | timedelta | float, what: str) -> int:
        if isinstance(value, datetime):
            return micros_of(value)
        return self._loop.now + microseconds(value, what, least=-(10**15))
