"""In what company suspects run: the more often one was there when a process died, the fewer others run beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_SHARE = 8
"""With each death a suspect runs in a company an eighth as large: of thousands that were there, a handful is left after two
deaths, and a culprit is alone for its last one, so that nobody is parked for the deed of another suspect."""

_LEFT_MAX = 4


class Company:
    """Lets suspects run, those with most deaths first; shared by the activities and turns of a host.

    Args:
        max_deliveries: Deaths after which a suspect is parked.
    """

    def __init__(self, max_deliveries: int) -> None:
        self._max = max_deliveries
        self._running: dict[object, int] = {}  # how many may run at once, in the eyes of each
        self._waiting: dict[object, tuple[int, Callable[[], None]]] = {}
        self._armed = False

    @property
    def is_empty(self) -> bool:
        """True when no suspect runs or waits."""
        return not (self._running or self._waiting)

    def apply(self, suspect: object, deliveries: int, go: Callable[[], None]) -> None:
        """Call `go`, soon, when the suspect may run; `leave` has to follow. Ignored for one that waits or runs.

        Args:
            suspect: Its identity.
            deliveries: How often it was there when a process died.
            go: Called from the event loop.
        """
        if suspect not in self._running and suspect not in self._waiting:
            self._waiting[suspect] = (deliveries, go)
            self._arm()

    def leave(self, suspect: object) -> None:
        """It has ended, or does not want to run any more. Ignored for a stranger."""
        self._waiting.pop(suspect, None)
        if self._running.pop(suspect, None) is not None:
            self._arm()

    def _arm(self) -> None:
        if self._waiting and not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._admit)

    def _admit(self) -> None:
        self._armed = False
        for suspect, (deliveries, go) in sorted(self._waiting.items(), key=lambda item: -item[1][0]):
            left = min(max(self._max - 1 - deliveries, 0), _LEFT_MAX)
            room = _SHARE**left
            if len(self._running) >= min([room, *self._running.values()]):
                return  # nobody overtakes: whoever needs to be alone would wait for ever
            if suspect in self._waiting:  # `go` of another one may have made it leave
                del self._waiting[suspect]
                self._running[suspect] = room
                go()
