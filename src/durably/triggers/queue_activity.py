"""Hands a message to the function of its queue."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from durably.client import Client
from durably.codec.convert import Converter
from durably.core.queues import POISON, QueueItem, activity_of, message_instance
from durably.errors import FailureDetails, HubClosedError
from durably.program.activity_context import ActivityContext
from durably.program.registry import ActivityFunction
from durably.triggers.forgetting import Forgetting
from durably.triggers.giving_back import leave_to_the_next_host
from durably.triggers.message_client import MessageClient
from durably.triggers.queue_function import QueueFunction, QueueMessage
from durably.triggers.queue_orchestrator import Handed

_log = logging.getLogger("durably.queue")


class QueueActivity:
    """Hands the messages of one queue to its function.

    Args:
        function: Of the queue.
        converter: Of bodies.
    """

    _client: Client
    _forgetting: Forgetting

    def __init__(self, function: QueueFunction, converter: Converter) -> None:
        self._function = function
        self._converter = converter

    def connect(self, client: Client, forgetting: Forgetting) -> None:
        """Say who the function talks to, and who deletes what was dealt with; before the first message."""
        self._client = client
        self._forgetting = forgetting

    def registered(self) -> ActivityFunction:
        """The activity, as an executor takes it.

        The pool keeps to the limit of the function: what waits for it takes nobody's place, and has not begun.
        """
        name = activity_of(self._function.queue)
        return ActivityFunction(self.perform, name, "coroutine", None, self._function.max_concurrent)

    async def perform(self, data: dict[str, Any], context: ActivityContext) -> dict[str, Any]:
        """Hand out one message once; never raises for what its function raised."""
        item = msgspec.convert(data["item"], QueueItem)
        # Each death of a process while the function had the message is a try as well.
        count: int = data["count"] + context.delivery - 1
        handed = await self._hand_out(item, count)
        if handed.outcome in {"done", "poison"}:
            self._forgetting.note(message_instance(item.queue, item.id))
        await self._forgetting.forget_due()
        return msgspec.to_builtins(handed)

    async def _hand_out(self, item: QueueItem, count: int) -> Handed:
        function = self._function
        if count > function.max_dequeue_count and not item.queue.endswith(POISON):
            return _failed(function, count, "the process ended while the function had it")
        client = MessageClient.for_message(self._client, item)
        try:
            await function.call(QueueMessage.of(item, count), client, self._converter)
        except HubClosedError:
            await leave_to_the_next_host()
        except Exception as error:  # noqa: BLE001 - user code
            _log.warning(
                "message '%s' of queue '%s' failed, try %d of %d",
                item.id,
                item.queue,
                count,
                function.max_dequeue_count,
                exc_info=error,
            )
            details = FailureDetails.of(error)
            return _failed(function, count, f"{details.type}: {details.message}")
        return Handed("done")


def _failed(function: QueueFunction, count: int, failure: str) -> Handed:
    # One that fails in a poison queue stays there: a queue behind it would only hide it.
    if count >= function.max_dequeue_count and not function.queue.endswith(POISON):
        return Handed("poison", failure=failure)
    return Handed("again", _delay_s(function, count), failure)


def _delay_s(function: QueueFunction, count: int) -> float:
    if count < function.max_dequeue_count:
        return function.visibility_us / 1_000_000
    return min(3_600.0, 60.0 * 2 ** min(count - function.max_dequeue_count, 6))
