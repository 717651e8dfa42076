"""The operations of /api/v1: what they take, what they answer, what they refuse."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably.client import Client
from durably.client import bulk as bulk_of_client
from durably.clock import SystemRandom
from durably.errors import HostNotFoundError, InstanceNotFoundError
from durably.http_api.incoming import Incoming
from durably.http_api.refusals import Refusal
from durably.http_api.served import Served
from durably.http_api.v1 import requests
from durably.http_api.v1 import search as searching
from durably.http_api.v1.bulk import Bulk
from durably.http_api.v1.operation import Call
from durably.http_api.v1.streams import Streams
from durably.http_api.v1.where import matches, parse_conditions
from durably.security.roles import EVERYTHING
from durably.storage.api import HostReport
from tests.http.scene import Scene, flows, serving, until

Test = Callable[[Scene], Awaitable[None]]


class Api:
    """Calls of ``/api/v1`` with the master key."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    async def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"x-functions-key": self.scene.master, **more.pop("headers", {})}
        return await self.scene.http.request(method, f"/api/v1{path}", headers=headers, **more)

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def start(self, name: str, instance_id: str, **more: Any) -> None:
        answer = await self("POST", "/instances", json={"name": name, "instanceId": instance_id, **more})
        assert answer.status_code == 201, answer.text

    async def ended(self, instance_id: str) -> Any:
        return await self.get(f"/instances/{instance_id}", waitS=30)


def served(test: Callable[[Api], Awaitable[None]]) -> Callable[[Path], None]:
    """Run a test of a scene on a loop of its own."""

    def run(tmp_path: Path) -> None:
        async def whole() -> None:
            async with serving(flows(), tmp_path) as scene:
                await test(Api(scene))

        asyncio.run(whole())

    run.__name__, run.__doc__ = test.__name__, test.__doc__  # type: ignore[attr-defined]
    return run


