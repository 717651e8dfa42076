"""Async generators of orchestrators belong to their loop, those of the host to the host's.

Python has one pair of hooks per thread, and the host's loop has set its own. Setting them for each turn and setting them
back costs 2 µs, a third of a turn, because each change is an audited event. Therefore the hooks are set once for each host
loop: they ask which loop is running, and pass on to the hooks of the host what is not ours.
"""

from __future__ import annotations

import sys
from asyncio import events
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from durably.program.loop import ProgramLoop

_Hook = Callable[[AsyncGenerator[Any, Any]], None]

_get_running_loop: Final = events._get_running_loop  # None where the public one raises


class FirstIteration:
    """The hook for the first use of a generator."""

    __slots__ = ("host",)

    def __init__(self, host: _Hook | None) -> None:
        self.host = host

    def __call__(self, generator: AsyncGenerator[Any, Any]) -> None:
        loop = _get_running_loop()
        if isinstance(loop, ProgramLoop):
            loop.adopt(generator)
        elif self.host is not None:
            self.host(generator)


class Finalization:
    """The hook for a generator that is collected before it finished: one of the host's, since loops keep ours."""

    __slots__ = ("host",)

    def __init__(self, host: _Hook | None) -> None:
        self.host = host

    def __call__(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self.host is not None:
            self.host(generator)


def enter() -> tuple[_Hook | None, _Hook | None] | None:
    """Make sure that the hooks of this thread are ours.

    Returns:
        What to give to `leave` after the turn; None, the common case, when nothing is to be done.
    """
    before = sys.get_asyncgen_hooks()
    if isinstance(before[0], FirstIteration):
        return None
    sys.set_asyncgen_hooks(FirstIteration(before[0]), Finalization(before[1]))
    if before[0] is not None and before[1] is not None and _get_running_loop() is not None:
        return None  # the host's loop takes its hooks down when it ends, and ours with them
    return before[0], before[1]


def leave(before: tuple[_Hook | None, _Hook | None] | None) -> None:
    """Undo `enter`."""
    if before is not None:
        sys.set_asyncgen_hooks(*before)
