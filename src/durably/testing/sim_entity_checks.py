"""What must hold for entities, their locks and their timers after every commit of a simulated world."""

from __future__ import annotations

from collections.abc import Sequence

from durably.core.commit import EntityRow, TimerRow
from durably.core.entities import EntityState, Holder, section_id
from durably.core.events import HistoryEvent, LockRequested
from durably.core.history import decode_body, decode_rows
from durably.core.instance import InstanceState
from durably.core.messages import (
    TIMER_IDLE,
    TIMER_SIGNAL,
    EntityLocked,
    LockEntity,
    MessageBody,
    ReleaseEntity,
)
from durably.core.status import TERMINAL
from durably.errors import InvariantError
from durably.storage.memory import MemoryHub


def check_entities(hub: MemoryHub) -> None:
    """Check all entities of a hub.

    Raises:
        EntityCorruptError: A row is not what was written.
        InvariantError: A lock that nobody will give back, or a timer too many or too few.
    """
    timers: dict[str, list[TimerRow]] = {}
    for timer in hub.timers.values():
        if timer.instance_id.startswith("@"):
            timers.setdefault(timer.instance_id, []).append(timer)
    for instance_id, row in hub.entities.items():
        state = EntityState.of(row)
        _check_row(row, state)
        _check_timers(state, timers.pop(instance_id, []))
        if state.holder is not None:
            _check_holder(hub, instance_id, state.holder)
    for instance_id in timers:
        raise InvariantError("C11", instance_id, "it has a timer and no row")


def _check_row(row: EntityRow, state: EntityState) -> None:
    if state.row() != row:
        raise InvariantError("I2", row.instance_id, f"its row {row} does not come back as it was written")
    if state.gone:
        raise InvariantError("C11", row.instance_id, "nothing is left of it, and it has a row")


def _check_timers(state: EntityState, timers: Sequence[TimerRow]) -> None:
    """I7: exactly the timers of signals that are due later, and the one that looks whether it is idle."""
    armed = sorted((timer.execution, timer.kind, timer.due_at) for timer in timers)
    wanted = [(state.execution, TIMER_SIGNAL, delayed.due_at) for delayed in state.delayed.values()]
    if state.idle_timer is not None:
        wanted.append((state.execution, TIMER_IDLE, state.idle_timer))
    if armed != sorted(wanted):
        raise InvariantError("I7", state.instance_id, f"timers {armed} are armed; expected {sorted(wanted)}")


def _check_holder(hub: MemoryHub, entity: str, holder: Holder) -> None:
    """I8: who has a lock can give it back, or has done so."""
    if any(
        isinstance(body, ReleaseEntity) and body.section == holder.section for body in _inbox(hub, entity)
    ):
        return
    found = hub.instances.get(holder.instance_id)
    if found is None or found[1].status in TERMINAL:
        status = "gone" if found is None else found[1].status
        raise InvariantError("I8", entity, f"locked by '{holder.instance_id}', which is {status}")
    row = found[1]
    events, _ = decode_rows(row.instance_id, row.execution_id, hub.history_of(row))
    section = InstanceState.fold(row.instance_id, events).section
    if section is None or section_id(row.instance_id, row.execution_id, section.seq) != holder.section:
        raise InvariantError("I8", entity, f"locked for section {holder.section}, which is over: {section}")
    if entity not in section.asked:
        raise InvariantError("I8", entity, f"locked for section {holder.section}, which did not ask for it")


def check_section(hub: MemoryHub, instance_id: str, events: Sequence[HistoryEvent]) -> None:
    """Check that a live instance has what it believes to have locked, and that what it waits for is on its way.

    Raises:
        InvariantError: It is mistaken.
    """
    if not any(isinstance(event, LockRequested) for event in events):
        return
    state = InstanceState.fold(instance_id, events)
    if state.section is None or state.ended:
        return
    section = section_id(instance_id, state.begun.execution_id, state.section.seq)
    for entity in state.section.entities[: state.section.granted]:
        if not _holds(hub, entity, section):
            raise InvariantError("I8", instance_id, f"it believes to have locked '{entity}'")
    if state.section.complete:
        return
    entity = state.section.entities[state.section.granted]
    asks = any(isinstance(body, LockEntity) and body.section == section for body in _inbox(hub, entity))
    told = any(isinstance(body, EntityLocked) and body.entity == entity for body in _inbox(hub, instance_id))
    if not asks and not (told and _holds(hub, entity, section)):
        raise InvariantError("I8", instance_id, f"it waits for '{entity}', and nobody knows")


def _holds(hub: MemoryHub, entity: str, section: str) -> bool:
    row = hub.entities.get(entity)
    holder = None if row is None else EntityState.of(row).holder
    return holder is not None and holder.section == section


def _inbox(hub: MemoryHub, target: str) -> list[MessageBody]:
    return [decode_body(message.body) for message in hub.inbox.values() if message.instance_id == target]
