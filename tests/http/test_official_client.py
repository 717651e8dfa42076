"""The official client library of Durable Functions, ``azure-functions-durable`` 1.7, drives a host of ours unmodified."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
from azure.durable_functions import DurableOrchestrationClient, EntityId, OrchestrationRuntimeStatus
from azure.durable_functions.models.utils import http_utils
from starlette.requests import Request

from durably import App, DurableClient, OrchestrationContext
from tests.http.scene import Scene, asked, serving, until

Official = Any
Test = Callable[[Official, Scene], Awaitable[None]]


def flows() -> App:
    app = App()

    @app.activity
    async def upper(text: str) -> str:
        return text.upper()

    @app.orchestrator
    async def shout(ctx: OrchestrationContext, text: str) -> str:
        return await ctx.call_activity(upper, text)

    @app.orchestrator
    async def waits(ctx: OrchestrationContext, data: Any = None) -> Any:
        return [data, await ctx.wait_for_external_event("go")]

    @app.orchestrator
    async def fails(ctx: OrchestrationContext) -> None:
        raise ValueError("out of paper")

    @app.entity
    class Counter:
        value: int = 0

        def add(self, by: int) -> None:
            self.value += by

    @app.route("binding", auth_level="anonymous")
    async def binding(request: Request, client: DurableClient) -> dict[str, Any]:
        return client.create_client_binding(request)

    return app


@asynccontextmanager
async def driven(folder: Path, **options: Any) -> AsyncGenerator[tuple[Official, Scene]]:
    async with serving(flows(), folder, **options) as scene:
        context = (await scene.http.get("/api/binding")).text
        try:
            yield DurableOrchestrationClient(context), scene
        finally:
            await http_utils._close_session()


def drive(folder: Path, test: Test, **options: Any) -> None:
    async def whole() -> None:
        async with driven(folder, **options) as (client, scene):
            await test(client, scene)

    asyncio.run(whole())


async def ended(client: Official, instance_id: str) -> Any:
    async with asyncio.timeout(30):
        status = await client.get_status(instance_id)
        while status.runtime_status in {
            OrchestrationRuntimeStatus.Pending,
            OrchestrationRuntimeStatus.Running,
        }:
            await asyncio.sleep(0.005)
            status = await client.get_status(instance_id)
        return status


@pytest.mark.parametrize("insecure", [False, True])
def test_start_status_and_history(tmp_path: Path, insecure: bool) -> None:
    async def test(client: Official, scene: Scene) -> None:
        assert client.task_hub_name == "orders" if hasattr(client, "task_hub_name") else True
        drawn = await client.start_new("shout", client_input="hello")
        assert (await ended(client, drawn)).output == "HELLO"
        assert await client.start_new("shout", instance_id="s1", client_input="a") == "s1"
        status = await ended(client, "s1")
        assert status.runtime_status is OrchestrationRuntimeStatus.Completed
        assert (status.name, status.instance_id, status.output) == ("shout", "s1", "A")
        assert abs(datetime.now(UTC) - status.created_time) < timedelta(minutes=10)
        whole = await client.get_status("s1", show_history=True, show_history_output=True, show_input=True)
        assert whole.input_ == "a"
        assert [row["EventType"] for row in whole.historyEvents][-1] == "ExecutionCompleted"
        assert not await client.get_status("nobody")
        with pytest.raises(Exception, match="nobody"):
            await client.start_new("nobody")

    drive(tmp_path, test, insecure=insecure)


def test_inputs_of_every_kind(tmp_path: Path) -> None:
    async def test(client: Official, scene: Scene) -> None:
        for number, value in enumerate(({"a": [1, None]}, [1, "two"], "text", '"quoted"', "7", 7, True)):
            name = await client.start_new("waits", instance_id=f"w{number}", client_input=value)
            await client.raise_event(name, "go", value)
            assert (await ended(client, name)).output == [value, value], value
        empty = await client.start_new("waits", instance_id="empty")
        await client.raise_event(empty, "go")
        assert (await ended(client, empty)).output == [None, None]

    drive(tmp_path, test)


def test_lists_and_purges(tmp_path: Path) -> None:
    async def test(client: Official, scene: Scene) -> None:
        for number in range(3):
            await ended(client, await client.start_new("shout", instance_id=f"s{number}", client_input="a"))
        await ended(client, await client.start_new("fails", instance_id="f"))
        await client.start_new("waits", instance_id="w")
        assert {one.instance_id for one in await client.get_status_all()} == {"s0", "s1", "s2", "f", "w"}
        since = datetime.now(UTC) - timedelta(hours=1)
        completed = [OrchestrationRuntimeStatus.Completed]
        found = await client.get_status_by(created_time_from=since, runtime_status=completed)
        assert [one.instance_id for one in found] == ["s0", "s1", "s2"]
        prefixed = await client.get_status_by(created_time_from=since, instance_id_prefix="s1")
        assert [one.instance_id for one in prefixed] == ["s1"]
        assert (await client.purge_instance_history("s0")).instances_deleted == 1
        assert (await client.purge_instance_history("s0")).instances_deleted == 0
        purged = await client.purge_instance_history_by(created_time_from=since, runtime_status=completed)
        assert purged.instances_deleted == 2
        assert {one.instance_id for one in await client.get_status_all()} == {"f", "w"}

    drive(tmp_path, test)


def test_orders(tmp_path: Path) -> None:
    async def test(client: Official, scene: Scene) -> None:
        await client.start_new("waits", instance_id="w")
        await client.suspend("w", "lunch")
        assert (await client.get_status("w")).runtime_status is OrchestrationRuntimeStatus.Suspended
        await client.resume("w", "back")
        await client.terminate("w", "enough & more")
        status = await ended(client, "w")
        assert (status.runtime_status, status.output) == (
            OrchestrationRuntimeStatus.Terminated,
            "enough & more",
        )
        with pytest.raises(Exception, match="gone"):
            await client.raise_event("w", "go", 1)
        with pytest.raises(Exception, match="No instance"):
            await client.terminate("nobody", "x")
        await ended(client, await client.start_new("fails", instance_id="f"))
        await client.rewind("f", "again")
        assert (await ended(client, "f")).runtime_status is OrchestrationRuntimeStatus.Failed
        with pytest.raises(Exception, match="failed"):
            await client.rewind("w", "again")

    drive(tmp_path, test)


def test_entities(tmp_path: Path) -> None:
    async def test(client: Official, scene: Scene) -> None:
        counter = EntityId("Counter", "a")
        assert not (await client.read_entity_state(counter)).entity_exists
        for by in (1, 2, 3):
            await client.signal_entity(counter, "add", by)

        async def state() -> Any:
            return (await client.read_entity_state(counter)).entity_state

        await until(state, {"value": 6})

    drive(tmp_path, test)


def test_its_responses_lead_back_to_us(tmp_path: Path) -> None:
    async def test(client: Official, scene: Scene) -> None:
        await client.start_new("waits", instance_id="w")
        request = func.HttpRequest(method="GET", url=f"{scene.url}/api/x", body=b"")
        response = client.create_check_status_response(request, "w")
        links = json.loads(response.get_body())
        assert links == json.loads(json.dumps(client.create_http_management_payload("w")))
        assert (await scene.http.get(response.headers["Location"])).status_code == 202
        event = links["sendEventPostUri"].replace("{eventName}", "go")
        assert (await scene.http.post(event, json=7)).status_code == 202
        done = await asked(lambda: scene.http.get(links["statusQueryGetUri"]), 200)
        assert done.json()["output"] == [None, 7]
        waited = await client.wait_for_completion_or_create_check_status_response(request, "w")
        assert (waited.status_code, json.loads(waited.get_body())) == (200, [None, 7])

    drive(tmp_path, test)


def test_a_host_that_gives_no_templates_away_refuses_it(tmp_path: Path) -> None:
    async def test(client: Official, scene: Scene) -> None:
        with pytest.raises(Exception, match="not valid"):
            await client.start_new("shout", client_input="a")
        for path in ("/durabletask/open/instances", "/durabletask/x/instances"):
            assert (await scene.http.get(path)).status_code in {401, 403}

    drive(tmp_path, test, templates=False)
