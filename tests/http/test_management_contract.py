"""Every row of the management API of Durable Functions: paths, verbs, parameters, status codes, bodies, paging."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.http.scene import Scene, flows, serving, until

Test = Callable[[Scene], Awaitable[None]]

LINKS = {
    "id",
    "statusQueryGetUri",
    "sendEventPostUri",
    "terminatePostUri",
    "purgeHistoryDeleteUri",
    "restartPostUri",
    "suspendPostUri",
    "resumePostUri",
    "rewindPostUri",
}
STATUS = {
    "name",
    "instanceId",
    "runtimeStatus",
    "input",
    "customStatus",
    "output",
    "createdTime",
    "lastUpdatedTime",
}


def served(test: Test) -> Callable[[Path], None]:
    """Run a test of a scene on a loop of its own."""

    def run(tmp_path: Path) -> None:
        async def whole() -> None:
            async with serving(flows(), tmp_path) as scene:
                await test(scene)

        asyncio.run(whole())

    run.__name__, run.__doc__ = test.__name__, test.__doc__  # type: ignore[attr-defined]
    return run


def refused(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal, which is in the field that clients show."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["Message"] == body["ExceptionMessage"]
    return body["Message"]


# --- starts ----------------------------------------------------------------------------------------------------------


@served
async def test_a_start_is_answered_with_links_to_all_verbs(scene: Scene) -> None:
    answer = await scene.call("POST", "/orchestrators/shout/s 1", json="hello")
    assert answer.status_code == 202
    links = answer.json()
    assert links.keys() == LINKS
    assert links["id"] == "s 1"
    assert answer.headers["location"] == links["statusQueryGetUri"]
    assert answer.headers["retry-after"] == "10"
    assert "/instances/s%201?" in links["statusQueryGetUri"]
    assert "/raiseEvent/{eventName}?" in links["sendEventPostUri"]
    assert "reason={text}&" in links["terminatePostUri"]

    ended = await scene.until("/instances/s%201")
    assert ended.json()["output"] == "HELLO"
    followed = await scene.http.get(links["statusQueryGetUri"])  # a link needs no key
    assert followed.json() == ended.json()


@served
async def test_a_start_draws_an_id_and_takes_no_body(scene: Scene) -> None:
    answer = await scene.call("POST", "/orchestrators/waits")
    instance_id = answer.json()["id"]
    status = await scene.call("GET", f"/instances/{instance_id}")
    assert (status.status_code, status.json()["input"]) == (202, None)


@served
async def test_a_start_may_wait_for_the_output(scene: Scene) -> None:
    done = await scene.call("POST", "/orchestrators/shout?timeout=20&pollingInterval=0.5", json="a")
    assert (done.status_code, done.json()) == (200, "A")
    only_timeout = await scene.call("POST", "/orchestrators/shout?timeout=20", json="b")
    assert (only_timeout.status_code, only_timeout.json()) == (200, "B")
    failed = await scene.call("POST", "/orchestrators/fails?timeout=20")
    assert (failed.status_code, failed.json()["runtimeStatus"]) == (200, "Failed")
    goes_on = await scene.call("POST", "/orchestrators/waits?timeout=0.05")
    assert (goes_on.status_code, goes_on.json().keys()) == (202, LINKS)


@served
async def test_a_start_that_cannot_be_is_refused(scene: Scene) -> None:
    assert "nobody" in refused(await scene.call("POST", "/orchestrators/nobody"), 400)
    body = await scene.call("POST", "/orchestrators/shout", content="{not json")
    assert "JSON" in refused(body, 400)
    both = await scene.call("POST", "/orchestrators/shout?timeout=1&pollingInterval=2", json="a")
    assert "pollingInterval" in refused(both, 400)
    assert "seconds" in refused(await scene.call("POST", "/orchestrators/shout?timeout=soon", json="a"), 400)
    assert "'@'" in refused(await scene.call("POST", "/orchestrators/shout/@a@b", json="a"), 400)
    await scene.start("waits", "w")
    assert "already exists" in refused(await scene.call("POST", "/orchestrators/waits/w"), 409)
    deep = await scene.call("POST", "/orchestrators/shout", content=b"[" * 100_000)
    assert "JSON" in refused(deep, 400)


# --- status ----------------------------------------------------------------------------------------------------------


@served
async def test_the_status_of_one_that_runs(scene: Scene) -> None:
    await scene.start("waits", "w", json={"a": [1, 2.5, None]})
    status = await scene.call("GET", "/instances/w")
    while status.json()["runtimeStatus"] == "Pending":
        status = await scene.call("GET", "/instances/w")
    assert status.status_code == 202
    assert status.headers["retry-after"] == "5"
    assert "/instances/w?" in status.headers["location"]
    body = status.json()
    assert body.keys() == STATUS
    assert (body["name"], body["instanceId"], body["runtimeStatus"]) == ("waits", "w", "Running")
    assert (body["input"], body["customStatus"], body["output"]) == (
        {"a": [1, 2.5, None]},
        {"waits": True},
        None,
    )
    for moment in (body["createdTime"], body["lastUpdatedTime"]):
        assert datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007
    hidden = await scene.call("GET", "/instances/w?showInput=false")
    assert hidden.json()["input"] is None


@served
async def test_the_status_of_one_that_failed(scene: Scene) -> None:
    await scene.start("fails", "f")
    status = await scene.until("/instances/f")
    assert status.json()["runtimeStatus"] == "Failed"
    assert "out of paper" in status.json()["output"]
    as_error = await scene.call("GET", "/instances/f?returnInternalServerErrorOnFailure=true")
    assert (as_error.status_code, as_error.json()) == (500, status.json())


@served
async def test_the_history_comes_when_it_is_asked_for(scene: Scene) -> None:
    await scene.start("shout", "s", json="a")
    await scene.until("/instances/s")
    whole = await scene.call("GET", "/instances/s?showHistory=true&showHistoryOutput=true")
    rows = whole.json()["historyEvents"]
    assert [row["EventType"] for row in rows] == ["ExecutionStarted", "TaskCompleted", "ExecutionCompleted"]
    assert rows[0]["FunctionName"] == "shout"
    assert (rows[1]["FunctionName"], rows[1]["Result"]) == ("upper", "A")
    assert rows[1]["ScheduledTime"] <= rows[1]["Timestamp"]
    assert (rows[2]["OrchestrationStatus"], rows[2]["Result"]) == ("Completed", "A")
    without = await scene.call("GET", "/instances/s?showHistory=true")
    assert all("Result" not in row for row in without.json()["historyEvents"])


@served
async def test_what_is_not_there_is_not_found(scene: Scene) -> None:
    for method, path in (
        ("GET", "/instances/nobody"),
        ("DELETE", "/instances/nobody"),
        ("POST", "/instances/nobody/terminate"),
        ("POST", "/instances/nobody/suspend"),
        ("POST", "/instances/nobody/resume"),
        ("POST", "/instances/nobody/rewind"),
        ("POST", "/instances/a/b/c/d"),
        ("GET", "/orchestrators/shout"),
        ("PUT", "/instances/nobody"),
        ("PATCH", "/nothing"),
        ("GET", "/entities/counter/nobody"),
        ("GET", "/instances?taskHub=another"),
        ("GET", "/instances/nobody?TASKHUB=another"),
    ):
        refused(await scene.call(method, path), 404)
    event = await scene.call("POST", "/instances/nobody/raiseEvent/go", json=1)
    refused(event, 404)
    refused(await scene.call("POST", "/instances/nobody/restart"), 400)


@served
async def test_the_hub_may_be_named_in_any_case(scene: Scene) -> None:
    for query in ("taskHub=orders", "TaskHub=ORDERS&connection=Storage", "connection=other"):
        assert (await scene.call("GET", f"/instances?{query}")).status_code == 200


# --- lists -----------------------------------------------------------------------------------------------------------


@served
async def test_lists_are_filtered_and_paged(scene: Scene) -> None:
    for number in range(7):
        await scene.start("shout", f"s{number}", json="a")
        await scene.until(f"/instances/s{number}")
    await scene.start("waits", "w")

    whole = await scene.call("GET", "/instances")
    assert whole.status_code == 200
    assert "x-ms-continuation-token" not in whole.headers
    assert [one["instanceId"] for one in whole.json()] == [*(f"s{n}" for n in range(7)), "w"]
    assert all(one.keys() == STATUS for one in whole.json())

    seen: list[str] = []
    token = ""
    for _ in range(10):
        headers = {"x-ms-continuation-token": token} if token else {}
        page = await scene.call("GET", "/instances?top=3&showInput=false", headers=headers)
        seen += [one["instanceId"] for one in page.json()]
        assert all(one["input"] is None for one in page.json())
        token = page.headers.get("x-ms-continuation-token", "")
        if not token:
            break
    assert seen == [one["instanceId"] for one in whole.json()]

    async def ids(query: str) -> list[str]:
        return [one["instanceId"] for one in (await scene.call("GET", f"/instances?{query}")).json()]

    assert await ids("runtimeStatus=Running,Pending") == ["w"]
    assert await ids("runtimeStatus=Running&runtimeStatus=pending") == ["w"]
    assert len(await ids("runtimeStatus=Completed")) == 7
    assert await ids("instanceIdPrefix=s3") == ["s3"]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert await ids(f"createdTimeFrom={tomorrow}") == []
    assert len(await ids(f"createdTimeTo={tomorrow}")) == 8
    assert len(await ids("createdTimeFrom=2001-01-01T00:00:00.0000000Z")) == 8


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("runtimeStatus=Sleeping", "Sleeping"),
        ("createdTimeFrom=yesterday", "yesterday"),
        ("top=0", "top"),
        ("top=many", "top"),
        ("showInput=perhaps", "showInput"),
    ],
)
def test_a_filter_that_says_nothing_is_refused(tmp_path: Path, query: str, says: str) -> None:
    @served
    async def run(scene: Scene) -> None:
        assert says in refused(await scene.call("GET", f"/instances?{query}"), 400)
        assert "token" in refused(
            await scene.call("GET", "/instances", headers={"x-ms-continuation-token": "made up"}), 400
        )

    run(tmp_path)


# --- events and orders -----------------------------------------------------------------------------------------------


@served
async def test_events_are_json(scene: Scene) -> None:
    await scene.start("waits", "w")
    text = await scene.call("POST", "/instances/w/raiseEvent/go", content="yes")
    assert "application/json" in refused(text, 400)
    broken = await scene.call(
        "POST", "/instances/w/raiseEvent/go", content="{", headers={"content-type": "application/json"}
    )
    refused(broken, 400)
    raised = await scene.call("POST", "/instances/w/raiseEvent/Go", json={"yes": True})
    assert raised.status_code == 202
    assert (await scene.until("/instances/w")).json()["output"] == {"yes": True}
    refused(await scene.call("POST", "/instances/w/raiseEvent/go", json=1), 410)


@served
async def test_an_event_without_a_body_has_no_data(scene: Scene) -> None:
    await scene.start("waits", "w")
    raised = await scene.call(
        "POST", "/instances/w/raiseEvent/go", headers={"content-type": "application/json; charset=utf-8"}
    )
    assert raised.status_code == 202
    assert (await scene.until("/instances/w")).json()["output"] is None


@served
async def test_suspend_and_resume_may_be_repeated(scene: Scene) -> None:
    await scene.start("waits", "w")
    for _ in range(2):
        assert (await scene.call("POST", "/instances/w/suspend?reason=lunch")).status_code == 202
    status = await scene.call("GET", "/instances/w")
    assert (status.status_code, status.json()["runtimeStatus"]) == (202, "Suspended")
    for _ in range(2):
        assert (await scene.call("POST", "/instances/w/resume?reason=back")).status_code == 202
    await scene.call("POST", "/instances/w/raiseEvent/go", json=1)
    await scene.until("/instances/w")


@served
async def test_what_has_ended_takes_no_orders(scene: Scene) -> None:
    await scene.start("waits", "w")
    assert (await scene.call("POST", "/instances/w/terminate?reason=enough")).status_code == 202
    ended = await scene.until("/instances/w")
    assert (ended.json()["runtimeStatus"], ended.json()["output"]) == ("Terminated", "enough")
    for order in ("terminate", "suspend", "resume", "rewind"):
        refused(await scene.call("POST", f"/instances/w/{order}"), 410)


@served
async def test_only_what_failed_is_rewound(scene: Scene) -> None:
    await scene.start("fails", "f")
    await scene.until("/instances/f")
    assert (await scene.call("POST", "/instances/f/rewind?reason=again")).status_code == 202
    await scene.until("/instances/f")
    await scene.start("waits", "w")
    await scene.call("GET", "/instances/w")
    assert "Failed" in refused(await scene.call("POST", "/instances/w/rewind"), 409)


@served
async def test_restart_takes_a_new_id_unless_it_is_told_otherwise(scene: Scene) -> None:
    await scene.start("shout", "s", json="a")
    await scene.until("/instances/s")
    fresh = await scene.call("POST", "/instances/s/restart")
    assert fresh.status_code == 202
    assert fresh.json()["id"] != "s"
    assert (await scene.until(f"/instances/{fresh.json()['id']}")).json()["output"] == "A"
    same = await scene.call("POST", "/instances/s/restart?restartWithNewInstanceId=false")
    assert (same.status_code, same.json()["id"]) == (202, "s")
    await scene.until("/instances/s")
    waited = await scene.call("POST", "/instances/s/restart?timeout=20&pollingInterval=1")
    assert (waited.status_code, waited.json()) == (200, "A")


# --- purge -----------------------------------------------------------------------------------------------------------


@served
async def test_purge_deletes_what_has_ended(scene: Scene) -> None:
    await scene.start("shout", "s", json="a")
    await scene.until("/instances/s")
    await scene.start("waits", "w")
    gone = await scene.call("DELETE", "/instances/s")
    assert (gone.status_code, gone.json()) == (200, {"instancesDeleted": 1})
    refused(await scene.call("GET", "/instances/s"), 404)
    assert "expected" in refused(await scene.call("DELETE", "/instances/w"), 409)


@served
async def test_purge_by_filter(scene: Scene) -> None:
    for number in range(3):
        await scene.start("shout", f"s{number}", json="a")
        await scene.until(f"/instances/s{number}")
    await scene.start("fails", "f")
    await scene.until("/instances/f")
    await scene.start("waits", "w")
    assert "createdTimeFrom" in refused(await scene.call("DELETE", "/instances"), 400)
    since = "createdTimeFrom=2001-01-01T00:00:00Z"
    refused(await scene.call("DELETE", f"/instances?{since}&runtimeStatus=Terminated"), 404)
    refused(await scene.call("DELETE", f"/instances?{since}&runtimeStatus=Running"), 404)
    refused(await scene.call("DELETE", f"/instances?{since}&createdTimeTo=2001-01-02T00:00:00Z"), 404)
    failed = await scene.call("DELETE", f"/instances?{since}&runtimeStatus=Failed")
    assert failed.json() == {"instancesDeleted": 1}
    rest = await scene.call("DELETE", f"/instances?{since}")
    assert rest.json() == {"instancesDeleted": 3}
    left = await scene.call("GET", "/instances")
    assert [one["instanceId"] for one in left.json()] == ["w"]


# --- entities --------------------------------------------------------------------------------------------------------


@served
async def test_entities_are_signalled_read_and_listed(scene: Scene) -> None:
    async def value(key: str) -> Any:
        answer = await scene.call("GET", f"/entities/Counter/{key}")
        return answer.json() if answer.status_code == 200 else answer.status_code

    async def until_value(key: str, expected: Any) -> None:
        await until(lambda: value(key), expected)

    sent = await scene.call("POST", "/entities/counter/a?op=add", json=5)
    assert sent.status_code == 202
    await until_value("a", {"value": 5})
    await scene.call("POST", "/entities/counter/a?op=note", content="four")
    await until_value("a", {"value": 4})
    await scene.call("POST", "/entities/counter/$?op=add", json=1)
    await until_value("$", {"value": 1})

    plain = await scene.call("GET", "/entities")
    assert [one["entityId"] for one in plain.json()] == [
        {"name": "counter", "key": ""},
        {"name": "counter", "key": "a"},
    ]
    assert all("state" not in one for one in plain.json())
    assert datetime.strptime(plain.json()[0]["lastOperationTime"], "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007
    page = await scene.call("GET", "/entities/counter?fetchState=true&top=1")
    assert page.json()[0]["state"] == {"value": 1}
    token = page.headers["x-ms-continuation-token"]
    rest = await scene.call("GET", "/entities/counter?top=1", headers={"x-ms-continuation-token": token})
    assert rest.json()[0]["entityId"]["key"] == "a"
    later = await scene.call("GET", "/entities?lastOperationTimeFrom=2999-01-01T00:00:00Z")
    assert later.json() == []

    assert (await scene.call("DELETE", "/entities/counter/a")).status_code == 202
    await until_value("a", 404)
    assert "nobody" in refused(await scene.call("POST", "/entities/nobody/a?op=add", json=1), 400)
    refused(await scene.call("POST", "/entities/counter/a?op=note", content=b"\xff\xfe"), 400)


@served
async def test_whoever_serves_is_primary(scene: Scene) -> None:
    answer = await scene.http.post(
        "/runtime/webhooks/durabletask/makeprimary", headers={"x-functions-key": scene.master}
    )
    assert answer.status_code == 200


@served
async def test_every_link_does_what_it_is_called(scene: Scene) -> None:
    links = (await scene.start("waits", "l")).json()
    post = scene.http.post
    assert (await post(links["suspendPostUri"].replace("{text}", "later"))).status_code == 202
    assert (await scene.http.get(links["statusQueryGetUri"])).json()["runtimeStatus"] == "Suspended"
    assert (await post(links["resumePostUri"].replace("{text}", "now"))).status_code == 202
    assert (await post(links["sendEventPostUri"].replace("{eventName}", "go"), json=1)).status_code == 202
    await scene.until("/instances/l")
    refused(await post(links["rewindPostUri"].replace("{text}", "x")), 410)
    refused(await post(links["terminatePostUri"].replace("{text}", "x")), 410)
    assert (await post(links["restartPostUri"])).status_code == 202
    assert (await scene.http.delete(links["purgeHistoryDeleteUri"])).json() == {"instancesDeleted": 1}
    assert json.loads((await scene.http.get(links["statusQueryGetUri"])).text)["ExceptionType"]
