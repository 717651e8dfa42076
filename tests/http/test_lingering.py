"""A server that stops and leaves its port to others: whoever keeps a connection is not hung up on in the middle."""

import asyncio
import time

from durably import App
from durably.http_api.options import HttpOptions

REQUEST = b"GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def head_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(5)
    return head.lower()


def test_a_connection_that_is_kept_gets_one_more_answer_and_a_silent_one_is_closed() -> None:
    app = App()

    @app.route("hello")
    async def hello(request: object) -> str:
        return "hello"

    async def test() -> None:
        async with app.host("memory://") as host:
            server = host.serve_http(HttpOptions(port=0, insecure=True))
            await server.start(linger_s=0.4)
            port = int(server.url.rpartition(":")[2])
            busy, silent, fresh = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for reader, writer in (busy, silent):
                writer.write(REQUEST)
                assert b"connection: close" not in await head_of(reader)
            began = time.monotonic()
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0.05)
            for reader, writer in (busy, fresh):  # what was on its way when it stopped
                writer.write(REQUEST)
                assert b"connection: close" in await head_of(reader)
                assert await reader.read() == b""
            assert await silent[0].read() == b""
            assert 0.4 <= time.monotonic() - began < 5
            await stopping
            for _, writer in (busy, silent, fresh):
                writer.close()

    asyncio.run(test())
