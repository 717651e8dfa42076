"""Queues of Azure Storage, and of Azurite, which is the same on a machine of one's own.

This service brings nothing: it is asked, often after a message, and ever more rarely while there is none.
"""

from __future__ import annotations

import asyncio
import logging
import math
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Sequence
from typing import Final, NamedTuple, TypeVar

import aiohttp
from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from durably.bindings.broker import BrokerMessage
from durably.bindings.holding import HoldingSource, every
from durably.bindings.options import seconds
from durably.clock import Clock
from durably.errors import BrokerError, RegistrationError

_AT_ONCE: Final = 32
"""The service gives no more messages to one request."""

_SHORTEST_S: Final = 0.1
_LONGEST_S: Final = 10.0
_VISIBILITY_S: Final = 60
_ANSWER_S: Final = 20
_CONNECT_S: Final = 5

_OPTIONS: Final = {
    name.lower(): name for name in ("MessageEncoding", "MaxPollingInterval", "VisibilityTimeout")
}

T = TypeVar("T")

# It tells of each request.
if logging.getLogger("azure").level == logging.NOTSET:
    logging.getLogger("azure").setLevel(logging.WARNING)


def make(url: str, clock: Clock) -> AzureBroker:
    """See `durably.bindings.connections`. Nothing is connected yet.

    Raises:
        RegistrationError: The connection string is not usable.
    """
    return AzureBroker(url)


class _Ways(NamedTuple):
    """How messages are taken.

    Attributes:
        base64: Texts of messages are base64.
        longest_s: Between two requests, while there is no message.
        visibility_s: As long as that a message is nobody else's.
    """

    base64: bool
    longest_s: float
    visibility_s: int


class AzureBroker:
    """A `Broker` of Azure Storage.

    Args:
        connection: A connection string of Azure Storage. Beside what Azure knows it may hold ``MessageEncoding`` (``base64``
            as Azure Functions, or ``none``), ``MaxPollingInterval`` and ``VisibilityTimeout``, both in seconds.
    """

    def __init__(self, connection: str) -> None:
        connection, self._ways = _ways(connection)
        try:
            self._service = QueueServiceClient.from_connection_string(
                connection, retry_total=0, connection_timeout=_CONNECT_S, read_timeout=_ANSWER_S
            )
        except ValueError as error:
            raise RegistrationError(
                f"The connection string of Azure Storage is not usable: {error}; expected AccountName, AccountKey and "
                "EndpointSuffix, QueueEndpoint and SharedAccessSignature, or UseDevelopmentStorage=true"
            ) from None
        self._sources: set[AzureSource] = set()
        self._closed = False

    async def source(self, queue: str, prefetch: int) -> AzureSource:
        """See `Broker.source`."""
        client = self._client(queue)
        await _made(client)
        source = AzureSource(client, prefetch, self._ways)
        self._sources.add(source)
        source.when_closed = lambda: self._sources.discard(source)
        return source

    async def send(self, queue: str, body: bytes, *, message_id: str, delay_s: float = 0.0) -> None:
        """See `Broker.send`. The service gives the message an id of its own."""
        client = self._client(queue)
        text = self._text(queue, body)
        delay = None if delay_s <= 0 else math.ceil(delay_s)
        try:
            await _asking(client, client.send_message(text, visibility_timeout=delay, time_to_live=-1))
        except _NoQueueError:
            await _made(client)
            await _asking(client, client.send_message(text, visibility_timeout=delay, time_to_live=-1))

    async def close(self) -> None:
        """See `Broker.close`."""
        self._closed = True
        await asyncio.gather(*(source.close() for source in list(self._sources)))
        await self._service.close()

    def _client(self, queue: str) -> QueueClient:
        if self._closed:
            raise BrokerError(
                f"The connection to Azure Storage at {self._service.primary_hostname} is closed"
            )
        try:
            return self._service.get_queue_client(queue)
        except ValueError as error:
            raise BrokerError(f"'{queue}' cannot be a queue of Azure Storage: {error}") from None

    def _text(self, queue: str, body: bytes) -> str:
        if self._ways.base64:
            return b64encode(body).decode()
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise BrokerError(
                f"A message to '{queue}' is no UTF-8: expected text, as the connection says MessageEncoding=none"
            ) from None


