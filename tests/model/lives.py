"""How instances of the reference model begin, run their code, and end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from tests.model import sections
from tests.model.state import KINDS, Action, Execution, Instance, child_id, running
from tests.model.words import (
    Again,
    All,
    Call,
    CallEntity,
    Canceled,
    Child,
    Code,
    Failed,
    Failure,
    FirstOf,
    Join,
    Lock,
    Open,
    Operate,
    Order,
    Outcome,
    Raise,
    SendEvent,
    SetStatus,
    SignalEntity,
    Sleep,
    Start,
    StartOther,
    TaskDone,
    Unlock,
    WantedAgain,
)


class Lives:
    """The part of a hub that runs code. What it sends and what is to be run waits until somebody settles it."""

    def __init__(self, programs: dict[str, Callable[..., Code]]) -> None:
        self.now = 0.0
        self.ends: dict[int, Outcome] = {}  # serial: what `Handle.result` returns or raises
        self._programs = programs
        self._mailbox: deque[tuple[str, Any]] = deque()
        self._to_run: deque[tuple[str, Execution, int]] = deque()
        self._executions = 0
        self.is_shadow = False

    def _send(self, target: str, message: Any) -> None:
        self._mailbox.append((target, message))

    def _receive(self, instance: Instance, message: Any) -> None:
        """Give a running instance a message."""
        raise NotImplementedError

    # --- begin and end -------------------------------------------------------------------------------------------

    def _begin(self, instance: Instance) -> None:
        execution = self._new_execution(instance)
        instance.status = "Running"
        self._go(instance, lambda: next(execution.code))
        while instance.carried and instance.execution is execution and not instance.ended:
            self._receive(instance, instance.carried.pop(0))

    def _new_execution(self, instance: Instance) -> Execution:
        self._executions += 1
        code = self._programs[instance.start.name](instance, instance.input)
        execution = Execution(self._executions, code, begun=self.now)
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
        execution = running(instance)
        self._record(instance, f"Execution{status}")
        self._give_up_open(instance, cancel_children=cancel_children)
        sections.release(self._send, instance)
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

    def _cancel_ends(self, instance: Instance, reason: str | None) -> None:
        self._end(instance, "Canceled", Failure("CancelledError", reason or "the instance was canceled"))

    def _continue(self, instance: Instance, again: Again) -> None:
        self._give_up_open(instance, cancel_children=True)
        sections.release(self._send, instance)
        instance.carried = (running(instance).events if again.keep_events else []) + instance.carried
        instance.ordinal += 1
        instance.input = again.input
        self._begin(instance)

    # --- code ----------------------------------------------------------------------------------------------------

    def _go(self, instance: Instance, step: Callable[[], Any]) -> None:
        """Run the code until it waits or ends."""
        execution = running(instance)
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
            execution.cause = error.seq
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
                answer = self._open(instance, execution, op.op)
            case Join():
                execution.awaiting = ("one", [op.action])
                return self._answer(execution), execution.awaiting is not None
            case SendEvent():
                self._record(instance, "EventSent", self._number(execution))
                self._mailbox.append((op.target, Raise(op.event, op.data)))
            case StartOther():
                seq = self._number(execution)
                answer = f"{instance.instance_id}:{instance.ordinal}:{seq:04x}"
                self._record(instance, "OrchestrationStarted", seq)
                self._mailbox.append((answer, Start(op.name, op.input)))
            case SignalEntity():
                self._record(instance, "EntityOperationSignaled", self._number(execution))
                due_at = None if op.delay_s is None else self.now + op.delay_s
                self._send(op.entity, Operate(op.operation, op.input, due_at=due_at))
            case Unlock():
                self._record(instance, "EntityUnlockSent", sections.leave(self._send, instance))
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
        failed = next((action for action in done if action.failure is not None), None)
        if failed is not None and failed.failure is not None and mode != "any":
            error = Failed(failed.failure, failed.seq)
            return lambda: execution.code.throw(error)
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
                self._mailbox.append((child_id(instance, action), Start(op.name, op.input, parent=parent)))
            case CallEntity():
                self._record(instance, "EntityOperationCalled", action.seq)
                sections.call(self._send, instance, action)
            case Lock():
                self._record(instance, "EntityLockRequested", action.seq)
                sections.lock(self._send, instance, action)
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
        execution = running(instance)
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

    def want_again(self, instance: Instance, action: Action) -> None:
        """The result of a child that the execution before has called."""
        execution = running(instance)
        start = Start(action.op.name, action.op.input, parent=(instance.instance_id, execution, action.seq))
        former = tuple(one for one, until in execution.former.items() if action.seq < until)
        self._mailbox.append((child_id(instance, action), WantedAgain(start, former)))

    def _give_up_open(self, instance: Instance, *, cancel_children: bool) -> None:
        for action in list(running(instance).open.values()):
            self._give_up(instance, action, cancel_children=cancel_children)

    def _give_up(self, instance: Instance, action: Action, *, cancel_children: bool) -> None:
        execution = running(instance)
        del execution.open[action.seq]
        execution.timers.pop(action.seq, None)
        self._record(instance, f"{KINDS[type(action.op)]}Canceled", action.seq)
        if isinstance(action.op, Lock):
            sections.release(self._send, instance)
        if isinstance(action.op, Child) and cancel_children:
            order = Order("cancel", "its caller gave it up", execution)
            self._mailbox.append((child_id(instance, action), order))

    def _record(self, instance: Instance, event_type: str, seq: int | None = None) -> None:
        running(instance).history.append((event_type, seq))
        instance.updated = self.now

    def _number(self, execution: Execution) -> int:
        execution.seq += 1
        return execution.seq - 1
