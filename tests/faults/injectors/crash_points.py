"""The process ends, as with `kill -9`, when it comes to a named point for the k-th time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from durably.engine.activities import ActivityPool
from durably.storage.sqlite import writer
from durably.storage.sqlite.writer import Writer
from tests.faults.effects import SideFile

DEAD = 137
"""Exit code of a process that came to its point."""

POINTS: dict[str, tuple[type, str, bool]] = {
    "before commit": (Writer, "commit", False),
    "within commit": (Writer, "_apply", True),
    "after commit": (Writer, "commit", True),
    "after post": (Writer, "post", True),
    "before run": (ActivityPool, "_run", False),
    "within run": (SideFile, "note", True),
    "after run": (ActivityPool, "_ended", False),
    "before checkpoint": (Writer, "checkpoint_all", False),
    "after checkpoint": (Writer, "checkpoint_all", True),
    "before epoch": (Writer, "next_epoch", False),
    "after epoch": (Writer, "next_epoch", True),
    "between checkpoints": (Writer, "checkpoint_if_due", True),
}
"""Name of a point, and where it is: a method, and whether it lies behind it."""


def arm(point: str, k: int) -> None:
    """End this process at the k-th arrival. There is no way back: for processes that are made to die."""
    owner, name, behind = POINTS[point]
    method: Callable[..., Any] = getattr(owner, name)
    arrivals = 0

    def reach() -> None:
        nonlocal arrivals
        arrivals += 1
        if arrivals == k:
            os._exit(DEAD)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if not behind:
            reach()
        answer = method(*arguments, **named)
        if behind:
            reach()
        return answer

    setattr(owner, name, wrapped)
    if "checkpoint" in point:
        writer._CHECKPOINT_PAGES = 10
