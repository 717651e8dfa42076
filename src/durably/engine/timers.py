"""Due timers become messages: a heap of the timers that are due soon; the later ones stay in the store."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from durably.clock import Clock, Wakeup
from durably.core.commit import TimerRow


class Timers:
    """The armed timers of one partition.

    A timer is armed once per row. Disarming is lazy: the heap keeps a stale entry until it comes up.

    Args:
        clock: Tells the time and rings.
        fire: Takes the timers that came due, by (due_at, execution, seq): those of one instant in creation order.
    """

    def __init__(self, clock: Clock, fire: Callable[[list[TimerRow]], None]) -> None:
        self._clock = clock
        self._fire = fire
        self._armed: dict[tuple[int, int, int], TimerRow] = {}
        self._heap: list[tuple[int, int, int, int]] = []
        self._wakeup: Wakeup | None = None
        self._wakeup_at = 0

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, row: TimerRow) -> None:
        """Arm a timer, or move it when its key is armed already."""
        key = (row.execution, row.seq, row.kind)
        held = self._armed.get(key)
        if held is not None and held.due_at == row.due_at:
            return
        self._armed[key] = row
        heapq.heappush(self._heap, (row.due_at, row.execution, row.seq, row.kind))
        if self._wakeup is None or row.due_at < self._wakeup_at:
            self._set_wakeup(row.due_at)

    def disarm(self, execution: int, seq: int, kind: int) -> None:
        """Disarm a timer; ignored when it is not armed."""
        self._armed.pop((execution, seq, kind), None)

    def close(self) -> None:
        """Ring no more."""
        self._armed.clear()
        self._heap.clear()
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None

    def _set_wakeup(self, due_at: int) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
        self._wakeup_at = due_at
        self._wakeup = self._clock.call_at(due_at, self._ring)

    def _ring(self) -> None:
        self._wakeup = None
        now = self._clock.now()
        due: list[TimerRow] = []
        while self._heap:
            due_at, execution, seq, kind = self._heap[0]
            row = self._armed.get((execution, seq, kind))
            if row is None or row.due_at != due_at:
                heapq.heappop(self._heap)  # disarmed, or moved
                continue
            if due_at > now:
                break
            heapq.heappop(self._heap)
            del self._armed[execution, seq, kind]
            due.append(row)
        if self._heap and self._wakeup is None:
            self._set_wakeup(self._heap[0][0])
        if due:
            self._fire(due)
