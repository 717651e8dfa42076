"""What holds for every route: found in the table of a host that serves, so that a new one is held to it, too."""

import asyncio
import json
from pathlib import Path
from typing import Any

from durably.core.notices import NOTICE
from durably.core.queues import QUEUE
from durably.http_api.links import BASE, RPC
from durably.http_api.v1.operation import V1
from durably.schedules.spec import SCHEDULE
from durably.security.access_keys import draw_key
from durably.security.audit_chain import lines_of, verify
from durably.security.capabilities import ANY_INSTANCE, sign
from tests.http.every import Names, every
from tests.http.scene import Scene, flows, serving

FAR = 2**33

ADMIN_ALONE = f"POST {RPC}/{{grant}}/makeprimary"
"""No link is good for it."""


def grant(scene: Scene, letters: str = "rvcsp") -> str:
    return sign(scene.keys.ring.signing[-1], "orders", ANY_INSTANCE, letters, FAR)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(placed.raw) for placed in lines_of(folder / "orders.db.audit")]


def test_nobody_gets_anywhere_and_what_was_asked_for_leaves_one_record(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            table = scene.server._application.table.routes
            asked = {ask.name for ask in every(grant="g")} | {"GET /admin/functions"}
            assert {f"{route.method} {route.path}" for route in table} == asked
            assert len(table) == len(asked)
            await scene.host.client.start("waits", instance_id="i")
            count = 0
            for ask in every(grant="c1.0.r.x"):
                in_path = ask.path.startswith(RPC)
                attempts: list[tuple[dict[str, str], dict[str, str], int]] = [
                    ({}, {}, 403 if in_path else 401),
                    ({"x-functions-key": draw_key()}, {}, 403 if in_path else 401),
                    ({"x-functions-key": scene.key[:-1]}, {}, 403 if in_path else 401),
                    ({}, {"sig": "c1.0.r.x"}, 403),
                    ({"authorization": "Bearer x"}, {}, 403 if in_path else 401),
                ]
                for headers, params, expected in attempts:
                    answer = await ask.of(scene.http, headers, **params)
                    assert answer.status_code == expected, (ask.name, headers, answer.text)
                    count += ask.changes
            assert (await scene.http.get("/admin/functions")).status_code == 401
            status = await scene.host.client.get_status("i")
            assert status is not None
            assert status.runtime_status in {"Pending", "Running"}
            assert await scene.host.client.count_instances() == 1
            written = records(tmp_path)
            assert len(written) == count
            assert {one["status"] for one in written} == {401, 403}
            assert {one["who"] for one in written} == {"anonymous"}

    asyncio.run(whole())


def test_each_route_that_changes_leaves_one_record_also_when_it_fails(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            client = scene.host.client
            key = {"x-functions-key": scene.master}
            count = failed = 0
            for place, ask in enumerate(every(grant=grant(scene))):
                names = Names(instance=f"i{place}", new=f"n{place}", schedule=f"s{place}")
                good = every(names, grant=grant(scene))[place]
                await client.start("waits", instance_id=names.instance)
                await client.schedules.create(names.schedule, "waits", cron="0 0 3 * * *")
                if not good.changes:
                    if not ask.path.endswith("/stream"):
                        await good.of(scene.http, key)
                    continue
                headers = {} if good.path.startswith(RPC) else key
                tried = [
                    await good.of(scene.http, headers),
                    await good._replace(body="{").of(scene.http, headers),
                    await good.of(scene.http, headers, taskHub="another"),
                    await every(Names(instance="no", schedule="no"), grant=grant(scene))[place].of(
                        scene.http, headers
                    ),
                ]
                written = records(tmp_path)[count:]
                count += len(tried)
                assert [one["status"] for one in written] == [one.status_code for one in tried], ask.name
                assert [one["request"] for one in written] == [one.headers["x-request-id"] for one in tried]
                assert {one["action"] for one in written} == {good.name}
                assert all(one["who"] != "anonymous" for one in written)
                assert tried[2].status_code == (403 if good.name.startswith(ADMIN_ALONE) else 404), tried[
                    2
                ].text
                assert all(answer.status_code < 500 for answer in tried), ask.name
                failed += sum(answer.status_code >= 400 for answer in tried)
            assert count >= 4 * 45
            assert failed >= 45
            assert verify(tmp_path / "orders.db.audit").problem is None
            assert verify(tmp_path / "orders.db.audit").head.n == count

    asyncio.run(whole())


# --- what is the runtime's own ---------------------------------------------------------------------------------------


def test_no_route_starts_what_is_the_runtimes_own(tmp_path: Path) -> None:
    """Each verb on instances of built-in orchestrators, and on the entity behind schedules, by whoever may start."""

    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            client = scene.host.client
            await client.schedules.create("s", "waits", cron="0 0 3 * * *")
            key, capability = {"x-functions-key": scene.key}, grant(scene)
            before = await client.schedules.describe("s")
            refused: set[str] = set()
            for place in range(len(every(grant=capability))):
                message = f"m{place}"
                await client.queue("orders").send(1, message_id=message)
                instance = f"queue:orders:{message}"
                if place % 2:
                    await client.terminate(instance)
                count = await client.count_instances(name=QUEUE)
                for names in (
                    Names(instance=instance, function=QUEUE, new=f"own-{place}", schedule="none"),
                    Names(instance=instance, function=NOTICE, new=instance, schedule="none"),
                    Names(
                        instance=f"@{SCHEDULE}@s", function=QUEUE, entity=SCHEDULE, key="s", schedule="none"
                    ),
                    Names(
                        instance=f"@{SCHEDULE}@s",
                        function="durably:new",
                        entity=SCHEDULE.upper(),
                        key="s",
                        schedule="none",
                        operation="delete",
                    ),
                ):
                    ask = every(names, grant=capability)[place]
                    if ask.path.endswith("/stream"):
                        continue
                    answer = await ask.of(scene.http, {} if ask.path.startswith(RPC) else key)
                    assert answer.status_code < 500, (ask.name, answer.text)
                    if answer.status_code == 403:
                        refused.add(ask.name)
                    own = await client.count_instances(name=QUEUE)
                    assert own <= count, (ask.name, names, answer.text)
                    assert await client.count_instances(name=NOTICE) == 0, ask.name
                    after = await client.schedules.describe("s")
                    assert after.last_updated_time == before.last_updated_time, (ask.name, names)
            assert refused == {
                f"POST {BASE}/orchestrators/{{functionName}}[/{{instanceId}}]",
                f"POST {BASE}/instances/{{instanceId}}/restart",
                f"POST {BASE}/entities/{{name}}/{{key}}",
                f"DELETE {BASE}/entities/{{name}}/{{key}}",
                f"POST {BASE}/makeprimary",
                f"POST {RPC}/{{grant}}/orchestrators/{{functionName}}[/{{instanceId}}]",
                f"POST {RPC}/{{grant}}/instances/{{instanceId}}/restart",
                f"POST {RPC}/{{grant}}/entities/{{name}}/{{key}}",
                f"DELETE {RPC}/{{grant}}/entities/{{name}}/{{key}}",
                f"POST {RPC}/{{grant}}/makeprimary",
                f"POST {V1}/instances",
                f"POST {V1}/instances/{{instanceId}}/restart",
                f"POST {V1}/entities/{{name}}/{{key}}/signal",
                f"POST {V1}/entities/{{name}}/{{key}}/call",
                f"POST {V1}/schedules",
                f"POST {V1}/hosts/{{hostId}}/drain",  # that key may do nothing to hosts
            }

    asyncio.run(whole())


def test_a_bulk_restart_leaves_the_runtimes_own_alone(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            client = scene.host.client
            await client.queue("orders").send(1, message_id="m")
            await client.terminate("queue:orders:m")
            await client.start("shout", "a", instance_id="s")
            await client.wait_for_completion("s", 30)
            first = await client.get_status("queue:orders:m")
            for key in (scene.key, scene.master):
                for filters in ({"name": QUEUE}, {"idPrefix": "queue:"}, {"status": ["Terminated"]}):
                    answer = await scene.http.post(
                        f"{V1}/bulk/restart", json={"filter": filters}, headers={"x-functions-key": key}
                    )
                    told = answer.json()
                    assert (answer.status_code, told["matched"], told["done"], told["failed"]) == (
                        200,
                        1,
                        0,
                        1,
                    )
                    assert "the runtime's own" in told["errors"]["queue:orders:m"]
            streamed = await scene.http.post(
                f"{V1}/bulk/restart",
                json={"all": True},
                headers={"x-functions-key": scene.key, "accept": "text/event-stream"},
            )
            end = json.loads(streamed.text.split("event: end\ndata: ")[1].splitlines()[0])
            assert (end["matched"], end["done"], end["failed"]) == (2, 1, 1)
            assert await client.get_status("queue:orders:m") == first
            assert (await client.bulk("restart", name=QUEUE)).done == 0

    asyncio.run(whole())
