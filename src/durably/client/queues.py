"""The part of a client that works with queues on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from durably.client.posting import post_message
from durably.clock import Clock, Random
from durably.codec.convert import Converter
from durably.core.query import InstanceQuery
from durably.core.queues import QUEUE, QueueItem, check_queue, message_instance, prefix_of
from durably.core.status import RuntimeStatus
from durably.core.timeline import instant
from durably.management import Management
from durably.program.durations import microseconds

_OPEN: Final = (RuntimeStatus.Pending.value, RuntimeStatus.Running.value, RuntimeStatus.Suspended.value)

_decode = msgspec.json.Decoder(QueueItem).decode


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message that is in a queue.

    Attributes:
        id: Unique in the queue.
        body: What was sent, as plain JSON data.
        insertion_time: When it was sent (aware, UTC).
        failure: Of a message in a poison queue: why it is there.
    """

    id: str
    body: Any
    insertion_time: datetime
    failure: str | None


class Queue:
    """A queue on the hub. It need not be made: it is there when something was sent to it.

    Attributes:
        name: Its name.
    """

    def __init__(
        self, name: str, management: Management, converter: Converter, clock: Clock, random: Random
    ) -> None:
        self.name = check_queue(name)
        self._management = management
        self._converter = converter
        self._clock = clock
        self._random = random

    async def send(
        self, body: Any = None, *, message_id: str | None = None, delay: timedelta | float = 0.0
    ) -> str:
        """Send a message: durable on return, and handed to the function of the queue (`App.queue`) until that succeeds.

        Args:
            body: Any value that becomes JSON.
            message_id: Its id; a random one by default. A message whose id was sent before is that message: sending is
                idempotent, for as long as the hub remembers it (`EngineOptions.queue_keep_s` after it was dealt with). One
                that went to the poison queue was not dealt with: sent under its id, it is tried again.
            delay: Not before this has passed (timedelta or seconds).

        Returns:
            Its id.

        Raises:
            PayloadError: The body cannot become JSON.
            InvalidIdError: The id is not usable.
            InstanceAlreadyExistsError: An instance that is no message has the id of the one that this would be.
        """
        wait_us = microseconds(delay, "delay", least=0)
        message_id = self._random.token() if message_id is None else message_id
        encoded = b"null" if body is None else self._converter.encode(body)
        await self.send_encoded(encoded, message_id, wait_us)
        return message_id

    async def send_encoded(
        self, body: bytes, message_id: str, wait_us: int = 0, *, may_be_again: bool = True
    ) -> None:
        """Send a message whose body is JSON already; see `send` and `post_message`."""
        now = self._clock.now()
        item = QueueItem(self.name, message_id, msgspec.Raw(body), now)
        start_at = now + wait_us if wait_us else None
        execution_id = self._random.token()
        await post_message(
            self._management,
            self._converter,
            item,
            execution_id,
            start_at=start_at,
            may_be_again=may_be_again,
        )

    async def count(self) -> int:
        """How many messages wait, are delayed, or are being dealt with."""
        query = InstanceQuery(name=QUEUE, statuses=_OPEN, instance_id_prefix=prefix_of(self.name))
        return sum((await self._management.count(query)).values())

    async def peek(self, limit: int = 32) -> list[QueuedMessage]:
        """The oldest messages that wait, are delayed, or are being dealt with; 1,000 at most. It changes nothing."""
        query = InstanceQuery(
            name=QUEUE, statuses=_OPEN, instance_id_prefix=prefix_of(self.name), page_size=limit
        )
        found = await self._management.query(query)
        return [_shown(row.input) for row in found.rows if row.input is not None]

    async def delete(self, message_id: str) -> None:
        """Take a message out of the queue, whatever is done with it now.

        Raises:
            InstanceNotFoundError: There is none of this id.
            InstanceStateError: It was dealt with.
        """
        await self._management.terminate(message_instance(self.name, message_id), "deleted from its queue")


def _shown(payload: bytes) -> QueuedMessage:
    item = _decode(payload)
    return QueuedMessage(item.id, item.body, instant(item.inserted_at), item.failure)


class QueueVerbs:
    """Part of `Client`."""

    _management: Management
    _converter: Converter
    _clock: Clock
    _random: Random

    def queue(self, name: str) -> Queue:
        """A queue on the hub.

        Args:
            name: 3 to 63 lower-case letters, digits and single hyphens.

        Raises:
            InvalidTextError: The name is not usable.
        """
        return Queue(name, self._management, self._converter, self._clock, self._random)
