"""The reference model: what a hub does, as its clients see it.

Obvious code on dictionaries: one thing at a time, nothing is ever lost, nothing is replayed. Orchestrators are generators
that yield what they ask for; their twins for the real host are in `programs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from durably import InstanceAlreadyExistsError
from tests.model import sections
from tests.model.entities import Entities, Operation
from tests.model.lives import Lives
from tests.model.second_lives import go_back
from tests.model.state import KINDS, Entry, Execution, Instance, is_child_of, running
from tests.model.words import (
    OK,
    Answer,
    Call,
    Canceled,
    Code,
    Due,
    Failure,
    Granted,
    Order,
    Outcome,
    Purge,
    Raise,
    Restart,
    Start,
    TaskDone,
    Wait,
    WantedAgain,
)


class Model(Lives):
    """A hub. Times are in seconds since it was made."""

    def __init__(
        self,
        programs: dict[str, Callable[..., Code]],
        activities: dict[str, Callable[..., Any]],
        operations: dict[str, Operation] | None = None,
    ) -> None:
        super().__init__(programs)
        self.instances: dict[str, Instance] = {}  # in the order in which queries show them
        self.entities = Entities(operations or {}, self._send)
        self.broken = True
        self._activities = activities
        self._serial = 0

    # --- commands ------------------------------------------------------------------------------------------------

    def give(self, instance_id: str, message: Any) -> Outcome:
        """Hand over one message; what follows from it elsewhere comes with `settle`."""
        if instance_id.startswith("@"):
            return self.entities.give(instance_id, message, self.now, broken=self.broken)
        instance = self.instances.get(instance_id)
        if isinstance(message, Start):
            return self._start(instance_id, instance, message)
        if isinstance(message, Purge):
            return self._purge(instance)
        if isinstance(message, WantedAgain):
            return self._wanted_again(instance_id, instance, message)
        if instance is None:
            return ("InstanceNotFoundError",)
        if isinstance(message, Restart):
            return self._restart(instance)
        if isinstance(message, Order) and message.verb == "rewind":
            if instance.status != "Failed":
                return ("InstanceStateError", instance.status, "rewind")
            go_back(self, instance)
            return OK
        if isinstance(message, Answer) and instance.status == "Failed":
            self._receive(instance, message)  # it may be rewound
        if instance.ended:
            return ("InstanceStateError", instance.status, _verb(message))
        if isinstance(message, Order) and message.verb == "terminate":
            self._terminate(instance, message.reason)
        elif instance.status == "Pending":
            self._while_pending(instance, message)
        elif instance.status == "Suspended":
            self._while_suspended(instance, message)
        else:
            self._receive(instance, message)
        return OK

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def mend(self, broken: bool) -> None:
        """Whether brittle activities fail from now on."""
        self.broken = broken

    def settle(self) -> None:
        """Everything that follows: due timers, messages between instances, activities."""
        while True:
            due = sorted(self._due())
            for _, _, seq, instance_id, execution in due:
                self.give(instance_id, Due(execution, seq))
            rang = self.entities.ring(self.now, broken=self.broken)
            if self._mailbox:
                self.give(*self._mailbox.popleft())
            elif self._to_run:
                self._run_activity(*self._to_run.popleft())
            elif not due and not rang:
                return

    def result(self, instance_id: str) -> Outcome:
        """What `Handle.result(timeout=0)` returns or raises."""
        instance = self.instances.get(instance_id)
        if instance is None:
            return ("InstanceNotFoundError",)
        return self.ends.get(instance.serial, ("TimeoutError",))

    def query(
        self,
        *,
        name: str | None = None,
        statuses: tuple[str, ...] | None = None,
        prefix: str | None = None,
        tags: tuple[tuple[str, str], ...] = (),
        created_from: float | None = None,
        created_to: float | None = None,
    ) -> list[str]:
        return [
            one.instance_id
            for one in self.instances.values()
            if (name is None or one.start.name == name)
            and (statuses is None or one.status in statuses)
            and (prefix is None or one.instance_id.startswith(prefix))
            and set(tags) <= set(one.start.tags)
            and (created_from is None or one.created >= created_from)
            and (created_to is None or one.created <= created_to)
        ]

    def _due(self) -> list[tuple[float, int, int, str, Any]]:
        due: list[tuple[float, int, int, str, Any]] = []
        for one in self.instances.values():
            if one.status == "Pending" and one.start_at is not None and one.start_at <= self.now:
                due.append((one.start_at, -1, -1, one.instance_id, None))
            elif one.status == "Running" and one.execution is not None:
                for seq, at in one.execution.timers.items():
                    if at <= self.now:
                        due.append((at, one.execution.number, seq, one.instance_id, one.execution))
        return due

    # --- what only the hub decides -------------------------------------------------------------------------------

    def _start(self, instance_id: str, old: Instance | None, start: Start) -> Outcome:
        if old is not None:
            if start.on_existing == "attach":
                return OK if old.start.name == start.name else ("InstanceAlreadyExistsError", old.status)
            if start.on_existing == "fail" or (start.on_existing == "replace_finished" and not old.ended):
                if start.parent is not None:
                    error = InstanceAlreadyExistsError(instance_id, old.status)
                    parent, execution, seq = start.parent
                    failure = Failure("InstanceAlreadyExistsError", str(error))
                    self._mailbox.append((parent, TaskDone(execution, seq, failure=failure)))
                return ("InstanceAlreadyExistsError", old.status)
            if not old.ended:
                self._terminate(old, "replaced by a new start")
            del self.instances[instance_id]
        self._serial += 1
        start_at = None if start.delay_s is None else self.now + start.delay_s
        ordinal = 0 if old is None else old.ordinal + 1
        new = Instance(instance_id, self._serial, start, start.input, self.now, self.now, ordinal, start_at)
        self.instances[instance_id] = new
        if start_at is None or start_at <= self.now:
            self._begin(new)
        return OK

    def _restart(self, instance: Instance) -> Outcome:
        if not instance.ended:
            return ("InstanceStateError", instance.status, "restart")
        again = replace(
            instance.start, input=instance.input, delay_s=None, on_existing="replace_finished", parent=None
        )
        return self._start(instance.instance_id, instance, again)

    def _wanted_again(self, instance_id: str, child: Instance | None, message: WantedAgain) -> Outcome:
        wanted, held = message.start.parent, None if child is None else child.start.parent
        assert wanted is not None
        if child is not None and held is not None and held[0] == wanted[0] and held[2] == wanted[2]:
            if held[1] is wanted[1]:
                return OK  # it was done before
            if held[1] in message.former:
                if not child.ended:
                    return OK  # when it ends, its parent hears of it
                if child.status == "Completed":
                    self._mailbox.append((wanted[0], TaskDone(wanted[1], wanted[2], child.output)))
                    return OK
                if child.status == "Failed":
                    child.start = replace(child.start, parent=wanted)
                    go_back(self, child)
                    return OK
        return self._start(instance_id, child, message.start)

    def _purge(self, instance: Instance | None) -> Outcome:
        if instance is None:
            return ("ok", False)
        if not instance.ended:
            return ("InstanceStateError", instance.status, "purge")
        del self.instances[instance.instance_id]
        return ("ok", True)

    # --- messages ------------------------------------------------------------------------------------------------

    def _while_pending(self, instance: Instance, message: Any) -> None:
        if isinstance(message, Due):
            held, instance.held = instance.held, []
            self._begin(instance)
            self._give_all(instance, held)
        elif isinstance(message, Order) and message.verb == "cancel":
            self._new_execution(instance)
            self._cancel_ends(instance, message.reason)
        else:
            instance.held.append(message)

    def _while_suspended(self, instance: Instance, message: Any) -> None:
        if isinstance(message, Order) and message.verb == "resume":
            instance.status = "Running"
            self._record(instance, "ExecutionResumed")
            execution = running(instance)
            execution.log.append(Entry(len(execution.history) - 1, self.now, message))
            held, instance.held = instance.held, []
            self._give_all(instance, held)
        elif not (isinstance(message, Order) and message.verb == "suspend"):
            instance.held.append(message)

    def _give_all(self, instance: Instance, messages: list[Any]) -> None:
        for message in messages:
            if self.instances.get(instance.instance_id) is instance:
                self.give(instance.instance_id, message)

    def _receive(self, instance: Instance, message: Any) -> None:
        execution = running(instance)
        entry = Entry(len(execution.history), self.now, message)
        execution.log.append(entry)
        self._apply(instance, message)
        if len(execution.history) == entry.place:
            execution.log.remove(entry)  # nobody cared

    def _apply(self, instance: Instance, message: Any) -> None:
        match message:
            case Raise():
                self._raised(instance, message)
            case Due():
                self._timer_due(instance, message)
            case TaskDone():
                self._task_done(instance, message)
            case Answer():
                sections.answered(self, instance, message)
            case Granted():
                sections.granted(self, self._send, instance, message)
            case Order(verb="suspend"):
                self._record(instance, "ExecutionSuspended")
                instance.status = "Suspended"
            case Order(verb="cancel"):
                if message.child_of is None or is_child_of(instance, message.child_of):
                    self._cancel(instance, message.reason)
            case _:
                pass  # a resume of something that runs

    def _raised(self, instance: Instance, message: Raise) -> None:
        execution = running(instance)
        self._record(instance, "EventRaised")
        for action in execution.open.values():
            if isinstance(action.op, Wait) and action.op.event.lower() == message.event.lower():
                self._complete(instance, action, message.data)
                return
        execution.events.append(message)

    def _timer_due(self, instance: Instance, message: Due) -> None:
        execution = running(instance)
        if execution is not message.execution or message.seq not in execution.timers:
            return
        action = execution.open[message.seq]
        del execution.timers[message.seq]
        if isinstance(action.op, Call):
            action.attempt += 1
            self._record(instance, "TaskAttemptStarted", action.seq)
            self._to_run.append((instance.instance_id, execution, action.seq))
            return
        self._record(instance, "TimerFired", action.seq)
        self._complete(instance, action, action.op.default if isinstance(action.op, Wait) else None)

    def _task_done(self, instance: Instance, message: TaskDone) -> None:
        execution = running(instance)
        if message.seq not in execution.open:
            return
        action = execution.open[message.seq]
        if execution is not message.execution:
            if message.seq >= execution.former.get(message.execution, 0):
                return
            if message.failure is not None:
                self.want_again(instance, action)
                return
        kind = KINDS[type(action.op)]
        if message.failure is None:
            self._record(instance, f"{kind}Completed", action.seq)
            self._complete(instance, action, message.value)
        elif isinstance(action.op, Call) and action.attempt < action.op.attempts:
            self._record(instance, "TaskAttemptFailed", action.seq)
            execution.timers[action.seq] = self.now + 2.0 ** (action.attempt - 1)
        else:
            self._record(instance, f"{kind}Failed", action.seq)
            name = action.op.activity if isinstance(action.op, Call) else action.op.name
            cause = message.failure
            text = f"Task '{name}' (#{action.seq}) failed: {cause.type}: {cause.message}"
            self._complete(instance, action, None, Failure("TaskFailedError", text, cause))

    def _cancel(self, instance: Instance, reason: str | None) -> None:
        execution = running(instance)
        self._record(instance, "CancelRequested")
        instance.reason = reason
        mode, actions = execution.awaiting or ("all", [])
        if mode != "any":
            for action in actions:
                if not action.done:
                    self._give_up(instance, action, cancel_children=True)
        self._go(instance, lambda: execution.code.throw(Canceled()))

    def _run_activity(self, instance_id: str, execution: Execution, seq: int) -> None:
        action = execution.open.get(seq)
        if action is None or not isinstance(action.op, Call):
            return
        try:
            value = self._activities[action.op.activity](action.op.input, action.attempt, self.broken)
        except ValueError as error:
            self.give(instance_id, TaskDone(execution, seq, failure=Failure("ValueError", str(error))))
        else:
            self.give(instance_id, TaskDone(execution, seq, value))


def _verb(message: Any) -> str:
    return message.verb if isinstance(message, Order) else "raise an event to"
