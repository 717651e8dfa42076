"""The audit log of HTTP functions, and of the keys."""

import asyncio
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from durably import App, DurableClient
from durably.cli.main import call
from durably.core.query import InstanceQuery
from durably.errors import OperationError
from durably.http_api.witness import CHANGES, Did, witnessed
from durably.management import Management
from durably.security.audit_chain import lines_of, verify
from durably.security.audit_log import AuditLog
from durably.security.key_file import KeyFile
from tests.http.scene import flows, serving


def records(log: Path) -> list[dict[str, Any]]:
    return [json.loads(placed.raw) for placed in lines_of(log)]


def with_functions() -> App:
    app = flows()

    @app.route("orders/{number}", methods=["POST"], auth_level="function")
    async def place(number: str, client: DurableClient) -> Any:
        return await client.start("waits", instance_id=number)

    @app.route("all/{grant}", methods=["POST"], auth_level="admin")
    async def everything(grant: str, client: DurableClient) -> int:
        for number in range(12):
            await client.start("waits", instance_id=f"{grant}-{number}")
        await client.raise_event(f"{grant}-0", "go")
        await client.signal_entity("@counter@k", "add", 1)
        return await client.count_instances()

    @app.route("look", methods=["GET"], auth_level="function")
    async def look(client: DurableClient, number: str = "") -> int:
        return await client.count_instances()

    @app.route("look/{number}", methods=["GET"], auth_level="function")
    async def change(number: str, client: DurableClient) -> str:
        await client.schedules.create(number, "waits", cron="0 0 3 * * *")
        return "changed"

    @app.route("wrong/{number}", methods=["PUT"], auth_level="function")
    async def wrong(number: str, client: DurableClient) -> None:
        await client.start("waits", instance_id=number)
        raise HTTPException(418, "a teapot")

    @app.route("open", methods=["POST"], auth_level="anonymous")
    async def anybody(client: DurableClient) -> None:
        await client.start("waits")

    return app


def test_calls_of_functions_that_need_a_key_are_recorded(tmp_path: Path) -> None:
    async def whole() -> None:
        async with serving(with_functions(), tmp_path) as scene:
            host = {"x-functions-key": scene.keys.renew("host", "ci")}
            mine = {"x-functions-key": scene.keys.renew("function", "shop", "place")}
            master = {"x-functions-key": scene.master}
            http = scene.http
            answers = [
                await http.post("/api/orders/7?reason=again&token=canary", headers=mine),
                await http.post("/api/orders/7", headers=mine),  # there is one already
                await http.post("/api/orders/8"),
                await http.post("/api/orders/8", headers={"x-functions-key": "wrong"}),
                await http.post("/api/orders/8", headers={**mine, "origin": "https://evil.test"}),
                await http.post("/api/all/a", headers=host),
                await http.post("/api/all/a", headers=master),
                await http.get("/api/look/s", headers=host),
                await http.put("/api/wrong/9", headers=host),
            ]
            for _ in range(3):
                await http.get("/api/look", headers=host)
                await http.get("/api/look")
                assert (await http.post("/api/open")).status_code == 204
            written = records(tmp_path / "orders.db.audit")
            assert [one["status"] for one in written] == [one.status_code for one in answers]
            assert [one.status_code for one in answers] == [202, 409, 401, 401, 403, 401, 200, 200, 418]
            assert [one["request"] for one in written] == [one.headers["x-request-id"] for one in answers]
            first, _, third, fourth, fifth, _, seventh, eighth, ninth = written
            assert (first["who"], first["via"], first["function"]) == (
                "key function/place/shop",
                "key",
                "place",
            )
            assert (first["action"], first["target"]) == ("POST /api/orders/{number}", {"number": "7"})
            assert (first["did"], first["reason"]) == (["start 7"], "again")
            assert (third["who"], third.get("via")) == ("anonymous", None)
            assert (fourth["who"], fourth["via"]) == ("anonymous", "key")
            assert fifth["error"] == "CrossSite"
            assert [one.get("did") for one in (third, fourth, fifth)] == [None] * 3
            assert seventh["did"] == [*(f"start a-{n}" for n in range(10)), "and 4 more"]
            assert seventh["target"] == {"grant": "a"}
            assert (eighth["action"], eighth["did"]) == (
                "GET /api/look/{number}",
                ["call_entity @durably.schedule@s"],
            )
            assert (ninth["did"], ninth["function"]) == (["start 9"], "wrong")
            assert "canary" not in (tmp_path / "orders.db.audit").read_text()
            log = tmp_path / "orders.db.audit"
            log.rename(log.with_suffix(".away"))
            log.mkdir()
            await http.post("/api/orders/10", headers=host)
            refused = await http.post("/api/orders/11", headers=host)
            assert refused.status_code == 503
            assert await scene.host.client.get_status("11") is None

    asyncio.run(whole())


