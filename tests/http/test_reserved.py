"""What is the runtime's own is started by the runtime: not by whoever may start orchestrations."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durably.core.notices import CALLBACK, NOTICE
from durably.core.queues import QUEUE
from durably.core.undo import UNDO
from durably.http_api.links import BASE
from durably.http_api.v1.operation import V1
from durably.triggers.timer_function import TIMER
from tests.http.scene import flows, serving


@pytest.mark.parametrize("name", [NOTICE, QUEUE, UNDO, TIMER, "durably:later"])
def test_built_in_orchestrators_are_not_started_over_http(tmp_path: Path, name: str) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            headers = {"x-functions-key": scene.key}

            async def post(path: str, body: Any) -> tuple[int, str]:
                answer = await scene.http.post(path, json=body, headers=headers)
                return answer.status_code, answer.text

            schedule = {"scheduleId": "s", "orchestrator": name, "cron": "0 0 3 * * *"}
            for path, body in (
                (f"{BASE}/orchestrators/{name}", {}),
                (f"{BASE}/orchestrators/{name}/mine", {}),
                (f"{V1}/instances", {"name": name}),
                (f"{V1}/schedules", schedule),
            ):
                status, text = await post(path, body)
                assert status == 403, (path, text)
                assert name in text
            assert (await scene.http.get(f"{V1}/counts", headers=headers)).json()["total"] == 0

    asyncio.run(whole())


def test_built_in_instances_are_started_once_more_by_an_admin_alone(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            await scene.host.client.queue("orders").send(1, message_id="m")
            found = (await scene.call("GET", "/instances")).json()
            instance_id = next(one["instanceId"] for one in found if one["name"] == QUEUE)
            for path in (f"{BASE}/instances/{instance_id}/restart", f"{V1}/instances/{instance_id}/restart"):
                body = {"json": {"newId": True}} if path.startswith(V1) else {}
                refused = await scene.http.post(path, headers={"x-functions-key": scene.key}, **body)
                assert refused.status_code == 403, refused.text
                allowed = await scene.http.post(path, headers={"x-functions-key": scene.master}, **body)
                assert allowed.status_code in {201, 202}, allowed.text

    asyncio.run(whole())


def test_schedules_are_not_turned_to_what_is_built_in_nor_its_input_changed(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            schedules = scene.host.client.schedules
            await schedules.create("mine", "waits", cron="0 0 3 * * *")
            await schedules.create("timer", TIMER, {"function": "x"}, cron="0 0 3 * * *")
            before = await schedules.describe("timer")
            own = "@durably.schedule@mine"
            for path, body in (
                ("mine/update", {"orchestrator": TIMER}),
                ("mine/update", {"entity": own, "operation": "delete"}),
                ("mine/update", {"orchestrator": "waits", "tags": {"durably:other": "x"}}),
                ("timer/update", {"input": {"function": "y"}}),
                ("", {"scheduleId": "new", "entity": own, "operation": "delete", "intervalS": 3600}),
            ):
                headers = {"x-functions-key": scene.key}
                answer = await scene.http.post(
                    f"{V1}/schedules/{path}".rstrip("/"), json=body, headers=headers
                )
                assert answer.status_code == (400 if "tags" in body else 403), (path, body, answer.text)
            assert await schedules.describe("timer") == before
            assert (await schedules.describe("mine")).orchestrator == "waits"

    asyncio.run(whole())


def test_a_tag_that_names_a_callback_is_a_url(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            headers = {"x-functions-key": scene.key}
            schedule = {"scheduleId": "s", "orchestrator": "waits", "cron": "0 0 3 * * *"}
            for path, body in ((f"{V1}/instances", {"name": "waits"}), (f"{V1}/schedules", schedule)):
                for tags in ({CALLBACK: "ftp://x"}, {CALLBACK: "http://a:b@c/"}, {"durably:other": "x"}):
                    answer = await scene.http.post(path, json={**body, "tags": tags}, headers=headers)
                    assert answer.status_code == 400, answer.text
                good = {CALLBACK: "https://example.com/told", "shop": "7"}
                answer = await scene.http.post(path, json={**body, "tags": good}, headers=headers)
                assert answer.status_code == 201, answer.text

    asyncio.run(whole())
