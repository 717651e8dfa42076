"""What becomes of instances is told to webhooks, to Event Grid and to whoever started them."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from durably import (
    App,
    AppHost,
    EngineOptions,
    HttpPolicy,
    InvalidTextError,
    OrchestrationContext,
    UsageError,
)
from durably.core.notices import ENDS, EVENTS
from durably.executors.notices import NoticeKeys
from tests.http.scene import Scene, serving
from tests.notices.receiver import SECRET, Receiver, receiving

PATIENCE_S = 30.0


def flows(policy: HttpPolicy | None = None) -> App:
    app = App(http=policy or HttpPolicy(allow_networks=("127.0.0.1",)))

    @app.orchestrator
    async def done(ctx: OrchestrationContext, data: Any = None) -> Any:
        return data

    @app.orchestrator
    async def fails(ctx: OrchestrationContext, length: int = 0) -> None:
        raise ValueError("out of paper" + "!" * length)

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def thrice(ctx: OrchestrationContext, left: int) -> int:
        if left:
            ctx.continue_as_new(left - 1)
        return left

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> Any:
        return await ctx.call_sub_orchestrator("done", 7, instance_id="child")

    return app


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("DURABLY_EVENT_GRID_KEY", "topic-key")


@asynccontextmanager
async def hosting(folder: Path, app: App | None = None, **options: Any) -> AsyncGenerator[AppHost]:
    hub = f"sqlite:///{folder / 'orders.db'}"
    async with (app or flows()).host(hub, options=EngineOptions(**options)) as host:
        yield host


async def told(receiver: Receiver, count: int) -> None:
    """Wait until somebody was told so often."""
    async with asyncio.timeout(PATIENCE_S):
        while len(receiver.told) < count:  # noqa: ASYNC110 - another thread hears it
            await asyncio.sleep(0.005)


async def quiet(host: AppHost) -> None:
    """Wait until all notices are delivered."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = await host.client.query_instances(name="durably:notice")
            if all(one.runtime_status.value in {"Completed", "Failed"} for one in page.instances):
                return
            await asyncio.sleep(0.005)


async def one_of_each(host: AppHost) -> None:
    client = host.client
    await client.start("done", 1, instance_id="completed")
    await client.start("fails", instance_id="failed")
    await client.start("waits", instance_id="canceled")
    await client.start("waits", instance_id="terminated")
    await client.cancel("canceled", "no more")
    await client.terminate("terminated", "enough")
    for instance_id in ENDS:
        await client.wait_for_completion(instance_id, timeout=PATIENCE_S)


def run(test: Callable[[Receiver], Awaitable[None]]) -> None:
    with receiving() as receiver:
        asyncio.run(test(receiver))  # type: ignore[arg-type]