def test_what_is_no_change_of_management_is_a_look() -> None:
    names = {name for name in vars(Management) if not name.startswith("_")}
    looks = {
        "get_entity",
        "query_entities",
        "messages_to",
        "is_served",
        "hosts",
        "load",
        "new_instance_id",
        "now",
        "shared_tasks",
        "query_parked",
        "get",
        "wait",
        "outcome",
        "watch",
        "query",
        "count",
        "history",
    }
    assert names == looks | CHANGES  # whoever adds one says which it is

    async def whole() -> None:
        async with flows().host("memory://") as host:
            did = Did()
            management = witnessed(host.client._management, did)
            await management.count(InstanceQuery())
            assert not did
            management.watch("a")
            assert did.told == ()

    asyncio.run(whole())


def test_changes_of_keys_are_recorded_with_who_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub = ["--hub", f"sqlite:///{tmp_path / 'shop.db'}"]
    log = tmp_path / "shop.db.audit"
    assert call(["keys", "renew", "master", *hub]) == 0
    key = capfd.readouterr().out.strip()
    assert call(["keys", "renew", "function", "ci", "--function", "orders", *hub]) == 0
    assert call(["keys", "delete", "function", "ci", "--function", "orders", *hub]) == 0
    assert call(["keys", "delete", "host", "none\nof these", *hub]) == 2
    assert call(["keys", "renew-links", *hub]) == 0
    assert call(["keys", "list", *hub]) == 0
    written = records(log)
    me = pwd.getpwuid(os.getuid()).pw_name
    assert {(one["who"], one["via"], one["hub"]) for one in written} == {(f"user {me}", "cli", "shop")}
    assert [(one["action"], one.get("target", {}), one["status"], one.get("error")) for one in written] == [
        ("keys renew", {"kind": "master", "name": "_master"}, 200, None),
        ("keys renew", {"kind": "function", "name": "ci", "function": "orders"}, 200, None),
        ("keys delete", {"kind": "function", "name": "ci", "function": "orders"}, 200, None),
        ("keys delete", {"kind": "host", "name": "none\nof these"}, 400, "UsageError"),
        ("keys renew-links", {}, 200, None),
    ]
    assert verify(log).problem is None
    assert key not in log.read_text()
    capfd.readouterr()
    assert call(["audit", "list", *hub]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 5
    ring = (tmp_path / "shop.db.keys").read_bytes()
    log.rename(tmp_path / "away")
    log.mkdir()
    assert call(["keys", "renew", "master", *hub]) == 1
    assert "nothing was changed" in " ".join(capfd.readouterr().err.split())
    assert (tmp_path / "shop.db.keys").read_bytes() == ring
    monkeypatch.setenv("DURABLY_HTTP_AUDIT", "false")
    assert call(["keys", "renew", "master", *hub]) == 0


def test_a_key_is_shown_although_its_record_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub = f"sqlite:///{tmp_path / 'shop.db'}"

    async def full(_: AuditLog, __: object) -> None:
        raise OperationError("the disk is full")

    monkeypatch.setattr(AuditLog, "append", full)
    for arguments in (("create", "ann", "--role", "viewer"), ("renew", "ann")):
        assert call(["keys", *arguments, "--hub", hub]) == 1
        said = capfd.readouterr()
        assert "the disk is full" in said.err
        assert KeyFile(tmp_path / "shop.db.keys", lambda: 7).ring.find(said.out.strip()) is not None
    assert call(["keys", "create", "ann", "--role", "viewer", "--hub", hub]) == 1
    assert capfd.readouterr().out == ""
