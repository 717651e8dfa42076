"""Server-sent events: everything once, from where the reader was, and nothing kept for one who is slow."""

import asyncio
import fcntl
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from durably import App, OrchestrationContext
from durably.http_api.v1 import streams
from durably.management import Management
from tests.http.scene import PATIENCE_S, Scene, flows, serving, until

VERSIONS = 16


class Event(NamedTuple):
    kind: str
    id: str | None
    data: Any


async def events_of(stream: httpx.Response) -> AsyncIterator[Event]:
    """Events of a stream; comments are of the kind ""."""
    held, looked = bytearray(), 0
    async for chunk in stream.aiter_bytes():
        held += chunk
        while (end := held.find(b"\n\n", looked)) >= 0:
            fields = dict(line.split(": ", 1) for line in held[:end].decode().split("\n"))
            del held[: end + 2]
            looked = 0
            data = fields.get("data")
            yield Event(fields.get("event", ""), fields.get("id"), None if data is None else json.loads(data))
        looked = max(0, len(held) - 1)


class Reader:
    """Reads one stream, event by event."""

    def __init__(self, stream: httpx.Response) -> None:
        self.stream = stream
        self._events = events_of(stream)

    async def next(self, kind: str) -> Event:
        """The next event of a kind."""
        async with asyncio.timeout(PATIENCE_S):
            async for one in self._events:
                if one.kind == kind:
                    return one
        raise AssertionError(f"the stream ended without {kind}")

    async def rest(self) -> list[Event]:
        async with asyncio.timeout(PATIENCE_S):
            return [one async for one in self._events]


@asynccontextmanager
async def reading(scene: Scene, path: str, last: str | None = None) -> AsyncIterator[Reader]:
    headers = {"x-functions-key": scene.master, **({} if last is None else {"last-event-id": last})}
    async with scene.http.stream("GET", f"/api/v1/instances/{path}", headers=headers) as stream:
        yield Reader(stream)


def counting() -> App:
    """An orchestration that goes step by step, and on as new."""
    app = flows()

    @app.activity
    async def one(number: int) -> int:
        return number + 1

    @app.orchestrator
    async def steps(ctx: OrchestrationContext, rounds: int) -> int:
        total = 0
        for _ in range(3):
            await ctx.wait_for_external_event("go")
            total = await ctx.call_activity(one, total)
            ctx.set_custom_status(total)
        if rounds > 1:
            ctx.continue_as_new(rounds - 1)
        return total

    @app.activity
    async def scroll(length: int) -> str:
        return "x" * length

    @app.orchestrator
    async def large(ctx: OrchestrationContext, length: int) -> None:
        for number in range(VERSIONS):
            await ctx.wait_for_external_event("go")
            await ctx.call_activity(scroll, length)
            ctx.set_custom_status(number)

    return app


