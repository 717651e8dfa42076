"""The calls of clients that are under way in one host, and those that wait for a place among them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from durably.core.events import Payload
from durably.core.messages import MessageBody
from durably.engine.residents import Delivery
from durably.engine.waiters import refuse


class Commands:
    """Calls outlive partition objects: what one of them leaves unanswered is delivered to the next.

    Args:
        limit: Calls that may be under way at once; more wait in their callers.
        deliver: Takes a message; it may be lost, until it is delivered again with all that are `unanswered`.
        closed: True when no more calls are taken: those that wait need not wait any longer.
    """

    def __init__(self, limit: int, deliver: Callable[[Delivery], None], closed: Callable[[], bool]) -> None:
        self._limit = limit
        self._deliver = deliver
        self._closed = closed
        self._under_way: dict[asyncio.Future[Payload], Delivery] = {}
        self._for_places: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    async def wait_for_place(self) -> None:
        """Return when another call may come, or none at all; callers come in the order in which they asked."""
        while len(self._under_way) >= self._limit and not self._closed():
            await self._wait_for_turn()

    async def send(self, target: str, body: MessageBody) -> Payload:
        """Deliver a message and return when it is answered, with the result if there is one.

        Raises:
            Exception: The answer is an error.
        """
        reply: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
        delivery = self._under_way[reply] = Delivery(target, body, reply)
        self._deliver(delivery)
        try:
            return await reply
        finally:
            del self._under_way[reply]
            if self._for_places:
                self._give_place()

    def unanswered(self, whose: Callable[[str], bool] | None = None) -> list[Delivery]:
        """The messages of all calls that have no answer, to be delivered again; or of those to some targets."""
        return [
            Delivery(delivery.target, delivery.body, reply)
            for reply, delivery in self._under_way.items()
            if not reply.done() and (whose is None or whose(delivery.target))
        ]

    def refuse_all(self, error: Exception) -> None:
        """Answer everybody with an error; those who wait for a place find the host closed."""
        for reply in list(self._under_way):
            if not reply.done():
                refuse(reply, error)
        while self._for_places:
            self._give_place()

    async def _wait_for_turn(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._for_places.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._give_place()
            raise

    def _give_place(self) -> None:
        """Wake one caller that waits, not all: of a flood of them, each would be woken for each of the others."""
        while self._for_places:
            place = self._for_places.popleft()
            if not place.done():
                place.set_result(None)
                return
