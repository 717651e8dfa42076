"""A clock that moves when the test says so."""

from durably.program.durations import micros_of as micros
from durably.testing.clock import START
from durably.testing.clock import VirtualClock as ManualClock

__all__ = ["START", "ManualClock", "micros"]
