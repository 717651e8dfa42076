"""What sources have in common: they know what they have taken, take no more than they may, and give back what is left."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from durably.bindings.broker import BrokerMessage
from durably.errors import BrokerError

_log = logging.getLogger("durably.bindings")

_LEAVE_S: Final = 5.0
"""A broker that does not answer for so long at the end finds out by itself that we have left."""


_AGAIN_S: Final = 0.1
"""Who has not ended so long after a cancellation is cancelled once more."""


async def every(works: Iterable[Awaitable[object]]) -> None:
    """Do all at once. When one goes wrong, the others come to their end before that is raised."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel until it has ended: a client may lose a cancellation, as `asyncio.wait_for` does up to Python 3.11."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_S)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.debug("was ended with an error: %s", error)


class HoldingSource(ABC):
    """A `Source` of a broker that is asked for messages, and takes back what nobody says is still at work.

    Reading is a task of its own, which goes on when `receive` is cancelled: what it takes goes to the next call. So
    there is no moment at which a message has left the broker and has arrived nowhere.

    Args:
        prefetch: As many messages are held at most.
        keep_s: So often the broker hears what is held for longer than that. A quarter of its patience: twice as long passes
            at most.
    """

    def __init__(self, prefetch: int, keep_s: float) -> None:
        self._prefetch = prefetch
        self._keep_s = keep_s
        self._held: dict[Any, BrokerMessage] = {}
        self._ready: deque[BrokerMessage] = deque()
        self._settled = asyncio.Event()
        self._reading: asyncio.Task[list[BrokerMessage]] | None = None
        self._keeping = asyncio.create_task(self._keep_on())
        self._closed = False
        self.when_closed: Callable[[], None] | None = None

    async def receive(self, limit: int) -> list[BrokerMessage]:
        """See `Source.receive`."""
        while not self._ready:
            if self._closed:
                raise BrokerError("This source is closed: expected a new one")
            if len(self._held) >= self._prefetch:
                self._settled.clear()
                await self._settled.wait()
                continue
            if (
                self._reading is None
            ):  # as much as we may hold: who asks for few each time is not asking the broker
                self._reading = asyncio.create_task(self._read(self._prefetch - len(self._held)))
            await self._read_out(self._reading)
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    async def settle(self, messages: Sequence[BrokerMessage]) -> None:
        """See `Source.settle`."""
        await self._remove(messages)
        for message in messages:
            self._held.pop(message.receipt, None)
        self._settled.set()

    async def close(self) -> None:
        """See `Source.close`."""
        if self._closed:
            return
        self._closed = True
        self._settled.set()
        tasks: list[asyncio.Task[Any]] = [task for task in (self._reading, self._keeping) if task is not None]
        await asyncio.gather(*(_end(task) for task in tasks))
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._leave(list(self._held.values()))
        except Exception as error:  # noqa: BLE001 - what is held comes back when the broker has lost patience
            _log.debug("left without a word: %s", error)
        self._held.clear()
        self._ready.clear()
        if self.when_closed is not None:
            self.when_closed()

    @abstractmethod
    async def _read(self, room: int) -> list[BrokerMessage]:
        """Wait until there is a message; take it and what else is there, up to `room`. Receipts tell messages apart.

        A broker that brings them does not read: they are taken as they come, and this only waits for that.
        """

    @abstractmethod
    async def _keep(self, messages: Sequence[BrokerMessage]) -> None:
        """Say that these are still at work."""

    @abstractmethod
    async def _remove(self, messages: Sequence[BrokerMessage]) -> None:
        """Take these out of the queue for good."""

    @abstractmethod
    async def _leave(self, messages: Sequence[BrokerMessage]) -> None:
        """Give these back. Nothing else goes on any more."""

    async def _read_out(self, reading: asyncio.Task[list[BrokerMessage]]) -> None:
        await asyncio.wait({reading})
        if self._reading is not reading:  # somebody else was faster
            return
        self._reading = None
        if reading.cancelled():
            return
        for message in reading.result():
            self._take(message)

    def _take(self, message: BrokerMessage) -> None:
        """It is here, for the next who receives."""
        if message.receipt not in self._held:  # we were slow to keep it, and got it once more
            self._held[message.receipt] = message
            self._ready.append(message)

    async def _keep_on(self) -> None:
        """Only what is old is kept: nearly everything is settled before anybody could wonder."""
        before: set[Any] = set()
        while True:
            await asyncio.sleep(self._keep_s)
            old = [message for receipt, message in self._held.items() if receipt in before]
            before = set(self._held)
            try:
                if old:
                    await self._keep(old)
            except BrokerError as error:  # whoever receives hears of it
                _log.debug("could not keep %d messages: %s", len(old), error)
            except Exception:  # noqa: BLE001 - of a client library; these may be delivered once more
                _log.exception("could not keep %d messages", len(old))
