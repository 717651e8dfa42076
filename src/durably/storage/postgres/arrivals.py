"""How hosts learn that somebody has written: a notice on a channel; a lost one costs a poll."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from durably.errors import DurablyError
from durably.storage.postgres.listener import Listener
from durably.storage.postgres.pool import Pool
from durably.storage.postgres.servers import Servers

_TELL_S: Final = 0.02
"""Notices of one host are so far apart at least: each takes a lock that all transactions of the server with notices want."""

_OFFERED: Final = "offered"
_WITHDRAWN: Final = "withdrawn"
"""Words of a notice behind who sends it: what it did to the queue of activities that all hosts share."""

_HEEDING: Final = "heeding"
"""The word of a process that wants news."""


class Arrivals:
    """Calls back on the host loop when somebody has written.

    Args:
        pool: To tell others by.
        servers: Where to listen; past PgBouncer in transaction mode nothing is heard, and hosts poll.
        channel: The channel of the hub.
        me: Text that is this object: what it tells others is nothing new to itself.
    """

    def __init__(self, pool: Pool, servers: Servers, channel: str, me: str) -> None:
        self._pool = pool
        self.channel = channel
        self.me = me
        self._listener = Listener(
            servers, channel, me, notify=self._notify, heard=self._heard, unsure=self._look
        )
        self._callbacks: list[Callable[[], None]] = []
        self._telling: asyncio.Task[None] | None = None
        self._untold = False
        self._words: set[str] = set()
        self._watching: dict[str, list[Callable[[], None]]] = {_OFFERED: [], _WITHDRAWN: [], _HEEDING: []}

    @property
    def listening(self) -> bool:
        """True while notices are known to arrive."""
        return self._listener.listening

    def watch(self, callback: Callable[[], None]) -> None:
        """Call this back from now on, on the running loop."""
        self._callbacks.append(callback)
        self._listener.start()

    def watch_tasks(self, offered: Callable[[], None], withdrawn: Callable[[], None]) -> None:
        """Call these back when somebody has offered activities to all hosts, or withdrawn some, from `watch` on."""
        self._watching[_OFFERED].append(offered)
        self._watching[_WITHDRAWN].append(withdrawn)

    def tell_tasks(self, *, offered: bool, withdrawn: bool) -> None:
        """Tell all, this object included, of a change of the queue that all hosts share."""
        told = {word for word, happened in ((_OFFERED, offered), (_WITHDRAWN, withdrawn)) if happened}
        self._words |= told
        self._announce_words(told)
        self.tell()

    def _announce_words(self, words: set[str]) -> None:
        loop = asyncio.get_running_loop()
        for word in words:
            for callback in self._watching.get(word, ()):
                loop.call_soon(callback)

    def announce(self) -> None:
        """Call everybody back, soon."""
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            loop.call_soon(callback)

    async def stop(self) -> None:
        """Call nobody back any more. Idempotent."""
        self._callbacks.clear()
        self._watching.clear()
        await self._listener.stop()
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    def tell(self) -> None:
        """Tell all others that something was written, soon. What is lost of it costs them a poll."""
        self._untold = True
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell(), name="durably-postgres-notices")

    async def _tell(self) -> None:
        while self._untold:
            await asyncio.sleep(_TELL_S)
            self._untold = False
            words, self._words = self._words, set()
            with suppress(DurablyError):
                await self._notify(" ".join([self.me, *sorted(words)]))

    async def _notify(self, text: str) -> None:
        async with self._pool.use() as connection:
            await connection.rows("SELECT pg_notify($1, $2)", self.channel, text)

    def heeding(self, callback: Callable[[], None]) -> None:
        """Call this back when some process has said that it wants news."""
        self._watching[_HEEDING].append(callback)

    async def say_heeding(self) -> None:
        """Tell the hosts that this process wants news.

        Raises:
            StoreUnavailableError: The server is away.
        """
        await self._notify(f"{self.me} {_HEEDING}")

    def _heard(self, text: str) -> None:
        words = set(text.split()[1:])
        if words != {_HEEDING}:
            self.announce()
        self._announce_words(words)

    def _look(self) -> None:
        self.announce()
        self._announce_words({_OFFERED, _WITHDRAWN})
