"""The life of a version of a blob: handed out, tried again, told of. Each host has it, whatever its functions."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from durably.core.blobs import BLOB, POISON_QUEUE, BlobItem, activity_of, receipt_of
from durably.core.queues import QUEUE, QueueItem, message_instance
from durably.program.context import OrchestrationContext
from durably.program.durations import micros_of
from durably.program.registry import OrchestratorFunction
from durably.triggers.blob_receipts import LOST
from durably.triggers.handing_out import handed_out

_LATER_S: Final = 10.0
_LATER_MAX_S: Final = 300.0
"""A store that cannot be reached is asked again after so long, and ever more rarely."""

_TURNS: Final = 100
"""In one execution: what waits for its store for days must not become ever longer."""


class Handled(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of handing a blob out once.

    Attributes:
        outcome: ``"done"``; ``"gone"``: there is no such version any more; ``"again"`` after `delay_s`; ``"later"``: the
            store could not be reached, or the blob not be read, which is no try; or ``"poison"``.
        delay_s: Until it is handed out again.
        failure: Why it failed.
    """

    outcome: Literal["done", "gone", "again", "later", "poison"]
    delay_s: float = 0.0
    failure: str | None = None


async def handle(ctx: OrchestrationContext, item: BlobItem) -> str:
    """Hand a version of a blob out until it is done, or has failed too often. The activity decides, this code follows."""
    tries = item.tries
    for turn in range(_TURNS):
        handled = await _hand_out(ctx, item, tries + 1)
        if handled.outcome == "gone":
            # It may have been moved away, and come back: then its receipt starts it anew.
            ctx.signal_entity(receipt_of(item.function, item.container, item.name), LOST, item.version)
        if handled.outcome in ("done", "gone"):
            return handled.outcome
        if handled.outcome == "poison":
            _tell(ctx, item, handled.failure)
            return "poison"
        if handled.outcome == "again":
            tries += 1
            if handled.delay_s > 0:
                await ctx.create_timer(handled.delay_s)
        else:
            ctx.set_custom_status(handled.failure)
            await ctx.create_timer(min(_LATER_S * 2**turn, _LATER_MAX_S))
            ctx.set_custom_status(None)
    ctx.continue_as_new(msgspec.structs.replace(item, tries=tries))
    return "goes on"


async def _hand_out(ctx: OrchestrationContext, item: BlobItem, count: int) -> Handled:
    """Hand it out once; wait for a host that has the function, as long as there is none."""
    what = {"item": msgspec.to_builtins(item), "count": count}
    waiting = f"no function '{item.function}' takes blobs"
    return msgspec.convert(await handed_out(ctx, activity_of(item.function), what, waiting), Handled)


def _tell(ctx: OrchestrationContext, item: BlobItem, failure: str | None) -> None:
    """Send the message of Azure Functions, and the cause, to the queue of poison blobs."""
    body = {
        "FunctionId": item.function,
        "BlobType": "BlockBlob",
        "ContainerName": item.container,
        "BlobName": item.name,
        "ETag": item.version,
        "Cause": failure,
    }
    message_id = item.id.rpartition(":")[2]
    message = QueueItem(POISON_QUEUE, message_id, body, micros_of(ctx.current_utc_datetime), failure)
    ctx.start_orchestration(QUEUE, message, instance_id=message_instance(POISON_QUEUE, message_id))


HANDLING = OrchestratorFunction(handle, BLOB, "coroutine", None)
"""What hosts register it as."""
