"""Messages from the call of a child to the instance that it started: start it, rewind it, end it."""

from __future__ import annotations

import msgspec

from durably.core.events import ChildScheduled, ParentRef
from durably.core.ids import attempt_id, derived_execution_id
from durably.core.instance import InstanceState
from durably.core.messages import Cancel, MessageBody, Rewind, StartInstance, Terminate


def start_child(state: InstanceState, action: ChildScheduled, number: int) -> tuple[str, MessageBody]:
    """Target and body of the start of an attempt.

    Args:
        state: The caller.
        action: The call.
        number: Of the attempt.
    """
    return attempt_id(action.instance_id, number), _start(state, action, number)


def rewind_child(state: InstanceState, action: ChildScheduled, number: int) -> tuple[str, MessageBody]:
    """The same of the order to go on, or to begin anew, to an attempt of a caller that was rewound."""
    body = Rewind(
        reason="its caller was rewound",
        execution_id=derived_execution_id(state.begun.execution_id, f"rewind:{action.seq}:{number}"),
        parent=_reference(state, action.seq, number),
        lineage=state.former(action.seq),
        start=_start(state, action, number),
    )
    return attempt_id(action.instance_id, number), body


def order_child(
    state: InstanceState, action: ChildScheduled, number: int, order: Cancel | Terminate
) -> tuple[str, MessageBody]:
    """The same of an order to end, addressed so that a stranger under the same id is left alone."""
    seq = action.seq
    parent, lineage = _reference(state, seq, number), state.former(seq)
    addressed = msgspec.structs.replace(order, parent=parent, lineage=lineage)
    return attempt_id(action.instance_id, number), addressed


def _start(state: InstanceState, action: ChildScheduled, number: int) -> StartInstance:
    parent = _reference(state, action.seq, number)
    return StartInstance(
        name=action.name,
        input=action.input,
        execution_id=derived_execution_id(state.begun.execution_id, f"child:{action.seq}:{number}"),
        version=action.version,
        parent=msgspec.structs.replace(parent, name=state.begun.name),
        tags=action.tags,
        trace=action.trace or state.begun.trace,
    )


def _reference(state: InstanceState, seq: int, number: int) -> ParentRef:
    return ParentRef(state.instance_id, state.begun.execution_id, seq, number, state.begun.life)
