"""The head of an answer goes out with what follows it, and is never kept from a client that has to see it first."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response, StreamingResponse

from durably import App
from durably.http_api.joining import JoiningTransport
from tests.http.scene import PATIENCE_S, Scene, flows, serving
from tests.http.test_patience import Line

Test = Callable[[Scene], Awaitable[None]]
ASK = b"GET /api/%b HTTP/1.1\r\nHost: localhost\r\n\r\n"


def in_scene(folder: Path, test: Test, app: App) -> None:
    async def whole() -> None:
        async with serving(app, folder) as scene, asyncio.timeout(PATIENCE_S):
            await test(scene)

    asyncio.run(whole())


class Wire(asyncio.Transport):
    """What is sent, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.said.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("body", [b"a", b"a" * 100_000, memoryview(b"a")])
def test_head_and_body_are_one_write(body: bytes) -> None:
    async def whole() -> None:
        wire = Wire()
        transport = JoiningTransport(wire)
        for _ in range(2):
            transport.write(HEAD)
            transport.write(body)
        transport.write(body)
        assert wire.said == [HEAD + bytes(body), HEAD + bytes(body), bytes(body)]
        await asyncio.sleep(0)
        assert len(wire.said) == 3

    asyncio.run(whole())


def test_a_head_alone_is_sent_at_the_next_step_or_before_the_end() -> None:
    async def whole() -> None:
        waits, closes, aborted = (Wire() for _ in range(3))
        JoiningTransport(waits).write(HEAD)
        closing = JoiningTransport(closes)
        closing.write(HEAD)
        closing.close()
        assert (closes.said, closes.closed) == ([HEAD], True)
        JoiningTransport(aborted).write(HEAD)
        aborted.close()
        await asyncio.sleep(0)
        assert (waits.said, closes.said, aborted.said) == ([HEAD], [HEAD], [])

    asyncio.run(whole())


def test_the_head_of_a_stream_does_not_wait_for_its_body(tmp_path: Path) -> None:
    app, go = flows(), asyncio.Event()

    @app.route("slow", auth_level="anonymous")
    async def slow() -> Any:
        async def parts() -> Any:
            await go.wait()
            yield b"HTTP/1.1 is how this part begins"
            yield b", and goes on"

        return StreamingResponse(parts())

    async def test(scene: Scene) -> None:
        line = await Line.to(scene)
        line.writer.write(ASK % b"slow")
        assert (await line.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        go.set()
        said = await line.reader.readuntil(b"0\r\n\r\n")
        assert b"HTTP/1.1 is how this part begins\r\n" in said
        assert b", and goes on\r\n" in said
        line.writer.close()

    in_scene(tmp_path, test, app)


def test_answers_without_a_body_and_those_to_requests_ahead_come_in_order(tmp_path: Path) -> None:
    app = flows()

    @app.route("{number}", auth_level="anonymous")
    async def answer(number: int) -> Any:
        return Response(status_code=204) if number % 2 else Response(b"%d" % number * 20_000)

    async def test(scene: Scene) -> None:
        line = await Line.to(scene)
        line.writer.write(b"".join(ASK % b"%d" % number for number in range(6)))
        for number in range(6):
            head = await line.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 204" if number % 2 else b"HTTP/1.1 200"), head
            if not number % 2:
                assert await line.reader.readexactly(20_000) == b"%d" % number * 20_000
        line.writer.close()

    in_scene(tmp_path, test, app)
