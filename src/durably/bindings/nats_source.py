"""A connection to NATS, and a source on it: a consumer of JetStream that is asked for messages."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from durably.bindings.broker import BrokerMessage
from durably.bindings.holding import HoldingSource, every
from durably.errors import BrokerError

ID: Final = "Nats-Msg-Id"
"""The header that holds the id of a message. NATS drops a second one with the same in a stream, whatever its subject."""

OUR_ID: Final = "Durably-Message-Id"
"""The header that holds the id of a message that is published under another one."""

ANSWER_S: Final = 5.0
_CLOSE_S: Final = 1.0
_PING_S: Final = 10
_PULL_S: Final = 20.0
"""A request for messages is made anew when it has waited for so long."""

_BEAT_S: Final = 2.0
"""So often the server says that it has not forgotten the request; it says nothing when the consumer is deleted."""

_BEAT: Final = "100"
_OVER: Final = {"404", "408"}
"""A request for messages has ended, and nothing is wrong: there was none, or not for so long."""

_TROUBLE: Final = (nats.errors.Error, OSError, TimeoutError, ValueError)
T = TypeVar("T")


class Connection:
    """A connection that is not made anew when it is lost: then what came by it is void."""

    def __init__(self, where: str) -> None:
        self.client = Client()
        self.jet: JetStreamContext = JetStreamContext(self.client, timeout=ANSWER_S)
        self.lost = asyncio.Event()
        self.when_lost: set[Callable[[], None]] = set()
        self._where = where
        self._trouble: Exception | None = None

    @classmethod
    async def open(cls, servers: list[str], where: str, tls: ssl.SSLContext | None) -> Connection:
        made = cls(where)
        try:
            await made.client.connect(
                servers,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=int(ANSWER_S),
                ping_interval=_PING_S,
                error_cb=made._note,
                closed_cb=made._lose,
                tls=tls,
                name="durably",
            )
        except _TROUBLE as error:
            await made.close()
            raise made.refusal(made._trouble or error) from error
        return made

    async def doing(self, work: Awaitable[T]) -> T:
        """What comes of asking; what goes wrong is a `BrokerError`."""
        try:
            return await work
        except _TROUBLE as error:
            raise self.refusal(error) from error

    def refusal(self, error: object) -> BrokerError:
        text = str(error).strip() or type(error).__name__
        return BrokerError(
            f"NATS at {self._where} cannot be reached or refuses: {text.removeprefix('nats: ')}"
        )

    async def close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):  # after TLS that came to nothing it would wait for ever
                await self.client.close()
        except _TROUBLE:
            pass  # it is gone either way
        await self._lose()

    async def _note(self, error: Exception) -> None:
        self._trouble = error

    async def _lose(self) -> None:
        self.lost.set()
        for callback in self.when_lost:
            callback()


class NatsSource(HoldingSource):
    """A consumer of a stream, asked for as many messages as there is room for.

    The receipt of a message here is its number in the stream; the subject for the answer is another each time.
    """

    def __init__(
        self, connection: Connection, stream: str, consumer: str, prefetch: int, ack_wait_s: float
    ) -> None:
        super().__init__(prefetch, ack_wait_s / 4)
        self._connection = connection
        self._consumer = (stream, consumer)
        self._pull = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = connection.client.new_inbox()
        self._subscription: Subscription | None = None
        self._news = asyncio.Event()
        self._to_come = 0
        self._refused: str | None = None
        self._replies: dict[int, str] = {}

    async def begin(self) -> None:
        """Listen to what will be delivered."""
        client = self._connection.client
        self._subscription = await client.subscribe(self._inbox, cb=self._arrive)  # pyright: ignore[reportUnknownMemberType] - its future
        self._connection.when_lost.add(self._news.set)

    async def _read(self, room: int) -> list[BrokerMessage]:
        self._news.clear()
        if self._connection.lost.is_set():
            raise self._connection.refusal("the connection was lost")
        if self._refused is not None:
            reason, self._refused = self._refused, None
            raise self._connection.refusal(reason)
        if not self._to_come:
            await self._connection.doing(self._ask(room))
        try:
            async with asyncio.timeout(_BEAT_S * 2.5):
                await self._news.wait()
        except TimeoutError:
            self._to_come = 0  # the request was forgotten, with its consumer or without it
            await self._connection.doing(self._connection.jet.consumer_info(*self._consumer))
        return []  # what has come is taken already

    async def _ask(self, room: int) -> None:
        asked = {
            "batch": room,
            "expires": round(_PULL_S * 1_000_000_000),
            "idle_heartbeat": round(_BEAT_S * 1_000_000_000),
        }
        self._to_come = room
        await self._connection.client.publish(self._pull, json.dumps(asked).encode(), reply=self._inbox)

    async def _arrive(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status is None or message.reply:
            taken = _message(message, headers)
            self._to_come -= 1
            self._replies[taken.receipt] = message.reply
            self._take(taken)
        elif status != _BEAT:
            self._to_come = 0
            if status not in _OVER:
                self._refused = f"{status} {headers.get('Description', '')}"
        self._news.set()

    async def _keep(self, messages: Sequence[BrokerMessage]) -> None:
        for message in messages:
            reply = self._replies.get(message.receipt)
            if reply is not None:
                await self._connection.doing(self._connection.client.publish(reply, b"+WPI"))

    async def _remove(self, messages: Sequence[BrokerMessage]) -> None:
        await every(self._acknowledge(message) for message in messages)

    async def _acknowledge(self, message: BrokerMessage) -> None:
        reply = self._replies.get(message.receipt)
        if reply is not None:
            await self._connection.doing(self._connection.client.request(reply, b"+ACK", timeout=ANSWER_S))
            self._replies.pop(message.receipt, None)

    async def _leave(self, messages: Sequence[BrokerMessage]) -> None:
        self._connection.when_lost.discard(self._news.set)
        if self._subscription is None or self._connection.lost.is_set():
            return
        await self._connection.doing(self._subscription.drain())  # what was on its way has arrived after that
        # Asked about the consumer, the server forgets what those want who are gone. Else 2.9 gives them what comes back.
        await self._connection.doing(self._connection.jet.consumer_info(*self._consumer))
        for reply in self._replies.values():
            await self._connection.doing(self._connection.client.publish(reply, b"-NAK"))
        await self._connection.doing(self._connection.client.flush())


def _message(message: Msg, headers: dict[str, str]) -> BrokerMessage:
    """Messages carry what there is to know in the subject for the answer.

    It is $JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<sequence>.<of the consumer>.<nanoseconds>.<pending>;
    servers before 2.8 say nothing of domain and account. A stream that is made anew counts from 1 again, so the
    sequence alone is no id.
    """
    parts = message.reply.split(".")
    delivered, sequence, _, sent_ns = map(int, parts[4:8] if len(parts) == 9 else parts[6:10])
    return BrokerMessage(
        id=headers.get(OUR_ID) or headers.get(ID) or f"{sequence}-{sent_ns}",
        body=message.data,
        dequeue_count=delivered,
        inserted_at=sent_ns // 1000,
        receipt=sequence,
    )
