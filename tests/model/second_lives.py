"""The reference model of a rewind: the code is run once more over what it was told, in a world where nothing has effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.model import sections
from tests.model.state import Entry, Execution, Instance
from tests.model.words import Answer, Call, Child, Due, Granted, Order, Raise, TaskDone

if TYPE_CHECKING:
    from tests.model.reference import Model


@dataclass(frozen=True)
class Shifted:
    """A rewind, as the log has it: timers are due so much later, but for those that are about to fire."""

    seconds: float
    late: frozenset[Any]


def go_back(model: Model, instance: Instance) -> None:
    """Let a failed instance go on from before its failure."""
    old = instance.execution
    assert old is not None
    failures = {
        old.history[entry.place][1]: at
        for at, entry in enumerate(old.log)
        if old.history[entry.place][0]
        in ("TaskFailed", "SubOrchestrationInstanceFailed", "EntityOperationFailed")
    }
    cut = failures.get(old.cause, min(failures.values(), default=None))
    if cut is None:
        cut = _last_seen(old)
    place = 1 if cut is None else old.log[cut].place
    known = {seq for kind, seq in old.history[:place] if seq is not None} if cut is not None else set()
    void = {seq for seq, at in failures.items() if cut is not None and at >= cut and seq in known}
    late = [] if cut is None else [entry.message for entry in old.log[cut:] if _is_late(old, entry, known)]
    execution = _once_more(
        model, instance, old, [] if cut is None else old.log[:cut], void, ran=cut is not None
    )
    shift = model.now - (old.begun if cut is None else old.log[cut].now)
    late_seqs = frozenset(message.seq for message in late if not isinstance(message, Raise))
    until = execution.seq
    execution.former = {one: min(end, until) for one, end in old.former.items()} | {old: until}
    instance.status, instance.output, instance.failure = "Running", None, None
    del model.ends[instance.serial]
    _shift(model, instance, Shifted(shift, late_seqs))
    if cut is None:
        model._go(instance, lambda: next(execution.code))
    for action in list(execution.open.values()):
        if action.seq in late_seqs or action.seq in execution.timers:
            continue
        if isinstance(action.op, Call):
            model._to_run.append((instance.instance_id, execution, action.seq))
        elif isinstance(action.op, Child) and cut is not None:
            model.want_again(instance, action)
    if cut is not None:
        sections.once_more(model._send, instance, old, late_seqs)
    for message in late:
        if model.instances.get(instance.instance_id) is instance:
            model.give(instance.instance_id, _told_to(execution, message))


def _last_seen(old: Execution) -> int | None:
    """What the code was told last, when it failed by itself; None when that was its start."""
    for at in reversed(range(len(old.log))):
        kind = old.history[old.log[at].place][0]
        if kind not in _UNSEEN:
            return at
    return None


_UNSEEN = (
    "ExecutionRewound",
    "ExecutionSuspended",
    "ExecutionResumed",
    "EntityLockGranted",
    "EntityOperationAnswered",
    "TaskAttemptFailed",
    "TaskAttemptStarted",
)


def _shift(model: Model, instance: Instance, message: Shifted) -> None:
    execution = instance.execution
    assert execution is not None
    execution.log.append(Entry(len(execution.history), model.now, message))
    model._record(instance, "ExecutionRewound")
    if execution.section is not None:  # the failure released its locks
        execution.section.granted = 0
    for seq in execution.timers:
        if seq not in message.late:
            execution.timers[seq] += message.seconds


def _is_late(old: Execution, entry: Entry, known: set[Any]) -> bool:
    kind, seq = old.history[entry.place]
    if kind == "EventRaised":
        return True
    if kind == "EntityOperationAnswered":
        return entry.message.failure is None and seq in known
    done = ("TaskCompleted", "SubOrchestrationInstanceCompleted", "EntityOperationCompleted", "TimerFired")
    return kind in done and seq in known


def _once_more(
    model: Model, instance: Instance, old: Execution, log: list[Entry], void: set[Any], *, ran: bool
) -> Execution:
    """An execution that has been told all this, and the instance that runs it."""
    shadow = type(model)(model._programs, model._activities)
    shadow.is_shadow = True
    twin = replace(instance, execution=None, status="Pending", held=[], carried=[])
    shadow.instances[instance.instance_id] = twin
    shadow.now = old.begun
    execution = shadow._new_execution(twin)
    twin.status = "Running"
    if log and log[0].place == 1 and isinstance(log[0].message, Shifted):  # that one had begun anew
        _shift(shadow, twin, log[0].message)
        log = log[1:]
    if ran:
        shadow._go(twin, lambda: next(execution.code))
    for entry in log:
        if getattr(entry.message, "seq", None) in void:
            continue
        shadow.now = entry.now
        if isinstance(entry.message, Shifted):
            _shift(shadow, twin, entry.message)
        elif isinstance(entry.message, Order) and entry.message.verb == "resume":
            shadow._while_suspended(twin, entry.message)
        else:
            shadow._receive(twin, _told_to(execution, entry.message))
    model._executions += 1
    execution.number = model._executions
    instance.execution = execution
    return execution


def _told_to(execution: Execution, message: Any) -> Any:
    if isinstance(message, TaskDone | Due | Answer | Granted):
        return replace(message, execution=execution)
    return replace(message, child_of=None) if isinstance(message, Order) else message
