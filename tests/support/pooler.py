"""A pooler as PgBouncer in transaction mode, at its worst: each transaction of a client gets another server connection."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

_KNOWN = {b"user", b"database", b"application_name", b"client_encoding"}


class _Server:
    """A connection to the server that clients use in turn."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.greeting = b""


class Pooler:
    """Listens on a port of its own.

    Args:
        server_port: Of the server behind it.
        size: Connections to that.

    Attributes:
        port: Where to connect.
        transactions: How many there were.
    """

    def __init__(self, server_port: int, size: int = 4) -> None:
        self._server_port = server_port
        self._size = size
        self._free: asyncio.Queue[_Server] = asyncio.Queue()
        self.port = 0
        self.transactions = 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Pooler]:
        servers = [await self._connect() for _ in range(self._size)]
        for server in servers:
            self._free.put_nowait(server)
        clients: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            clients.add(task)
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
            writer.close()
            clients.discard(task)

        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for task in list(clients):
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            for server in servers:
                server.writer.close()
                with suppress(OSError):
                    await server.writer.wait_closed()

    async def _connect(self) -> _Server:
        server = _Server(*await asyncio.open_connection("127.0.0.1", self._server_port))
        body = struct.pack("!i", 196_608) + b"user\0durably\0database\0postgres\0\0"
        server.writer.write(struct.pack("!i", len(body) + 4) + body)
        while not server.greeting.endswith(b"Z\0\0\0\5I"):
            server.greeting += await _message(server.reader)
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            if body[:4] == struct.pack("!i", 196_608):
                break
            writer.write(b"N")  # no TLS
        names = body[4:].split(b"\0")[0:-2:2]
        unknown = [name for name in names if name not in _KNOWN]
        if unknown:
            text = b"SFATAL\0C08P01\0Munsupported startup parameter: " + unknown[0] + b"\0\0"
            writer.write(b"E" + struct.pack("!i", len(text) + 4) + text)
            await writer.drain()
            return
        server = await self._free.get()
        writer.write(server.greeting)
        self._free.put_nowait(server)
        while True:
            await self._transaction(await _message(reader), reader, writer)

    async def _transaction(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if first[:1] == b"X":
            raise asyncio.IncompleteReadError(b"", None)
        server = await self._free.get()
        self.transactions += 1
        forth = asyncio.create_task(self._forth(first, reader, server))
        try:
            while True:
                answer = await _message(server.reader)
                writer.write(answer)
                if answer == b"Z\0\0\0\5I":
                    break
        finally:
            forth.cancel()
            await asyncio.gather(forth, return_exceptions=True)
            self._free.put_nowait(server)
        await writer.drain()

    async def _forth(self, first: bytes, reader: asyncio.StreamReader, server: _Server) -> None:
        message = first
        while message[:1] != b"X":
            server.writer.write(message)
            message = await _message(reader)


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
