"""Blobs that trigger work: a version of a blob that was found is an instance, and what was found is a receipt."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from durably.core.entities import EntityId
from durably.core.ids import digest

BLOB: Final = "durably:blob"
"""The orchestrator of a version of a blob."""

RECEIPT: Final = "durably.blob"
"""The entity that is the receipt of a blob."""

POISON_QUEUE: Final = "webjobs-blobtrigger-poison"
"""The queue on the hub that tells of blobs whose function failed too often; named as in Azure Functions."""

_FORBIDDEN: Final = re.compile(r"[/\\#?\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SHOWN_MAX: Final = 96


class BlobItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A version of a blob as its instance has it for input.

    Attributes:
        function: Whose it is.
        container: The container.
        name: The blob.
        version: The version.
        size: In bytes.
        modified_at: When it was written, in microseconds since 1970 UTC.
        number: Of the versions of this blob that were found; the first one is 1.
        tries: How often it was handed out before its instance continued as new.
    """

    function: str
    container: str
    name: str
    version: str
    size: int
    modified_at: int
    number: int = 1
    tries: int = 0

    @property
    def id(self) -> str:
        """Container and name for people, and a digest that is unique for function, blob, version and number."""
        shown = _FORBIDDEN.sub("-", f"{self.container}:{self.name}")[:_SHOWN_MAX]
        return f"{shown}:{_digest(self.function, self.container, self.name, self.version, str(self.number))}"


def activity_of(function: str) -> str:
    """The activity that hands blobs to a function; a host has it if it has the function."""
    return f"{BLOB}:{function}"


def prefix_of(function: str) -> str:
    """How the ids of the instances of a function begin."""
    return f"blob:{function}:"


def blob_instance(item: BlobItem) -> str:
    """The id of the instance that is a version of a blob."""
    return prefix_of(item.function) + item.id


def receipt_prefix(function: str) -> str:
    """How the ids of the receipts of a function begin."""
    return f"@{RECEIPT}@{function}:"


def receipt_of(function: str, container: str, name: str) -> str:
    """The entity that knows which version of a blob was found last."""
    return str(EntityId(RECEIPT, f"{function}:{_digest(container, name)}"))


def _digest(*parts: str) -> str:
    return digest("\0".join(parts))