def test_each_end_is_told_once_and_signed(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        async with hosting(tmp_path, webhook_url=f"{receiver.url}/hook") as host:
            await one_of_each(host)
            await told(receiver, 4)
            await quiet(host)
        assert len(receiver.told) == 4
        by_id = {one.body["data"]["instanceId"]: one for one in receiver.told}
        reasons = {"completed": "", "failed": "out of paper", "canceled": "no more", "terminated": "enough"}
        assert {name: one.body["data"]["reason"] for name, one in by_id.items()} == reasons
        for event, one in by_id.items():
            assert one.is_signed
            assert one.body["type"] == f"instance.{event}"
            assert one.body["data"]["runtimeStatus"] == event.title()
            assert one.body["data"]["hubName"] == "orders"
            assert one.headers["content-type"] == "application/json"
        assert len({one.headers["webhook-id"] for one in receiver.told}) == 4

    run(test)


def test_event_grid_gets_the_events_of_durable_functions(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        options = {"event_grid_endpoint": f"{receiver.url}/topic", "notify_events": "Started, failed"}
        async with hosting(tmp_path, **options) as host:
            await host.client.start("fails", instance_id="f")
            await told(receiver, 2)
            await quiet(host)
        events = {one.body[0]["subject"]: one.body[0] for one in receiver.at("/topic")}
        assert {one.headers["aeg-sas-key"] for one in receiver.told} == {"topic-key"}
        assert set(events) == {"durable/orchestrator/Running", "durable/orchestrator/Failed"}
        failed = events["durable/orchestrator/Failed"]
        assert {name: failed[name] for name in ("eventType", "dataVersion", "data")} == {
            "eventType": "orchestratorEvent",
            "dataVersion": "1.0",
            "data": {
                "hubName": "orders",
                "functionName": "fails",
                "instanceId": "f",
                "reason": "out of paper",
                "runtimeStatus": "Failed",
            },
        }

    run(test)


def test_whoever_started_an_instance_is_told_of_its_end_alone(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        async with hosting(tmp_path) as host:
            client = host.client
            await client.start("done", 1, instance_id="silent")
            await client.start(
                "parent", instance_id="p", callback_url=f"{receiver.url}/p?x=1", tags={"a": "b"}
            )
            await client.start("thrice", 3, instance_id="t", callback_url=f"{receiver.url}/t")
            await told(receiver, 2)
            await client.wait_for_completion("t", timeout=PATIENCE_S)
            await client.restart("t")
            await told(receiver, 3)
            await quiet(host)
            for wrong in ("ftp://x", "http://a:b@c/", "http:///x", "http://a b", "", "http://a/\n", 7):
                with pytest.raises(InvalidTextError, match="callback URL"):
                    await client.start("done", callback_url=wrong)  # type: ignore[arg-type]
        assert sorted(one.path for one in receiver.told) == ["/p?x=1", "/t", "/t"]
        assert all(one.is_signed for one in receiver.told)

    run(test)


def test_a_start_over_http_takes_a_callback(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        async with serving(flows(), tmp_path) as scene:
            await start(scene, f"{receiver.url}/done")
            await told(receiver, 1)
            wrong = await scene.call("POST", "/orchestrators/done/b", params={"callbackUrl": "gopher://x"})
            assert (wrong.status_code, wrong.json()["ExceptionType"]) == (400, "InvalidTextError")
        assert receiver.told[0].body["data"]["instanceId"] == "a"

    async def start(scene: Scene, url: str) -> None:
        await scene.start("done", "a", params={"callbackUrl": url})

    run(test)


def test_what_was_delivered_is_forgotten_when_the_next_one_is_delivered(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        async def deliver(host: AppHost, instance_id: str) -> None:
            await host.client.start("done", instance_id=instance_id, callback_url=receiver.url)
            await host.client.wait_for_completion(instance_id, timeout=PATIENCE_S)
            await quiet(host)

        async with hosting(tmp_path) as host:
            for number in range(3):
                await deliver(host, f"a{number}")
            assert await host.client.count_instances(name="durably:notice") == 3
        async with hosting(tmp_path, queue_keep_s=0.05) as host, asyncio.timeout(PATIENCE_S):
            delivered = 3
            while True:  # another host finds what was left, and those that it has delivered itself
                await deliver(host, f"a{delivered}")
                delivered += 1
                if await host.client.count_instances(name="durably:notice") <= delivered - 3 - 2:
                    break
            assert await host.client.count_instances(name="done") == delivered
        assert len(receiver.told) == delivered

    run(test)


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        async with hosting(tmp_path, webhook_url=receiver.url) as host:
            await host.client.start("fails", 1_000_000)
            await told(receiver, 1)
            await quiet(host)
        assert receiver.told[0].body["data"]["reason"] == ("out of paper" + "!" * 5_000)[:4_000] + "…"

    run(test)


def test_it_is_tried_again_until_somebody_listens(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        receiver.answer = lambda _: 503 if len(receiver.told) == 1 else 200
        async with hosting(tmp_path, webhook_url=receiver.url) as host:
            await host.client.start("done", instance_id="a")
            await told(receiver, 2)
            await quiet(host)
        first, second = receiver.told
        assert first.raw == second.raw
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert int(second.headers["webhook-timestamp"]) >= int(first.headers["webhook-timestamp"])
        assert first.is_signed
        assert second.is_signed

    run(test)


def test_one_that_is_gone_stops_no_other_and_can_be_tried_again(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        receiver.answer = lambda one: 410 if one.path == "/gone" else 200
        async with hosting(tmp_path, webhook_url=f"{receiver.url}/hook") as host:
            await host.client.start("done", instance_id="a", callback_url=f"{receiver.url}/gone")
            await told(receiver, 2)
            await quiet(host)
            (notice,) = (await host.client.query_instances(name="durably:notice")).instances
            assert notice.runtime_status.value == "Failed"
            assert "1 of 2" in str(notice.failure)
            receiver.answer = lambda _: 200
            await host.client.rewind(notice.instance_id)
            await host.client.wait_for_completion(notice.instance_id, timeout=PATIENCE_S)
        assert [len(receiver.at(path)) for path in ("/hook", "/gone")] == [1, 2]

    run(test)


def test_private_addresses_are_refused_as_for_call_http(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        async with hosting(tmp_path, flows(HttpPolicy())) as host:
            await host.client.start("done", instance_id="a", callback_url=receiver.url)
            await host.client.wait_for_completion("a", timeout=PATIENCE_S)
            await quiet(host)
            (notice,) = (await host.client.query_instances(name="durably:notice")).instances
            assert notice.failure is not None
            assert notice.failure.is_caused_by("HttpRefusedError")
        assert not receiver.told

    run(test)


def test_an_instance_that_is_blocked_is_told_once_for_each_cause(tmp_path: Path) -> None:
    async def test(receiver: Receiver) -> None:
        options = {"webhook_url": receiver.url, "notify_events": "blocked"}
        async with hosting(tmp_path, **options) as host:
            await host.client.start("waits", instance_id="a")
        changed = App(http=HttpPolicy(allow_networks=("127.0.0.1",)))

        @changed.orchestrator
        async def waits(ctx: OrchestrationContext) -> Any:
            await ctx.create_timer(60)

        for _ in range(2):
            async with hosting(tmp_path, changed, **options) as host:
                await host.client.raise_event("a", "other")
                await told(receiver, 1)
                status = await host.client.get_status("a")
                assert status is not None
                cause = status.blocked
                await quiet(host)
        (one,) = receiver.told
        assert (one.body["type"], one.body["data"]["instanceId"]) == ("instance.blocked", "a")
        assert one.body["data"]["reason"] == cause

    run(test)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"notify_events": "completed,exploded"}, "exploded"),
        ({"webhook_url": "example.com/hook"}, "webhook_url"),
        ({"event_grid_endpoint": "ftp://example.com"}, "event_grid_endpoint"),
        ({"webhook_url": 7}, "webhook_url"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        EngineOptions(**given)


def test_settings_come_from_the_environment() -> None:
    options = EngineOptions.from_environment(
        {"DURABLY_WEBHOOK_URL": "https://a.test/x", "DURABLY_NOTIFY_EVENTS": ",".join(EVENTS)}
    )
    assert [one.url for one in options.notices.to] == ["https://a.test/x"]
    assert options.notices.events == set(EVENTS)
    for wrong in ("hush", "whsec_", "whsec_c2hvcnQ=", "whsec_***"):
        with pytest.raises(UsageError, match="DURABLY_WEBHOOK_SECRET is no secret") as refused:
            NoticeKeys.from_environment({"DURABLY_WEBHOOK_SECRET": wrong})
        assert "hush" not in str(refused.value)
        assert "c2hvcnQ" not in str(refused.value)
    assert SECRET not in repr(NoticeKeys.from_environment({"DURABLY_WEBHOOK_SECRET": SECRET}))


def test_the_page_names_each_setting_and_event_as_it_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text("utf-8")
    known = {f"DURABLY_{name.upper()}" for name in EngineOptions.__dataclass_fields__}
    known |= {"DURABLY_WEBHOOK_SECRET", "DURABLY_EVENT_GRID_KEY", "DURABLY_HTTP_ALLOW_NETWORKS"}
    assert set(re.findall(r"DURABLY_[A-Z_]+", text)) <= known
    assert all(f"`{event}`" in text for event in EVENTS)
