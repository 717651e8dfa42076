"""`Client("http://…")` beside the client of the same hub: the same answers, as the same values; streams that go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from durably import App, OrchestrationContext
from durably.client import Client
from durably.client.remote.api import HostApi
from durably.client.remote.client import HttpClient
from durably.client.remote.streams import Event, instance_events
from durably.core.entities import EntityId
from durably.errors import (
    AccessDeniedError,
    EntityOperationFailedError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
    InvalidScheduleError,
    OrchestrationFailedError,
    ScheduleNotFoundError,
    UsageError,
)
from durably.http_api import application
from durably.http_api.v1 import streams
from tests.http.scene import Scene, flows, serving, until

Test = Callable[[Scene, Client], Awaitable[None]]


def program() -> App:
    app = App()
    app.include(flows())

    @app.activity
    async def double(number: int) -> int:
        return 2 * number

    @app.orchestrator
    async def steps(ctx: OrchestrationContext, count: int) -> list[int]:
        return [await ctx.call_activity(double, number) for number in range(count)]

    @app.orchestrator
    async def holds(ctx: OrchestrationContext) -> None:
        async with ctx.lock_entities(EntityId("counter", "held")):
            await ctx.wait_for_external_event("go")

    return app


def served(test: Test) -> Callable[[Path], None]:
    """Run it with a host, and a client of it over HTTP."""

    def run(tmp_path: Path) -> None:
        async def whole() -> None:
            async with serving(program(), tmp_path) as scene, Client(scene.url, key=scene.key) as client:
                await test(scene, client)

        asyncio.run(whole())

    run.__name__, run.__doc__ = test.__name__, test.__doc__  # type: ignore[attr-defined]
    return run


@served
async def test_what_is_told_over_http_is_what_the_hub_says(scene: Scene, client: Client) -> None:
    near = scene.host.client
    handle = await client.start("shout", "hi", instance_id="s", tags={"a": "b", "é": "="}, version="2")
    assert await handle.result(30) == "HI"
    await client.start("waits", {"big": 2**60, "x": [1.5, None, "é"]}, instance_id="w")
    await client.start("shout", "later", instance_id="l", start_at=timedelta(days=1))
    with pytest.raises(OrchestrationFailedError, match="out of paper") as failed:
        await (await client.start("fails", instance_id="f")).result(30)
    assert failed.value.details.is_caused_by(ValueError)
    await until_waits(near, "w")
    for one in ("s", "w", "l", "f"):
        assert await client.get_status(one) == await near.get_status(one)
        assert await client.get_status(one, fetch_payloads=False) == await near.get_status(
            one, fetch_payloads=False
        )
        if one != "l":
            assert await client.get_history(one) == await near.get_history(one)
    assert (await client.why("w")).split("(")[0] == (await near.why("w")).split("(")[0]
    for filters in (
        {"tags": {"é": "="}},
        {"runtime_status": ["Pending", "Failed"], "fetch_payloads": False},
        {"runtime_status": []},
        {"updated_from": (await near.get_status("w")).last_updated_time},  # type: ignore[union-attr]
        {"instance_id_prefix": "", "stuck": False},
    ):
        assert await client.query_instances(**filters) == await near.query_instances(**filters), filters
    first = await client.query_instances(page_size=3)
    assert first == await near.query_instances(page_size=3)
    token = first.continuation_token
    assert await client.query_instances(continuation_token=token) == await near.query_instances(
        continuation_token=token
    )
    assert await client.count_instances(by="name_and_status") == await near.count_instances(
        by="name_and_status"
    )
    assert await client.get_status("none") is None
    counted = await client.bulk("terminate", dry_run=True, name="waits")
    assert counted == await near.bulk("terminate", dry_run=True, name="waits")
    done = await client.bulk("terminate", name="waits", reason="enough")
    assert (done.matched, done.done, done.errors) == (1, 1, {})
    assert (await near.wait_for_completion("w", 30)).output == "enough"


async def until_waits(client: Client, instance_id: str) -> None:
    async def is_waiting() -> bool:
        return any(one.event_type == "EventAwaited" for one in await client.get_history(instance_id))

    await until(is_waiting, True)


@served
async def test_errors_are_those_of_the_host(scene: Scene, client: Client) -> None:
    await client.start("waits", instance_id="w")
    near = scene.host.client
    refused: list[tuple[type[Exception], Callable[[Client], Awaitable[Any]]]] = [
        (InstanceAlreadyExistsError, lambda one: one.start("waits", instance_id="w")),
        (InstanceNotFoundError, lambda one: one.raise_event("none", "go")),
        (InstanceStateError, lambda one: one.rewind("w")),
        (InstanceStateError, lambda one: one.purge("w")),
        (InstanceNotFoundError, lambda one: one.restart("none")),
        (InstanceNotFoundError, lambda one: one.get_history("none")),
        (InstanceNotFoundError, lambda one: one.redrive("none")),
        (InstanceNotFoundError, lambda one: one.wait_for_completion("none")),
        (TimeoutError, lambda one: one.wait_for_completion("w", 0.05)),
        (UsageError, lambda one: one.query_instances(page_size=0)),
        (UsageError, lambda one: one.query_instances(continuation_token="?")),
        (EntityOperationFailedError, lambda one: one.call_entity("@counter@k", "explode")),
        (ScheduleNotFoundError, lambda one: one.schedules.pause("none")),
        (InvalidScheduleError, lambda one: one.schedules.create("x", "waits", cron="soon")),
    ]
    for kind, ask in refused:
        texts: list[str] = []
        for one in (near, client):
            with pytest.raises(kind) as caught:
                await ask(one)
            assert type(caught.value) is kind
            texts.append(str(caught.value))
            if isinstance(caught.value, EntityOperationFailedError):
                assert caught.value.details.type == "UnknownFunctionError"
        assert texts[0] == texts[1]
    assert await client.purge("none") is False
    with pytest.raises(UsageError, match="A queue cannot be asked for over HTTP"):
        client.queue("orders")
    async with Client(scene.url, key="wrong") as stranger:
        with pytest.raises(AccessDeniedError, match="The key is not valid"):
            await stranger.get_status("w")


@served
async def test_entities_are_the_same(scene: Scene, client: Client) -> None:
    near = scene.host.client
    await client.call_entity("@counter@", "add", 1)
    await client.call_entity("@counter@a b:ü%", "add", 2)
    await client.signal_entity("@counter@later", "add", 1, at=timedelta(days=1))
    assert await client.call_entity("@note@n", "keep", "é") == "é"
    await client.start("holds", instance_id="h")
    await until_waits(near, "h")
    for key in ("", "a b:ü%", "held", "later", "none"):
        assert await client.get_entity(EntityId("counter", key)) == await near.get_entity(
            EntityId("counter", key)
        )
        assert await client.read_entity(f"@counter@{key}") == await near.read_entity(f"@counter@{key}")
    for filters in (
        {"include_transient": True},
        {"name": "counter", "key_prefix": "a "},
        {"locked": True, "include_transient": True},
        {"include_state": False, "page_size": 1},
    ):
        assert await client.query_entities(**filters) == await near.query_entities(**filters)
    assert await client.clean_entity_storage() == await near.clean_entity_storage()
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.05 s"):
        await client.call_entity("@counter@held", "add", 1, timeout=0.05)


@served
async def test_schedules_are_the_same(scene: Scene, client: Client) -> None:
    near = scene.host.client.schedules
    far = client.schedules
    await far.create(
        "c", "shout", {"a": 1}, cron="0 0 3 * * *", time_zone="Europe/Berlin", jitter=0.25, tags={"k": "v"}
    )
    await far.create(
        "e", entity="@counter@k", operation="add", input=1, interval=timedelta(hours=12), paused=True
    )
    assert await far.describe("c") == await near.describe("c")
    await far.update("c", interval=90.5, overlap="allow", catch_up_window=timedelta(days=1))
    await far.update("e", "waits", input=[1], tags={"t": "u"})
    started = await far.trigger("c", overlap="skip")
    assert started is not None
    await client.wait_for_completion(started, 30)
    assert (await far.list()) == (await near.list())
    assert (await far.describe("c")).interval == timedelta(seconds=90.5)
    await far.delete("c")
    with pytest.raises(ScheduleNotFoundError):
        await far.describe("c")


def test_a_call_that_takes_long_gets_signs_of_life_and_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.02)

    async def test(scene: Scene, client: Client) -> None:
        await client.start("holds", instance_id="h")
        await until_waits(scene.host.client, "h")
        call = asyncio.create_task(client.call_entity("@counter@held", "add", 1))
        await asyncio.sleep(0.1)
        await client.raise_event("h", "go")
        assert await call is None
        assert await client.read_entity("@counter@held") == {"value": 1}

    served(test)(tmp_path)


async def numbers(api: HostApi, instance_id: str) -> list[int]:
    """The history as its stream tells it."""
    async with contextlib.aclosing(instance_events(api, instance_id, history=True)) as events:
        return [msgspec.json.decode(one.data)["number"] async for one in events if one.kind == "history"]


def test_a_stream_that_ends_or_is_cut_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LIFE_S", 0.02)

    async def test(scene: Scene, client: Client) -> None:
        await client.start("steps", 10, instance_id="x")
        proxy = Cutting(scene.url)
        async with proxy as url, HostApi(url, scene.key) as api:
            told = await asyncio.wait_for(numbers(api, "x"), 30)
        count = len(await client.get_history("x"))
        assert told == list(range(1, count + 1))
        assert proxy.connections > 3

    served(test)(tmp_path)


class Cutting:
    """Passes bytes on, and hangs up after so many of them."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self.connections = 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *ended: object) -> None:
        self._server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        from_host, to_host = await asyncio.open_connection("127.0.0.1", self._port)
        left = 1_500 + 100 * self.connections

        async def ask() -> None:
            while data := await reader.read(65_536):
                to_host.write(data)

        asking = asyncio.create_task(ask())
        while left > 0 and (data := await from_host.read(min(left, 200))):
            left -= len(data)
            writer.write(data)
        asking.cancel()
        writer.close()
        to_host.close()


