"""Which external event goes to which wait: by name without regard to case, the earliest event to the earliest wait."""

from __future__ import annotations

from collections import deque

from durably.core.events import EventRaised


class EventMatcher:
    """The buffered events and open waits of one execution.

    Used twice over the same history, by the run of user code (to hand out payloads) and by the state of the instance
    (to know what it waits for and what a new execution inherits), and therefore here once.
    """

    __slots__ = ("_arrived", "_buffered", "_names", "_waits")

    def __init__(self) -> None:
        self._arrived = 0
        self._buffered: dict[
            str, deque[tuple[int, EventRaised]]
        ] = {}  # with the order of arrival over all names
        self._waits: dict[
            str, dict[int, None]
        ] = {}  # name -> waits in order; a dict, to drop one from the middle
        self._names: dict[int, str] = {}

    def raised(self, event: EventRaised) -> int | None:
        """Take an event in; return the wait that it completes, or None when it is kept."""
        name = event.name.casefold()
        waits = self._waits.get(name)
        if waits:
            seq = next(iter(waits))
            self._drop(seq)
            return seq
        self._arrived += 1
        self._buffered.setdefault(name, deque()).append((self._arrived, event))
        return None

    def awaited(self, seq: int, name: str) -> EventRaised | None:
        """Open a wait; return the buffered event that completes it at once, or None."""
        name = name.casefold()
        buffered = self._buffered.get(name)
        if buffered:
            _, event = buffered.popleft()
            if not buffered:
                del self._buffered[name]
            return event
        self._waits.setdefault(name, {})[seq] = None
        self._names[seq] = name
        return None

    def first_wait(self, name: str) -> int | None:
        """The wait that an event of this name would complete, or None."""
        waits = self._waits.get(name.casefold())
        return next(iter(waits)) if waits else None

    def abandoned(self, seq: int) -> bool:
        """Close a wait that was cancelled or timed out, so that it never consumes an event; False when not open."""
        return self._drop(seq)

    def _drop(self, seq: int) -> bool:
        name = self._names.pop(seq, None)
        if name is None:
            return False
        waits = self._waits[name]
        del waits[seq]
        if not waits:
            del self._waits[name]
        return True

    def waits(self) -> list[int]:
        """The open waits, in the order in which they were opened."""
        return list(self._names)

    def unconsumed(self) -> list[EventRaised]:
        """Buffered events, in order of arrival."""
        waiting = [entry for entries in self._buffered.values() for entry in entries]
        return [event for _, event in sorted(waiting, key=lambda entry: entry[0])]
