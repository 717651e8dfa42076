"""Whole hubs, from one storage to another: into a file, out of a file, or without one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from importlib.metadata import version

from durably.core.dump import KINDS, DumpChunk, DumpHead
from durably.errors import HubLockedError
from durably.storage.api import Store
from durably.storage.export_file import ExportReader, ExportWriter


class Counted:
    """How many rows of each kind have passed, for people.

    Attributes:
        rows: By kind.
    """

    def __init__(self, told: Callable[[Counted], object] | None = None) -> None:
        self.rows = dict.fromkeys(KINDS, 0)
        self._told = told

    def note(self, chunk: DumpChunk) -> None:
        """Some have."""
        if not isinstance(chunk, DumpHead):
            self.rows[chunk.kind] += len(chunk.rows)
            if self._told is not None:
                self._told(self)


async def export_hub(store: Store, write: Callable[[bytes], object], now: int, counted: Counted) -> None:
    """Write all of a hub, as it is at this moment; hosts go on serving it.

    Args:
        store: The hub, open.
        write: Takes the bytes of the file.
        now: The time, in microseconds since 1970 UTC.
        counted: Is told.
    """
    writer = ExportWriter(write, now, version("durably"))
    async with aclosing(store.dump()) as chunks:
        async for chunk in chunks:
            writer.add(chunk)
            counted.note(chunk)
    writer.end()


async def import_hub(read: Callable[[int], bytes], name: str, store: Store, counted: Counted) -> None:
    """Make the hub of a file, wholly or not at all.

    Args:
        read: Gives so many bytes of the file at most, none at its end.
        name: Of the file, for messages.
        store: The hub, not open.
        counted: Is told.

    Raises:
        ExportFileError: The file is not one, or not whole.
        HubNotEmptyError: There is a hub already.
    """
    await store.restore(_passing(ExportReader(read, name).chunks(), counted))


async def _passing(chunks: Iterator[DumpChunk], counted: Counted) -> AsyncGenerator[DumpChunk]:
    for chunk in chunks:
        yield chunk
        counted.note(chunk)


async def copy_hub(source: Store, target: Store, counted: Counted, *, live: bool = False) -> None:
    """Make a hub like another one, wholly or not at all.

    Args:
        source: The hub, open.
        target: The copy, not open.
        counted: Is told.
        live: The source may be served: the copy is a backup.

    Raises:
        HubLockedError: The source is served, and `live` is False.
        HubNotEmptyError: There is a hub already.
    """
    if not live:
        await _refuse_served(source)
    async with aclosing(source.dump()) as chunks:
        await target.restore(_watched(source, chunks, counted, live=live))


async def _watched(
    source: Store, chunks: AsyncIterator[DumpChunk], counted: Counted, *, live: bool
) -> AsyncGenerator[DumpChunk]:
    async for chunk in chunks:
        yield chunk
        counted.note(chunk)
    if not live:
        await _refuse_served(source)  # a host may have come meanwhile; now the copy is not made


async def _refuse_served(source: Store) -> None:
    if await source.post(()):
        raise HubLockedError(
            f"Hub {source.url} is served by a host: its instances would go on there, and again in the copy. Stop its hosts to "
            "move it; or say --live for a backup, which no host may serve as long as this one is in use"
        )
