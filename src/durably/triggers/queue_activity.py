"""Hands a message to the function of its queue."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from durably.bindings.outlets import Outlets
from durably.client import Client
from durably.codec.convert import Converter
from durably.core.queues import POISON, QueueItem, activity_of, is_aside_soon
from durably.errors import FailureDetails, HubClosedError
from durably.executors.time_limit import in_time
from durably.program.activity_context import ActivityContext
from durably.program.registry import ActivityFunction
from durably.triggers.bodies import sent
from durably.triggers.bound_queue import BoundQueue
from durably.triggers.forgetting import Forgetting
from durably.triggers.giving_back import leave_to_the_next_host
from durably.triggers.message_client import MessageClient
from durably.triggers.queue_function import QueueFunction
from durably.triggers.queue_orchestrator import Handed

_log = logging.getLogger("durably.queue")

_AWAY_S: Final = 300.0
"""What cannot be put into the poison queue of a broker is tried again so late at the latest."""


class QueueActivity:
    """Hands the messages of one queue to its function.

    Attributes:
        bound: The queue and its function.
        tried: Is told the instance of each message that was handed out.

    Args:
        bound: The queue and its function.
        converter: Of bodies.
        time_limit_s: See `EngineOptions.function_timeout_s`.
    """

    _client: Client
    _outlets: Outlets
    _forgetting: Forgetting

    def __init__(self, bound: BoundQueue, converter: Converter, time_limit_s: float) -> None:
        self.bound = bound
        self.tried: Callable[[str], None] | None = None
        self._function = bound.function
        self._converter = converter
        self._time_limit_s = time_limit_s

    def connect(self, client: Client, outlets: Outlets, forgetting: Forgetting) -> None:
        """Say who the function talks to, and who deletes what was dealt with; before the first message."""
        self._client = client
        self._outlets = outlets
        self._forgetting = forgetting

    def registered(self) -> ActivityFunction:
        """The activity, as an executor takes it.

        The pool keeps to the limit of the function: what waits for it takes nobody's place, and has not begun.
        """
        name = activity_of(self.bound.hub_queue)
        return ActivityFunction(self.perform, name, "coroutine", None, self._function.max_concurrent)

    async def perform(self, data: dict[str, Any], context: ActivityContext) -> dict[str, Any]:
        """Hand out one message once; never raises for what its function raised."""
        item = msgspec.convert(data["item"], QueueItem)
        # Each death of a process while the function had the message is a try as well.
        count: int = data["count"] + context.delivery - 1
        try:
            handed = await self._hand_out(item, count)
        finally:
            if self.tried is not None:
                self.tried(context.instance_id)
        if handed.outcome not in {"again", "aside"}:
            self._forgetting.note(context.instance_id)
        await self._forgetting.forget_due()
        return msgspec.to_builtins(handed)

    async def _hand_out(self, item: QueueItem, count: int) -> Handed:
        if is_aside_soon(item):
            return await self._put_aside(item, count)
        function = self._function
        if count > function.max_dequeue_count and not self.bound.is_poison:
            return self._failed(count, "the process ended while the function had it")
        client = MessageClient.for_message(self._client, item)
        try:
            call = function.call(item, count, client, self._converter, self._outlets)
            await in_time(call, self._time_limit_s, f"Queue function '{function.name}'")
        except HubClosedError:
            await leave_to_the_next_host()
        except Exception as error:  # noqa: BLE001 - user code
            _log.warning(
                "message '%s' of %s failed, try %d of %d",
                item.id,
                self.bound,
                count,
                function.max_dequeue_count,
                exc_info=error,
            )
            details = FailureDetails.of(error)
            return self._failed(count, f"{details.type}: {details.message}")
        return Handed("done")

    def _failed(self, count: int, failure: str) -> Handed:
        # One that fails in a poison queue stays there: a queue behind it would only hide it.
        if count < self._function.max_dequeue_count or self.bound.is_poison:
            return Handed("again", _delay_s(self._function, count), failure)
        return Handed("poison" if self.bound.broker is None else "aside", failure=failure)

    async def _put_aside(self, item: QueueItem, count: int) -> Handed:
        """Send it to the poison queue of its broker. Whoever gets it there may send it again before we are back."""
        broker, failure = self.bound.broker, item.failure
        if broker is None:
            return Handed("poison", failure=failure)
        try:
            await broker.send(self.bound.name + POISON, sent(item), message_id=item.id)
        except Exception as error:  # noqa: BLE001 - whatever its library raises, the message is not lost
            _log.warning("message '%s' of %s cannot be put aside yet: %s", item.id, self.bound, error)
            late = min(_AWAY_S, 2.0 ** max(0, min(count - self._function.max_dequeue_count - 1, 16)))
            return Handed("again", late, f"it cannot be put aside: {error}")
        return Handed("moved", failure=failure)


def _delay_s(function: QueueFunction, count: int) -> float:
    if count < function.max_dequeue_count:
        return function.visibility_us / 1_000_000
    return min(3_600.0, 60.0 * 2 ** min(count - function.max_dequeue_count, 6))
