"""Durable entities as they are stored: who one is, its state, who has it locked, and what is due later.

An entity has no history: its row is the truth about it, written once for all operations of a batch.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from durably.core.commit import EntityRow, Unreadable
from durably.core.events import Payload
from durably.core.ids import INSTANCE_ID_CHARS_MAX, check_text
from durably.core.messages import CallEntity
from durably.errors import EntityCorruptError, InvalidIdError

_NAME = re.compile(r"[^@/\\#?\x00-\x20\x7f-\x9f\ud800-\udfff]+")
_KEY = re.compile(r"[^/\\#?\x00-\x1f\x7f-\x9f\ud800-\udfff]*")


class EntityId(msgspec.Struct, frozen=True, order=True, gc=False):
    r"""Who an entity is.

    Attributes:
        name: Of its class or function; compared without case, so it is kept in lower case.
        key: Which one of that name; compared with case, and may be empty.

    Raises:
        InvalidIdError: The name is empty, one of them holds ``/ \ # ?`` or a control character, or the name a space or
            ``@``; or both together are longer than 254 characters.
    """

    name: str
    key: str

    def __post_init__(self) -> None:
        if type(self.name) is not str or not _NAME.fullmatch(self.name):
            raise InvalidIdError(
                f"Entity name {self.name!r} is not usable: expected text without '@', '/', '\\', '#', '?', spaces and "
                "control characters"
            )
        if type(self.key) is not str or not _KEY.fullmatch(self.key):
            raise InvalidIdError(
                f"Key {self.key!r} of entity '{self.name}' is not usable: expected text without '/', '\\', '#', '?' and "
                "control characters; replace them, for example by '-'"
            )
        msgspec.structs.force_setattr(self, "name", self.name.lower())
        if len(self.name) + len(self.key) + 2 > INSTANCE_ID_CHARS_MAX:
            raise InvalidIdError(
                f"Entity id '{str(self)[:40]}…' has {len(self.name) + len(self.key) + 2} characters: expected "
                f"{INSTANCE_ID_CHARS_MAX} at most"
            )

    def __str__(self) -> str:
        return f"@{self.name}@{self.key}"

    @classmethod
    def parse(cls, text: str) -> EntityId:
        """The id that `str` made.

        Raises:
            InvalidIdError: It is none.
        """
        parts = text.split("@", 2) if isinstance(text, str) else []  # pyright: ignore[reportUnnecessaryIsInstance]
        if len(parts) != 3 or parts[0]:
            raise InvalidIdError(
                f"Entity id {text!r} is not usable: expected EntityId(name, key), or text such as '@counter@key'"
            )
        return cls(parts[1], parts[2])

    @classmethod
    def of(cls, given: Any) -> EntityId:
        """An id as users may give it: itself, or its text. Raises as `parse`."""
        return given if isinstance(given, EntityId) else cls.parse(given)


def is_entity(instance_id: str) -> bool:
    """True for what a message to an entity is addressed to."""
    return instance_id[:1] == "@"


def check_operation(operation: str) -> str:
    """Refuse what cannot be the name of an operation.

    Raises:
        InvalidTextError: It is no text.
        InvalidIdError: It is empty.
    """
    check_text(operation, "name of the operation")
    if not operation:
        raise InvalidIdError(
            "The name of the operation is empty: expected the name of a method of the entity"
        )
    return operation


class Holder(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who has an entity locked.

    Attributes:
        section: The critical section, see `section_id`.
        instance_id: The orchestration.
        since: When it was granted.
    """

    section: str
    instance_id: str
    since: int


class Delayed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A signal whose time has not come.

    Attributes:
        seq: Of its timer.
        due_at: When.
        call: What is to be done then.
    """

    seq: int
    due_at: int
    call: CallEntity


class Interrupted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An operation that was running when its process died.

    Attributes:
        key: Id of its message; of one that no row outlived, its `mark`.
        deliveries: How often.
        at: When that was counted.
    """

    key: str
    deliveries: int
    at: int

    @property
    def is_marked(self) -> bool:
        """True when its message had no row: it is known again by what it says."""
        return self.key.startswith(_MARK)


_MARK = "#"


def mark(body: bytes) -> str:
    """What a message is known by that had no row, and that its sender sends again."""
    return _MARK + hashlib.blake2b(body, digest_size=8).hexdigest()


