"""A few connections that are used in turn."""

from __future__ import annotations

import asyncio

from durably.errors import DurablyError
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.failures import as_store_error, is_lost
from durably.storage.postgres.servers import Servers


class Use:
    """One use of a connection of a pool; each commit is one, so it is no generator."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.take()
        return self._connection

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._pool.give_back(self._connection, error)


class Pool:
    """Connections to one server, made when they are needed.

    Args:
        servers: Where to.
        url: Of the hub, for messages.
        name: Shown by the server.
        size: As many at most; who needs one more waits.
        answer_s: A statement that takes longer has failed, and its connection with it. None: it takes what it takes.
    """

    def __init__(self, servers: Servers, url: str, *, name: str, size: int, answer_s: float | None) -> None:
        self._servers = servers
        self._url = url
        self._name = name
        self._answer_s = answer_s
        self._places = asyncio.Semaphore(size)
        self._free: list[Connection] = []
        self._used: set[Connection] = set()
        self._closed = False

    def use(self) -> Use:
        """``async with``: a connection for as long as the block. Errors of the driver come out as those of a store."""
        return Use(self)

    async def take(self) -> Connection:
        """For `Use`: wait for a connection."""
        await self._places.acquire()
        try:
            return await self._take()
        except BaseException as error:
            self._places.release()
            if isinstance(error, Exception):
                raise as_store_error(error, self._url) from error
            raise

    def give_back(self, connection: Connection, error: BaseException | None) -> None:
        """For `Use`: end a block, with its error.

        Raises:
            DurablyError: What the error says, in words of a store.
        """
        if error is not None and (is_lost(error) or not isinstance(error, Exception)):
            connection.terminate()  # cancelled in the middle of an answer, or of no use any more
        self._give_back(connection)
        self._places.release()
        if isinstance(error, Exception) and not isinstance(error, DurablyError):
            raise as_store_error(error, self._url) from error

    async def _take(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed:
                break
        else:
            connection = await self._servers.connect(name=self._name, answer_s=self._answer_s)
        self._used.add(connection)
        return connection

    def _give_back(self, connection: Connection) -> None:
        self._used.discard(connection)
        if connection.is_closed:
            return
        if self._closed:
            connection.terminate()
        else:
            self._free.append(connection)

    async def close(self) -> None:
        """Hang up; what is under way is cut off. Idempotent, never raises."""
        self._closed = True
        free, self._free = self._free, []
        for connection in self._used:
            connection.terminate()
        await asyncio.gather(*(connection.close() for connection in free))
