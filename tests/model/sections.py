"""What orchestrations of the reference model do with entities: calls, critical sections, and the answers to both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.model.state import Action, Execution, Instance, Section, running
from tests.model.words import Answer, AskLock, CallEntity, Failure, GiveBack, Granted, Operate, TaskDone

if TYPE_CHECKING:
    from tests.model.lives import Lives

Send = Callable[[str, Any], None]


def must_wait(execution: Execution, action: Action) -> bool:
    """A call from inside of a section that was rewound, and whose locks are not back."""
    section = execution.section
    return (
        section is not None
        and not section.complete
        and section.seq not in execution.open
        and action.seq > section.seq
        and action.op.entity in section.entities
    )


def call(send: Send, instance: Instance, action: Action) -> None:
    """Send a call of an entity, or hold it back."""
    execution = running(instance)
    if must_wait(execution, action):
        execution.held_back.append(action)
        return
    section = execution.section
    inside = section is not None and section.complete and action.op.entity in section.entities
    execution.sent.add(action.seq)
    operate = Operate(
        action.op.operation,
        action.op.input,
        caller=(instance.instance_id, execution, action.seq),
        section=(execution, section.seq) if section is not None and inside else None,
    )
    send(action.op.entity, operate)


def lock(send: Send, instance: Instance, action: Action) -> None:
    running(instance).section = Section(action.seq, action.op.entities)
    ask_next(send, instance)


def ask_next(send: Send, instance: Instance) -> None:
    execution = running(instance)
    section = execution.section
    if section is not None and not section.complete:
        ask = AskLock((execution, section.seq), instance.instance_id)
        send(section.entities[section.granted], ask)


def release(send: Send, instance: Instance) -> None:
    """Give back what is locked, and what was asked for."""
    execution = running(instance)
    section, execution.section = execution.section, None
    if section is not None:
        for entity in section.entities[: section.granted + 1]:
            send(entity, GiveBack((execution, section.seq)))


def leave(send: Send, instance: Instance) -> int:
    """The code leaves its block: what it did not wait for is done before. Returns the number of the lock."""
    execution = running(instance)
    section = execution.section
    assert section is not None
    held_back, execution.held_back = execution.held_back, []
    execution.section = None if held_back else section
    for action in held_back:
        if action.seq in execution.open:
            call(send, instance, action)
    execution.section = section
    release(send, instance)
    return section.seq


def granted(lives: Lives, send: Send, instance: Instance, message: Granted) -> None:
    execution = running(instance)
    section = execution.section
    if section is None or section.seq != message.seq or message.execution is not execution:
        return
    lives._record(instance, "EntityLockGranted", section.seq)
    section.granted += 1
    if not section.complete:
        ask_next(send, instance)
    elif section.seq in execution.open:
        if not lives.is_shadow:  # a shadow is told of both, one after the other
            lives._receive(instance, TaskDone(execution, section.seq))
    else:
        held_back, execution.held_back = execution.held_back, []
        for action in held_back:
            if action.seq in execution.open:
                call(send, instance, action)


def answered(lives: Lives, instance: Instance, message: Answer) -> None:
    execution = running(instance)
    former = execution.former.get(message.execution, 0)
    if message.execution is not execution and message.seq >= former:
        return
    execution.sent.discard(message.seq)
    action = execution.open.get(message.seq)
    if action is None or not isinstance(action.op, CallEntity):
        lives._record(instance, "EntityOperationAnswered", message.seq)
    elif message.failure is None:
        lives._record(instance, "EntityOperationCompleted", message.seq)
        lives._complete(instance, action, message.value)
    else:
        lives._record(instance, "EntityOperationFailed", message.seq)
        cause = message.failure
        text = f"Operation '{action.op.operation}' of entity '{action.op.entity}' failed: {cause.type}: {cause.message}"
        lives._complete(instance, action, None, Failure("EntityOperationFailedError", text, cause))


def once_more(send: Send, instance: Instance, former: Execution, late: frozenset[Any]) -> None:
    """After a rewind: calls are sent again whose answers neither came nor will, and locks are asked for anew."""
    execution = running(instance)
    execution.sent = set()
    execution.held_back = []
    for action in list(execution.open.values()):
        if not isinstance(action.op, CallEntity) or action.seq in late:
            continue
        if action.seq in former.sent:
            execution.sent.add(action.seq)
        else:
            call(send, instance, action)
    ask_next(send, instance)
