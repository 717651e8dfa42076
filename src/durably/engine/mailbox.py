"""What the next pump has to do: messages that came, and residents that had no turn, or not all of theirs, in the last."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from durably.engine.residents import Delivery, Resident


class Mailbox:
    """The work of one partition that is not begun. Whatever comes in arms the pump, once.

    Args:
        pump: Does the work; called by the running loop.
    """

    def __init__(self, pump: Callable[[], None]) -> None:
        self.deliveries: deque[Delivery] = deque()
        """Messages, in the order in which they came."""
        self.late: dict[str, Resident] = {}
        """Residents that go on in a later pump, by id: this batch grants them no more, or they have just been read."""
        self.armed = False
        """True when the pump is about to run."""
        self._pump = pump
        self._loop = asyncio.get_running_loop()

    def put(self, delivery: Delivery) -> None:
        """Take a message. It is dealt with in the next pump, together with all others that come until then."""
        self.deliveries.append(delivery)
        if not self.armed:
            self.arm()

    def put_first(self, delivery: Delivery) -> None:
        """Take a message, before all others."""
        self.deliveries.appendleft(delivery)
        self.arm()

    def postpone(self, resident: Resident) -> None:
        """Let a resident go on in a later pump. This does not arm it: what the resident waits for does."""
        self.late[resident.instance_id] = resident

    def take_late(self) -> list[Resident]:
        """The residents that go on, to be given their turns now."""
        late, self.late = self.late, {}
        return list(late.values())

    def arm(self) -> None:
        """Have the pump run."""
        if not self.armed:
            self.armed = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self.armed = False
        self._pump()
