"""What the orchestrators of messages and of blobs have in common: they wait for a host that has the function."""

from __future__ import annotations

from typing import Any

from durably.core.queues import BOUND
from durably.errors import TaskFailedError, UnknownFunctionError
from durably.program.context import OrchestrationContext


async def handed_out(
    ctx: OrchestrationContext, activity: str, what: dict[str, Any], waiting: str, status: str | None = None
) -> Any:
    """Hand something out once; as long as no host has a function for it, wait for one.

    Args:
        ctx: Of the orchestrator.
        activity: That hands it out.
        what: Its input.
        waiting: The custom status meanwhile.
        status: The custom status otherwise.
    """
    while True:
        try:
            return await ctx.call_activity(activity, what)
        except TaskFailedError as error:
            if error.details.type != UnknownFunctionError.__name__:
                raise
        ctx.set_custom_status(waiting)
        await ctx.wait_for_external_event(BOUND)
        ctx.set_custom_status(status)
