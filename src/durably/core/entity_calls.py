"""Messages from an orchestration to entities: operations, and the locks of its critical section."""

from __future__ import annotations

from durably.core.entities import section_id
from durably.core.events import EntityCalled, EntitySignaled, ParentRef
from durably.core.instance import InstanceState
from durably.core.messages import CallEntity, LockEntity, MessageBody, ReleaseEntity


def call_entity(state: InstanceState, action: EntityCalled) -> list[tuple[str, MessageBody]]:
    """What a call sends: nothing yet where its critical section was rewound, and its locks are not back."""
    return [] if action.seq in state.held_back else [_call(state, action)]


def calls_held_back(state: InstanceState) -> list[EntityCalled]:
    """What `call_entity` held back, and the code still waits for."""
    open_calls = [action for action in state.open.values() if isinstance(action, EntityCalled)]
    return [action for action in open_calls if action.seq in state.held_back]


def leave(state: InstanceState) -> list[tuple[str, MessageBody]]:
    """The code leaves its block: what it did not wait for is done before the locks are released."""
    return [_call(state, action) for action in calls_held_back(state)] + release_all(state)


def _call(state: InstanceState, action: EntityCalled) -> tuple[str, MessageBody]:
    section = state.section
    inside = section is not None and section.complete and action.entity in section.entities
    call = CallEntity(
        action.operation,
        action.input,
        caller=_reference(state, action.seq),
        sender=state.instance_id,
        section=_section_of(state, section.seq) if section is not None and inside else None,
    )
    return action.entity, call


def signal_entity(state: InstanceState, action: EntitySignaled) -> tuple[str, MessageBody]:
    """The same of a signal."""
    call = CallEntity(action.operation, action.input, sender=state.instance_id, due_at=action.due_at)
    return action.entity, call


def ask_next(state: InstanceState) -> list[tuple[str, MessageBody]]:
    """The request for the next lock of the critical section: one after the other, so that no two wait for each other."""
    section = state.section
    if section is None or section.complete:
        return []
    ask = LockEntity(_section_of(state, section.seq), _reference(state, section.seq))
    return [(section.entities[section.granted], ask)]


def release_all(state: InstanceState) -> list[tuple[str, MessageBody]]:
    """Give back what is locked, and take back what was asked: from the same sender, so it comes behind the request."""
    section = state.section
    if section is None:
        return []
    release = ReleaseEntity(_section_of(state, section.seq))
    return [(entity, release) for entity in section.asked]


def _section_of(state: InstanceState, seq: int) -> str:
    return section_id(state.instance_id, state.begun.execution_id, seq)


def _reference(state: InstanceState, seq: int) -> ParentRef:
    return ParentRef(state.instance_id, state.begun.execution_id, seq)
