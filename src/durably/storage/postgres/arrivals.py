"""How hosts learn that somebody has written: a notice on a channel; a lost one costs a poll."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from durably.errors import DurablyError
from durably.storage.postgres.pool import Pool
from durably.storage.postgres.servers import Servers

_TELL_S: Final = 0.02
"""Notices of one host are so far apart at least: each takes a lock that all transactions of the server with notices want."""

_POLL_S: Final = 0.25
"""Who cannot listen looks so often."""

_AGAIN_S: Final = 1.0
"""A listener that lost its server asks again so often."""

_ECHO_S: Final = 60.0
"""So often a listener sends itself a notice: firewalls and poolers drop connections without a word."""

_ECHO_LOST_S: Final = 5.0
"""An echo that has not come by then never will."""

_ANSWER_S: Final = 20.0
"""A server that does not say for so long that it listens is not there."""

_ECHO: Final = "echo "

_OFFERED: Final = "offered"
_WITHDRAWN: Final = "withdrawn"
"""Words of a notice behind who sends it: what it did to the queue of activities that all hosts share."""


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
        self._servers = servers
        self.channel = channel
        self.me = me
        self.listening = False
        """True while notices are known to arrive: an echo has come, and the connection stands."""
        self._callbacks: list[Callable[[], None]] = []
        self._listening: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._untold = False
        self._words: set[str] = set()
        self._watching: dict[str, list[Callable[[], None]]] = {_OFFERED: [], _WITHDRAWN: []}
        self._echoed = asyncio.Event()

    def watch(self, callback: Callable[[], None]) -> None:
        """Call this back from now on, on the running loop."""
        self._callbacks.append(callback)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="durably-postgres-listener")

    def watch_tasks(self, offered: Callable[[], None], withdrawn: Callable[[], None]) -> None:
        """Call these back when somebody has offered activities to all hosts, or withdrawn some, from `watch` on."""
        self._watching[_OFFERED].append(offered)
        self._watching[_WITHDRAWN].append(withdrawn)

    def tell_tasks(self, *, offered: bool, withdrawn: bool) -> None:
        """Tell all, this object included, of a change of the queue that all hosts share."""
        told = {word for word, happened in ((_OFFERED, offered), (_WITHDRAWN, withdrawn)) if happened}
        self._words |= told
        self._announce_tasks(told)
        self.tell()

    def _announce_tasks(self, words: set[str]) -> None:
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
        tasks = [task for task in (self._listening, self._telling) if task is not None]
        self._listening = self._telling = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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

    def _heard(self, text: str) -> None:
        if text == _ECHO + self.me:
            self._echoed.set()
        elif not text.startswith((self.me, _ECHO)):
            self.announce()
            self._announce_tasks(set(text.split()[1:]))

    async def _listen(self) -> None:
        while True:
            with suppress(Exception):  # a server that is away: what was posted meanwhile is found by polling
                await self._listen_once()
            await asyncio.sleep(_AGAIN_S)

    async def _poll(self) -> NoReturn:
        """Past a pooler nothing is heard."""
        while True:
            self.announce()
            self._announce_tasks({_OFFERED, _WITHDRAWN})
            await asyncio.sleep(_POLL_S)

    async def _listen_once(self) -> None:
        connection = await self._servers.connect(name="durably listener", answer_s=_ANSWER_S)
        gone = asyncio.Event()
        try:
            if connection.is_pooled:
                await self._poll()
            await connection.listen(self.channel, self._heard, gone.set)
            self.announce()  # what came before somebody listened
            while not gone.is_set():
                await self._echo()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ECHO_S):
                        await gone.wait()
        finally:
            self.listening = False
            connection.terminate()

    async def _echo(self) -> None:
        """Hear from oneself, or not.

        Raises:
            TimeoutError: Nothing was heard that was heard before: the connection is dead.
        """
        self._echoed.clear()
        await self._notify(_ECHO + self.me)
        try:
            async with asyncio.timeout(_ECHO_LOST_S):
                await self._echoed.wait()
        except TimeoutError:
            if self.listening:
                raise
            return  # a pooler that forwards no notices: hosts poll
        if not self.listening:
            self.listening = True
            self.announce()  # what was told while nobody knew whether it arrives
