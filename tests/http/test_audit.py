"""Each change that is asked for leaves exactly one record, and a record that is changed or taken out shows."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.requests import Request

from durably import Client, OperationError
from durably.cli.main import call
from durably.http_api.durable.routes import durable_routes
from durably.http_api.links import BASE
from durably.http_api.served import Served
from durably.security import audit_log
from durably.security.audit_chain import AuditRecord, Head, files_of, hash_of, lines_of, verify
from durably.security.audit_log import WAITING_MAX, AuditLog
from tests.http.issuer import AUDIENCE, issuing, rsa
from tests.http.scene import Scene, flows, serving, until

Test = Callable[[Scene, Path], Awaitable[None]]


def in_scene(folder: Path, test: Test, **options: Any) -> None:
    async def whole() -> None:
        async with serving(flows(), folder, **options) as scene:
            await test(scene, folder / "orders.db.audit")

    asyncio.run(whole())


def records(log: Path) -> list[dict[str, Any]]:
    return [json.loads(placed.raw) for placed in lines_of(log)]


VALUES = {"instanceId": "i", "functionName": "waits", "eventName": "go", "name": "counter", "key": "k"}


def test_each_route_that_changes_something_leaves_one_record_whatever_its_answer(tmp_path: Path) -> None:
    async def test(scene: Scene, log: Path) -> None:
        table = durable_routes(Served(None, None, None, "orders"), BASE)  # type: ignore[arg-type]
        changing = [route for route in table if route.method != "GET"]
        reading = [route for route in table if route.method == "GET"]
        assert (len(changing), len(reading)) == (12, 4)
        count = 0
        for route in changing:
            path = route.path.replace("[", "").replace("]", "").format(**VALUES)
            tried = [
                await scene.http.request(route.method, path),
                await scene.http.request(route.method, path, headers={"x-functions-key": "wrong"}),
                await scene.http.request(route.method, path, params={"sig": "c1.0.r.x"}),
                await scene.http.request(route.method, path, headers={"origin": "https://evil.test"}),
                await scene.http.request(route.method, path, headers={"host": "evil.test"}),
                await scene.call(route.method, path.removeprefix(BASE), params={"taskHub": "another"}),
                await scene.call(route.method, path.removeprefix(BASE), content=b"{"),
                await scene.call(route.method, path.removeprefix(BASE), params={"reason": "why\nnot"}),
            ]
            written = records(log)[count:]
            count += len(tried)
            assert [one["status"] for one in written] == [one.status_code for one in tried], route
            assert [one["request"] for one in written] == [one.headers["x-request-id"] for one in tried]
            assert [one["status"] for one in written[:5]] == [401, 401, 403, 403, 421], route
            assert [one.get("via", "") for one in written] == ["", "key", "link", "", "", "key", "key", "key"]
            assert {one["action"] for one in written} == {f"{route.method} {route.path}"}
            assert [one["who"] for one in written] == ["anonymous"] * 5 + [
                "key system/durabletask_extension"
            ] * 3
            assert written[-1].get("reason") == "why\nnot"
            assert {one["origin"] for one in written} == {"127.0.0.1"}
            assert {one["hub"] for one in written} == {"orders"}
        for route in reading:
            path = route.path.replace("[", "").replace("]", "").format(**VALUES).removeprefix(BASE)
            await scene.call("GET", path)
            await scene.http.get(BASE + path)
        await scene.http.post("/api/nothing")
        assert len(records(log)) == count
        assert verify(log) == (1, verify(log).head, None)
        assert verify(log).head.n == count

    in_scene(tmp_path, test)


def test_a_record_says_who_what_and_what_was_made_and_holds_no_credential(tmp_path: Path) -> None:
    key = rsa("k1")

    async def whole() -> None:
        with issuing(key) as issuer:
            options = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
            async with serving(flows(), tmp_path, **options) as scene:
                bearer = {"authorization": f"Bearer {issuer.token(key)}"}
                started = await scene.http.post(f"{BASE}/orchestrators/waits?more=1", headers=bearer)
                links = started.json()
                await scene.http.post(links["terminatePostUri"].replace("{text}", "enough"))
                await scene.http.post(f"{BASE}/orchestrators/waits/b?code={scene.key}")
                grant = (await scene.http.get(links["statusQueryGetUri"])).request.url.params["sig"]
                await scene.http.post(f"/durabletask/{grant}/instances/{links['id']}/suspend")
                await scene.http.delete(
                    f"{BASE}/instances?createdTimeFrom=2001-01-01", headers={"x-functions-key": scene.master}
                )
        first, second, third, fourth, fifth = records(tmp_path / "orders.db.audit")
        assert (first["who"], first["via"], first["made"], first["status"]) == (
            "token ada",
            "token",
            links["id"],
            202,
        )
        assert first["target"] == {"functionName": "waits", "more": "1"}
        assert (second["who"], second["via"]) == (f"link to {links['id']}", "link")
        assert (second["target"], second["reason"]) == ({"instanceId": links["id"]}, "enough")
        assert (third["target"], third["made"]) == ({"functionName": "waits", "instanceId": "b"}, "b")
        assert (fourth["action"], fourth["status"], fourth["error"]) == (
            "POST /durabletask/{grant}/instances/{instanceId}/suspend",
            410,
            "InstanceStateError",
        )
        assert (fifth["who"], fifth["target"]) == ("key master/_master", {"createdTimeFrom": "2001-01-01"})
        text = (tmp_path / "orders.db.audit").read_text()
        assert not any(
            secret in text for secret in (scene.key, scene.master, grant, bearer["authorization"][7:])
        )

    asyncio.run(whole())


def test_the_log_is_for_its_owner_alone_and_can_be_left_out(tmp_path: Path) -> None:
    async def test(scene: Scene, log: Path) -> None:
        await scene.start("waits", "i")

    (tmp_path / "without").mkdir()
    in_scene(tmp_path / "without", test, audit=False)
    assert not list((tmp_path / "without").glob("*.audit*"))
    in_scene(tmp_path, test)
    files = list(tmp_path.glob("orders.db.audit*"))
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]


# --- the chain -------------------------------------------------------------------------------------------------------


def record(text: str = "x") -> AuditRecord:
    return AuditRecord(at="2026-01-01T00:00:00Z", who=text, hub="h", action="POST /", status=202, request="r")


def written(log: Path, count: int, *, bytes_max: int = 1 << 20) -> None:
    async def whole() -> None:
        audit = AuditLog(log, bytes_max)
        for number in range(count):
            await audit.append(record(f"n{number}"))
        await audit.close()

    asyncio.run(whole())


def test_files_that_are_full_are_put_aside_and_the_chain_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "a.audit"
    for _ in range(4):  # each time another process
        written(log, 5, bytes_max=1_000)
    assert len(files_of(log)) > 3
    assert verify(log).problem is None
    assert verify(log).head.n == 20
    assert [json.loads(placed.raw)["n"] for placed in lines_of(log)] == list(range(1, 21))
    files_of(log)[1].unlink()
    assert "some are missing" in str(verify(log).problem)
    begins = json.loads(files_of(log)[1].read_text().splitlines()[0])["n"]
    files_of(log)[0].unlink()
    assert f"number {begins}, expected 1" in str(verify(log).problem)
    assert verify(log, first=begins).problem is None


def drop(number: int) -> Callable[[list[str]], None]:
    def change(lines: list[str]) -> None:
        del lines[number]

    return change


def swap(lines: list[str]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def put_in(lines: list[str]) -> None:
    lines.insert(3, lines[3])


def alter(number: int) -> Callable[[list[str]], None]:
    def change(lines: list[str]) -> None:
        lines[number] = lines[number].replace(f'"who":"n{number}"', '"who":"eve"')

    return change


def alter_and_chain(lines: list[str]) -> None:
    """Change one and write all behind it anew, as whoever knows the format would."""
    alter(5)(lines)
    for at in range(6, len(lines)):
        fields = json.loads(lines[at])
        fields["prev"] = hash_of(lines[at - 1].encode())
        lines[at] = json.dumps(fields, separators=(",", ":"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop(0), "number 2, expected 1"),
        (drop(4), "some are missing"),
        (drop(-1), "last ones are missing"),
        (swap, "some are missing"),
        (put_in, "some are missing"),
        (alter(4), "does not follow"),
        (alter(9), "not the record that was written"),
        (alter_and_chain, "not the record that was written"),
        (lambda lines: lines.clear(), "last ones are missing"),
        (lambda lines: lines.insert(3, "{}"), "no record"),
    ],
)
def test_what_was_changed_or_taken_out_shows(
    tmp_path: Path, change: Callable[[list[str]], None], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    hub = f"sqlite:///{tmp_path / 'h.db'}"
    log = tmp_path / "h.db.audit"
    written(log, 10)
    assert call(["audit", "verify", "--hub", hub]) == 0
    kept = capfd.readouterr().out.strip()
    assert Head.parse(kept) == verify(log).head
    lines = log.read_text().splitlines()
    change(lines)
    log.write_text("".join(f"{line}\n" for line in lines))
    assert call(["audit", "verify", "--hub", hub]) == 1
    assert says in capfd.readouterr().err
    written(log, 1)  # a host that goes on does not heal it
    assert call(["audit", "verify", "--hub", hub]) == 1
    capfd.readouterr()
    (tmp_path / "h.db.audit.head").unlink()
    assert call(["audit", "verify", "--hub", hub, "--head", kept]) == 1


def test_a_log_written_wholly_anew_shows_against_a_head_that_was_kept(tmp_path: Path) -> None:
    log = tmp_path / "a.audit"
    written(log, 5)
    kept = verify(log).head
    for file in tmp_path.iterdir():
        file.unlink()
    written(log, 4)
    assert verify(log).problem is None
    assert "last ones are missing" in str(verify(log, kept=kept).problem)
    (tmp_path / "a.audit").write_text("")
    (tmp_path / "a.audit.head").unlink()

    async def others() -> None:
        audit = AuditLog(log, 1 << 20)
        for _ in range(6):
            await audit.append(record("somebody else"))
        await audit.close()

    asyncio.run(others())
    assert verify(log).problem is None
    assert "not the record" in str(verify(log, kept=kept).problem)


def test_records_of_many_at_once_and_of_several_writers_are_one_chain(tmp_path: Path) -> None:
    log = tmp_path / "a.audit"

    async def whole() -> None:
        writers = [AuditLog(log, 20_000) for _ in range(3)]
        await asyncio.gather(*(writers[n % 3].append(record(f"n{n}")) for n in range(300)))
        for one in writers:
            await one.close()

    asyncio.run(whole())
    assert verify(log).problem is None
    assert sorted(json.loads(placed.raw)["who"] for placed in lines_of(log)) == sorted(
        f"n{n}" for n in range(300)
    )


def test_what_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "a.audit"
    written(log, 3)
    with log.open("ab") as file:
        file.write(b'{"at":"2026')
    assert verify(log).problem is None
    written(log, 1)
    assert verify(log).problem is None
    assert verify(log).head.n == 4


def test_a_log_that_cannot_be_written_stops_changes_and_loses_nothing(tmp_path: Path) -> None:
    async def test(scene: Scene, log: Path) -> None:
        await scene.start("waits", "a")
        put_aside(log)
        refused = await scene.call("POST", "/orchestrators/waits/b")
        assert (refused.status_code, refused.json()["ExceptionType"]) == (503, "OperationError")
        assert (
            await scene.call("GET", "/instances/b")
        ).status_code == 202  # it said that it may have been done
        assert (await scene.call("POST", "/orchestrators/waits/c")).status_code == 503
        assert (await scene.call("GET", "/instances/c")).status_code == 404
        put_back(log)
        await scene.start("waits", "d")
        assert [one["target"]["instanceId"] for one in records(log)] == ["a", "b", "c", "d"]
        assert [one["status"] for one in records(log)] == [202, 202, 503, 202]
        assert verify(log).problem is None

    in_scene(tmp_path, test)


def put_aside(log: Path) -> None:
    """In the place of the log is a folder: whoever opens it gets an error, whatever rights they have."""
    log.rename(log.with_suffix(".away"))
    log.mkdir()


def put_back(log: Path) -> None:
    log.rmdir()
    log.with_suffix(".away").rename(log)


def test_records_that_wait_for_a_disk_have_a_limit(tmp_path: Path) -> None:
    log = tmp_path / "nowhere" / "a.audit"

    async def whole() -> None:
        audit = AuditLog(log, 1 << 20)
        for number in range(WAITING_MAX + 5):
            audit.note(record(f"n{number}"))
        with pytest.raises(OperationError, match="cannot be written"):
            await audit.check()
        log.parent.mkdir()
        await audit.check()
        await audit.close()

    asyncio.run(whole())
    assert verify(log).head.n == WAITING_MAX


def test_a_request_that_the_host_cuts_off_is_recorded(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path, max_wait_s=1) as scene:
            waiting = asyncio.create_task(scene.call("POST", "/orchestrators/waits/i?timeout=60"))
            await until(scene.host.client.count_instances, 1)
        (answer,) = await asyncio.gather(waiting, return_exceptions=True)
        assert getattr(answer, "status_code", 500) == 500  # or it was hung up on

    asyncio.run(whole())
    (cut,) = records(tmp_path / "orders.db.audit")
    assert (cut["status"], cut["target"]["instanceId"]) == (499, "i")


def test_half_a_character_in_a_record_keeps_nobody_from_changing_anything(tmp_path: Path) -> None:
    app = flows()

    @app.route("end", methods=["POST"])
    async def end(request: Request, client: Client) -> str:
        await client.terminate((await request.json())["id"])
        return "ended"

    async def whole() -> None:
        async with serving(app, tmp_path) as scene:
            headers = {"x-functions-key": scene.master}
            wrong = await scene.http.post("/api/end", content=rb'{"id": "\ud800"}', headers=headers)
            assert wrong.status_code in {400, 404}, wrong.text
            await scene.start("waits", "a")

    asyncio.run(whole())
    log = tmp_path / "orders.db.audit"
    assert [one.get("did") for one in records(log)] == [["terminate \\ud800"], None]
    assert verify(log).problem is None


def test_a_record_that_cannot_be_written_leaves_its_place_to_a_shorter_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "a.audit"
    bad: Any = object()

    async def whole() -> None:
        audit = AuditLog(log, 1 << 20)
        wrong = [record("half \ud800"), msgspec.structs.replace(record("ada"), did=(bad,))]
        await asyncio.gather(*(audit.append(one) for one in (record("bob"), *wrong, record("eve"))))
        await audit.append(record("zoe"))
        await audit.close()

    asyncio.run(whole())
    written = records(log)
    assert [one["who"] for one in written] == ["bob", "half \\ud800", "ada", "eve", "zoe"]
    assert [one.get("error") for one in written] == [None, "RecordUnreadable", "RecordUnreadable", None, None]
    assert verify(log).problem is None
    assert caplog.text.count("a shorter one is in its place") == 2


def test_two_processes_go_on_from_each_other_whatever_becomes_of_the_files(tmp_path: Path) -> None:
    """Each keeps the files open: one that was moved, or deleted, is not the one that the other writes to."""
    log = tmp_path / "a.audit"

    async def whole() -> list[str]:
        first, second = AuditLog(log, 1 << 20), AuditLog(log, 1 << 20)
        for number in range(2):
            await first.append(record(f"a{number}"))
            await second.append(record(f"b{number}"))
        audit_log.head_path(log).unlink()
        for number in range(2, 4):
            await first.append(record(f"a{number}"))
            await second.append(record(f"b{number}"))
        before = [one["who"] for one in records(log)]
        assert verify(log).problem is None
        log.rename(tmp_path / "taken away")
        await second.append(record("b4"))
        await first.append(record("a4"))
        await first.close()
        await first.close()
        await second.close()
        return before

    assert asyncio.run(whole()) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]
    assert [one["who"] for one in records(log)] == ["b4", "a4"]
    assert [one["n"] for one in records(log)] == [9, 10]


def test_whatever_fails_in_the_writer_is_told_to_each_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "a.audit"

    def broken(*_: object) -> None:
        raise RuntimeError("out of ink")

    async def whole() -> None:
        audit = AuditLog(log, 1 << 20)
        with monkeypatch.context() as patch:
            patch.setattr(audit_log, "_cut_torn_line", broken)
            found = await asyncio.gather(
                *(audit.append(record("a")) for _ in range(3)), return_exceptions=True
            )
        assert [type(one) for one in found] == [OperationError] * 3
        assert "out of ink" in str(found[0])
        await audit.append(record("b"))
        await audit.close()

    asyncio.run(whole())
    assert verify(log).problem is None
