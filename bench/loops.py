"""The event loop that everything is measured on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from durably.cli.hosting import tune_collector

T = TypeVar("T")

LOOPS = ("uvloop", "asyncio")


def run(work: Coroutine[Any, Any, T], loop: str) -> T:
    """Run to completion on a loop of that kind, in a process set up as `durably run` sets up its own."""
    tune_collector()
    if loop == "asyncio":
        return asyncio.run(work)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
