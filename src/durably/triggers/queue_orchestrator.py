"""The life of a message: handed out, tried again, put aside. Each host has it, so any hub takes messages for any queue."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from durably.core.queues import (
    ASIDE_SOON,
    POISON,
    PUT_ASIDE,
    QUEUE,
    QueueItem,
    activity_of,
    is_aside_soon,
    message_instance,
)
from durably.program.context import OrchestrationContext
from durably.program.registry import OrchestratorFunction
from durably.triggers.handing_out import handed_out

_TRIES_MAX: Final = 100
"""Tries in one execution: of a message in a poison queue, of one that a broker does not take, or that may fail often."""


class Handed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of handing a message out once.

    Attributes:
        outcome: ``"done"``; ``"again"`` after `delay_s`; ``"poison"``; ``"aside"``: the broker's poison queue is to get it,
            which is made durable first; or ``"moved"``: it has it.
        delay_s: Until it is handed out again.
        failure: Why it failed.
    """

    outcome: Literal["done", "again", "poison", "aside", "moved"]
    delay_s: float = 0.0
    failure: str | None = None


async def deliver(ctx: OrchestrationContext, item: QueueItem) -> str:
    """Hand a message out until it is done, or has failed too often.

    Its policy is the consumer's, which may be deployed later than the message was sent: so the activity decides, its answer
    is recorded, and this code only follows.
    """
    count = item.tries + 1
    while count <= item.tries + _TRIES_MAX:
        handed = await _hand_out(ctx, item, count)
        if handed.outcome == "done":
            return "done"
        if handed.outcome in {"poison", "moved"}:
            if handed.outcome == "poison":
                _put_aside(ctx, item, handed.failure)
            return PUT_ASIDE
        if handed.outcome == "aside":
            item = msgspec.structs.replace(item, failure=handed.failure)
        count += 1
        if handed.delay_s > 0:
            await ctx.create_timer(handed.delay_s)
    ctx.continue_as_new(msgspec.structs.replace(item, tries=count - 1))
    return "goes on"


async def _hand_out(ctx: OrchestrationContext, item: QueueItem, count: int) -> Handed:
    """Hand it out once; wait for a host that has a function for it, as long as there is none."""
    what = {"item": msgspec.to_builtins(item), "count": count}
    waiting = f"no function takes the messages of queue '{item.queue}'"
    status = ASIDE_SOON if is_aside_soon(item) else None
    if status is not None:
        ctx.set_custom_status(status)
    return msgspec.convert(await handed_out(ctx, activity_of(item.queue), what, waiting, status), Handed)


def _put_aside(ctx: OrchestrationContext, item: QueueItem, failure: str | None) -> None:
    poison = msgspec.structs.replace(item, queue=f"{item.queue}{POISON}", failure=failure, tries=0)
    ctx.start_orchestration(QUEUE, poison, instance_id=message_instance(poison.queue, item.id))


DELIVERING = OrchestratorFunction(deliver, QUEUE, "coroutine", None)
"""What hosts register it as."""
