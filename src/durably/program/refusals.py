"""What orchestrators may not ask of their loop, and what to do instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

from durably.errors import NonDeterministicCall
from durably.program.decisions import evicted

_ACTIVITY = "call it in an activity: await ctx.call_activity(...)"

_CURES: Final[dict[str, str]] = {
    "run_in_executor": "threads and asyncio.to_thread belong into an activity (a plain def runs in a thread): "
    "await ctx.call_activity(...)",
    "call_soon_threadsafe": "send an external event to the instance from outside, and await ctx.wait_for_external_event(...)",
    "set_task_factory": "tasks of an orchestrator are always of one kind and never eager; drop the factory",
    "set_debug": "debug mode reads the clock; drop it",
    "add_signal_handler": "send an external event from the process that gets the signal",
    "remove_signal_handler": "send an external event from the process that gets the signal",
    "run_forever": "the engine runs this loop; await instead",
    "run_until_complete": "the engine runs this loop; await instead",
    "stop": "return from the orchestrator instead",
    "shutdown_asyncgens": "async generators are closed with the execution; use contextlib.aclosing to close one earlier",
    "shutdown_default_executor": "an orchestrator has no executor",
}


def refusal(what: str, cure: str) -> NonDeterministicCall:
    """The error for a use of asyncio that has no durable meaning, with what to do instead."""
    return NonDeterministicCall(f"Orchestrators cannot use {what}: a replay could not repeat it; {cure}")


def refused(name: str) -> Callable[..., NoReturn]:
    """A method that refuses; for a loop that an orchestrator is running on."""
    cure = _CURES.get(name, _ACTIVITY)

    def refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
        _drop(args)
        raise refusal(f"loop.{name}()", cure)

    refuse.__name__ = name
    return refuse


def gone(self: object, *args: object, **kwargs: object) -> NoReturn:
    """A method that refuses; for a loop whose execution is closed."""
    _drop(args)
    raise evicted()


def _drop(args: tuple[object, ...]) -> None:
    for arg in args:
        if asyncio.iscoroutine(arg):
            arg.close()  # else Python would say that it was never awaited