@served
async def test_who_looks_again_and_again_is_told_by_streams(scene: Scene, client: Client) -> None:
    await client.start("waits", instance_id="w")
    await until_waits(scene.host.client, "w")
    async with client.looking() as looks:
        assert looks is not client
        before = await looks.get_status("w")
        assert before == await scene.host.client.get_status("w", fetch_payloads=False)
        assert await looks.get_history("w") == await client.get_history("w")
        assert await looks.get_status("none") is None
        await client.raise_event("w", "go", 7)

        async def output() -> Any:
            status = await looks.get_status("w")
            return status and status.output

        await until(output, 7)
        assert await looks.get_history("w") == await client.get_history("w")


@served
async def test_many_are_waited_for_at_once(scene: Scene, client: Client) -> None:
    handles = [await client.start("waits", instance_id=f"w{number}") for number in range(30)]
    waiting = [asyncio.create_task(handle.result(30)) for handle in handles]
    done = await client.bulk("resume", runtime_status=["Running", "Pending"])
    assert done.matched == 30
    for handle in handles:
        await handle.raise_event("go", handle.instance_id)
    assert await asyncio.gather(*waiting) == [handle.instance_id for handle in handles]


def test_a_host_of_durable_functions_is_asked_what_it_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "v1_routes", lambda *_: [])
    monkeypatch.setattr(application, "_is_v1", lambda _: False)

    async def test(scene: Scene, client: Client) -> None:
        near = scene.host.client
        assert await (await client.start("shout", "hi", instance_id="s")).result(30) == "HI"
        await client.start("waits", instance_id="w")
        first = await client.query_instances(page_size=1)
        rest = await client.query_instances(continuation_token=first.continuation_token)
        assert [one.instance_id for one in (*first.instances, *rest.instances)] == ["s", "w"]
        assert sum((await client.count_instances(by="status")).values()) == 2
        await client.signal_entity("@note@n", "keep", "é")
        await until(lambda: client.read_entity("@note@n"), {"word": "é"})
        assert await client.read_entity("@note@n") == await near.read_entity("@note@n")
        found = await client.query_entities(name="note")
        assert [(one.entity_id, one.state) for one in found.entities] == [
            (EntityId("note", "n"), {"word": "é"})
        ]
        asks: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
            ("A cancellation", lambda: client.cancel("w")),
            ("--recursive", lambda: client.terminate("w", recursive=True)),
            ("--no-compensate", lambda: client.terminate("w", compensate=False)),
            ("Instances by tag", lambda: client.query_instances(tags={"a": "b"})),
            ("Tags", lambda: client.start("waits", tags={"a": "b"})),
            ("A start for later", lambda: client.start("waits", start_at=60)),
            ("on_existing='attach'", lambda: client.start("waits", on_existing="attach")),
            ("A schedule", lambda: client.schedules.pause("x")),
            ("What is parked", client.query_parked),
            ("The hosts of a hub", client.hosts),
        ]
        for what, ask in asks:
            with pytest.raises(UsageError, match="hub itself") as caught:
                await ask()
            assert str(caught.value).startswith(what)
        assert "not over HTTP" in await client.why("w")
        assert isinstance(client, HttpClient)
        async with client.looking() as looks:
            assert looks is client

    served(test)(tmp_path)


def test_events_that_are_cut_off_are_none() -> None:
    async def lines() -> Any:
        for line in (": alive", "", "id: a.1", "event: history", "data: {}", "", "event: status", "data: {"):
            yield line

    async def run() -> list[Event]:
        from durably.client.remote.streams import events_in

        return [event async for event in events_in(lines())]

    assert asyncio.run(run()) == [Event("history", b"{}", "a.1")]
