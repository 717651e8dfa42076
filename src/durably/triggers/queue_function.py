"""Functions that take the messages of a queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, cast

import msgspec

from durably.bindings.connections import check_connection
from durably.bindings.function import Source, UserFunction, is_any, is_client
from durably.bindings.outlets import Outlets
from durably.bindings.placeholders import Occasion
from durably.client import Client
from durably.codec.convert import Converter
from durably.config.names import filled
from durably.core.ids import check_text
from durably.core.queues import QueueItem, check_queue
from durably.core.timeline import instant
from durably.errors import InvalidTextError, RegistrationError
from durably.program.durations import microseconds
from durably.triggers.bodies import as_type, plain
from durably.triggers.functions import TriggerFunctions
from durably.triggers.options import QueueOptions


class QueueMessage(msgspec.Struct, frozen=True):
    """A message of a queue, as its function gets it.

    Attributes:
        id: Unique in the queue.
        queue: The queue.
        body: What was sent, as plain JSON data; from a broker, text when it is no JSON, base64 when it is no text.
        dequeue_count: How often it was handed out, this time included; also when a process died meanwhile.
        insertion_time: When it was sent (aware, UTC).
        failure: Of a message in a poison queue of the hub: why it is there.
        connection: To the broker, of a queue that is not on the hub.
    """

    id: str
    queue: str
    body: Any
    dequeue_count: int
    insertion_time: datetime
    failure: str | None = None
    connection: str | None = None


class Handing(NamedTuple):
    """A message on its way to a function."""

    item: QueueItem
    message: QueueMessage
    client: Client
    converter: Converter


_SOURCES: Final = (
    Source[Handing](is_client, lambda handing, _: handing.client),
    Source[Handing](lambda one: one.kind is QueueMessage, lambda handing, _: handing.message),
    Source[Handing](
        is_any, lambda handing, one: as_type(handing.item, one.kind, handing.converter), once=True
    ),
)


class QueueFunction:
    """A function that takes the messages of a queue.

    Attributes:
        name: Its name.
        queue: The queue; as it was written, until `resolved`.
        connection: To the broker that has it, or None: the hub has it.
        max_dequeue_count: A message that failed so often goes to the poison queue.
        visibility_us: How long a message that failed waits before it is handed out again.
        max_concurrent: As many messages may be in the function at once.
    """

    max_dequeue_count: int
    visibility_us: int
    max_concurrent: int

    def __init__(
        self,
        fn: Callable[..., Any],
        queue: str,
        *,
        name: str | None,
        connection: str | None = None,
        max_dequeue_count: int | None,
        visibility_timeout: timedelta | float | None,
        max_concurrent: int | None,
    ) -> None:
        self._function = UserFunction(
            fn,
            name,
            what="Queue function",
            act="bind {} to a queue",
            sources=_SOURCES,
            expected="QueueMessage, Client, and one for the body of the message",
        )
        self.name = self._function.name
        self.connection = None if connection is None else check_connection(connection)
        self.queue = queue if type(queue) is str and "%" in queue else self._checked(queue)
        self._given: dict[str, int] = {}
        for what, value in (("max_dequeue_count", max_dequeue_count), ("max_concurrent", max_concurrent)):
            if value is None:
                continue
            if type(value) is not int or value < 1:
                raise RegistrationError(
                    f"Queue function '{self.name}' has {what}={value!r}: expected 1 or more"
                )
            self._given[what] = value
        if visibility_timeout is not None:
            self._given["visibility_us"] = microseconds(visibility_timeout, "visibility_timeout", least=0)

    def resolved(self, defaults: QueueOptions, settings: Mapping[str, str] | None) -> QueueFunction:
        """The function as a host calls it: settings filled in, and what it does not say itself.

        Args:
            defaults: Of the host.
            settings: For ``%NAME%`` in the name of the queue; the environment by default.

        Raises:
            RegistrationError: A setting is not there.
            InvalidTextError: The name is not usable.
        """
        found = copy(self)
        found.queue = self._checked(filled(self.queue, f"Queue function '{self.name}'", settings))
        found.max_dequeue_count = self._given.get("max_dequeue_count", defaults.max_dequeue_count)
        found.max_concurrent = self._given.get("max_concurrent", defaults.max_concurrent)
        default_us = int(defaults.visibility_timeout_s * 1_000_000)
        found.visibility_us = self._given.get("visibility_us", default_us)
        return found

    def _checked(self, queue: Any) -> str:
        """A name that can be that of a queue. What a broker allows it knows alone."""
        if self.connection is None:
            return check_queue(queue)
        check_text(queue, "name of a queue")
        if not queue:
            raise InvalidTextError("The name of a queue is empty: expected what the broker calls it")
        return queue

    def __str__(self) -> str:
        return self.queue if self.connection is None else f"{self.queue} ({self.connection})"

    def check(self, outlets: Outlets) -> None:
        """See `UserFunction.check`."""
        self._function.check(outlets, None)

    async def call(
        self, item: QueueItem, dequeue_count: int, client: Client, converter: Converter, outlets: Outlets
    ) -> None:
        """Hand a message to the function; what it returns is dropped."""
        message = QueueMessage(
            item.id,
            self.queue,
            plain(item),
            dequeue_count,
            instant(item.inserted_at),
            item.failure,
            self.connection,
        )
        # A message may come again under an id that is forgotten: when it was sent tells the two apart.
        occasion = Occasion(
            f"{item.queue}:{item.id}:{item.inserted_at}", item.inserted_at, lambda: _names(message)
        )
        await self._function.call(Handing(item, message, client, converter), outlets, occasion)


def _names(message: QueueMessage) -> dict[str, Any]:
    """What paths of outputs are filled from: properties of the body come before those of the message."""
    body: Any = message.body
    names = {"id": message.id, "queueTrigger": body, "dequeueCount": message.dequeue_count}
    return names | (cast("dict[str, Any]", body) if isinstance(body, dict) else {})


class QueueFunctions(TriggerFunctions[QueueFunction]):
    """Registered queue functions, by queue."""

    def key_of(self, function: QueueFunction) -> str:
        return str(function)

    def refuse(self, function: QueueFunction, taken: QueueFunction) -> RegistrationError:
        return RegistrationError(
            f"Queue '{function}' has the function '{taken.name}', so '{function.name}' would get only some of its "
            "messages: expected one function for a queue"
        )

    def resolved(self, defaults: QueueOptions, settings: Mapping[str, str] | None) -> QueueFunctions:
        """All of them as a host calls them. Raises as `QueueFunction.resolved` and `add`."""
        found = QueueFunctions()
        for function in self:
            found.add(function.resolved(defaults, settings))
        return found