class _Rest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the row has besides its columns. FORMAT: new fields go to the end with a default."""

    holder: Holder | None = None
    delayed: tuple[Delayed, ...] = ()
    next_seq: int = 0
    idle_timer: int | None = None
    interrupted: tuple[Interrupted, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Rest).decode


class EntityState(msgspec.Struct, eq=False):
    """One entity in memory, without its code.

    Attributes:
        instance_id: Its id as text.
        execution: Number of its timers, given with its first row; 0 before.
        state: Payload, or None: it does not exist.
        version: Of the form of the state, as the code that wrote it said.
        holder: Who has it locked, or None.
        delayed: Signals that are due later, by number.
        idle_timer: When the timer rings that looks whether it is idle, or None.
        interrupted: Operations that were running when a process died, and have not been dealt with since.
        created_at: When it got its first row.
        updated_at: Of the last operation that was no read.
    """

    instance_id: str
    execution: int = 0
    state: Payload = None
    version: int = 0
    holder: Holder | None = None
    delayed: dict[int, Delayed] = {}
    next_seq: int = 0
    idle_timer: int | None = None
    interrupted: tuple[Interrupted, ...] = ()
    created_at: int = 0
    updated_at: int = 0

    @property
    def gone(self) -> bool:
        """True when nothing of it needs a row."""
        return self.state is None and self.holder is None and not (self.delayed or self.interrupted)

    def deliveries(self, *keys: str) -> int:
        """How often an operation that one of these stands for was running when a process died."""
        return max((one.deliveries for one in self.interrupted if one.key in keys), default=0)

    def row(self) -> EntityRow:
        """As it is to be stored."""
        delayed = tuple(self.delayed.values())
        rest = _encode(_Rest(self.holder, delayed, self.next_seq, self.idle_timer, self.interrupted))
        return EntityRow(
            instance_id=self.instance_id,
            name=self.instance_id.split("@", 2)[
                1
            ],  # not parsed: an id that has a state was checked when it came
            execution=self.execution,
            created_at=self.created_at,
            updated_at=self.updated_at,
            state=self.state,
            version=self.version,
            locked_by=None if self.holder is None else self.holder.instance_id,
            rest=rest,
            checksum=_checksum(self.instance_id, self.state, self.version, rest),
        )

    @classmethod
    def of(cls, row: EntityRow) -> EntityState:
        """The reverse of `row`.

        Raises:
            EntityCorruptError: The bytes are not the ones that were written.
        """
        for stored in (row.state, row.rest):
            if type(stored) is Unreadable:
                raise EntityCorruptError(
                    f"The row of entity '{row.instance_id}' cannot be read: {stored.why}"
                )
        if _checksum(row.instance_id, row.state, row.version, row.rest) != row.checksum:
            raise EntityCorruptError(
                f"The row of entity '{row.instance_id}' does not match its checksum, so the file was damaged or changed; "
                "expected the row as it was written: restore a backup, or delete the entity"
            )
        try:
            rest = _decode(row.rest)
        except msgspec.MsgspecError as error:
            raise EntityCorruptError(
                f"The row of entity '{row.instance_id}' cannot be read ({error}): it was written by a newer version of "
                "durably, or damaged"
            ) from None
        return cls(
            instance_id=row.instance_id,
            execution=row.execution,
            state=row.state,
            version=row.version,
            holder=rest.holder,
            delayed={delayed.seq: delayed for delayed in rest.delayed},
            next_seq=rest.next_seq,
            idle_timer=rest.idle_timer,
            interrupted=rest.interrupted,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


def _checksum(instance_id: str, state: Payload, version: int, rest: bytes) -> bytes:
    digest = hashlib.blake2b(f"{instance_id}\n{version}\n{state is None}\n".encode(), digest_size=8)
    digest.update(state or b"")
    digest.update(b"\n")
    digest.update(rest)
    return digest.digest()


def section_id(instance_id: str, execution_id: str, seq: int) -> str:
    """The name of a critical section: the lock `seq` of an execution."""
    return f"{instance_id}:{execution_id}:{seq}"


def is_section_of(execution_id: str, section: str) -> bool:
    """True when an execution has asked for the critical section."""
    return section.split(":")[-2:-1] == [execution_id]
