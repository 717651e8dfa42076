"""A proxy between a store and its PostgreSQL server, which does to connections what networks do, at the worst moment.

It reads the messages of the client, so that a fault hits one statement: the first, the n-th, one of a thousand. It runs on a
loop of its own in a thread of its own; its methods may be called from anywhere.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Coroutine
from enum import Enum
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

_SSL: Final = 80877103
_CANCEL: Final = 80877102
_CHUNK: Final = 1 << 16
_ARRAY_HEAD: Final = 20
_INT4: Final = 23


class Fault(Enum):
    """What becomes of a statement."""

    NONE = "none"
    LOSE_REQUEST = "lose request"
    """The server never sees it; the connection is cut."""
    LOSE_REPLY = "lose reply"
    """The server has answered when the connection is cut; the client sees nothing of it."""
    CUT = "cut"
    """It is sent, and the connection is cut at once: whether the server carries it out is anybody's guess."""
    STALL = "stall"
    """It is kept, and so is all that follows on any connection, until `flow`."""
    STALL_REPLY = "stall reply"
    """It is carried out; its answer is kept, and so is all that follows on any connection, until `flow`."""


class Statement(NamedTuple):
    """What is about to be carried out.

    Attributes:
        name: Application name of its connection.
        text: Of the statement.
        values: Its parameters, as the client sent them.
    """

    name: str
    text: str
    values: bytes = b""

    @property
    def rows(self) -> int:
        """How many elements its first parameter has; 1 when that is no array."""
        (formats,) = struct.unpack_from("!H", self.values)
        at = 4 + 2 * formats
        (size,) = struct.unpack_from("!i", self.values, at)
        if size < _ARRAY_HEAD:
            return 1
        dimensions, _, kind, count = struct.unpack_from("!IIII", self.values, at + 4)
        return count if dimensions == 1 and kind == _INT4 else 1


Rule = Callable[[Statement], Fault]


def no_fault(statement: Statement) -> Fault:
    """The usual rule."""
    return Fault.NONE


class _Link:
    """One connection: what is known of its client."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.name = ""
        self.texts: dict[bytes, str] = {}
        self.bound = Statement("", "")
        self.statement: Statement | None = None
        self.losing = False

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class TcpProxy:
    """Listens on `port` and connects to `server_port`. A context manager.

    Attributes:
        port: Where it listens.
        rule: Asked for each statement; called in the thread of the proxy.
        slowness: How long the next part of an answer takes, in seconds; called in the thread of the proxy.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.port = 0
        self.rule: Rule = no_fault
        self.slowness: Callable[[], float] = lambda: 0.0
        self._links: set[_Link] = set()
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    async def _start(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        self._flowing.set()
        await self._cut()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self) -> None:
        for link in self._links:
            link.cut()

    def url(self, hub: str) -> str:
        """The URL of a hub behind it."""
        return f"postgresql://durably@127.0.0.1:{self.port}/postgres?hub={hub}"

    def cut(self) -> None:
        """Cut all connections."""
        self._call(self._cut())

    def stall(self) -> None:
        """Let nothing pass, in neither direction, and keep it for later; until `flow`."""

        async def stop() -> None:
            self._flowing.clear()

        self._call(stop())

    def flow(self) -> None:
        """Let everything pass, what was kept first."""

        async def go() -> None:
            self._flowing.set()

        self._call(go())

    def refuse(self, refusing: bool = True) -> None:
        """Cut all connections, and each new one at once; or take them again."""
        self._refusing = refusing
        if refusing:
            self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        pipes = [
            asyncio.create_task(self._requests(link, reader)),
            asyncio.create_task(self._replies(link, from_server)),
        ]
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            link.cut()
            self._links.discard(link)

    async def _requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        if not await self._greeting(link, reader):
            return
        held = b""
        while chunk := await reader.read(_CHUNK):
            held += chunk
            whole = self._look(link, held)
            if whole:
                fault = self._fault(link)
                if fault is Fault.STALL:
                    self._flowing.clear()
                await self._flowing.wait()
                if fault is Fault.LOSE_REQUEST:
                    return
                link.losing = fault is Fault.LOSE_REPLY
                link.server.write(held[:whole])
                held = held[whole:]
                if fault is Fault.STALL_REPLY:
                    self._flowing.clear()
                if fault is Fault.CUT:
                    return
                await link.server.drain()

    async def _greeting(self, link: _Link, reader: asyncio.StreamReader) -> bool:
        """Pass on what comes before messages; False when none follow."""
        while True:
            head = await reader.readexactly(8)
            size, code = struct.unpack("!II", head)
            rest = await reader.readexactly(size - 8)
            await self._flowing.wait()
            link.server.write(head + rest)
            if code == _CANCEL:
                await link.server.drain()
                return False
            if code != _SSL:  # the server says no to that, and the client goes on without
                words = rest.split(b"\0")
                link.name = (
                    dict(zip(words[::2], words[1::2], strict=False)).get(b"application_name", b"").decode()
                )
                return True

    def _look(self, link: _Link, held: bytes) -> int:
        """Read the whole messages at the front, up to the next statement; returns where they end."""
        at = 0
        while len(held) - at >= 5:
            kind, size = held[at : at + 1], struct.unpack_from("!I", held, at + 1)[0]
            if len(held) - at < size + 1:
                break
            body = held[at + 5 : at + 1 + size]
            at += 1 + size
            if kind == b"P":
                name, text = body.split(b"\0")[:2]
                link.texts[name] = text.decode()
            elif kind == b"B":
                _, text, values = body.split(b"\0", 2)
                link.bound = Statement(link.name, link.texts.get(text, ""), values)
            elif kind == b"E":
                link.statement = link.bound
            elif kind == b"Q":
                link.statement = Statement(link.name, body.rstrip(b"\0").decode())
        return at

    def _fault(self, link: _Link) -> Fault:
        statement, link.statement = link.statement, None
        return self.rule(statement) if statement else Fault.NONE

    async def _replies(self, link: _Link, reader: asyncio.StreamReader) -> None:
        lost = b""
        while chunk := await reader.read(_CHUNK):
            if seconds := self.slowness():
                await asyncio.sleep(seconds)
            await self._flowing.wait()
            if link.losing:
                lost += chunk
                if lost[-6:-1] == b"Z\x00\x00\x00\x05":  # ready for the next query: it has answered
                    return
                continue
            link.client.write(chunk)
            await link.client.drain()
