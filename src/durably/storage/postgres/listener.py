"""A connection that hears what is said on a channel, and knows whether it does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NoReturn

from durably.storage.postgres.servers import Servers

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


class Listener:
    """Listens, again and again where the connection is lost.

    Args:
        servers: Where; past PgBouncer in transaction mode nothing is heard.
        channel: What to listen to.
        me: How notices begin that this process sends: they are nothing new to it.
        notify: Sends a notice on the channel.
        heard: Called with the text of each notice of others.
        unsure: Called when something may have been said that was not heard, and again and again where nothing is heard.
    """

    def __init__(
        self,
        servers: Servers,
        channel: str,
        me: str,
        *,
        notify: Callable[[str], Awaitable[None]],
        heard: Callable[[str], None],
        unsure: Callable[[], None],
    ) -> None:
        self._servers = servers
        self._channel = channel
        self._me = me
        self._notify = notify
        self._on_notice = heard
        self._unsure = unsure
        self.listening = False
        """True while notices are known to arrive: an echo has come, and the connection stands."""
        self._task: asyncio.Task[None] | None = None
        self._echoed = asyncio.Event()

    def start(self) -> None:
        """Listen from now on. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="durably-postgres-listener")

    async def stop(self) -> None:
        """Hang up. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _heard(self, text: str) -> None:
        if text == _ECHO + self._me:
            self._echoed.set()
        elif not text.startswith((self._me, _ECHO)):
            self._on_notice(text)

    async def _listen(self) -> None:
        while True:
            with suppress(Exception):  # a server that is away: what was written meanwhile is found by polling
                await self._listen_once()
            await asyncio.sleep(_AGAIN_S)

    async def _poll(self) -> NoReturn:
        """Past a pooler nothing is heard."""
        while True:
            self._unsure()
            await asyncio.sleep(_POLL_S)

    async def _listen_once(self) -> None:
        connection = await self._servers.connect(name="durably listener", answer_s=_ANSWER_S)
        gone = asyncio.Event()
        try:
            if connection.is_pooled:
                await self._poll()
            await connection.listen(self._channel, self._heard, gone.set)
            self._unsure()  # what came before somebody listened
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
        await self._notify(_ECHO + self._me)
        try:
            async with asyncio.timeout(_ECHO_LOST_S):
                await self._echoed.wait()
        except TimeoutError:
            if self.listening:
                raise
            return  # a pooler that forwards no notices
        if not self.listening:
            self.listening = True
            self._unsure()  # what was told while nobody knew whether it arrives
