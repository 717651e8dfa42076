"""The life of a message: handed out, tried again, put aside. Each host has it, so any hub takes messages for any queue."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from durably.core.queues import BOUND, POISON, QUEUE, QueueItem, message_instance
from durably.program.context import OrchestrationContext
from durably.program.registry import OrchestratorFunction


class Handed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of handing a message out once.

    Attributes:
        outcome: ``"done"``; ``"again"`` after `delay_s`; ``"poison"``; ``"unbound"``: no function takes it.
        delay_s: Until it is handed out again.
        failure: Why it failed.
    """

    outcome: Literal["done", "again", "poison", "unbound"]
    delay_s: float = 0.0
    failure: str | None = None


async def deliver(ctx: OrchestrationContext, item: QueueItem) -> str:
    """Hand a message out until it is done, or has failed too often.

    Its policy is the consumer's, which may be deployed later than the message was sent: so the activity decides, its answer
    is recorded, and this code only follows.
    """
    count = 1
    while True:
        plain: dict[str, Any] = await ctx.call_activity(
            QUEUE, {"item": msgspec.to_builtins(item), "count": count}
        )
        handed = msgspec.convert(plain, Handed)
        if handed.outcome == "done":
            return "done"
        if handed.outcome == "poison":
            _put_aside(ctx, item, handed.failure)
            return "poison"
        if handed.outcome == "unbound":
            ctx.set_custom_status(f"no function takes the messages of queue '{item.queue}'")
            await ctx.wait_for_external_event(BOUND)
            ctx.set_custom_status(None)
            continue
        count += 1
        if handed.delay_s > 0:
            await ctx.create_timer(handed.delay_s)


def _put_aside(ctx: OrchestrationContext, item: QueueItem, failure: str | None) -> None:
    poison = msgspec.structs.replace(item, queue=f"{item.queue}{POISON}", failure=failure)
    ctx.start_orchestration(QUEUE, poison, instance_id=message_instance(poison.queue, item.id))


DELIVERING = OrchestratorFunction(deliver, QUEUE, "coroutine", None)
"""What hosts register it as."""
