"""Functions that take the messages of a queue."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

import msgspec

from durably.client import Client
from durably.codec.convert import Converter
from durably.core.queues import QueueItem, check_queue
from durably.core.timeline import instant
from durably.errors import RegistrationError
from durably.program.durations import microseconds
from durably.program.registry import name_of
from durably.program.signatures import Signature
from durably.triggers.functions import TriggerFunctions

MAX_DEQUEUE_COUNT: Final = 5
MAX_CONCURRENT: Final = 24
"""As Azure Functions: a batch of 16, and the next one when half of it is done."""


class QueueMessage(msgspec.Struct, frozen=True):
    """A message of a queue, as its function gets it.

    Attributes:
        id: Unique in the queue.
        queue: The queue.
        body: What was sent, as plain JSON data.
        dequeue_count: How often it was handed out, this time included; also when a process died meanwhile.
        insertion_time: When it was sent (aware, UTC).
        failure: Of a message in a poison queue: why it is there.
    """

    id: str
    queue: str
    body: Any
    dequeue_count: int
    insertion_time: datetime
    failure: str | None = None

    @classmethod
    def of(cls, item: QueueItem, dequeue_count: int) -> QueueMessage:
        """The message of an item."""
        return cls(item.id, item.queue, item.body, dequeue_count, instant(item.inserted_at), item.failure)


class QueueFunction:
    """A function that takes the messages of a queue.

    Attributes:
        name: Its name.
        queue: The queue.
        max_dequeue_count: A message that failed so often goes to the poison queue.
        visibility_us: How long a message that failed waits before it is handed out again.
        slots: As many messages may be in the function at once.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        queue: str,
        *,
        name: str | None,
        max_dequeue_count: int,
        visibility_timeout: timedelta | float,
        max_concurrent: int,
    ) -> None:
        if not callable(fn) or inspect.isclass(fn):
            raise RegistrationError(f"Cannot bind {fn!r} to a queue: expected a function")
        self.fn = fn
        self.name = name_of(fn) if name is None else name
        self.queue = check_queue(queue)
        for what, value in (("max_dequeue_count", max_dequeue_count), ("max_concurrent", max_concurrent)):
            if type(value) is not int or value < 1:
                raise RegistrationError(
                    f"Queue function '{self.name}' has {what}={value!r}: expected 1 or more"
                )
        self.max_dequeue_count = max_dequeue_count
        self.max_concurrent = max_concurrent
        self.visibility_us = microseconds(visibility_timeout, "visibility_timeout", least=0)
        self._signature = Signature(fn, self.name)

    @cached_property
    def _plan(self) -> list[tuple[str, str, Any]]:
        """Name, source and type of each parameter."""
        plan: list[tuple[str, str, Any]] = []
        for one in self._signature.parameters:
            if one.kind in {one.VAR_POSITIONAL, one.VAR_KEYWORD}:
                continue
            kind = self._signature.type_of(one.name)
            if inspect.isclass(kind) and issubclass(kind, Client):
                plan.append((one.name, "client", kind))
            elif kind is QueueMessage:
                plan.append((one.name, "message", kind))
            elif not any(source == "body" for _, source, _ in plan):
                plan.append((one.name, "body", kind))
            else:
                raise RegistrationError(
                    f"Queue function '{self.name}' has the parameter '{one.name}', which nothing would fill: expected "
                    "QueueMessage, Client, and one for the body of the message"
                )
        return plan

    def check(self) -> None:
        """Find out at the start of a host what would fail at the first message.

        Raises:
            RegistrationError: A parameter that nothing would fill.
        """
        _ = self._plan

    async def call(self, message: QueueMessage, client: Client, converter: Converter) -> None:
        """Hand a message to the function; what it returns is dropped."""
        arguments: dict[str, Any] = {}
        for name, source, kind in self._plan:
            if source == "client":
                arguments[name] = client
            elif source == "message":
                arguments[name] = message
            else:
                body = message.body
                arguments[name] = body if kind is Any else converter.decode(msgspec.json.encode(body), kind)
        if inspect.iscoroutinefunction(self.fn):
            await self.fn(**arguments)
            return
        returned = await asyncio.to_thread(self.fn, **arguments)
        if inspect.isawaitable(returned):
            await returned


class QueueFunctions(TriggerFunctions[QueueFunction]):
    """Registered queue functions, by queue."""

    def key_of(self, function: QueueFunction) -> str:
        return function.queue

    def refuse(self, function: QueueFunction, taken: QueueFunction) -> RegistrationError:
        return RegistrationError(
            f"Queue '{function.queue}' has the function '{taken.name}', so '{function.name}' would get only some of its "
            "messages: expected one function for a queue"
        )