def problem(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body.keys() - {"failure"} == {"type", "title", "status", "detail", "instance"}
    assert body["status"] == status
    assert body["type"].startswith("urn:durably:problem:")
    return body["detail"]


# --- one instance ----------------------------------------------------------------------------------------------------


@served
async def test_an_instance_is_started_and_shown(api: Api) -> None:
    start = {"name": "shout", "input": "hi", "instanceId": "a b", "version": "2", "tags": {"region": "eu"}}
    answer = await api("POST", "/instances", json=start)
    assert (answer.status_code, answer.json()) == (201, {"instanceId": "a b"})
    assert answer.headers["location"] == "/api/v1/instances/a%20b"
    shown = await api.ended("a%20b")
    assert (shown["status"], shown["input"], shown["output"]) == ("Completed", "hi", "HI")
    assert (shown["version"], shown["tags"], shown["stuck"]) == ("2", {"region": "eu"}, None)
    assert datetime.fromisoformat(shown["createdAt"]) <= datetime.fromisoformat(shown["updatedAt"])
    assert "input" not in await api.get("/instances/a%20b", payloads="false")
    drawn = (await api("POST", "/instances", json={"name": "waits"})).json()["instanceId"]
    assert (await api.get(f"/instances/{drawn}"))["input"] is None
    await api.start("fails", "f")
    assert (await api.ended("f"))["failure"]["message"] == "out of paper"


@served
async def test_a_start_may_be_later_and_policies_decide_about_ids_that_are_taken(api: Api) -> None:
    at = datetime.now(UTC) + timedelta(days=1)
    await api.start("waits", "later", startAt=at.isoformat())
    assert datetime.fromisoformat((await api.get("/instances/later"))["startAt"]) == at
    taken = {"name": "waits", "instanceId": "later"}
    assert "'later' already exists" in problem(await api("POST", "/instances", json=taken), 409)
    await api.start("waits", "later", onExisting="attach")
    await api.start("shout", "later", onExisting="replace", input="x")
    assert (await api.ended("later"))["output"] == "X"


@served
async def test_what_cannot_be_is_refused_with_a_problem(api: Api) -> None:
    async def post(body: Any, status: int = 400) -> str:
        return problem(await api("POST", "/instances", json=body), status)

    assert "nobody" in await post({"name": "nobody"}, 404)
    assert "`name`" in await post({})
    assert "unknown field `nam`" in await post({"name": "shout", "nam": 1})
    assert "'@'" in await post({"name": "shout", "instanceId": "@a"})
    assert "on_existing" in await post({"name": "shout", "on_existing": "fail"})
    for content in (b"", b"{", b'{"name": "shout", "input": "\xff"}', b"[" * 50_000):
        answer = await api(
            "POST", "/instances", content=content, headers={"content-type": "application/json"}
        )
        assert "JSON" in problem(answer, 400)
    assert "application/json" in problem(await api("POST", "/instances", content=b"{}"), 415)
    assert "'gone'" in problem(await api("GET", "/instances/gone"), 404)
    for parameters, says in (
        ({"limit": "0"}, "limit"),
        ({"limit": "1.5"}, "whole number"),
        ({"stuck": "yes"}, "true or false"),
        ({"createdFrom": "soon"}, "RFC3339"),
        ({"status": "Asleep"}, "Asleep"),
        ({"cursor": "x"}, "token"),
        ({"limits": "1"}, "'limits'"),
        ({"tag": "a"}, "tag"),
        ([("limit", "1"), ("limit", "2")], "twice"),
        ([("tag", "a=1"), ("tag", "a=2")], "no instance has both"),
    ):
        assert says in problem(await api("GET", "/instances", params=parameters), 400)
    wrong = await api("PATCH", "/instances")
    assert "GET or POST" in problem(wrong, 405)
    assert wrong.headers["allow"] == "GET, POST"
    problem(await api("GET", "/nothing"), 404)
    problem(await api.scene.http.get("/api/v1/hub"), 401)
    problem(await api("GET", "/hub", params={"taskHub": "other"}), 404)


@served
async def test_orders_are_given(api: Api) -> None:
    async def order(verb: str, status: int = 204, **body: Any) -> str:
        answer = await api("POST", f"/instances/w/{verb}", json=body)
        return "" if status == answer.status_code == 204 else problem(answer, status)

    async def status() -> str:
        return (await api.get("/instances/w"))["status"]

    await api.start("waits", "w")
    await until(status, "Running")
    await order("suspend", reason="lunch")
    await order("suspend")
    assert await status() == "Suspended"
    await order("resume")
    assert await status() == "Running"
    assert "wait" in (await api.get("/instances/w/why"))["why"].lower()
    assert "Running" in await order("rewind", 409)
    problem(await api("DELETE", "/instances/w"), 409)
    event = await api("POST", "/instances/w/events/go", json={"by": "me"})
    assert event.status_code == 204
    assert (await api.ended("w"))["output"] == {"by": "me"}
    assert "Completed" in await order("terminate", 409)
    again = await api("POST", "/instances/w/restart")
    assert again.json() == {"instanceId": "w"}
    await until(status, "Running")
    assert (await api("POST", "/instances/w/restart", json={"newId": True})).json()["instanceId"] != "w"
    await order("terminate", reason="enough", recursive=True)
    assert (await api.ended("w"))["status"] == "Terminated"
    await api.start("waits", "c")
    await api("POST", "/instances/c/cancel")
    assert (await api.ended("c"))["status"] == "Canceled"
    await api.start("fails", "f")
    await api.ended("f")
    assert (await api("POST", "/instances/f/rewind", json={"reason": "mended"})).status_code == 204
    await api.ended("f")
    assert (await api("DELETE", "/instances/f", params={"recursive": "true"})).status_code == 204
    problem(await api("DELETE", "/instances/f"), 404)


@served
async def test_a_history_comes_page_by_page(api: Api) -> None:
    await api.start("shout", "s", input="hi")
    await api.ended("s")
    whole = await api.get("/instances/s/history")
    assert whole["nextCursor"] is None
    numbers = [entry["number"] for entry in whole["entries"]]
    assert numbers == list(range(1, len(numbers) + 1))
    (done,) = (entry for entry in whole["entries"] if entry["eventType"] == "TaskCompleted")
    assert (done["name"], done["result"]) == ("upper", "HI")
    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = await api.get("/instances/s/history", limit=3, **cursor)
        found += page["entries"]
        if page["nextCursor"] is None:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert found == whole["entries"]
    assert "cursor" in problem(await api("GET", "/instances/s/history?cursor=x"), 400).lower()
    assert "another execution" in problem(await api("GET", "/instances/s/history?cursor=x.3"), 409)


# --- many instances --------------------------------------------------------------------------------------------------


@served
async def test_instances_are_found_and_counted(api: Api) -> None:
    for number in range(7):
        await api.start("shout", f"s{number}", input="x", tags={"odd": str(number % 2)})
        await api.ended(f"s{number}")
    await api.start("waits", "w")

    async def ids(**parameters: Any) -> list[str]:
        return [one["instanceId"] for one in (await api.get("/instances", **parameters))["instances"]]

    assert await ids() == [*(f"s{number}" for number in range(7)), "w"]
    assert await ids(name="waits") == ["w"]
    assert await ids(status=["Completed", "Failed"], idPrefix="s", tag="odd=1") == ["s1", "s3", "s5"]
    assert await ids(stuck="true") == []
    assert await ids(parent="w") == []
    middle = (await api.get("/instances/s3"))["createdAt"]
    assert await ids(createdTo=middle) == ["s0", "s1", "s2", "s3"]
    assert await ids(createdFrom=middle, updatedTo=middle) == []
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await api.get("/instances", limit=3, **cursor)
        found += [one["instanceId"] for one in page["instances"]]
        if page["nextCursor"] is None:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert found == await ids()
    assert "input" not in page["instances"][0]
    assert (await api.get("/instances", payloads="true"))["instances"][0]["output"] == "X"

    counts = await api.get("/counts")
    assert (counts["total"], counts["byName"]) == (8, {"shout": 7, "waits": 1})
    assert counts["byStatus"]["Completed"] == 7
    assert {"name": "shout", "status": "Completed", "count": 7} in counts["counts"]
    assert (await api.get("/counts", tag="odd=0"))["total"] == 4


@served
async def test_instances_are_found_by_what_is_in_their_payloads(api: Api) -> None:
    for number in range(5):
        order = {"customer": {"id": number, "name": f"n{number}"}, "lines": [{"sku": f"x{number}"}]}
        await api.start("waits", f"w{number}", input=order)
    await api("POST", "/instances/w2/events/go", json={"ok": True})
    await api.ended("w2")

    async def ids(*where: str, **more: Any) -> list[str]:
        page = await api.get("/instances", where=list(where), **more)
        assert page["nextCursor"] is None
        return [one["instanceId"] for one in page["instances"]]

    assert await ids("input.customer.id=3") == ["w3"]
    assert await ids("input.customer.id>=3", "input.customer.name!=n4") == ["w3"]
    assert await ids('input["lines"][0].sku=x1') == ["w1"]
    assert await ids("output.ok=true") == ["w2"]
    assert await ids("input.customer.id=true") == []
    assert await ids("customStatus.waits=true", status="Running", idPrefix="w4") == ["w4"]
    shown = (await api.get("/instances", where="input.customer.id=3"))["instances"][0]
    assert "input" not in shown  # what was looked at is not shown unless it is asked for
    for wrong in ("inputs.a=1", "input.a", "input.a~1", "input..a=1", 'input["a]=1'):
        assert "ondition" in problem(await api("GET", "/instances", params={"where": wrong}), 400)
    many = await api("GET", "/instances", params={"where": ["input=1"] * 11})
    problem(many, 400)


def test_conditions_compare_what_is_alike() -> None:
    def holds(condition: str, value: Any) -> bool:
        return matches(parse_conditions([condition]), {"input": value})

    assert holds("input=1", 1)
    assert holds("input=1", 1.0)
    assert not holds("input=1", True)
    assert not holds("input=1", "1")
    assert holds('input="1"', "1")
    assert holds("input=one=two", "one=two")
    assert holds("input=null", None)
    assert holds("input!=1", "1")
    assert not holds("input.a!=1", {})  # what is not there is not different
    assert holds("input<b", "a")
    assert not holds("input<b", 1)
    assert not holds("input<true", False)
    assert holds("input[1]=2", [1, 2])
    assert not holds("input[2]=2", [1, 2])
    assert not holds("input.0=1", [1])
    assert holds('input["a.b\\""]=1', {'a.b"': 1})
    assert holds("input={}", "{}")  # an object is no value: it is text
    with pytest.raises(Refusal, match=r"expected '\.key'"):
        parse_conditions(["input.a"])


def test_a_search_looks_at_a_piece_of_the_hub_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PAGE", "_PAGE_UNKNOWN"):
        monkeypatch.setattr(searching, name, 4)
    monkeypatch.setattr(searching, "ROWS_MAX", 8)

    async def test(scene: Scene) -> None:
        api = Api(scene)
        for number in range(30):
            await api.start("waits", f"w{number:02}", input=number)
        found: list[str] = []
        pages: list[int] = []
        cursor: dict[str, str] = {}
        while True:
            page = await api.get("/instances", where=["input>=9", "input<21"], limit=5, **cursor)
            pages.append(len(page["instances"]))
            found += [one["instanceId"] for one in page["instances"]]
            if page["nextCursor"] is None:
                break
            cursor = {"cursor": page["nextCursor"]}
        assert found == [f"w{number:02}" for number in range(9, 21)]
        assert max(pages) <= 5
        assert pages[0] == 0  # eight were looked at, and none matched
        assert len(pages) > 4

    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            await test(scene)

    asyncio.run(whole())


@served
async def test_a_list_with_payloads_holds_so_many_bytes(api: Api) -> None:
    for number in range(40):
        await api.start("waits", f"w{number:02}", input="x" * 500_000)
    page = await api.get("/instances", payloads="true")
    assert 10 <= len(page["instances"]) < 40
    assert all(len(one["input"]) == 500_000 for one in page["instances"])
    found = [one["instanceId"] for one in page["instances"]]
    while page["nextCursor"] is not None:
        page = await api.get("/instances", payloads="true", limit=7, cursor=page["nextCursor"])
        assert len(page["instances"]) <= 7
        found += [one["instanceId"] for one in page["instances"]]
    assert found == [f"w{number:02}" for number in range(40)]


def test_functions_of_an_app_may_lie_beside(tmp_path: Path) -> None:
    app = flows()

    @app.route("v1/own", methods=["GET"], auth_level="anonymous")
    def own() -> str:
        return "mine"

    async def whole() -> None:
        async with serving(app, tmp_path) as scene:
            assert (await scene.http.get("/api/v1/own")).text == "mine"
            assert (await scene.http.get("/api/v1/hub")).status_code == 401

    asyncio.run(whole())


@served
async def test_bulk_operations_count_first_and_tell_how_far_they_are(api: Api) -> None:
    for number in range(5):
        await api.start("waits", f"w{number}")
    await api.start("waits", "other")

    async def bulk(verb: str, status: int = 200, **body: Any) -> Any:
        answer = await api("POST", f"/bulk/{verb}", json=body)
        return answer.json() if status == answer.status_code == 200 else problem(answer, status)

    assert '"all": true' in await bulk("terminate", 400)
    dry = await bulk("terminate", filter={"idPrefix": "w"}, dryRun=True)
    assert dry == {
        "operation": "terminate",
        "dryRun": True,
        "matched": 5,
        "done": 0,
        "failed": 0,
        "errors": {},
    }
    answer = await api(
        "POST",
        "/bulk/terminate",
        json={"filter": {"idPrefix": "w"}, "reason": "all of them"},
        headers={"accept": "text/event-stream"},
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: progress" in answer.text
    assert '"matched":5,"done":5' in answer.text.partition("event: end")[2]
    assert (await bulk("purge", all=True))["done"] == 5
    assert (await bulk("suspend", all=True))["done"] == 1
    assert (await bulk("suspend", all=True))["matched"] == 0
    unknown = await api("POST", "/bulk/explode", json={"all": True})
    problem(unknown, 404)
    refused = await bulk("rewind", filter={"status": ["Suspended"]})
    assert (refused["failed"], list(refused["errors"])) == (1, ["other"])


async def started(api: Api, count: int) -> Bulk:
    """So many instances that wait, and bulk work in pages of two."""
    for number in range(count):
        await api.start("waits", f"w{number:02}")
    client = api.scene.host.client
    return Bulk(Served(client, client._management, SystemRandom(), "orders"), Streams(1))


def asked_by_anybody() -> Call:
    request = Incoming({"type": "http", "path_params": {}})
    request.principal = EVERYTHING
    return Call(request, {}, None, None, EVERYTHING)


@pytest.mark.parametrize("how", ["the reader leaves", "the host stops"])
def test_bulk_work_goes_at_the_pace_of_its_reader_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(bulk_of_client, "_PAGE", 2)

    async def whole() -> None:
        async with serving(flows(), tmp_path) as scene:
            client = scene.host.client
            room = await started(Api(scene), 40)
            work = room._progress(asked_by_anybody(), "terminate", requests.Bulk(all=True))
            assert b'"done":2' in await anext(work)
            if how == "the reader leaves":
                await work.aclose()
            else:
                room._streams.close()
                assert not [event async for event in work if b"event: end" in event]
            left = await client.count_instances(runtime_status=["Running", "Pending"])
            assert left >= 30  # a page was told, one was waiting to be, one was done meanwhile
            await client.bulk("terminate")
            assert await client.count_instances(runtime_status="Terminated") == 40

    asyncio.run(whole())


# --- entities, parked work, the hub ----------------------------------------------------------------------------------


@served
async def test_entities_are_called_signalled_and_shown(api: Api) -> None:
    called = await api("POST", "/entities/Counter/k/call", json={"operation": "add", "input": 3})
    assert (called.status_code, called.json()) == (200, {"done": True, "result": None})
    await api("POST", "/entities/counter/$/signal", json={"operation": "add", "input": 1})
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    signal = await api(
        "POST", "/entities/counter/k/signal", json={"operation": "add", "input": 1, "at": later}
    )
    assert signal.status_code == 204

    async def scheduled() -> int:
        return (await api.get("/entities/counter/k"))["scheduled"]

    await until(scheduled, 1)
    shown = await api.get("/entities/counter/k")
    assert (shown["name"], shown["key"], shown["exists"], shown["lockedBy"]) == ("counter", "k", True, None)
    assert (shown["state"], shown["waiting"]) == ({"value": 3}, 0)
    page = await api.get("/entities", name="Counter", limit=1, state="true")
    assert page["nextCursor"] is not None
    rest = await api.get("/entities", name="Counter", cursor=page["nextCursor"])
    assert [one["key"] for one in page["entities"] + rest["entities"]] == ["", "k"]
    assert "state" not in rest["entities"][0]
    failed = await api("POST", "/entities/counter/k/call", json={"operation": "explode"})
    assert "explode" in problem(failed, 422)
    in_time = {"operation": "add", "input": 1, "waitS": 0}
    assert (await api("POST", "/entities/counter/k/call", json=in_time)).status_code in {200, 202}
    problem(await api("POST", "/entities/nobody/k/signal", json={"operation": "x"}), 404)
    problem(await api("GET", "/entities/counter/none"), 404)
    problem(await api("GET", "/entities", params={"keyPrefix": "k"}), 400)


@served
async def test_schedules_are_created_looked_at_and_told_what_to_do(api: Api) -> None:
    daily = {
        "scheduleId": "d",
        "orchestrator": "shout",
        "input": "hi",
        "cron": "0 0 3 * * *",
        "timeZone": "Europe/Berlin",
    }
    assert (await api("POST", "/schedules", json=daily)).status_code == 201
    assert "'d'" in problem(await api("POST", "/schedules", json=daily), 409)
    problem(await api("POST", "/schedules", json={**daily, "scheduleId": "e", "cron": "soon"}), 400)
    shown = await api.get("/schedules/d")
    assert (shown["cron"], shown["paused"], shown["input"], len(shown["upcoming"])) == (
        "0 0 3 * * *",
        False,
        "hi",
        5,
    )
    for verb, paused in (("pause", True), ("resume", False)):
        assert (await api("POST", f"/schedules/d/{verb}", json={"note": "feast"})).status_code == 204
        shown = await api.get("/schedules/d")
        assert (shown["paused"], shown["note"]) == (paused, "feast")
    started = (await api("POST", "/schedules/d/trigger")).json()["instanceId"]
    assert (await api.ended(started))["output"] == "HI"
    hourly = {"scheduleId": "h", "orchestrator": "shout", "intervalS": 3600, "paused": True}
    assert (await api("POST", "/schedules", json=hourly)).status_code == 201
    page = await api.get("/schedules", limit=1)
    rest = await api.get("/schedules", cursor=page["nextCursor"])
    assert [one["scheduleId"] for one in page["schedules"] + rest["schedules"]] == ["d", "h"]
    assert rest["schedules"][0]["interval"] == "PT3600S"
    assert (await api("DELETE", "/schedules/d")).status_code == 204
    problem(await api("GET", "/schedules/d"), 404)
    problem(await api("POST", "/schedules/d/trigger"), 404)


@served
async def test_entities_of_the_runtime_take_no_orders_of_users(api: Api) -> None:
    """Else whoever may signal could make a schedule, which starts anything."""
    order = {"operation": "delete"}
    for verb in ("signal", "call"):
        answer = await api("POST", f"/entities/durably.schedule/d/{verb}", json=order)
        assert "runtime" in problem(answer, 403)
    for method in ("POST", "DELETE"):
        path = "/entities/Durably.Schedule/d"
        assert (await api.scene.call(method, path, params={"op": "create"})).status_code == 403


@served
async def test_the_hub_says_what_it_is(api: Api) -> None:
    hub = await api.get("/hub")
    assert (hub["name"], hub["isServed"], hub["entities"]) == ("orders", True, ["counter", "note"])
    assert {"shout", "waits", "fails"} <= set(hub["orchestrators"])
    assert (await api.get("/parked")) == {"items": [], "nextCursor": None}
    for verb in ("redrive", "discard"):
        assert "'x'" in problem(await api("POST", f"/parked/x/{verb}"), 404)


@served
async def test_hosts_are_listed_and_asked_to_drain(api: Api) -> None:
    await api.scene.host.engine.store.survey(HostReport("pid 1 on box", "1.2.3", oldest_us=1_500_000))
    (host,) = (await api.get("/hosts"))["hosts"]
    assert (host["partitions"], host["isDraining"]) == (1, False)
    problem(await api("POST", "/hosts/nobody/drain"), 404)
    async with Client(str(api.scene.http.base_url), key=api.scene.master) as client:
        (status,) = await client.hosts()
        assert (status.host_id, status.partitions, status.draining) == (host["id"], 1, False)
        with pytest.raises(HostNotFoundError) as refused:
            await client.drain_host("nobody")
        assert refused.value.host_id == "nobody"
        await client.drain_host(status.host_id)
        assert [one.draining for one in await client.hosts()] == [True]


@served
async def test_a_link_to_an_instance_opens_it_here_too(api: Api) -> None:
    link = (await api.scene.start("waits", "a")).json()["statusQueryGetUri"]
    token = httpx.URL(link).params["sig"]
    get = api.scene.http.get
    assert (await get("/api/v1/instances/a", params={"sig": token})).status_code == 200
    for path in ("/api/v1/instances", "/api/v1/instances/b", "/api/v1/hub", "/api/v1/counts"):
        assert (await get(path, params={"sig": token})).status_code == 403
    with pytest.raises(InstanceNotFoundError):
        await api.scene.host.client.why("b")


@served
async def test_the_load_says_what_waits_and_how_many_hosts_it_takes(api: Api) -> None:
    async with Client(str(api.scene.http.base_url), key=api.scene.master) as client:
        await client.start("waits", instance_id="w")
        load = await api.get("/load")
        assert (load["partitions"], load["unowned"], load["backlog"], load["messages"]) == (1, 0, 0, 0)
        assert (load["hosts"], load["oldestWaitS"], load["recommendedHosts"]) == (1, None, 0)
        told = await client.hub_load()
        assert (told.hosts, told.partitions, told.places) == (1, 1, load["places"])
        assert told.at >= datetime.fromisoformat(load["at"])
