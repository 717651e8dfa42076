"""Writes what functions have set: into queues of the hub and of brokers, and into blobs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from durably.bindings.blobs.accounts import BlobAccounts
from durably.bindings.blobs.names import check_blob, check_container
from durably.bindings.blobs.store import BlobStore
from durably.bindings.broker import Broker
from durably.bindings.connections import Connections
from durably.bindings.outputs import BlobOutput, Out, Output, QueueOutput
from durably.bindings.placeholders import Occasion, check_placeholders, placed
from durably.client import Client
from durably.client.queues import Queue
from durably.codec.convert import Converter
from durably.config.names import filled
from durably.core.ids import digest
from durably.core.queues import check_queue
from durably.errors import InvalidTextError, PayloadError, RegistrationError

_AT_ONCE: Final = 64
"""Messages on their way to the hub: many share one commit."""


class Message(NamedTuple):
    """A value on its way."""

    id: str
    data: bytes


class Place(Protocol):
    """Where the values of one output go, in one call.

    Attributes:
        key: Another one for each place.
    """

    @property
    def key(self) -> str: ...

    def encoded(self, value: Any) -> bytes:
        """A value as it is written. Raises `PayloadError`."""
        ...

    async def write(self, messages: Sequence[Message]) -> None:
        """Write them; durable on return."""
        ...


class Opened(NamedTuple):
    """An output of one call."""

    out: Out[Any]
    place: Place


class Outlets:
    """The outputs of the functions of a host.

    Attributes:
        blobs: Stores of blobs.

    Args:
        client: Of the hub.
        connections: To brokers.
        blobs: Stores of blobs.
        converter: Of values.
        settings: For ``%NAME%``; the environment by default.
    """

    def __init__(
        self,
        client: Client,
        connections: Connections,
        blobs: BlobAccounts,
        converter: Converter,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._client = client
        self._connections = connections
        self.blobs = blobs
        self._converter = converter

    def check(self, output: Output, what: str, known: Collection[str] | None) -> None:
        """Find out at the start of a host what could never be written.

        Args:
            output: The output.
            what: Of which function and parameter, as it begins a sentence.
            known: See `check_placeholders`.

        Raises:
            RegistrationError: A setting is missing, or a name is not usable.
        """
        try:
            if isinstance(output, QueueOutput):
                self._queue(output, what)
                return
            _, _, name = self._blob(output, what)
            check_placeholders(name, what, known)
        except InvalidTextError as error:
            raise RegistrationError(f"{what}: {error}") from None

    def open(self, output: Output, what: str, occasion: Occasion) -> Opened:
        """An output of a call that is about to be made.

        Raises:
            RegistrationError: As `check`.
            PayloadError: Its path has a name that this call does not fill.
            InvalidTextError: The name that comes of it is not usable.
        """
        if isinstance(output, QueueOutput):
            return Opened(Out[Any](), self._queue(output, what))
        store, container, name = self._blob(output, what)
        return Opened(
            Out[Any](single=True),
            _Blob(store, container, check_blob(placed(name, what, occasion)), self._converter),
        )

    async def write(self, opened: Sequence[Opened], origin: str) -> None:
        """Write what was set: nothing of it when one value cannot be encoded.

        A message gets its id of the origin, its place and its number there: a second try sends it a second time under the
        same id, and a queue of the hub takes it once.

        Raises:
            PayloadError: A value cannot be encoded.
            BrokerError: A broker or store cannot be reached, or refuses.
        """
        ready: list[tuple[Place, list[Message]]] = []
        numbers: dict[str, int] = {}
        for out, place in opened:
            messages: list[Message] = []
            for value in out.values:
                number = numbers[place.key] = numbers.get(place.key, 0) + 1
                messages.append(Message(digest(f"{origin}\n{place.key}\n{number}"), place.encoded(value)))
            ready.append((place, messages))
        for place, messages in ready:
            await place.write(messages)

    def _queue(self, output: QueueOutput, what: str) -> Place:
        name = filled(output.queue, what, self._settings)
        if output.connection is None:
            return _HubQueue(self._client.queue(check_queue(name)), self._converter)
        broker = self._connections.broker(output.connection)
        return _BrokerQueue(broker, output.connection, name, self._converter)

    def _blob(self, output: BlobOutput, what: str) -> tuple[BlobStore, str, str]:
        container, _, name = filled(output.path, what, self._settings).partition("/")
        if not name:
            raise RegistrationError(
                f"{what} has the path {output.path!r}: expected the name of a container, '/', and that of a blob"
            )
        return self.blobs.store(output.connection), check_container(container), name


class _HubQueue(NamedTuple):
    queue: Queue
    converter: Converter

    @property
    def key(self) -> str:
        return f"hub:{self.queue.name}"

    def encoded(self, value: Any) -> bytes:
        return self.converter.encode(value)

    async def write(self, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), _AT_ONCE):
            some = messages[start : start + _AT_ONCE]
            # Sent again, it is a second try of who sends: that it was put aside meanwhile is no reason to begin anew.
            await asyncio.gather(
                *(self.queue.send_encoded(one.data, one.id, may_be_again=False) for one in some)
            )


class _BrokerQueue(NamedTuple):
    broker: Broker
    connection: str
    name: str
    converter: Converter

    @property
    def key(self) -> str:
        return f"{self.connection}:{self.name}"

    def encoded(self, value: Any) -> bytes:
        return _plain(value, self.converter)

    async def write(self, messages: Sequence[Message]) -> None:
        for one in messages:  # one after the other: a broker keeps their order
            await self.broker.send(self.name, one.data, message_id=one.id)


class _Blob(NamedTuple):
    store: BlobStore
    container: str
    name: str
    converter: Converter

    @property
    def key(self) -> str:
        return f"{self.container}/{self.name}"

    def encoded(self, value: Any) -> bytes:
        return _plain(value, self.converter)

    async def write(self, messages: Sequence[Message]) -> None:
        for one in messages:
            await self.store.write(self.container, self.name, one.data)


def _plain(value: Any, converter: Converter) -> bytes:
    """A value for those who know nothing of us: bytes as they are, text as UTF-8, anything else as JSON."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if not isinstance(value, str):
        return converter.encode(value)
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise PayloadError(f"The output is no text ({error}): expected no half surrogates") from None
