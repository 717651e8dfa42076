"""Which bytes of which rows are wrapped, and what each belongs to.

Encrypted is whatever user code, or an error, may have put something into: history, messages, inputs, outputs, custom status,
failures, states of entities, calls in the queue that hosts share, why an instance is blocked or parked, why a message was
set aside, verdicts. Ids, names, versions, tags, status and instants stay readable: hubs are searched by them. Each encrypted
value is bound to hub, kind and row, and does not open anywhere else. With the row of a history or an entity its checksum is
encrypted too: it would tell whether a guess of the plain bytes is right.
"""

from __future__ import annotations

import base64
from typing import TypeVar

import msgspec

from durably.codec.wrap import Box, WrapError, deflate, inflate, is_sealed, is_wrapped
from durably.core.commit import (
    Batch,
    EntityRow,
    HistoryRow,
    InboxRow,
    InstanceChange,
    InstanceRow,
    ParkedMessage,
    TaskRow,
    Tombstone,
    Unreadable,
)
from durably.storage.api import Snapshot, StoredInstance
from durably.storage.limits import HISTORY_MIB_DEFAULT, too_large

SEALED_TEXT = "sealed:"
"""What encrypted text begins with; Base64 of encrypted bytes follows."""

_about = msgspec.msgpack.Encoder().encode

Instance = TypeVar("Instance", InstanceRow, InstanceChange)


