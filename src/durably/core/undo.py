"""What an instance leaves to be undone when it ends before its code could do so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from durably.core.events import ParentRef, UndoAdded
from durably.core.ids import derived_execution_id
from durably.core.instance import InstanceState
from durably.core.messages import StartInstance

UNDO = "durably:undo"
"""The orchestrator that every host has: runs a list of undos, the newest first."""


def start_undo(state: InstanceState) -> tuple[str, StartInstance]:
    """Target and body of the start of the instance that undoes what another one has left."""
    started = state.begun
    body = StartInstance(
        name=UNDO,
        input=undo_input(state.undos.values()),
        execution_id=derived_execution_id(started.execution_id, "undo"),
        version="",
        parent=ParentRef(state.instance_id, started.execution_id, -1),  # told, and past listening
        tags=started.tags,
        reason=f"{state.instance_id} ended as {state.status} with steps of a saga that are not undone",
    )
    return f"{state.instance_id}:undo", body


def undo_input(undos: Iterable[UndoAdded]) -> bytes:
    """The input of `UNDO`: in the order in which they have to run."""
    return msgspec.json.encode([_plain(undo) for undo in reversed(list(undos))])


def _plain(undo: UndoAdded) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": undo.name}
    if undo.input is not None:
        plain["input"] = msgspec.Raw(undo.input)
    if undo.retry is not None:
        plain["retry"] = undo.retry
    return plain
