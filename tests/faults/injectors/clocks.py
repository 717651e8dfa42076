"""A wall clock that is set by hand while everything else goes on in real time."""

from __future__ import annotations

from durably.clock import SystemClock


class JumpingClock(SystemClock):
    """The machine's clock, some way off.

    Attributes:
        offset_s: How far ahead it is.
    """

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s

    def now(self) -> int:
        return super().now() + int(self.offset_s * 1_000_000)
