"""Queues that are streams of Redis: a consumer group hands them out, and what was settled is deleted.

Redis delivers what a consumer has taken to no other one by itself: consumers look what others have left alone for long.
A consumer that still lives says so before, by claiming what it holds once more.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from durably.bindings.broker import BrokerMessage
from durably.bindings.holding import HoldingSource
from durably.bindings.options import check_url, seconds, without_options
from durably.clock import Clock
from durably.errors import BrokerError, RegistrationError

GROUP: Final = "durably"

_IDLE_S: Final = 60.0
_LOOK_S: Final = 1.0
"""So often a consumer looks for what others have left."""

_ANSWER_S: Final = 10.0
_CONNECT_S: Final = 5.0

_BEFORE_TIME: Final = 10**11
"""Ids of entries begin with milliseconds since 1970, unless somebody made them up; nobody sent anything before 1973."""

# A consumer that is deleted takes its entries along, so first somebody else gets them, as if left alone for a year.
_LEAVE: Final = """
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000000, ARGV[2])
for _, entry in ipairs(pending) do
  redis.call('XCLAIM', KEYS[1], ARGV[1], 'returned', 0, entry[1], 'IDLE', 31536000000, 'JUSTID')
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
"""

# Consumers that have died, once their entries are with others.
_TIDY: Final = """
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local is = {}
  for i = 1, #consumer, 2 do is[consumer[i]] = consumer[i + 1] end
  if is.pending == 0 and is.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], is.name)
  end
