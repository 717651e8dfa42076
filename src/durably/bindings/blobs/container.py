"""A container of blobs, for applications."""

from __future__ import annotations

from collections.abc import AsyncIterator

from durably.bindings.blobs.names import check_blob, check_container
from durably.bindings.blobs.store import BlobEntry, BlobStore, read
from durably.errors import UsageError


class BlobContainer:
    """Blobs under names, behind a connection. It need not be made: it is there when something was written to it.

    Attributes:
        name: Its name.
    """

    def __init__(self, name: str, store: BlobStore) -> None:
        self.name = check_container(name)
        self._store = store

    async def read(self, name: str, *, limit: int | None = None) -> bytes:
        """The content of a blob, or the first `limit` bytes of it.

        Raises:
            BlobNotFoundError: There is none.
            BrokerError: The store cannot be reached, as for all methods.
        """
        return await read(self._store, self.name, check_blob(name), limit=limit)

    def stream(self, name: str) -> AsyncIterator[bytes]:
        """The content of a blob, piece by piece. Raises as `read`."""
        return self._store.stream(self.name, check_blob(name))

    async def write(self, name: str, data: bytes | str) -> BlobEntry:
        """Write a blob, or write it anew: the whole of it or nothing, durable on return. Text is UTF-8.

        Raises:
            InvalidTextError: The name is not usable.
        """
        if not isinstance(data, bytes | str | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
            raise UsageError(f"The data of blob {name!r} is {type(data).__name__}: expected bytes or str")
        content = data.encode() if isinstance(data, str) else bytes(data)
        return await self._store.write(self.name, check_blob(name), content)

    async def delete(self, name: str) -> bool:
        """Delete a blob; False when there was none."""
        return await self._store.delete(self.name, check_blob(name))

    async def list(self, prefix: str = "") -> AsyncIterator[BlobEntry]:
        """The blobs whose names begin with something, in the order of their names."""
        async for page in self._store.list(self.name, prefix):
            for entry in page:
                yield entry