class Wrapping:
    """Rows as they are used to rows as they are stored, and back.

    Args:
        compress_above: Bytes from which on compressing is tried; 0: never.
        box: Encrypts; None: nothing is encrypted.
        history_max: Bytes of a history that are brought into memory at most: what is stored may be far smaller.
    """

    def __init__(
        self, compress_above: int, box: Box | None = None, *, history_max: int = HISTORY_MIB_DEFAULT << 20
    ) -> None:
        self._history_max = history_max
        self._above = compress_above
        self._box = box

    # --- to the store ------------------------------------------------------------------------------------------------

    def batch(self, batch: Batch) -> Batch:
        """A batch as it is stored; the one that is given stays as it is."""
        if self._box is None and not self._is_worth(batch):
            return batch
        return msgspec.structs.replace(
            batch,
            history=[self._wrap_history(row) for row in batch.history],
            instances=[self._wrap_instance(row) for row in batch.instances],
            changes=[self._wrap_instance(change) for change in batch.changes],
            entities=[self._wrap_entity(row) for row in batch.entities],
            inbox_put=self.messages(batch.inbox_put),
            tombstones=[self._wrap_tombstone(row) for row in batch.tombstones]
            if self._box
            else batch.tombstones,
            parked=[self._wrap_parked(row) for row in batch.parked],
            tasks_offered=[self._wrap_task(row) for row in batch.tasks_offered],
        )

    def _is_worth(self, batch: Batch) -> bool:
        """Without encryption, nearly all batches go through as they are; looking costs 0.1 µs a row."""
        changed = self._is_changed
        return (
            any(changed(row.data) for row in batch.history)
            or any(changed(row.input) for row in batch.instances)
            or any(changed(row.state) or changed(row.rest) for row in batch.entities)
            or any(changed(row.body) for row in (*batch.inbox_put, *batch.parked, *batch.tasks_offered))
            or any(
                changed(row.output) or changed(row.custom_status) or changed(row.failure)
                for row in (*batch.instances, *batch.changes)
            )
        )

    def _is_changed(self, plain: bytes | None) -> bool:
        return bool(plain) and (
            0 < self._above < len(plain) or is_wrapped(plain) or type(plain) is Unreadable
        )

    def messages(self, rows: list[InboxRow]) -> list[InboxRow]:
        """Inbox rows as they are stored."""
        return [
            row if body is row.body else row._replace(body=body)
            for row in rows
            for body in (self._wrap(row.body, "message", row.message_id, row.instance_id),)
        ]

    def _wrap_history(self, row: HistoryRow) -> HistoryRow:
        if self._box is None:
            data = self._wrap(row.data, "")
            return row if data is row.data else row._replace(data=data)
        plain = b"%c%b%b" % (len(row.checksum), row.checksum, row.data)
        return row._replace(data=self._wrap(plain, "history", row.execution, row.seq), checksum=b"")

    def _wrap_instance(self, row: Instance) -> Instance:
        instance_id = row.instance_id
        wrapped = {
            field: self._wrap(plain, field, instance_id)
            for field in ("input", "output", "custom_status", "failure")
            if (plain := getattr(row, field, None)) is not None
        }
        texts = {
            field: self._wrap_text(text, field, instance_id)
            for field, text in (("blocked", row.blocked), ("parked", row.parked))
            if text is not None
        }
        return row._replace(**wrapped, **texts) if wrapped or texts else row

    def _wrap_entity(self, row: EntityRow) -> EntityRow:
        state = None if row.state is None else self._wrap(row.state, "entity", row.instance_id)
        if self._box is None:
            return row._replace(state=state, rest=self._wrap(row.rest, "", row.instance_id))
        plain = b"%c%b%b" % (len(row.checksum), row.checksum, row.rest)
        rest = self._wrap(plain, "entity rest", row.instance_id)
        return row._replace(state=state, rest=rest, checksum=b"")

    def _wrap_tombstone(self, row: Tombstone) -> Tombstone:
        return (
            row._replace(verdict=self._wrap(row.verdict, "verdict", row.message_id)) if row.verdict else row
        )

    def _wrap_parked(self, row: ParkedMessage) -> ParkedMessage:
        body = self._wrap(
            row.body, "message", row.message_id, row.instance_id
        )  # a redrive makes it a message as it is
        return row._replace(body=body, cause=self._wrap_text(row.cause, "cause", row.message_id))

    def _wrap_task(self, row: TaskRow) -> TaskRow:
        body = self._wrap(row.body, "task", row.task_id, row.instance_id)
        return row if body is row.body else row._replace(body=body)

    def _wrap(self, plain: bytes, *about: str | int) -> bytes:
        if type(plain) is Unreadable:
            return bytes(plain)
        deflated = deflate(plain, self._above)
        return deflated if self._box is None else self._box.seal(deflated, _about(about))

    def _wrap_text(self, plain: str, *about: str | int) -> str:
        if self._box is None:
            return plain
        return (
            SEALED_TEXT
            + base64.b64encode(self._box.seal(plain.encode("utf-8", "surrogatepass"), _about(about))).decode()
        )

    # --- from the store ----------------------------------------------------------------------------------------------

    def snapshot(self, stored: Snapshot) -> Snapshot:
        """A snapshot as it is used."""
        in_flight = [self.stored_instance(instance) for instance in stored.in_flight]
        return stored._replace(in_flight=in_flight, inbox=[self.message(row) for row in stored.inbox])

    def stored_instance(self, stored: StoredInstance) -> StoredInstance:
        """All rows of an instance as they are used."""
        history: list[HistoryRow] = []
        size, oversize = 0, stored.oversize
        for row in stored.history:
            history.append(self.history(row))
            size += len(history[-1].data)
            if size > self._history_max and oversize is None:
                del history[1:]
                oversize = too_large(size, self._history_max)
                break
        return StoredInstance(
            self.instance(stored.row), history, [self.message(row) for row in stored.inbox], oversize
        )

    def history(self, row: HistoryRow) -> HistoryRow:
        """A history row as it is used."""
        plain = self._unwrap(row.data, "history", row.execution, row.seq)
        if type(plain) is Unreadable:
            return row._replace(data=plain)
        if not is_sealed(row.data):
            return row if plain is row.data else row._replace(data=plain)
        start = 1 + plain[0]
        return row._replace(data=plain[start:], checksum=plain[1:start])

    def message(self, row: InboxRow) -> InboxRow:
        """An inbox row as it is used."""
        body = self._unwrap(row.body, "message", row.message_id, row.instance_id)
        return row if body is row.body else row._replace(body=body)

    def task(self, row: TaskRow) -> TaskRow:
        """An attempt in the queue that all hosts share, as it is used."""
        body = self._unwrap(row.body, "task", row.task_id, row.instance_id)
        return row if body is row.body else row._replace(body=body)

    def instance(self, row: InstanceRow) -> InstanceRow:
        """An instance row as it is used. The truth about an instance that goes on is its history: this may be unreadable."""
        payloads = (row.input, row.output, row.custom_status, row.failure)
        if self._box is None and not any(is_wrapped(stored) for stored in payloads if stored):
            return row
        instance_id = row.instance_id
        unwrapped = {
            field: self._unwrap(stored, field, instance_id)
            for field in ("input", "output", "custom_status", "failure")
            if (stored := getattr(row, field)) is not None
        }
        texts = {
            field: self._unwrap_text(text, field, instance_id)
            for field, text in (("blocked", row.blocked), ("parked", row.parked))
            if text is not None
        }
        return row._replace(**unwrapped, **texts) if unwrapped or texts else row

    def entity(self, row: EntityRow) -> EntityRow:
        """The row of an entity as it is used."""
        state = None if row.state is None else self._unwrap(row.state, "entity", row.instance_id)
        rest = self._unwrap(row.rest, "entity rest", row.instance_id)
        if not is_sealed(row.rest) or type(rest) is Unreadable:
            return row._replace(state=state, rest=rest)
        start = 1 + rest[0]
        return row._replace(state=state, rest=rest[start:], checksum=rest[1:start])

    def parked(self, row: ParkedMessage) -> ParkedMessage:
        """A message that was set aside, as it is used."""
        body = self._unwrap(row.body, "message", row.message_id, row.instance_id)
        return row._replace(body=body, cause=self._unwrap_text(row.cause, "cause", row.message_id))

    def verdict(self, message_id: str, stored: bytes | None) -> bytes | None:
        """A verdict as it is used."""
        return self._unwrap(stored, "verdict", message_id) if stored else stored

    def _unwrap(self, stored: bytes, *about: str | int) -> bytes:
        box = self._box
        try:
            if box is not None and (is_sealed(stored) or not box.takes_plain):
                return inflate(box.open(stored, _about(about)))
            return inflate(stored) if is_wrapped(stored) else stored
        except WrapError as error:
            return Unreadable(stored, str(error))

    def _unwrap_text(self, stored: str, *about: str | int) -> str:
        box = self._box
        try:
            if box is not None and (stored.startswith(SEALED_TEXT) or not box.takes_plain):
                sealed = base64.b64decode(stored.removeprefix(SEALED_TEXT))
                return box.open(sealed, _about(about)).decode("utf-8", "surrogatepass")
        except (WrapError, ValueError) as error:
            return f"The cause cannot be read: {error}"
        return stored
