"""What a host does about clients that fail, are slow, or send bombs: others notice nothing."""

import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from durably import App, UsageError
from durably.http_api.links import BASE
from durably.http_api.options import HttpOptions
from durably.http_api.patience import HEAD_BYTES_MAX
from durably.security.access_keys import draw_key
from durably.security.audit_chain import lines_of
from durably.security.buckets import PLACES_MAX
from durably.security.failures import Failures
from tests.http.scene import PATIENCE_S, Scene, flows, serving

Test = Callable[[Scene], Awaitable[None]]


def in_scene(folder: Path, test: Test, app: App | None = None, **options: Any) -> None:
    async def whole() -> None:
        async with serving(app or flows(), folder, **options) as scene:
            await test(scene)

    asyncio.run(whole())


# --- failures --------------------------------------------------------------------------------------------------------


def test_who_fails_too_often_gets_429_and_whoever_has_a_credential_does_not(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        link = (await scene.start("waits", "i")).json()["statusQueryGetUri"]
        path = f"{BASE}/instances/i/suspend"
        wrong: tuple[dict[str, Any], ...] = (
            {},
            {"headers": {"x-functions-key": draw_key()}},
            {"params": {"code": "x"}},
            {"params": {"sig": "c1.0.r.x"}},
        )
        statuses = [(await scene.http.post(path, **wrong[n % 4])).status_code for n in range(12)]
        assert statuses == [401, 401, 401, 403, 401, 401, 429, 429, 429, 429, 429, 429]
        late = await scene.http.get(f"{BASE}/instances/i")
        assert (late.status_code, late.json()["ExceptionType"]) == (429, "TooManyFailures")
        assert 1 <= int(late.headers["retry-after"]) <= 10
        assert (await scene.call("GET", "/instances/i")).status_code == 202
        assert (await scene.http.get(link)).status_code == 202
        assert (await scene.call("POST", "/instances/nobody/suspend")).status_code == 404
        log = tmp_path / "orders.db.audit"
        assert len(list(lines_of(log))) == 1 + 6 + 1  # those that were turned away cannot fill the disk

    in_scene(tmp_path, test, max_failures_per_minute=6)


def test_failures_are_counted_by_address_and_forgotten_in_time() -> None:
    now = [0.0]
    failures = Failures(60, lambda: now[0])
    assert [failures.count("10.0.0.1") for _ in range(60)] == [0.0] * 60
    assert failures.count("10.0.0.1") == 1.0
    assert failures.count("::ffff:10.0.0.1") == 1.0
    assert failures.count("10.0.0.2") == 0.0
    now[0] += 0.25
    assert failures.count("10.0.0.1") == 0.75
    now[0] += 0.75
    assert failures.count("10.0.0.1") == 0.0
    assert failures.count("10.0.0.1") == 1.0
    now[0] += 3_600
    assert [failures.count("10.0.0.1") for _ in range(61)] == [0.0] * 60 + [1.0]
    assert [failures.count(f"2001:db8::{n:x}") for n in range(61)] == [0.0] * 60 + [1.0]
    assert failures.count("2001:db8:0:1::1") == 0.0
    assert failures.count("") == 0.0


def test_the_memory_of_failures_is_bounded() -> None:
    failures = Failures(1, lambda: 0.0)
    for number in range(PLACES_MAX + 100):
        failures.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures) == PLACES_MAX
    assert failures.count("10.0.16.99")  # of the last ones
    assert not failures.count("10.0.0.0")  # forgotten


def test_an_address_is_taken_from_a_proxy_only_when_it_is_trusted(tmp_path: Path) -> None:
    def origins(folder: Path, **options: Any) -> list[str]:
        folder.mkdir()

        async def test(scene: Scene) -> None:
            headers = {"x-forwarded-for": "203.0.113.9, 198.51.100.7", "x-forwarded-proto": "https"}
            started = await scene.start("waits", "i", headers=headers)
            secure = bool(options)
            assert started.headers["location"].startswith("https:" if secure else "http:")

        in_scene(folder, test, **options)
        import json

        return [json.loads(placed.raw)["origin"] for placed in lines_of(folder / "orders.db.audit")]

    assert origins(tmp_path / "a") == ["127.0.0.1"]
    assert origins(tmp_path / "b", trusted_proxies="127.0.0.1, 10.0.0.0/8") == ["198.51.100.7"]


# --- slow clients ----------------------------------------------------------------------------------------------------