def served(test: Callable[[Scene], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def whole() -> None:
            async with serving(counting(), tmp_path) as scene:
                await test(scene)

        asyncio.run(whole())

    run.__name__, run.__doc__ = test.__name__, test.__doc__  # type: ignore[attr-defined]
    return run


@served
async def test_a_stream_tells_what_happens_when_it_is_durable_and_ends_with_the_instance(
    scene: Scene,
) -> None:
    client = scene.host.client
    await client.start("steps", 2, instance_id="s")
    async with reading(scene, "s/stream") as reader:
        assert reader.stream.headers["content-type"].startswith("text/event-stream")
        first = await reader.next("status")
        assert first.data["status"] in {"Pending", "Running"}
        for number in (1, 2):
            await client.raise_event("s", "go")
            while (await reader.next("status")).data["customStatus"] != number:
                pass
        await client.raise_event("s", "go")
        begun = await reader.next("execution")
        for _ in range(3):
            await client.raise_event("s", "go")
        rest = await reader.rest()
    numbers = [event.data["number"] for event in rest if event.kind == "history"]
    history = await client.get_history("s")
    assert numbers == list(range(1, len(history) + 1))
    assert [event.data["eventType"] for event in rest if event.kind == "history"] == [
        entry.event_type for entry in history
    ]
    assert {event.id.rpartition(".")[0] for event in rest if event.id} == {begun.data["executionId"]}
    assert [event.kind for event in rest][-2:] == ["status", "end"]
    assert rest[-1].data == {"status": "Completed"}
    assert rest[-2].data["output"] == 3


@served
async def test_a_reader_goes_on_behind_what_it_has_seen(scene: Scene) -> None:
    client = scene.host.client
    await client.start("steps", 1, instance_id="s")
    async with reading(scene, "s/stream") as reader:
        await client.raise_event("s", "go")
        while (await reader.next("history")).data["eventType"] != "TaskCompleted":
            pass
        seen = await reader.next("status")
    for _ in range(2):
        await client.raise_event("s", "go")
    await client.wait_for_completion("s", PATIENCE_S)
    async with reading(scene, "s/stream", seen.id) as reader:
        rest = await reader.rest()
    number = int((seen.id or "").rpartition(".")[2])
    entries = [event.data["number"] for event in rest if event.kind == "history"]
    assert entries == list(range(number + 1, len(await client.get_history("s")) + 1))
    async with reading(scene, "s/stream", rest[-1].id) as reader:
        assert reader.stream.status_code == 204  # a browser would come for ever
    async with reading(scene, "s/stream", "of another one.7") as reader:
        anew = await reader.rest()
    assert next(event.data["number"] for event in anew if event.kind == "history") == 1
    async with reading(scene, "s/stream?history=false") as reader:
        assert [event.kind for event in await reader.rest()] == ["status", "end"]


@served
async def test_a_stream_of_an_instance_that_is_not_there_or_goes_away(scene: Scene) -> None:
    async with reading(scene, "none/stream") as reader:
        assert reader.stream.status_code == 404
    client = scene.host.client
    await client.start("steps", 1, instance_id="s")
    async with reading(scene, "s/stream") as reader:
        await reader.next("status")
        await client.terminate("s")
        assert (await reader.next("end")).data == {"status": "Terminated"}
        assert await reader.rest() == []


def test_a_silent_instance_is_told_from_a_dead_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.02)
    reads = 0
    original = streams.read_history

    async def counted(management: Management, instance_id: str) -> Any:
        nonlocal reads
        reads += 1
        return await original(management, instance_id)

    monkeypatch.setattr(streams, "read_history", counted)

    async def whole() -> None:
        async with serving(counting(), tmp_path) as scene:
            await scene.host.client.start("steps", 1, instance_id="s")
            async with reading(scene, "s/stream") as reader:
                while (await reader.next("status")).data["status"] != "Running":
                    pass
                await reader.next("")
                before = reads
                for _ in range(3):
                    await reader.next("")
                assert reads == before  # nobody looks while nothing happens

    asyncio.run(whole())


def test_a_stopping_host_ends_its_streams_and_does_not_wait_for_them(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(counting(), tmp_path, max_wait_s=PATIENCE_S * 4) as scene:
            await scene.host.client.start("steps", 1, instance_id="s")
            async with reading(scene, "s/stream") as reader:
                await reader.next("status")
                stopping = asyncio.create_task(scene.server.stop())
                assert all(event.kind in {"history", "status"} for event in await reader.rest())
                async with asyncio.timeout(PATIENCE_S):
                    await stopping

    asyncio.run(whole())


def test_there_are_so_many_streams_and_no_more(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(counting(), tmp_path, max_outstanding_requests=4) as scene:
            await scene.host.client.start("steps", 1, instance_id="s")
            async with reading(scene, "s/stream") as one, reading(scene, "s/stream") as two:
                await one.next("status")
                await two.next("status")
                async with reading(scene, "s/stream") as three:
                    assert three.stream.status_code == 429

            async def status() -> int:
                async with reading(scene, "s/stream") as four:
                    return four.stream.status_code

            await until(status, 200)  # whoever has left makes room

    asyncio.run(whole())


def test_nothing_is_kept_for_a_reader_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 results of 1 MiB go by; for a reader that is asleep are made those that sockets hold, and the others later."""
    made = 0
    original = streams.event

    def counted(kind: str, body: Any, event_id: str | None = None) -> bytes:
        nonlocal made
        made += kind == "history" and body.event_type == "TaskCompleted"
        return original(kind, body, event_id)

    monkeypatch.setattr(streams, "event", counted)
    monkeypatch.setattr(streams, "_SHARE", 0)

    async def whole() -> None:
        async with serving(counting(), tmp_path) as scene:
            client = scene.host.client
            await client.start("large", 1 << 20, instance_id="big")
            with socket.socket() as sleeper:
                sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                url = urlsplit(scene.url)
                sleeper.connect((url.hostname, url.port))
                path = f"/api/v1/instances/big/stream?code={scene.master}"
                sleeper.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                async with reading(scene, "big/stream") as reader:
                    for number in range(VERSIONS):
                        await client.raise_event("big", "go")
                        while (await reader.next("status")).data["customStatus"] != number:
                            pass
                    await reader.next("end")  # who reads has it all, while the other one sleeps
                assert VERSIONS <= made < VERSIONS + 10
                sleeper.setblocking(False)
                taken = bytearray()
                async with asyncio.timeout(PATIENCE_S):
                    while taken.find(b"event: end", -200) < 0:
                        taken += await asyncio.get_running_loop().sock_recv(sleeper, 1 << 20)
                assert taken.count(b"x" * (1 << 19)) >= VERSIONS  # and misses nothing
                assert made == 2 * VERSIONS

    asyncio.run(whole())


def test_a_stream_ends_in_time_and_its_reader_goes_on_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a credential that is void has an end, too."""
    monkeypatch.setattr(streams, "LIFE_S", 0.0)

    async def whole() -> None:
        async with serving(counting(), tmp_path) as scene:
            client = scene.host.client
            await client.start("steps", 1, instance_id="s")
            for _ in range(3):
                await client.raise_event("s", "go")
            await client.wait_for_completion("s", PATIENCE_S)
            seen: list[Event] = []
            last: str | None = None
            while not seen or seen[-1].kind != "status":
                async with reading(scene, "s/stream", last) as reader:
                    told = await reader.rest()
                assert len(told) == 1
                seen += told
                last = told[-1].id
            monkeypatch.setattr(streams, "LIFE_S", 600.0)
            async with reading(scene, "s/stream") as reader:
                whole = await reader.rest()
            assert [one.id for one in seen if one.kind == "history"] == [
                one.id for one in whole if one.kind == "history"
            ]
            key = scene.keys.renew("system", "durabletask_extension")
            await client.start("steps", 1, instance_id="open")
            monkeypatch.setattr(streams, "HEARTBEAT_S", 0.02)
            monkeypatch.setattr(streams, "LIFE_S", 0.2)
            path, headers = "/api/v1/instances/open/stream", {"x-functions-key": key}
            async with scene.http.stream("GET", path, headers=headers) as stream:
                scene.keys.delete("system", "durabletask_extension")
                await Reader(stream).rest()
            assert (await scene.http.get("/api/v1/instances/open", headers=headers)).status_code == 401

    asyncio.run(whole())


def test_a_stream_counts_before_its_record_is_written_and_no_more_when_there_is_none(tmp_path: Path) -> None:
    order = {"json": {"all": True, "filter": {}}, "headers": {"accept": "text/event-stream"}}

    async def whole() -> None:
        async with serving(counting(), tmp_path, max_outstanding_requests=4) as scene:
            await scene.host.client.start("steps", 1, instance_id="s")

            async def bulk() -> int:
                params = {"code": scene.master}
                return (await scene.http.post("/api/v1/bulk/resume", params=params, **order)).status_code

            async def look() -> int:
                async with reading(scene, "s/stream") as stream:
                    return stream.stream.status_code

            log = tmp_path / "orders.db.audit"
            with (tmp_path / "orders.db.audit.head").open("w") as head:
                fcntl.flock(head, fcntl.LOCK_EX)  # so writing takes as long as we like
                both = asyncio.gather(bulk(), bulk())
                await until(look, 429)
            assert await both == [200, 200]
            await until(look, 200)
            log.rename(tmp_path / "away")
            log.mkdir()
            assert await bulk() == 503  # there is an answer, and no stream
            assert await bulk() == 503
            assert [await look() for _ in range(4)] == [200] * 4
            log.rmdir()

    asyncio.run(whole())
