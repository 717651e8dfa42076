"""Who may do what: each route of both APIs, for each role."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from durably.http_api.durable.routes import durable_routes
from durably.http_api.links import BASE, RPC
from durably.http_api.routing import Route
from durably.http_api.served import Served
from durably.http_api.v1.operation import V1
from durably.http_api.v1.routes import v1_operations, v1_routes
from durably.http_api.v1.streams import Streams
from durably.security.capabilities import ANY_INSTANCE, sign
from durably.security.roles import ROLES
from tests.http.scene import Scene, flows, serving

UNSERVED = Served(None, None, None, "orders")  # type: ignore[arg-type]

PARAMETERS = {
    "instanceId": "none",
    "functionName": "nobody",
    "eventName": "go",
    "name": "counter",
    "key": "none",
    "itemId": "none",
    "scheduleId": "none",
    "hostId": "none",
}

WHAT_ROLES_MAY = {
    "viewer": "getInstance listInstances countInstances getHistory streamInstance getEntity listEntities listParked getHub "
    "listHosts getLoad listSchedules getSchedule describe",
    "reader": "explainInstance",
    "operator": "raiseEvent terminateInstance cancelInstance suspendInstance resumeInstance rewindInstance terminateInstances "
    "cancelInstances suspendInstances resumeInstances rewindInstances signalEntity callEntity redriveParked discardParked pauseSchedule "
    "resumeSchedule cleanEntities",
    "developer": "startInstance restartInstance restartInstances createSchedule triggerSchedule updateSchedule "
    "backfillSchedule",
    "admin": "purgeInstance purgeInstances deleteSchedule drainHost",
}
"""Each line: what the role may do beyond the one before. Written here once more, so that nobody changes it unawares."""

LETTERS = {"viewer": "r", "reader": "rv", "operator": "rvc", "developer": "rvcs"}


def filled(route: Route) -> str:
    path = route.path.replace("[/{instanceId}]", "").replace("[/{name}]", "")
    for name, value in PARAMETERS.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, path
    return path


def test_each_role_may_do_more_than_the_one_before() -> None:
    operations = v1_operations(UNSERVED, Streams(1))
    assert len({operation.id for operation in operations}) == len(operations)
    may = {
        role: {operation.id for operation in operations if operation.needs in permissions}
        for role, permissions in ROLES.items()
    }
    expected: set[str] = set()
    for role, added in WHAT_ROLES_MAY.items():
        expected |= set(added.split())
        assert may[role] == expected, role
    assert expected == {operation.id for operation in operations}


def test_every_route_answers_every_role_as_the_table_says(tmp_path: Path) -> None:
    routes = [*durable_routes(UNSERVED, BASE), *v1_routes(UNSERVED, Streams(1))]

    async def test(scene: Scene) -> None:
        secret = scene.keys.ring.signing[-1]
        far = 2**33
        links = {
            role: {"sig": sign(secret, "orders", ANY_INSTANCE, letters, far)}
            for role, letters in LETTERS.items()
        }
        keys = {role: scene.keys.create(f"of {role}", role) for role in ROLES}
        credentials: list[tuple[str, dict[str, str], dict[str, str]]] = [
            *((role, link, {}) for role, link in links.items()),
            *((role, {"code": key}, {}) for role, key in keys.items()),
            *((role, {}, {"x-functions-key": key}) for role, key in keys.items()),
            ("admin", {"code": scene.master}, {}),
            ("nobody", {}, {}),
        ]
        for route in routes:
            for role, params, headers in credentials:
                answer = await scene.http.request(route.method, filled(route), params=params, headers=headers)
                if role == "nobody":
                    expected = {401}
                elif route.needs in ROLES[role]:
                    expected = {200, 202, 204, 400, 404, 409}
                else:
                    expected = {403}
                assert answer.status_code in expected, (route.method, route.path, role, answer.text)
                if route.path.startswith(V1) and answer.status_code >= 400:
                    assert answer.headers["content-type"] == "application/problem+json"
        assert len(routes) * len(credentials) >= 700

    in_scene(tmp_path, test)


def in_scene(folder: Path, test: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with serving(flows(), folder) as scene:
            await test(scene)

    asyncio.run(whole())


SECRET = "canary-7d1"


@pytest.mark.parametrize("role", ["viewer", "reader"])
def test_a_viewer_sees_what_there_is_and_nothing_of_what_is_inside(tmp_path: Path, role: str) -> None:
    """A word is put everywhere where users put words; only who may see payloads ever reads it."""

    async def test(scene: Scene) -> None:
        client = scene.host.client
        await client.start("waits", {"a": SECRET}, instance_id="w")
        await client.start("shout", SECRET, instance_id="s")
        await client.wait_for_completion("s", 30)
        await client.start("complains", SECRET, instance_id="f")
        await client.wait_for_completion("f", 30)
        await client.signal_entity("@note@k", "keep", SECRET)
        await client.call_entity("@note@k", "keep", SECRET)
        await client.schedules.create("d", "shout", SECRET, cron="0 0 3 * * *")
        secret = scene.keys.ring.signing[-1]
        token = sign(secret, "orders", ANY_INSTANCE, LETTERS[role], 2**33)
        sees = role == "reader"

        async def get(path: str) -> httpx.Response:
            return await scene.http.get(f"{path}{'&' if '?' in path else '?'}sig={token}")

        shown = [
            f"{V1}/instances/w",
            f"{V1}/instances/s",
            f"{V1}/instances/f",
            f"{V1}/instances?payloads=true",
            f"{V1}/instances/f/history",
            f"{V1}/instances/f/stream",
            f"{V1}/entities?state=true",
            f"{V1}/schedules",
            f"{V1}/schedules/d",
            f"{V1}/entities/note/k",
            f"{BASE}/instances/w",
            f"{BASE}/instances/f?showHistory=true&showHistoryOutput=true",
            f"{BASE}/instances/s?showHistory=true&showHistoryOutput=true",
            f"{BASE}/instances",
            f"{BASE}/entities?fetchState=true",
            f"{RPC}/{token}/instances/f",
        ]
        for path in shown:
            answer = await get(path)
            assert answer.status_code in {200, 202}, (path, answer.text)
            assert (SECRET in answer.text.lower()) is sees, (path, answer.text)
        for path in (
            f"{V1}/instances/f/why",
            f"{V1}/instances?where=input={SECRET}",
            f"{BASE}/entities/note/k",
        ):
            answer = await get(path)
            assert answer.status_code == (200 if sees else 403), (path, answer.text)
        viewed = (await get(f"{BASE}/instances/w")).json()
        assert (viewed["input"] is not None) is sees
        assert viewed["runtimeStatus"] in {"Pending", "Running"}

    in_scene(tmp_path, test)
