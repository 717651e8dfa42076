"""A gate that callers pass while there is room behind it; whoever makes room says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Gate:
    """Lets callers through in their order, each as soon as there is room.

    Args:
        has_room: Whether the next one may pass.
    """

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def passed(self) -> None:
        """Return when there is room."""
        queue_up = self._waiting.append
        while not self._has_room():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue_up(turn)
            queue_up = self._waiting.appendleft  # woken, and somebody was quicker: it stays the first
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self.look()  # it was this one's turn: now it is somebody else's
                raise
        self.look()  # one is woken at a time, and wakes the next one: a flood of them would only wake to wait again

    def look(self) -> None:
        """There may be room now."""
        while self._waiting and self._has_room():
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
