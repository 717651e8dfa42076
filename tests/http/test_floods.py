"""Whoever asks for too much gets less of it, and all others get what is theirs."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably import App, OrchestrationContext
from durably.http_api.links import BASE
from durably.http_api.v1.operation import V1
from durably.security.audit_chain import lines_of
from durably.security.buckets import Buckets
from durably.security.capabilities import ANY_INSTANCE, sign
from tests.http.scene import Scene, flows, serving, until


def in_scene(folder: Path, test: Callable[[Scene], Awaitable[None]], app: App, **options: Any) -> None:
    async def whole() -> None:
        async with serving(app, folder, **options) as scene:
            await test(scene)

    asyncio.run(whole())


# --- too many starts -------------------------------------------------------------------------------------------------


def test_starts_of_one_key_have_a_rate_and_others_are_not_held_off(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        key, master = {"x-functions-key": scene.key}, {"x-functions-key": scene.master}
        template = {"sig": sign(scene.keys.ring.signing[-1], "orders", ANY_INSTANCE, "rs", 2**33)}
        schedule = {"scheduleId": "s", "orchestrator": "waits", "cron": "0 0 3 * * *"}
        starts: list[tuple[str, Any]] = [
            (f"{BASE}/orchestrators/waits", 1),
            (f"{V1}/instances", {"name": "waits"}),
            (f"{BASE}/instances/a/restart", None),
            (f"{V1}/instances/a/restart", {}),
            (f"{V1}/bulk/restart", {"filter": {"name": "x"}}),
            (f"{V1}/schedules", schedule),
            (f"{V1}/schedules/s/trigger", None),
        ]
        for first, more in ((0, {"headers": key}), (1, {"headers": master}), (4, {"params": template})):
            path, body = starts[first]
            assert (await scene.http.post(path, json=body, **more)).status_code in {200, 201, 202}
            for path, body in starts:
                refused = await scene.http.post(path, json=body, **more)
                assert refused.status_code == 429, (path, refused.text)
                assert 900 <= int(refused.headers["retry-after"]) <= 1_000
                assert "TooManyStarts" in refused.text
        assert (await scene.http.get(f"{V1}/counts", headers=key)).json()["total"] == 2
        assert (await scene.call("POST", "/instances/nobody/suspend")).status_code == 404
        assert len(list(lines_of(tmp_path / "orders.db.audit"))) == 3 + 1  # a flood does not fill the disk

    in_scene(tmp_path, test, flows(), max_starts_per_second=0.001)


def test_a_rate_comes_back_and_one_below_a_second_is_a_rate() -> None:
    now = [0.0]
    buckets = Buckets(0.5, 0.5, lambda: now[0])
    assert buckets.take("ada") == 0.0
    assert buckets.take("ada") == 2.0
    assert buckets.take("bob") == 0.0
    now[0] += 1.0
    assert buckets.take("ada") == 1.0
    now[0] += 100.0
    assert [buckets.take("ada") for _ in range(2)] == [0.0, 2.0]


def test_more_requests_at_once_than_allowed_are_told_to_come_again(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        async def start(number: int) -> httpx.Response:
            return await scene.call("POST", f"/orchestrators/waits/o{number}?timeout=60")

        under_way = [asyncio.create_task(start(number)) for number in range(30)]
        early: list[httpx.Response] = []
        for task in asyncio.as_completed(under_way):
            early.append(await task)
            if len(early) == 20:
                break
        assert {one.status_code for one in early} == {429}
        assert {one.headers["retry-after"] for one in early} == {"1"}
        await until(scene.host.client.count_instances, 10)
        rows = (await scene.host.client.query_instances()).instances
        assert len(rows) == 10
        for row in rows:
            await scene.host.client.raise_event(row.instance_id, "go", 1)
        assert sum(one.status_code == 200 for one in await asyncio.gather(*under_way)) == 10
        assert (await scene.call("GET", "/instances")).status_code == 200

    in_scene(tmp_path, test, flows(), max_outstanding_requests=10)


# --- instances that never rest ---------------------------------------------------------------------------------------


def restless() -> App:
    app = flows()

    @app.activity
    async def nothing(number: int) -> int:
        return number

    @app.orchestrator
    async def spins(ctx: OrchestrationContext, turn: int) -> None:
        ctx.continue_as_new(turn + 1)

    @app.orchestrator
    async def fans(ctx: OrchestrationContext, wave: int) -> None:
        await ctx.when_all([ctx.call_activity(nothing, number) for number in range(20)])
        ctx.continue_as_new(wave + 1)

    @app.orchestrator
    async def breeds(ctx: OrchestrationContext, generation: int) -> None:
        await ctx.start_orchestration("breeds", generation + 1)

    @app.orchestrator
    async def talks(ctx: OrchestrationContext, number: int) -> None:
        for word in range(10):
            ctx.signal_entity("@counter@all", "add", word)
        ctx.continue_as_new(number + 1)

    return app


@pytest.mark.slow_once
def test_instances_that_never_rest_leave_the_others_their_turn(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        client = scene.host.client
        await client.start("waits", instance_id="quiet")
        alone = await measured(scene, 40)
        restless = [
            f"{name}-{number}" for name in ("spins", "fans", "breeds", "talks") for number in range(1)
        ]
        for instance_id in restless:
            await client.start(instance_id[:-2], 0, instance_id=instance_id)

        async def ordinary(number: int) -> str:
            answer = await scene.call("POST", f"/orchestrators/shout/o{number}?timeout=60", json=f"x{number}")
            return answer.text

        async with asyncio.timeout(90):
            busy, *results = await asyncio.gather(
                measured(scene, 40), *(ordinary(number) for number in range(5))
            )
            await scene.call("POST", "/instances/quiet/raiseEvent/go", json=7)
            assert (await client.wait_for_completion("quiet", 60)).output == 7
        assert results == [f'"X{number}"' for number in range(5)]
        print(
            f"status of another instance, p99: {alone * 1e3:.1f} ms alone, {busy * 1e3:.1f} ms beside 4 restless ones"
        )
        for instance_id in restless:
            answer = await scene.call("POST", f"/instances/{instance_id}/terminate?reason=enough")
            assert answer.status_code == (410 if "breeds" in instance_id else 202), answer.text
        await client.bulk("terminate", name="breeds")

    in_scene(tmp_path, test, restless())


async def measured(scene: Scene, count: int) -> float:
    """The 99th percentile of the time that a status takes, in seconds."""
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        answer = await scene.call("GET", "/instances/quiet")
        times.append(time.perf_counter() - began)
        assert answer.status_code == 202
    return statistics.quantiles(times, n=100)[98]


def test_queries_of_a_large_hub_are_answered_in_pieces(tmp_path: Path) -> None:
    """The other bounds of a query (rows and bytes that one request looks at) have tests of their own."""

    async def test(scene: Scene) -> None:
        client = scene.host.client
        await asyncio.gather(*(client.start("waits", "x" * 100, instance_id=f"i{n}") for n in range(1_200)))
        page = await scene.call("GET", "/instances?top=1000000")
        assert len(page.json()) == 1_000
        assert "x-ms-continuation-token" in page.headers
        key = {"x-functions-key": scene.key}
        assert (await scene.http.get(f"{V1}/instances?limit=1001", headers=key)).status_code == 400
        found = (await scene.http.get(f"{V1}/instances?limit=1000&where=input=none", headers=key)).json()
        assert found["instances"] == []

    in_scene(tmp_path, test, flows())


# --- bodies that are bombs -------------------------------------------------------------------------------------------

BOMBS = {
    "deep list": b"[" * 100_000,
    "deep and whole": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "an integer without end": b"9" * 1_000_000,
    "a negative one": b"-" + b"9" * 100_000,
    "a float without end": b"1e" + b"9" * 10_000,
    "NaN": b"[NaN, Infinity, -Infinity]",
    "many keys": b"{" + b",".join(b'"%d":0' % number for number in range(200_000)) + b"}",
    "one key many times": b"{" + b",".join([b'"a":0'] * 200_000) + b"}",
    "half a surrogate": b'"\\ud800"',
    "no UTF-8": b'"\xff\xfe"',
    "a byte order mark": b"\xef\xbb\xbf1",
    "nul": b'"\\u0000"',
    "escapes": b'"' + b"\\u0041" * 200_000 + b'"',
    "blanks": b" " * 1_000_000,
}


@pytest.mark.slow_once
def test_bodies_that_are_bombs_are_answered_like_any_other(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        key = {"x-functions-key": scene.master, "content-type": "application/json"}
        slowest = ("", 0.0)
        await scene.start("waits", "i")
        for name, body in BOMBS.items():
            for path, content in (
                (f"{BASE}/orchestrators/waits", body),
                (f"{BASE}/instances/i/raiseEvent/other", body),
                (f"{BASE}/entities/counter/k?op=add", body),
                (f"{V1}/instances", b'{"name":"shout","input":%s}' % body),
                (f"{V1}/bulk/terminate", b'{"filter":{"name":%s}}' % body),
                (f"{V1}/entities/note/k/signal", b'{"operation":"keep","input":%s}' % body),
            ):
                began = time.perf_counter()
                answer = await scene.http.post(path, content=content, headers=key)
                slowest = max(
                    slowest, (f"{name} at {path}", time.perf_counter() - began), key=lambda one: one[1]
                )
                assert answer.status_code < 500, (name, path, answer.text[:200])
                assert len(answer.text) < 5_000, (name, path)
        print(f"slowest: {slowest[0]}, {slowest[1] * 1e3:.0f} ms")
        for path in (f"{BASE}/instances", f"{V1}/instances?where=input.a=1&payloads=true"):
            assert (await scene.http.get(path, headers=key)).status_code == 200
        assert (await scene.host.client.get_status("i")) is not None

    in_scene(tmp_path, test, flows())


def test_a_bulk_restart_starts_no_faster_than_one_by_one(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        ids = [f"i{number}" for number in range(4)]
        for one in ids:
            await scene.host.client.start("shout", "x", instance_id=one)
            await scene.host.client.handle(one).result(timeout=30)
        first = {one: (await scene.host.client.get_status(one)).created_time for one in ids}

        async def restarted() -> int:
            now = [await scene.host.client.get_status(one) for one in ids]
            return sum(one.created_time != first[one.instance_id] for one in now)

        headers = {"x-functions-key": scene.key}
        body = {"filter": {"name": "shout"}}
        asking = asyncio.create_task(scene.http.post(f"{V1}/bulk/restart", json=body, headers=headers))
        await until(restarted, 1)
        turned = await scene.http.post(f"{V1}/bulk/restart", json=body, headers=headers)
        assert turned.status_code == 429, turned.text
        await asyncio.sleep(0.2)  # what is not to happen has no event
        assert await restarted() == 1
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    in_scene(tmp_path, test, flows(), max_starts_per_second=0.001, max_wait_s=1)


def test_a_bulk_restart_goes_on_as_its_bucket_fills(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        for number in range(4):
            await scene.host.client.start("shout", "x", instance_id=f"i{number}")
            await scene.host.client.handle(f"i{number}").result(timeout=30)
        answer = await scene.http.post(
            f"{V1}/bulk/restart", json={"filter": {"name": "shout"}}, headers={"x-functions-key": scene.key}
        )
        assert (answer.status_code, answer.json()["done"]) == (200, 4)

    in_scene(tmp_path, test, flows(), max_starts_per_second=20)


def test_a_backfill_takes_a_start_for_each_occurrence(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        headers = {"x-functions-key": scene.key}
        for name, timing in (("c", {"cron": "0 0 3 * * *"}), ("i", {"intervalS": 3_600})):
            made = {"scheduleId": name, "orchestrator": "shout", "input": "x", "paused": True, **timing}
            answer = await scene.http.post(
                f"{V1}/schedules", json=made, headers={"x-functions-key": scene.master}
            )
            assert answer.status_code == 201, answer.text

        async def backfill(name: str, end: str) -> tuple[int, str]:
            body = {"start": "2020-01-01T00:30:00Z", "end": end}
            answer = await scene.http.post(f"{V1}/schedules/{name}/backfill", json=body, headers=headers)
            return answer.status_code, answer.text

        status, text = await backfill("c", "2024-01-01T00:00:00Z")
        assert (status, "RangeTooLong" in text) == (400, True), text
        status, text = await backfill("i", "2024-01-01T00:00:00Z")
        assert (status, "RangeTooLong" in text) == (400, True), text
        for name in ("c", "i"):
            assert (await scene.http.get(f"{V1}/schedules/{name}", headers=headers)).json()["started"] == 0
        assert (await backfill("c", "2020-01-02T04:00:00Z"))[
            0
        ] == 204  # two; of six, two were asked for before

    in_scene(tmp_path, test, flows(), max_starts_per_second=6)


def test_some_are_taken_together_or_none() -> None:
    now = [0.0]
    buckets = Buckets(4, 2, lambda: now[0])
    assert buckets.take("ada", 3) == 0.0
    assert buckets.take("ada", 2) == 0.5
    assert buckets.take("ada") == 0.0  # those are still there
