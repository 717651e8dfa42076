"""Many rows by one statement.

Each step of a statement releases the GIL and takes it back, which may cost a whole switch interval while the host loop
is busy; and each costs bytecodes, which the loop then lacks. So rows are bound in chunks: a few long steps without the
GIL instead of one step a row. (One step for a whole batch, through a view with triggers, was measured too: it costs a
quarter more CPU a row, and a text for each mix of rows.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from durably.storage.sqlite.calls import Execute

_CHUNK_MAX = 64
"""Rows by one statement at most. Longer texts would not be kept prepared by APSW, and gain nothing any more."""

_CHUNK_STEP = 16
"""From here on only multiples: 19 texts serve all numbers of rows, and fewer than 64 rows take two steps at most."""


def _chunk(rows: int) -> int:
    return rows if rows < _CHUNK_STEP else min(rows, _CHUNK_MAX) & -_CHUNK_STEP


_CHUNKS = [size for size in range(1, _CHUNK_MAX + 1) if _chunk(size) == size]


class ManyRows:
    """A statement that takes any number of rows.

    `OR ROLLBACK` belongs into its text where it may fail: otherwise SQLite copies each page first, in case it has to undo
    one statement of the transaction and not the others.
    """

    def __init__(self, before: str, width: int, after: str = "") -> None:
        row = f"({','.join('?' * width)})"  # short: APSW hashes the whole text to find what is prepared
        self._texts = {size: f"{before}{','.join([row] * size)}{after}" for size in _CHUNKS}

    def run(
        self, execute: Execute, rows: Sequence[tuple[Any, ...]], changes: Callable[[], int] | None = None
    ) -> int:
        """Execute it for all rows, in order; returns the sum of `changes`, which is asked after each step."""
        text = self._texts.get(len(rows))
        if text is not None:
            execute(text, tuple(chain.from_iterable(rows)))
            return 0 if changes is None else changes()
        start = changed = 0
        while start < len(rows):
            size = _chunk(len(rows) - start)
            execute(self._texts[size], tuple(chain.from_iterable(rows[start : start + size])))
            changed += 0 if changes is None else changes()
            start += size
        return changed


class ManyKeys:
    """A statement on `... IN (?, ?, ...)`."""

    def __init__(self, before: str, after: str = "") -> None:
        self._texts = {size: f"{before} IN ({','.join('?' * size)}){after}" for size in _CHUNKS}

    def run(self, execute: Execute, keys: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Execute it for all keys; returns the rows of all chunks."""
        return list(self.each(execute, keys))

    def each(self, execute: Execute, keys: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """The same, row by row: only one of them has to be in memory."""
        start = 0
        while start < len(keys):
            size = _chunk(len(keys) - start)
            yield from execute(self._texts[size], tuple(keys[start : start + size]))
            start += size
