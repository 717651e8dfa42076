"""How those who wait hear that it is worth looking: hosts say after a commit what it answered and what it ended.

They do so only while somebody has said lately that he heeds it. What is said are ids alone, on a channel that hosts need not
listen to; each notice takes a lock of the server, so what lands while one is on its way goes into the next one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from durably.core.commit import Batch
from durably.errors import DurablyError
from durably.storage.news import News, news_of
from durably.storage.postgres.arrivals import Arrivals
from durably.storage.postgres.listener import Listener
from durably.storage.postgres.pool import Pool
from durably.storage.postgres.servers import Servers

_SAY_S: Final = 5.0
"""Who heeds says so as often, for hosts that came meanwhile."""

_HEEDED_S: Final = 3 * _SAY_S
"""Hosts believe it so long; and so long whoever heeds believes that hosts say what they do, once one has."""

_WANTED_S: Final = 10.0
"""Who has asked for news wants them so long, see `Store.heed`."""

_TELL_S: Final = float(__import__("os").environ.get("TELL", "0.005"))

_NOTICE_MAX: Final = 7_500
"""Bytes of a notice; the server takes less than 8,000."""

_TELL: Final = "SELECT pg_notify($1, unnest($2::text[]))"


class PostgresNews:
    """Says and hears news.

    Args:
        pool: To say it by.
        servers: Where to listen.
        arrivals: The channel of the hosts.
    """

    def __init__(self, pool: Pool, servers: Servers, arrivals: Arrivals) -> None:
        self._pool = pool
        self._arrivals = arrivals
        self._channel = f"{arrivals.channel}_news"
        self._listener = Listener(
            servers, self._channel, arrivals.me, notify=self._echo, heard=self._heard, unsure=self._unsure
        )
        self._callbacks: list[Callable[[News], None]] = []
        self._wanted_until = self._heeded_until = self._told_until = 0.0
        self._untold: list[Batch] = []
        self._reply = False
        self._telling: asyncio.Task[None] | None = None
        self._saying: asyncio.Task[None] | None = None
        arrivals.heeding(self.heeded)

    # --- saying ------------------------------------------------------------------------------------------------------

    def heeded(self) -> None:
        """Somebody wants news, or may: say what lands from now on, and at once that this host does so."""
        self._heeded_until = time.monotonic() + _HEEDED_S
        self._reply = True
        self._tell_soon()

    def landed(self, batches: Iterable[Batch]) -> None:
        """These have been committed by this process."""
        if time.monotonic() < self._heeded_until:
            self._untold += batches
            self._tell_soon()

    def _tell_soon(self) -> None:
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell(), name="durably-postgres-news")

    async def _tell(self) -> None:
        while self._untold or self._reply:
            untold, self._untold = self._untold, []
            reply, self._reply = self._reply, False
            news = news_of(untold)
            if not reply and not any(news):
                continue
            texts = [f"{self._arrivals.me} {text}" for text in _texts(news)]
            with suppress(DurablyError):  # whoever waits looks now and then
                async with self._pool.use() as connection:
                    await connection.rows(_TELL, self._channel, texts)
            await asyncio.sleep(_TELL_S)

    # --- hearing -----------------------------------------------------------------------------------------------------

    def heed(self, callback: Callable[[News], None]) -> bool:
        """See `Store.heed`."""
        now = time.monotonic()
        self._wanted_until = now + _WANTED_S
        if callback not in self._callbacks:
            self._callbacks.append(callback)
        self._listener.start()
        if self._saying is None or self._saying.done():
            self._saying = asyncio.create_task(self._say(), name="durably-postgres-heeding")
        return self._listener.listening and now < self._told_until

    async def _say(self) -> None:
        while time.monotonic() < self._wanted_until:
            if self._listener.listening:
                with suppress(DurablyError):
                    await self._arrivals.say_heeding()
            await asyncio.sleep(_SAY_S)

    async def _echo(self, text: str) -> None:
        async with self._pool.use() as connection:
            await connection.rows(_TELL, self._channel, [text])

    def _unsure(self) -> None:
        """It listens from now on, or again: the hosts are asked at once, and nothing is believed that was before."""
        self._told_until = 0.0
        if self._listener.listening and self._saying is not None:
            self._saying.cancel()
            self._saying = asyncio.create_task(self._say(), name="durably-postgres-heeding")

    def _heard(self, text: str) -> None:
        self._told_until = time.monotonic() + _HEEDED_S
        news = _parsed(text)
        if any(news):
            for callback in self._callbacks:
                callback(news)

    async def stop(self) -> None:
        """Say and hear nothing any more. Idempotent."""
        self._callbacks.clear()
        await self._listener.stop()
        tasks = [task for task in (self._telling, self._saying) if task is not None]
        self._telling = self._saying = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _texts(news: News) -> list[str]:
    """Notices, each short enough for the server; at least one. An id that is too long for any is left out."""
    found: list[str] = []
    held: list[list[str]] = [[] for _ in news]
    size = 0
    for place, ids in enumerate(news):
        for one in sorted(ids):
            length = len(json.dumps(one)) + 1
            if length > _NOTICE_MAX:
                continue
            if size + length > _NOTICE_MAX:
                found.append(json.dumps(held))
                held, size = list[list[str]]([] for _ in news), 0
            held[place].append(one)
            size += length
    return [*found, json.dumps(held)]


def _parsed(text: str) -> News:
    """What a notice says; of one that says it otherwise, as a later version may, nothing."""
    try:
        said: Any = json.loads(text.partition(" ")[2])
        accepted, answered, ended = (frozenset(map(str, ids)) for ids in said)
    except (ValueError, TypeError):
        return News(frozenset(), frozenset(), frozenset())
    return News(accepted, answered, ended)
