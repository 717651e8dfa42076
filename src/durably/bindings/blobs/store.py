"""The seam to stores of blobs: containers that hold bytes under names.

A store has to list what there is, and to tell one content of a name from the next by a version. Nothing else is asked of it:
no events, no leases, no metadata of ours. What was handled is remembered on the hub.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec


class BlobEntry(msgspec.Struct, frozen=True, gc=False):
    """A blob, as it was listed.

    Attributes:
        name: Inside its container; its parts are separated by ``/``.
        version: Another one whenever it was written.
        size: In bytes.
        modified_at: When it was written last, in microseconds since 1970 UTC.
        whole: False when somebody may be writing it still.
    """

    name: str
    version: str
    size: int
    modified_at: int
    whole: bool = True


class BlobStore(Protocol):
    """Containers behind one connection.

    All methods raise `InvalidTextError` for a container or name that is not usable, and `BrokerError` when the store
    cannot be reached or refuses.

    Attributes:
        interval_s: Seconds between two looks at a container, unless somebody says otherwise.
    """

    interval_s: float

    def list(self, container: str, prefix: str = "", after: str = "") -> AsyncIterator[list[BlobEntry]]:
        """The blobs of a container, page by page, in the order of their names; none when it does not exist.

        Names that `durably.bindings.blobs.names` does not allow are left out.

        Args:
            container: The container.
            prefix: Names begin with it.
            after: Names are behind it.
        """
        ...

    async def head(self, container: str, name: str) -> BlobEntry | None:
        """A blob as it is now; None when there is none. Raises where it is known that the container is away."""
        ...

    def stream(
        self, container: str, name: str, *, version: str | None = None, limit: int | None = None
    ) -> AsyncIterator[bytes]:
        """The content of a blob, piece by piece.

        Args:
            container: The container.
            name: The blob.
            version: Only of this version.
            limit: So many bytes at most.

        Raises:
            BlobNotFoundError: There is none, or not of this version any more.
        """
        ...

    async def write(self, container: str, name: str, data: bytes) -> BlobEntry:
        """Write a blob, and its container where that can be: the whole of it or nothing, durable on return."""
        ...

    async def delete(self, container: str, name: str) -> bool:
        """Delete a blob; False when there was none."""
        ...

    async def close(self) -> None:
        """Let go. Idempotent, never raises."""
        ...


async def read(
    store: BlobStore, container: str, name: str, *, version: str | None = None, limit: int | None = None
) -> bytes:
    """The content of a blob at once; see `BlobStore.stream`."""
    pieces = [piece async for piece in store.stream(container, name, version=version, limit=limit)]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
