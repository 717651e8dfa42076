"""The calls of asyncpg that all share: with the types that it leaves open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

CONNECT_S: Final = 10.0
"""A server that says nothing for so long is not there."""

_SETTINGS: Final = {"jit": "off", "enable_seqscan": "off"}
"""Our statements are short: compiling them costs more than it gains."""


class Connection:
    """One connection.

    Attributes:
        is_pooled: A pooler is between, which may give each transaction another server: nothing outlives one, and nobody can
            listen. Preparing and running a statement are two steps, so each is put into a transaction.
    """

    def __init__(self, raw: Any, *, pooled: bool = False) -> None:
        self._raw = raw
        self.is_pooled = pooled
        self._unshared = False
        raw.add_log_listener(self._on_notice)

    @classmethod
    async def make(
        cls, dsn: str, *, name: str, answer_s: float | None, pooled: bool | None = None
    ) -> tuple[Connection, bool]:
        """Connect; also say whether a pooler between is known of, be it because it refuses what we want at the beginning.

        Args:
            dsn: Where to; one host.
            name: Shown by the server for this connection.
            answer_s: A statement that takes longer has failed; None: it takes what it takes.
            pooled: True: a pooler is between. None: it may be, so do nothing that one would not bear.
        """
        connect = cast("Any", asyncpg).connect
        given: dict[str, Any] = {"timeout": CONNECT_S, "command_timeout": answer_s}
        if pooled is not False:
            given["statement_cache_size"] = 0
        if not pooled:
            try:
                raw = await connect(dsn, **given, server_settings={"application_name": name, **_SETTINGS})
                return cls(raw, pooled=pooled is None), False
            except asyncpg.PostgresError as error:
                if "unsupported startup parameter" not in str(error):  # PgBouncer knows few
                    raise
        given["statement_cache_size"] = 0
        return cls(await connect(dsn, **given, server_settings={"application_name": name}), pooled=True), True

    def _on_notice(self, _: object, notice: Any) -> None:
        # What is shown with it is a warning, in any language: it is named by the place that it comes from.
        if getattr(notice, "server_source_function", None) == "SyncRepWaitForLSN":
            self._unshared = True

    def _complain(self) -> None:
        """Raise when the server has said yes without its standby, because somebody cancelled the wait."""
        if self._unshared:
            self._unshared = False
            raise ConnectionError("it is committed, but the wait for the synchronous standby was cancelled")

    @property
    def pid(self) -> int:
        """Of the server process, as it was said at the beginning; PgBouncer makes one up."""
        return self._raw.get_server_pid()

    @property
    def is_closed(self) -> bool:
        """True when nothing can be sent any more."""
        return self._raw.is_closed()

    async def rows(self, text: str, *values: Any) -> Sequence[Any]:
        """Run one statement, prepared; return its rows, which are like tuples."""
        if self.is_pooled and not self._raw.is_in_transaction():
            async with self._raw.transaction():
                found = await self._raw.fetch(text, *values)
        else:
            found = await self._raw.fetch(text, *values)
        self._complain()
        return found

    async def value(self, text: str, *values: Any) -> Any:
        """The first column of the first row."""
        found = await self.rows(text, *values)
        return found[0][0] if found else None

    async def script(self, text: str) -> None:
        """Run several statements, in one transaction unless they say otherwise."""
        await self._raw.execute(text)

    async def cursor(self, text: str) -> Callable[[int], Awaitable[Sequence[Any]]]:
        """Run a statement within a transaction; what is returned gives the next so many rows, none at the end."""
        return (await self._raw.cursor(text)).fetch

    async def copy(
        self, schema: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """Add rows to a table, the fastest way. The schema is quoted."""
        await self._raw.copy_records_to_table(
            table, schema_name=schema.strip('"'), columns=columns, records=rows
        )

    async def listen(self, channel: str, heard: Callable[[str], None], lost: Callable[[], None]) -> None:
        """Call back with the text of each notice on a channel, and when the connection is gone."""

        def on_notice(_connection: object, _process: int, _channel: str, text: str) -> None:
            heard(text)

        def on_end(_: object) -> None:
            lost()

        self._raw.add_termination_listener(on_end)
        await self._raw.add_listener(channel, on_notice)

    def moment(self) -> Any:
        """``async with``: all that is read within is of the same moment."""
        return self._raw.transaction(isolation="repeatable_read", readonly=True)

    def transaction(self) -> Any:
        """``async with``: wholly or not at all."""
        return self._raw.transaction()

    async def close(self) -> None:
        """Hang up. Never raises, never waits for long."""
        try:
            await self._raw.close(timeout=1.0)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._raw.terminate()
        except asyncio.CancelledError:
            self._raw.terminate()
            raise

    def terminate(self) -> None:
        """Hang up at once."""
        self._raw.terminate()