end
"""


def make(url: str, clock: Clock) -> RedisBroker:
    """See `durably.bindings.connections`. Nothing is connected yet.

    Raises:
        RegistrationError: An option of the URL is not usable.
    """
    return RedisBroker(url)


class _Commands(Protocol):
    """What we use of the client of redis-py, whose own types are partly unknown."""

    async def execute_command(self, *args: Any) -> Any: ...


class _Answers:
    """Asks Redis; what goes wrong is a `BrokerError`."""

    def __init__(self, url: str) -> None:
        try:
            # No tries of the library: an answer that was lost on the way may have been messages, which we must know.
            pool = ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] - its **kwargs
                url,
                socket_timeout=_ANSWER_S,
                socket_connect_timeout=_CONNECT_S,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
            )
            options = pool.connection_kwargs
            self._where = f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
            pool.make_connection()
        except (TypeError, ValueError):  # its text may show the value
            names = [name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)]
            raise RegistrationError(
                f"The connection to Redis has an option that is not usable, one of {names}: expected those of redis-py, with "
                "values that it takes"
            ) from None
        self._redis = Redis.from_pool(pool)
        self._redis.response_callbacks.clear()  # answers as Redis gives them, in every release of the library
        self._commands = cast("_Commands", self._redis)
        self._closed = False

    async def ask(self, *command: Any) -> Any:
        self._check()
        try:
            return await self._commands.execute_command(*command)
        except (RedisError, OSError) as error:
            raise self._refusal(error) from error

    async def both(self, one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
        """Two commands in one transaction."""
        self._check()
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                commands = cast("Any", pipe)
                commands.execute_command(*one)
                commands.execute_command(*other)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise self._refusal(error) from error

    async def close(self) -> None:
        self._closed = True
        try:
            await self._redis.aclose()
        except (RedisError, OSError):
            pass  # it is gone either way

    def _check(self) -> None:
        if self._closed:
            raise BrokerError(f"The connection to Redis at {self._where} is closed")

    def _refusal(self, error: Exception) -> BrokerError:
        verb = "refuses" if isinstance(error, ResponseError) else "cannot be reached"
        return BrokerError(f"Redis at {self._where} {verb}: {error}")


class RedisBroker:
    """A `Broker` of Redis.

    Args:
        url: ``redis://`` or ``rediss://``, as redis-py takes it; ``idle_s`` says after how many seconds a message that a
            process has taken without another sign of life is handed out again.
    """

    def __init__(self, url: str) -> None:
        check_url(url, "Redis")
        url, options = without_options(url, "idle_s", "protocol", "decode_responses")
        self._idle_s = seconds(options, "idle_s", _IDLE_S, least=0.1)
        self._answers = _Answers(url)
        self._sources: set[RedisSource] = set()
        self._left: dict[str, list[str]] = {}

    async def source(self, queue: str, prefetch: int) -> RedisSource:
        """See `Broker.source`."""
        try:
            await self._answers.ask("XGROUP", "CREATE", queue, GROUP, "0", "MKSTREAM")
        except BrokerError as error:
            if "BUSYGROUP" not in str(error):
                raise
        # What a source could not give back, because Redis was away, is under its name: the next one goes on with it.
        left = self._left.get(queue)
        name = left.pop() if left else f"{socket.gethostname()}-{secrets.token_hex(8)}"
        source = RedisSource(self._answers, queue, name, prefetch, self._idle_s)
        self._sources.add(source)
        source.when_closed = lambda: self._forget(source)
        return source

    async def send(self, queue: str, body: bytes, *, message_id: str, delay_s: float = 0.0) -> None:
        """See `Broker.send`."""
        if delay_s > 0:
            raise BrokerError(
                f"Redis streams know no delay, and a message to '{queue}' has one of {delay_s:g} s: expected none; "
                "a queue of the hub delays"
            )
        await self._answers.ask("XADD", queue, "*", "body", body, "message_id", message_id)

    async def close(self) -> None:
        """See `Broker.close`."""
        await asyncio.gather(*(source.close() for source in list(self._sources)))
        await self._answers.close()

    def _forget(self, source: RedisSource) -> None:
        self._sources.discard(source)
        if not source.has_left:
            self._left.setdefault(source.queue, []).append(source.name)


class RedisSource(HoldingSource):
    """A stream, as one consumer of its group sees it."""

    def __init__(self, answers: _Answers, queue: str, name: str, prefetch: int, idle_s: float) -> None:
        super().__init__(prefetch, idle_s / 4)
        self.queue = queue
        self.name = name
        self.has_left = False
        self._answers = answers
        self._idle_ms = round(idle_s * 1000)
        self._look_s = min(_LOOK_S, idle_s / 2)
        self._look_at = 0.0
        self._cursor: Any = "0-0"
        self._own: Any = "0"
        """Up to here we have read what is pending under our own name; None: all of it."""

    async def _read(self, room: int) -> list[BrokerMessage]:
        try:
            while True:
                found = await self._read_own(room) or await self._claim(room) or await self._read_new(room)
                if found:
                    return found
        except BrokerError:
            self._own = "0"  # what was on its way to us is pending now
            raise

    async def _read_own(self, room: int) -> list[BrokerMessage]:
        while self._own is not None:
            entries = await self._read_group(room, self._own)
            self._own = entries[-1][0] if entries else None
            found = await self._again(entries)
            if found:
                return found
        return []

    async def _claim(self, room: int) -> list[BrokerMessage]:
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return []
        answer = await self._answers.ask(
            "XAUTOCLAIM", self.queue, GROUP, self.name, self._idle_ms, self._cursor, "COUNT", room
        )
        self._cursor = answer[0]
        found = await self._again(answer[1])
        if self._cursor in {b"0-0", "0-0"}:
            self._look_at = now + self._look_s
            await self._answers.ask("EVAL", _TIDY, 1, self.queue, GROUP, self._idle_ms)
        return found

    async def _read_new(self, room: int) -> list[BrokerMessage]:
        wait_s = self._look_at - asyncio.get_running_loop().time()
        entries = await self._read_group(room, ">", max(1, round(wait_s * 1000)))
        return [_message(entry, 1) for entry in entries]

    async def _read_group(self, room: int, after: Any, block_ms: int | None = None) -> list[Any]:
        block = () if block_ms is None else ("BLOCK", block_ms)
        answer = await self._answers.ask(
            "XREADGROUP", "GROUP", GROUP, self.name, "COUNT", room, *block, "STREAMS", self.queue, after
        )
        return answer[0][1] if answer else []

    async def _again(self, entries: list[Any]) -> list[BrokerMessage]:
        """Messages that were delivered before, with how often; those that we hold are no news."""
        entries = [one for one in entries if one and one[0].decode() not in self._held]
        gone = [
            entry for entry, fields in entries if fields is None
        ]  # deleted by somebody, and still pending
        if gone:
            await self._answers.ask("XACK", self.queue, GROUP, *gone)
        there = [one for one in entries if one[1] is not None]
        if not there:
            return []
        ids = [entry for entry, _ in there]
        pending = await self._answers.ask(
            "XPENDING", self.queue, GROUP, ids[0], ids[-1], self._prefetch + len(ids), self.name
        )
        counts = {row[0]: int(row[3]) for row in pending}
        return [_message(one, counts.get(one[0], 1)) for one in there]

    async def _keep(self, messages: Sequence[BrokerMessage]) -> None:
        ids = [message.receipt for message in messages]
        await self._answers.ask("XCLAIM", self.queue, GROUP, self.name, 0, *ids, "JUSTID")

    async def _remove(self, messages: Sequence[BrokerMessage]) -> None:
        ids = [message.receipt for message in messages]
        if ids:
            await self._answers.both(("XACK", self.queue, GROUP, *ids), ("XDEL", self.queue, *ids))

    async def _leave(self, messages: Sequence[BrokerMessage]) -> None:
        await self._answers.ask("EVAL", _LEAVE, 1, self.queue, GROUP, self.name)
        self.has_left = True


def _message(entry: Any, count: int) -> BrokerMessage:
    receipt: str = entry[0].decode()
    flat: list[bytes] = entry[1]
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    sent_ms = int(receipt.partition("-")[0])
    return BrokerMessage(
        id=_text(fields.get(b"message_id", b"")) or receipt,
        body=fields[b"body"] if b"body" in fields else _as_json(fields.items()),
        dequeue_count=count,
        inserted_at=sent_ms * 1000 if sent_ms > _BEFORE_TIME else None,
        receipt=receipt,
    )


def _as_json(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return msgspec.json.encode({_text(name): _text(value) for name, value in fields})


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
