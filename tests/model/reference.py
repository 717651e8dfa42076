"""The reference model: what a hub does, as its clients see it.

Obvious code on dictionaries: one thing at a time, nothing is ever lost, nothing is replayed. Orchestrators are generators
that yield what they ask for; their twins for the real host are in `programs`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from durably import InstanceAlreadyExistsError
from tests.model.words import (
    OK,
    Again,
    All,
    Call,
    Canceled,
    Child,
    Code,
    Due,
    Failed,
    Failure,
    FirstOf,
    Open,
    Order,
    Outcome,
    Purge,
    Raise,
    SendEvent,
    SetStatus,
    Sleep,
    Start,
    StartOther,
    TaskDone,
    Wait,
)

ENDED = ("Completed", "Failed", "Canceled", "Terminated")

# --- state -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Action:
    seq: int
    op: Any
    done: int = 0  # 1 for what was done first in its execution, then 2, 3, …
    value: Any = None
    failure: Failure | None = None
    attempt: int = 1


@dataclass(eq=False)
class Execution:
    """One run of the code. `timers` holds when which action is due, `events` what came and was not waited for."""

    number: int
    code: Code
    open: dict[int, Action] = field(default_factory=dict)
    timers: dict[int, float] = field(default_factory=dict)
    events: list[Raise] = field(default_factory=list)
    history: list[tuple[str, int | None]] = field(default_factory=list)
    seq: int = 0
    completions: int = 0
    awaiting: tuple[str, list[Action]] | None = None
    again: Again | None = None


@dataclass(eq=False)
class Instance:
    instance_id: str
    serial: int
    start: Start
    input: Any
    created: float
    updated: float
    ordinal: int
    start_at: float | None
    execution: Execution | None = None
    status: str = "Pending"
    output: Any = None
    custom_status: Any = None
    failure: Failure | None = None
    reason: str | None = None
    held: list[Any] = field(default_factory=list)
    carried: list[Raise] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Model:
    """A hub. Times are in seconds since it was made."""

    def __init__(
        self, programs: dict[str, Callable[..., Code]], activities: dict[str, Callable[..., Any]]
    ) -> None:
        self.instances: dict[str, Instance] = {}  # in the order in which queries show them
        self.ends: dict[int, Outcome] = {}  # serial: what `Handle.result` returns or raises
        self.now = 0.0
        self._programs = programs
        self._activities = activities
        self._mailbox: deque[tuple[str, Any]] = deque()
        self._to_run: deque[tuple[str, Execution, int]] = deque()
        self._serial = 0
        self._executions = 0

    # --- commands ------------------------------------------------------------------------------------------------

    def give(self, instance_id: str, message: Any) -> Outcome:
        """Hand over one message; what follows from it elsewhere comes with `settle`."""
        instance = self.instances.get(instance_id)
        if isinstance(message, Start):
            return self._start(instance_id, instance, message)
        if isinstance(message, Purge):
            return self._purge(instance)
        if instance is None:
            return ("InstanceNotFoundError",)
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

    def settle(self) -> None:
        """Everything that follows: due timers, messages between instances, activities."""
        while True:
            due = sorted(self._due())
            for _, _, seq, instance_id, execution in due:
                self.give(instance_id, Due(execution, seq))
            if self._mailbox:
                self.give(*self._mailbox.popleft())
            elif self._to_run:
                self._run_activity(*self._to_run.popleft())
            elif not due:
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

    # --- begin and end -------------------------------------------------------------------------------------------

    def _start(self, instance_id: str, old: Instance | None, start: Start) -> Outcome:
        if old is not None:
            if start.on_existing == "attach":
                return OK
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

    def _begin(self, instance: Instance) -> None:
        execution = self._new_execution(instance)
        instance.status = "Running"
        self._go(instance, lambda: next(execution.code))
        while instance.carried and instance.execution is execution and not instance.ended:
            self._receive(instance, instance.carried.pop(0))

    def _new_execution(self, instance: Instance) -> Execution:
        self._executions += 1
        execution = Execution(self._executions, self._programs[instance.start.name](instance, instance.input))
        instance.execution = execution
        self._record(instance, "ExecutionStarted")
        return execution

    def _terminate(self, instance: Instance, reason: str | None) -> None:
        if instance.execution is None:  # it never began, and its history says so
            self._new_execution(instance)
        instance.output = reason
        failure = Failure("Terminated", reason or "the instance was terminated")
        self._end(instance, "Terminated", failure, cancel_children=False)

    def _end(
        self, instance: Instance, status: str, failure: Failure | None = None, *, cancel_children: bool = True
    ) -> None:
        execution = _running(instance)
        self._record(instance, f"Execution{status}")
        self._give_up_open(instance, cancel_children=cancel_children)
        instance.status = status
        instance.failure = failure
        instance.held = []
        instance.carried = []
        execution.code.close()
        if failure is None:
            self.ends[instance.serial] = ("ok", instance.output)
        else:
            self.ends[instance.serial] = ("OrchestrationFailedError", status, failure)
        if instance.start.parent is not None:
            parent, caller, seq = instance.start.parent
            self._mailbox.append((parent, TaskDone(caller, seq, instance.output, failure)))

    def _continue(self, instance: Instance, again: Again) -> None:
        self._give_up_open(instance, cancel_children=True)
        instance.carried = (_running(instance).events if again.keep_events else []) + instance.carried
        instance.ordinal += 1
        instance.input = again.input
        self._begin(instance)

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
            held, instance.held = instance.held, []
            self._give_all(instance, held)
        elif not (isinstance(message, Order) and message.verb == "suspend"):
            instance.held.append(message)

    def _give_all(self, instance: Instance, messages: list[Any]) -> None:
        for message in messages:
            if self.instances.get(instance.instance_id) is instance:
                self.give(instance.instance_id, message)

    def _receive(self, instance: Instance, message: Any) -> None:
        match message:
            case Raise():
                self._raised(instance, message)
            case Due():
                self._timer_due(instance, message)
            case TaskDone():
                self._task_done(instance, message)
            case Order(verb="suspend"):
                self._record(instance, "ExecutionSuspended")
                instance.status = "Suspended"
            case Order(verb="cancel"):
                if message.child_of is None or _is_child_of(instance, message.child_of):
                    self._cancel(instance, message.reason)
            case _:
                pass  # a resume of something that runs

    def _raised(self, instance: Instance, message: Raise) -> None:
        execution = _running(instance)
        self._record(instance, "EventRaised")
        for action in execution.open.values():
            if isinstance(action.op, Wait) and action.op.event.lower() == message.event.lower():
                self._complete(instance, action, message.data)
                return
        execution.events.append(message)

    def _timer_due(self, instance: Instance, message: Due) -> None:
        execution = _running(instance)
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
        execution = _running(instance)
        if execution is not message.execution or message.seq not in execution.open:
            return
        action = execution.open[message.seq]
        kind = _KINDS[type(action.op)]
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
        execution = _running(instance)
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
            value = self._activities[action.op.activity](action.op.input, action.attempt)
        except ValueError as error:
            self.give(instance_id, TaskDone(execution, seq, failure=Failure("ValueError", str(error))))
        else:
            self.give(instance_id, TaskDone(execution, seq, value))

    # --- code ----------------------------------------------------------------------------------------------------

    def _go(self, instance: Instance, step: Callable[[], Any]) -> None:
        """Run the code until it waits or ends."""
        execution = _running(instance)
        execution.awaiting = None
        try:
            while True:
                value, waits = self._asked(instance, execution, step())
                if waits:
                    return
                step = value
        except StopIteration as stop:
            if execution.again is not None:
                self._continue(instance, execution.again)
            else:
                instance.output = stop.value
                self._end(instance, "Completed")
        except Canceled:
            self._cancel_ends(instance, instance.reason)
        except Failed as error:
            self._end(instance, "Failed", error.failure)

    def _asked(self, instance: Instance, execution: Execution, op: Any) -> tuple[Any, bool]:
        """Do what the code asks for; how it goes on then, or True when it has to wait."""
        answer: Any = None
        match op:
            case SetStatus():
                instance.custom_status = op.value
                self._record(instance, "CustomStatusSet")
            case Again():
                execution.again = op
            case Open():
                self._open(instance, execution, op.op)
            case SendEvent():
                self._record(instance, "EventSent", self._number(execution))
                self._mailbox.append((op.target, Raise(op.event, op.data)))
            case StartOther():
                seq = self._number(execution)
                answer = f"{instance.instance_id}:{instance.ordinal}:{seq:04x}"
                self._record(instance, "OrchestrationStarted", seq)
                self._mailbox.append((answer, Start(op.name, op.input)))
            case All() | FirstOf():
                actions = [self._open(instance, execution, one) for one in op.ops]
                execution.awaiting = ("any" if isinstance(op, FirstOf) else "all", actions)
                return self._answer(execution), execution.awaiting is not None
            case _:
                execution.awaiting = ("one", [self._open(instance, execution, op)])
                return self._answer(execution), execution.awaiting is not None
        return (lambda: execution.code.send(answer)), False

    def _answer(self, execution: Execution) -> Callable[[], Any] | None:
        """How code that waits goes on, when what it waits for has come."""
        mode, actions = execution.awaiting or ("all", [])
        done = sorted((action for action in actions if action.done), key=lambda action: action.done)
        if (mode == "any" and not done) or (mode != "any" and len(done) < len(actions)):
            return None
        execution.awaiting = None
        failure = next((action.failure for action in done if action.failure is not None), None)
        if failure is not None and mode != "any":
            return lambda: execution.code.throw(Failed(failure))
        if mode == "any":
            return lambda: execution.code.send(actions.index(done[0]))
        values = [action.value for action in actions]
        return lambda: execution.code.send(values[0] if mode == "one" else values)

    def _open(self, instance: Instance, execution: Execution, op: Any) -> Action:
        action = Action(self._number(execution), op)
        execution.open[action.seq] = action
        match op:
            case Call():
                self._record(instance, "TaskScheduled", action.seq)
                self._to_run.append((instance.instance_id, execution, action.seq))
            case Child():
                self._record(instance, "SubOrchestrationInstanceCreated", action.seq)
                parent = (instance.instance_id, execution, action.seq)
                self._mailbox.append((_child_id(instance, action), Start(op.name, op.input, parent=parent)))
            case Sleep():
                self._record(instance, "TimerCreated", action.seq)
                execution.timers[action.seq] = self.now + op.seconds
            case _:
                self._record(instance, "EventAwaited", action.seq)
                for event in execution.events:
                    if event.event.lower() == op.event.lower():
                        execution.events.remove(event)
                        self._done(execution, action, event.data)
                        del execution.open[action.seq]
                        return action
                if op.timeout_s is not None:
                    execution.timers[action.seq] = self.now + op.timeout_s
        return action

    def _complete(
        self, instance: Instance, action: Action, value: Any, failure: Failure | None = None
    ) -> None:
        execution = _running(instance)
        self._done(execution, action, value, failure)
        del execution.open[action.seq]
        execution.timers.pop(action.seq, None)
        step = self._answer(execution)
        if step is not None:
            self._go(instance, step)

    def _done(self, execution: Execution, action: Action, value: Any, failure: Failure | None = None) -> None:
        execution.completions += 1
        action.done, action.value, action.failure = execution.completions, value, failure

    # --- small things --------------------------------------------------------------------------------------------

    def _cancel_ends(self, instance: Instance, reason: str | None) -> None:
        self._end(instance, "Canceled", Failure("CancelledError", reason or "the instance was canceled"))

    def _give_up_open(self, instance: Instance, *, cancel_children: bool) -> None:
        for action in list(_running(instance).open.values()):
            self._give_up(instance, action, cancel_children=cancel_children)

    def _give_up(self, instance: Instance, action: Action, *, cancel_children: bool) -> None:
        execution = _running(instance)
        del execution.open[action.seq]
        execution.timers.pop(action.seq, None)
        self._record(instance, f"{_KINDS[type(action.op)]}Canceled", action.seq)
        if isinstance(action.op, Child) and cancel_children:
            order = Order("cancel", "its caller gave it up", execution)
            self._mailbox.append((_child_id(instance, action), order))

    def _record(self, instance: Instance, event_type: str, seq: int | None = None) -> None:
        _running(instance).history.append((event_type, seq))
        instance.updated = self.now

    def _number(self, execution: Execution) -> int:
        execution.seq += 1
        return execution.seq - 1

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


_KINDS = {Call: "Task", Child: "SubOrchestrationInstance", Sleep: "Timer", Wait: "Task"}
"""What the entries of a history begin with."""


def _running(instance: Instance) -> Execution:
    assert instance.execution is not None
    return instance.execution


def _is_child_of(instance: Instance, execution: Execution) -> bool:
    return instance.start.parent is not None and instance.start.parent[1] is execution


def _child_id(instance: Instance, action: Action) -> str:
    return action.op.instance_id or f"{instance.instance_id}:{instance.ordinal}:{action.seq:04x}"


def _verb(message: Any) -> str:
    return message.verb if isinstance(message, Order) else "raise an event to"
