"""What anybody may know of an instance: committed rows, and starts that no owner has taken in yet."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from durably.core.commit import EntityRow, InboxRow, InstanceRow
from durably.core.entities import EntityState, is_section_of
from durably.core.events import HistoryEvent
from durably.core.history import decode_body, decode_rows
from durably.core.messages import ReleaseEntity, Restart, StartInstance
from durably.core.status import TERMINAL, RuntimeStatus
from durably.errors import EntityCorruptError, HistoryCorruptError, InstanceNotFoundError
from durably.storage.api import Store

_ATTEMPTS = 3


async def read_events(store: Store, instance_id: str) -> list[HistoryEvent]:
    """The events of the current execution, checked against their checksums.

    Raises:
        InstanceNotFoundError: No such instance.
        HistoryCorruptError: The rows are damaged.
    """
    for _ in range(_ATTEMPTS):
        row = await store.get_instance(instance_id, payloads=False)
        if row is None:
            row = await find(store, instance_id, payloads=False)
            if row is None:
                raise InstanceNotFoundError(instance_id)
            if row.execution == 0:  # its start waits for an owner: nothing has happened yet
                return []
        rows = await store.read_history(instance_id)
        try:
            return decode_rows(instance_id, row.execution_id, rows)[0]
        except HistoryCorruptError:
            # Two reads: the instance may have begun another execution between them. A damaged one stays damaged.
            again = await store.get_instance(instance_id, payloads=False)
            if again is not None and again.execution_id == row.execution_id:
                raise
    raise InstanceNotFoundError(instance_id)


async def find(store: Store, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
    """The row of an instance; of one whose start waits in the inbox, what it will be: Pending."""
    row = await store.get_instance(instance_id, payloads=payloads)
    if row is None:
        waiting = await store.read_messages(instance_id)
        row = next((pending for message in waiting if (pending := pending_row(message)) is not None), None)
        if row is None:  # it was taken in between the two reads
            row = await store.get_instance(instance_id, payloads=payloads)
        elif not payloads:
            row = row._replace(input=None)
    return row


async def find_newest(store: Store, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
    """As `find`; of a finished instance whose place will be taken by what waits in the inbox, what that will be: Pending.

    Only for those whose orders may wait for an owner: it costs two more reads of an instance that has ended.
    """
    row = await find(store, instance_id, payloads=payloads)
    if row is None or row.status not in TERMINAL:
        return row
    for message in await store.read_messages(instance_id):
        successor = _successor(row, message)
        if successor is not None:
            return successor if payloads else successor._replace(input=None)
    return await store.get_instance(instance_id, payloads=payloads)  # it was taken in between the two reads


def _successor(row: InstanceRow, message: InboxRow) -> InstanceRow | None:
    """What an order that waits for an owner makes of a finished instance, if it is one to begin again."""
    try:
        body = decode_body(message.body)
    except msgspec.MsgspecError:
        return None
    if isinstance(body, StartInstance) and body.on_existing in ("replace_finished", "replace"):
        return pending_row(message)
    if isinstance(body, Restart):
        return row._replace(
            execution=0,
            ordinal=0,
            execution_id=body.execution_id,
            status=RuntimeStatus.Pending.value,
            created_at=message.at,
            updated_at=message.at,
            output=None,
            custom_status=None,
            failure=None,
        )
    return None


def pending_row(message: InboxRow) -> InstanceRow | None:
    """The row of an instance whose start waits for an owner; None when this message is not its start."""
    try:
        start = decode_body(message.body)
    except msgspec.MsgspecError:
        return None
    if not isinstance(start, StartInstance):
        return None
    return InstanceRow(
        instance_id=message.instance_id,
        execution=0,
        ordinal=0,
        execution_id=start.execution_id,
        name=start.name,
        version=start.version,
        status=RuntimeStatus.Pending.value,
        created_at=message.at,
        updated_at=message.at,
        input=start.input,
        output=None,
        custom_status=None,
        failure=None,
        blocked=None,
        parked=None,
        in_flight=False,
        parent_instance_id=None if start.parent is None else start.parent.instance_id,
        tags=msgspec.json.encode(start.tags) if start.tags else None,
        start_at=start.start_at,
    )


async def orphaned_section(store: Store, row: EntityRow) -> str | None:
    """The critical section that has an entity locked, if nobody is left who gives the lock back; else None."""
    section = _holding_section(row)
    if section is None or row.locked_by is None:
        return None
    owner = await find(store, row.locked_by, payloads=False)
    if owner is not None and owner.status not in TERMINAL and is_section_of(owner.execution_id, section):
        return None
    # With the end of an execution its release is in the inbox, until the lock is given back. So look there first.
    for message in await store.read_messages(row.instance_id):
        with suppress(msgspec.MsgspecError):
            body = decode_body(message.body)
            if isinstance(body, ReleaseEntity) and body.section == section:
                return None
    now = await store.get_entity(row.instance_id)
    return section if now is not None and _holding_section(now) == section else None


def _holding_section(row: EntityRow) -> str | None:
    """None also of a row that cannot be read: nothing is done with it until somebody repairs it."""
    try:
        holder = EntityState.of(row).holder
    except EntityCorruptError:
        return None
    return None if holder is None else holder.section


def no_answer(entity: str, operation: str, timeout_s: float) -> str:
    """What the caller of an operation is told who does not want to wait any longer."""
    return (
        f"Operation '{operation}' of entity '{entity}' has not ended within {timeout_s:g} s and may be performed later: the "
        "entity may be locked (see client.get_entity), or no host serves the hub; ask again, or give it more time"
    )