class Line:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, scene: Scene) -> "Line":
        parts = urlsplit(scene.url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def rest(self) -> bytes:
        """All that is still said, until the host hangs up; also when it does so while something is on its way to it."""
        said = b""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while more := await self.reader.read(65_536):
                    said += more
        self.writer.close()
        return said

    async def trickle(self, data: bytes) -> bytes:
        """Send a byte at a time until the host has had enough, and return all that it says."""
        answer = asyncio.ensure_future(self.rest())
        for at in range(len(data)):
            self.writer.write(data[at : at + 1])
            done, _ = await asyncio.wait({answer}, timeout=0.02)
            if done:
                break
        return await answer


def test_a_head_that_comes_slowly_is_not_waited_for(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        head = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 10_000
        slow = [asyncio.create_task((await Line.to(scene)).trickle(head)) for _ in range(20)]
        silent = await Line.to(scene)
        later = await Line.to(scene)
        later.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await later.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401")
        assert (await scene.call("GET", "/instances")).status_code == 200
        for said in (await silent.rest(), *await asyncio.gather(*slow)):
            assert said.startswith(b"HTTP/1.1 408")
        await later.reader.readuntil(b"}")
        assert (await later.trickle(head)).startswith(b"HTTP/1.1 408")  # a second request has the same time

    in_scene(tmp_path, test, head_timeout_s=0.3)


def test_a_head_without_an_end_is_turned_away(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        for what in (b"X-Long: " + b"a" * 2 * HEAD_BYTES_MAX, b"a: b\r\n" * HEAD_BYTES_MAX):
            line = await Line.to(scene)
            line.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + what)
            said = await line.rest()
            assert not said or said.startswith(b"HTTP/1.1 431")  # or it was reset before that was read

    in_scene(tmp_path, test, head_timeout_s=60)


@pytest.mark.parametrize("framing", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_a_body_that_comes_slowly_is_not_waited_for(tmp_path: Path, framing: bytes) -> None:
    async def test(scene: Scene) -> None:
        start = f"POST {BASE}/orchestrators/waits HTTP/1.1\r\nHost: localhost\r\n".encode()
        line = await Line.to(scene)
        line.writer.write(start + b"x-functions-key: " + scene.key.encode() + b"\r\n" + framing + b"\r\n\r\n")
        said = await line.trickle(b"1\r\n[\r\n" * 10_000)
        assert said.startswith(b"HTTP/1.1 408"), said
        assert b"RequestTimeout" in said
        assert (await scene.call("GET", "/instances")).json() == []

    in_scene(tmp_path, test, body_timeout_s=0.3)


def test_a_body_may_come_in_pieces(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        line = await Line.to(scene)
        head = f"POST {BASE}/orchestrators/waits/i HTTP/1.1\r\nHost: localhost\r\nx-functions-key: {scene.key}\r\n"
        for part in (head, "Content-Length: 6\r\nConnection: close\r\n\r\n", '"a', 'bcd"'):
            line.writer.write(part.encode())
            await line.writer.drain()
            await asyncio.sleep(0.05)
        assert (await line.rest()).startswith(b"HTTP/1.1 202")
        assert (await scene.call("GET", "/instances/i")).json()["input"] == "abcd"

    in_scene(tmp_path, test)


def test_a_handler_may_take_longer_than_a_body(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        waited = asyncio.create_task(scene.call("POST", "/orchestrators/waits/i?timeout=20", json=1))
        silent = await Line.to(scene)  # is turned away when both times are over
        await silent.rest()
        await scene.host.client.raise_event("i", "go", 7)
        assert (await waited).json() == 7

    in_scene(tmp_path, test, body_timeout_s=0.1, head_timeout_s=0.3)


def test_a_client_that_does_not_take_its_answer_is_hung_up_on(tmp_path: Path) -> None:
    app = flows()
    ended = asyncio.Event()

    @app.route("much", auth_level="anonymous")
    async def much() -> Any:
        from starlette.responses import StreamingResponse

        async def parts() -> Any:
            try:
                for _ in range(100_000):
                    yield b"a" * 65_536
            finally:
                ended.set()

        return StreamingResponse(parts())

    async def test(scene: Scene) -> None:
        line = await Line.to(scene)
        line.writer.write(b"GET /api/much HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()
        line.writer.close()

    in_scene(tmp_path, test, app, answer_timeout_s=0.2)


# --- bombs -----------------------------------------------------------------------------------------------------------


def test_a_compressed_body_is_not_decompressed(tmp_path: Path) -> None:
    app = flows()

    @app.route("place", auth_level="anonymous")
    async def place(what: list[int]) -> int:
        return len(what)

    async def test(scene: Scene) -> None:
        bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
        assert len(bomb) < 100_000
        for encoding in ("gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip"):
            headers = {"content-encoding": encoding, "content-type": "application/json"}
            for path in ("/orchestrators/waits", "/instances/i/raiseEvent/go", "/entities/counter/k?op=add"):
                answer = await scene.call("POST", path, content=bomb, headers=headers)
                assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity"), path
            assert (await scene.http.post("/api/place", content=bomb, headers=headers)).status_code == 415
        plain = await scene.call("POST", "/orchestrators/waits", content=bomb)
        assert plain.status_code == 400  # it is no JSON
        named = await scene.call(
            "POST", "/orchestrators/waits", content=b"1", headers={"content-encoding": "identity"}
        )
        assert named.status_code == 202

    in_scene(tmp_path, test, app)


def test_a_body_of_ten_thousand_brackets_is_an_answer_like_any_other(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        deep = await scene.call("POST", "/orchestrators/waits", content=b"[" * 10_000 + b"]" * 10_000)
        assert (deep.status_code, deep.json()["ExceptionType"]) == (400, "InvalidJson")

    in_scene(tmp_path, test)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_failures_per_minute": 0}, "max_failures_per_minute"),
        ({"max_starts_per_second": -1}, "max_starts_per_second"),
        ({"max_starts_per_second": float("nan")}, "max_starts_per_second"),
        ({"head_timeout_s": 0}, "head_timeout_s"),
        ({"body_timeout_s": float("inf")}, "body_timeout_s"),
        ({"answer_timeout_s": float("nan")}, "answer_timeout_s"),
        ({"trusted_proxies": "proxy.example.com"}, "trusted_proxies"),
        ({"trusted_proxies": "*"}, "trusted_proxies"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        HttpOptions(**given)
