"""The orchestrator that every host has: it undoes what the sagas of an instance have left."""

from __future__ import annotations

from typing import Any

import msgspec

from durably.core.retry import RetrySpec
from durably.core.undo import UNDO
from durably.errors import DurablyError, FailureDetails, OrchestrationFailedError
from durably.program.context import OrchestrationContext
from durably.program.registry import OrchestratorFunction


class UndoFailedError(DurablyError):
    """Undos failed for good, and somebody has to look after what is left."""


async def undo_rest(ctx: OrchestrationContext, undos: list[dict[str, Any]]) -> list[str]:
    """Run undos in the order given, as a saga that fails: they are recorded, so they also outlive the end of this one.

    Returns:
        Their names.

    Raises:
        UndoFailedError: Some failed for good; all have been tried.
    """
    left = FailureDetails("Terminated", "it ended before its saga did")
    saga = ctx.saga()
    try:
        async with saga:
            for undo in reversed(undos):
                retry = undo.get("retry")
                spec = None if retry is None else msgspec.convert(retry, RetrySpec)
                saga.adopt(undo["name"], undo.get("input"), spec)
            raise OrchestrationFailedError(ctx.parent_instance_id or "", "Terminated", left)
    except OrchestrationFailedError:
        if saga.failed:
            count = f"{len(saga.failed)} of {len(undos)} undos failed"
            raise UndoFailedError(count) from None
    return [undo["name"] for undo in undos]


UNDOING = OrchestratorFunction(undo_rest, UNDO, "coroutine", None)
"""What hosts register it as."""
