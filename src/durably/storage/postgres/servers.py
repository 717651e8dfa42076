# ruff: noqa: S608 - statements are put together from constants
"""Which server is the one of a hub: found, looked at with each connection, and refused when it is an old one that came back.

PostgreSQL numbers the lines of its history: a standby that is promoted begins a new timeline, and the server that it stands
in for stays on the old one, whether it knows of it or not. So a server of an older timeline than one that was seen is no
server of this hub any more, whatever it says. What was seen is remembered by this object, and on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from durably.errors import StoreUnavailableError, UsageError
from durably.storage.postgres.address import Address
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.failures import as_store_error, is_lost

_log = logging.getLogger("durably.storage")

_OTHERS_S: Final = 1.0
"""When one of several servers takes writes, the others have so long to say that they do, on a newer timeline."""

_PLAIN: Final = "pg_backend_pid(), pg_is_in_recovery(), current_setting('transaction_read_only')"
_LOOK: Final = (
    f"SELECT {_PLAIN},"
    " (SELECT system_identifier FROM pg_control_system()), CASE WHEN pg_is_in_recovery() THEN 0"
    " ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END"
)
_LOOK_LESS: Final = f"SELECT {_PLAIN}, 0::bigint, 0::bigint"
"""For servers that keep their timeline to themselves."""


class Line(NamedTuple):
    """A history of a database cluster.

    Attributes:
        system: The cluster; 0: the server does not tell.
        timeline: Grows with each promotion.
    """

    system: int
    timeline: int

    def is_older_than(self, other: Line) -> bool:
        """True when the other one began with a promotion that this one has not seen."""
        return self.system == other.system and self.timeline < other.timeline


_UNKNOWN: Final = Line(0, 0)


class Servers:
    """Connects to the server of a hub, and to no other. Loops of several threads may use one.

    Args:
        address: With one server or several.
    """

    def __init__(self, address: Address) -> None:
        self._url = address.url
        self._dsns = address.servers
        self._chosen = self._dsns[0] if len(self._dsns) == 1 else None
        self._seen = _UNKNOWN
        self._memory: Path | None = None
        self._pooled: bool | None = None  # something like PgBouncer is between
        self._guard = threading.Lock()

    def remember(self, memory: Path) -> None:
        """From now on, what is seen outlives this object, in a file.

        Raises:
            StoreUnavailableError: A newer timeline than that of the server was seen before.
        """
        self._memory = memory
        if self._seen != _UNKNOWN:
            self._compare(self._seen, "it")

    def forget(self) -> None:
        """The hub is gone: what was seen of it means nothing."""
        if self._memory is not None:
            with suppress(OSError):
                self._memory.unlink(missing_ok=True)

    async def connect(self, *, name: str, answer_s: float | None) -> Connection:
        """Connect to the server that takes writes.

        Args:
            name: Shown by the server.
            answer_s: A statement that takes longer has failed; None: it takes what it takes.

        Raises:
            StoreUnavailableError: There is none now.
            UsageError: The URL cannot be.
        """
        if self._chosen is not None:
            try:
                return (await self._one(self._chosen, name, answer_s))[0]
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, StoreUnavailableError):
                if len(self._dsns) == 1:
                    raise
        return await self._elect(name, answer_s)

    async def _elect(self, name: str, answer_s: float | None) -> Connection:
        """Of several servers the one with the newest timeline of those that take writes."""
        asked = {asyncio.create_task(self._one(dsn, name, answer_s)): dsn for dsn in self._dsns}
        try:
            pending = set(asked)
            while pending and not any(_succeeded(task) for task in asked):
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if pending:
                await asyncio.wait(pending, timeout=_OTHERS_S)
        except BaseException:
            for task in asked:
                task.add_done_callback(_hang_up)
            raise
        finally:
            for task in asked:
                task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        answers = [(task.result(), dsn) for task, dsn in asked.items() if _succeeded(task)]
        if not answers:
            raise self._of_all(asked)
        (best, _), self._chosen = max(answers, key=lambda answer: answer[0][1].timeline)
        for (connection, _), _dsn in answers:
            if connection is not best:
                connection.terminate()
        return best

    def _of_all(self, asked: Mapping[asyncio.Task[Any], str]) -> BaseException:
        """What none of several servers would do: an error that time does not mend, or all of them."""
        for task in asked:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(as_store_error(error, self._url), StoreUnavailableError):
                return error
        reasons = "; ".join(f"{_host(dsn)}: {_reason(task)}" for task, dsn in asked.items())
        return StoreUnavailableError(
            f"Hub {self._url} is not available now: no host of the URL takes writes ({reasons})"
        )

    async def _one(self, dsn: str, name: str, answer_s: float | None) -> tuple[Connection, Line]:
        while True:
            pooled = self._pooled
            try:
                connection, refused = await Connection.make(dsn, name=name, answer_s=answer_s, pooled=pooled)
            except asyncpg.ClientConfigurationError as error:
                raise UsageError(f"The URL of a hub on PostgreSQL is not usable: {error}") from error
            try:
                line, is_other = await self._look(connection, dsn)
            except BaseException:
                connection.terminate()
                raise
            # A pooler may be told to swallow the parameter that it is known by; it cannot tell which process is behind it.
            self._pooled = bool(self._pooled) or refused or is_other
            if connection.is_pooled or not self._pooled:
                return connection, line
            connection.terminate()

    async def _look(self, connection: Connection, dsn: str) -> tuple[Line, bool]:
        """The line of a server that takes writes, and whether another process answers than the one connected to."""
        try:
            ((pid, recovering, read_only, system, timeline),) = await connection.rows(_LOOK)
        except asyncpg.PostgresError as error:
            if is_lost(error):
                raise
            ((pid, recovering, read_only, system, timeline),) = await connection.rows(_LOOK_LESS)
        if recovering or read_only == "on":
            why = "it is a standby, or recovers" if recovering else "it is read-only"
            raise StoreUnavailableError(
                f"Hub {self._url} is not available now: {_host(dsn)} takes no writes: {why}"
            )
        line = Line(system, timeline)
        if timeline:
            self._compare(line, _host(dsn))
        return line, pid != connection.pid

    def _compare(self, line: Line, server: str) -> None:
        with self._guard:
            self._compare_alone(line, server)

    def _compare_alone(self, line: Line, server: str) -> None:
        seen = max(
            self._seen, self._recalled(line), key=lambda one: (one.system == line.system, one.timeline)
        )
        if line.is_older_than(seen):
            raise StoreUnavailableError(
                f"Hub {self._url} is not available now: {server} is on timeline {line.timeline}, but the hub was seen on "
                f"timeline {seen.timeline}: this is an old primary that came back, and what it is told would be lost; connect "
                f"to the server that was promoted. If this one is right, because it was restored, delete {self._memory} and "
                "start all hosts again"
            )
        if line != seen and self._seen.system:
            _log.warning("Hub %s: the server has changed, from %s to %s", self._url, seen, line)
        self._seen = line
        if self._memory is not None and self._recalled(line) != line:
            with suppress(OSError):  # then only this object knows
                draft = self._memory.with_suffix(".new")
                draft.write_text(f"{line.system} {line.timeline}\n")
                draft.replace(self._memory)

    def _recalled(self, line: Line) -> Line:
        """What the file says, if it is about the same cluster."""
        if self._memory is None:
            return _UNKNOWN
        try:
            system, timeline = map(int, self._memory.read_text().split())
        except (OSError, ValueError):  # not there, or not ours
            return _UNKNOWN
        return Line(system, timeline) if system == line.system else _UNKNOWN


def _succeeded(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _hang_up(task: asyncio.Task[tuple[Connection, Line]]) -> None:
    if _succeeded(task):
        task.result()[0].terminate()


def _reason(task: asyncio.Task[Any]) -> str:
    if task.cancelled():
        return "no answer"
    error = task.exception()
    return str(error) or type(error).__name__


def _host(dsn: str) -> str:
    """For people, without secrets."""
    return dsn.partition("//")[2].rpartition("@")[2].partition("/")[0] or "the server"