class AzureSource(HoldingSource):
    """A queue of Azure Storage. The receipt of a message here is its id; what the service calls so changes."""

    def __init__(self, client: QueueClient, prefetch: int, ways: _Ways) -> None:
        super().__init__(prefetch, ways.visibility_s / 4)
        self._client = client
        self._ways = ways
        self._receipts: dict[str, str] = {}
        self._pause_s = _SHORTEST_S
        self._asked: asyncio.Task[list[BrokerMessage]] | None = None
        self._changing = asyncio.Lock()

    async def _read(self, room: int) -> list[BrokerMessage]:
        while True:
            self._asked = asyncio.create_task(self._ask(min(room, _AT_ONCE)))
            found = await asyncio.shield(self._asked)  # who leaves must know what was given to us last
            if found:
                self._pause_s = _SHORTEST_S
                return found
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 2, self._ways.longest_s)

    async def _ask(self, room: int) -> list[BrokerMessage]:
        pages = self._client.receive_messages(
            messages_per_page=room, max_messages=room, visibility_timeout=self._ways.visibility_s
        )

        async def all_of() -> list[QueueMessage]:
            return [message async for message in pages]

        messages = await _asking(self._client, all_of())
        self._receipts.update((one.id, one.pop_receipt or "") for one in messages)
        return [_message(one, self._ways) for one in messages]

    async def _keep(self, messages: Sequence[BrokerMessage]) -> None:
        async with self._changing:  # a message cannot be deleted by a receipt that changes meanwhile
            await every(self._hide(one.receipt, self._ways.visibility_s) for one in messages)

    async def _remove(self, messages: Sequence[BrokerMessage]) -> None:
        async with self._changing:
            await every(self._delete(one.receipt) for one in messages)

    async def _leave(self, messages: Sequence[BrokerMessage]) -> None:
        if self._asked is not None:
            try:
                await asyncio.wait({self._asked})
            finally:
                self._asked.cancel()
        await every(self._hide(one, 0) for one in list(self._receipts))

    async def _hide(self, message_id: str, for_s: int) -> None:
        receipt = self._receipts.get(message_id)
        if receipt is None:
            return
        try:
            work = self._client.update_message(message_id, receipt, visibility_timeout=for_s)
            changed = await _asking(self._client, work)
        except _GoneError:
            return
        self._receipts[message_id] = changed.pop_receipt or ""

    async def _delete(self, message_id: str) -> None:
        receipt = self._receipts.get(message_id)
        if receipt is None:
            return
        try:
            await _asking(self._client, self._client.delete_message(message_id, receipt))
        except _GoneError:
            pass  # we were silent for too long, and somebody else has it, who settles it
        self._receipts.pop(message_id, None)


class _NoQueueError(BrokerError):
    """There is no queue of this name."""


class _GoneError(BrokerError):
    """The message was deleted, or is somebody else's by now."""


async def _asking(client: QueueClient, work: Awaitable[T]) -> T:
    """What comes of asking; what goes wrong is a `BrokerError`, without what the service says for its own operators."""
    try:
        return await work
    except HttpResponseError as error:
        known = getattr(error, "error_code", None)
        code = str(getattr(known, "value", known) or error.reason or type(error).__name__)
        text = (
            f"Azure Storage at {client.primary_hostname} refuses for the queue '{client.queue_name}': {code}"
        )
        kinds = {
            "QueueNotFound": _NoQueueError,
            "MessageNotFound": _GoneError,
            "PopReceiptMismatch": _GoneError,
        }
        raise kinds.get(code, BrokerError)(f"{text} (HTTP {error.status_code})") from error
    except (AzureError, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise BrokerError(f"Azure Storage at {client.primary_hostname} cannot be reached: {error}") from error


async def _made(client: QueueClient) -> None:
    """Make the queue, if it is missing."""
    try:
        await _asking(client, client.create_queue())
    except BrokerError as error:
        # There already; or whoever we are may take messages and make no queues: the first message tells.
        known = {"QueueAlreadyExists", "AuthorizationPermissionMismatch"}
        if getattr(error.__cause__, "error_code", None) not in known:
            raise


def _message(message: QueueMessage, ways: _Ways) -> BrokerMessage:
    sent = message.inserted_on
    return BrokerMessage(
        id=message.id,
        body=_body(message.content or "", ways),
        dequeue_count=message.dequeue_count or 1,
        inserted_at=None if sent is None else round(sent.timestamp() * 1_000_000),
        receipt=message.id,
    )


def _body(text: str, ways: _Ways) -> bytes:
    """What was sent. A text that is no base64 was sent by somebody who does not encode."""
    if ways.base64:
        try:
            return b64decode(text, validate=True)
        except ValueError:
            pass
    return text.encode()


def _ways(connection: str) -> tuple[str, _Ways]:
    """The connection string as Azure knows it, and what ours says beside."""
    ours: dict[str, str] = {}
    theirs: list[str] = []
    for part in connection.split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() in _OPTIONS:
            ours[_OPTIONS[name.strip().lower()]] = value.strip()
        elif part.strip():
            theirs.append(part.strip())
    encoding = ours.get("MessageEncoding", "base64").lower()
    if encoding not in {"base64", "none"}:
        raise RegistrationError(f"The connection has MessageEncoding={encoding!r}: expected base64 or none")
    ways = _Ways(
        encoding == "base64",
        seconds(ours, "MaxPollingInterval", _LONGEST_S, least=_SHORTEST_S),
        math.ceil(seconds(ours, "VisibilityTimeout", _VISIBILITY_S, least=1)),
    )
    return ";".join(theirs), ways
