"""The life of a message: handed out, tried again, put aside. Each host has it, so any hub takes messages for any queue."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from durably.core.queues import BOUND, POISON, QUEUE, QueueItem, activity_of, message_instance
from durably.errors import TaskFailedError, UnknownFunctionError
from durably.program.context import OrchestrationContext
from durably.program.registry import OrchestratorFunction

_TRIES_MAX: Final = 100
"""Tries in one execution; only messages in poison queues are tried so often."""


class Handed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of handing a message out once.

    Attributes:
        outcome: ``"done"``; ``"again"`` after `delay_s`; or ``"poison"``.
        delay_s: Until it is handed out again.
        failure: Why it failed.
    """

    outcome: Literal["done", "again", "poison"]
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
        if handed.outcome == "poison":
            _put_aside(ctx, item, handed.failure)
            return "poison"
        count += 1
        if handed.delay_s > 0:
            await ctx.create_timer(handed.delay_s)
    ctx.continue_as_new(msgspec.structs.replace(item, tries=count - 1))
    return "goes on"


async def _hand_out(ctx: OrchestrationContext, item: QueueItem, count: int) -> Handed:
    """Hand it out once; wait for a host that has a function for it, as long as there is none."""
    what = {"item": msgspec.to_builtins(item), "count": count}
    while True:
        try:
            return msgspec.convert(await ctx.call_activity(activity_of(item.queue), what), Handed)
        except TaskFailedError as error:
            if error.details.type != UnknownFunctionError.__name__:
                raise
        ctx.set_custom_status(f"no function takes the messages of queue '{item.queue}'")
        await ctx.wait_for_external_event(BOUND)
        ctx.set_custom_status(None)


def _put_aside(ctx: OrchestrationContext, item: QueueItem, failure: str | None) -> None:
    poison = msgspec.structs.replace(item, queue=f"{item.queue}{POISON}", failure=failure, tries=0)
    ctx.start_orchestration(QUEUE, poison, instance_id=message_instance(poison.queue, item.id))


DELIVERING = OrchestratorFunction(deliver, QUEUE, "coroutine", None)
"""What hosts register it as."""
