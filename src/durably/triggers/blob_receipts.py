"""The receipt of a blob: an entity that knows which versions were found, and starts what handles it, in one commit."""

from __future__ import annotations

from typing import Final

import msgspec

from durably.core.blobs import BLOB, BlobItem, blob_instance
from durably.core.entities import EntityId
from durably.core.events import Payload
from durably.core.messages import MessageBody, StartInstance
from durably.core.operations import ALARM, KEEP_ALARM, NO_ALARM, Operation, OperationOutcome
from durably.errors import FailureDetails, UnknownFunctionError

FOUND: Final = "found"
GONE: Final = "gone"
LOST: Final = "lost"
"""A version was not there when its turn came: it is handled if it is found again. The input is the version."""

KEEP_US: Final = 7 * 86_400_000_000
"""The receipt of a blob that is gone is kept so long: a folder that was not mounted for a while does not begin anew."""

_EARLIER: Final = 7
"""Versions before the last one that are remembered: of two hosts that look, one may be behind."""

_VERSION: Final = 1


class Receipt(msgspec.Struct, omit_defaults=True):
    """What is remembered of a blob.

    Attributes:
        container: The container.
        name: The blob.
        version: The version that was found last; empty when it was lost.
        number: How many versions were found.
        gone: There is no such blob any more.
        earlier: Versions that were found before, the oldest first.
    """

    container: str
    name: str
    version: str
    number: int
    gone: bool = False
    earlier: tuple[str, ...] = ()


decode_receipt = msgspec.json.Decoder(Receipt).decode
_decode_version = msgspec.json.Decoder(str).decode
_decode_item = msgspec.json.Decoder(BlobItem).decode


class ReceiptCode:
    """Implements `durably.engine.executor.EntityCode` for one blob and one function."""

    idle_ttl_us: int | None = None

    def __init__(self, entity_id: EntityId) -> None:
        self._id = entity_id

    def reads_only(self, operation: str) -> bool:
        """See `EntityCode.reads_only`."""
        return False

    def operate(self, state: Payload, version: int, operation: Operation) -> OperationOutcome:
        """See `EntityCode.operate`."""
        held = None if state is None else decode_receipt(state)
        name = operation.name
        if name == FOUND:
            return _found(held, state, _decode_item(operation.input or b""), operation.token)
        if name == LOST:
            return _lost(held, state, _decode_version(operation.input or b""))
        if name not in (GONE, ALARM):
            unknown = UnknownFunctionError(f"The receipt of a blob has no operation '{name}'")
            return OperationOutcome(state, version, None, FailureDetails.of(unknown), [], KEEP_ALARM)
        if held is None or held.gone == (name == GONE):
            return OperationOutcome(state, version, None, None, [], KEEP_ALARM)
        if name == ALARM:
            return OperationOutcome(None, _VERSION, None, None, [], NO_ALARM)
        held.gone = True
        return _outcome(held, operation.now + KEEP_US)


def _found(held: Receipt | None, state: Payload, item: BlobItem, token: str) -> OperationOutcome:
    """A version was found: start what handles it, unless that was done."""
    if held is None:
        held = Receipt(item.container, item.name, "", 0)
    before = tuple(one for one in (*held.earlier, held.version) if one)
    if held.version == item.version and not held.gone:
        return OperationOutcome(state, _VERSION, None, None, [], KEEP_ALARM)
    earlier = tuple(one for one in before if one != item.version)[-_EARLIER:]
    receipt = Receipt(item.container, item.name, item.version, held.number, earlier=earlier)
    if item.version in before:
        return _outcome(receipt, NO_ALARM)
    receipt.number += 1
    item = msgspec.structs.replace(item, number=receipt.number)
    start = StartInstance(BLOB, msgspec.json.encode(item), token, "")
    return _outcome(receipt, NO_ALARM, [(blob_instance(item), start)])


def _lost(held: Receipt | None, state: Payload, version: str) -> OperationOutcome:
    """A version was given up: as if it had not been found."""
    if held is None or version not in (held.version, *held.earlier):
        return OperationOutcome(state, _VERSION, None, None, [], KEEP_ALARM)
    held.earlier = tuple(one for one in held.earlier if one != version)
    if held.version == version:
        held.version = ""
    return _outcome(held, KEEP_ALARM)


def _outcome(
    receipt: Receipt, alarm: int, messages: list[tuple[str, MessageBody]] | None = None
) -> OperationOutcome:
    return OperationOutcome(msgspec.json.encode(receipt), _VERSION, None, None, messages or [], alarm)
