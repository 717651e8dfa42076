"""A host that only this machine can reach asks nobody, until somebody has made a key; then it asks everybody."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from durably import App, Client, UsageError
from durably.http_api.access import Door
from durably.http_api.links import BASE, OPEN, RPC
from durably.http_api.options import HttpOptions
from durably.http_api.server import HttpServer
from durably.http_api.v1.operation import V1
from durably.security.audit_chain import lines_of
from durably.security.key_file import KeyFile
from durably.security.roles import ROLES
from tests.http.scene import PATIENCE_S, flows

Test = Callable[[httpx.AsyncClient, HttpServer], Awaitable[None]]


def shop() -> App:
    app = flows()

    @app.route("guarded", methods=["GET"])
    async def guarded() -> str:
        return "in"

    @app.route("top", methods=["GET"], auth_level="admin")
    async def top() -> str:
        return "in"

    @app.route("place", methods=["POST"])
    async def place(client: Client) -> Any:
        return await client.start("waits", instance_id="placed")

    return app


@asynccontextmanager
async def bare(folder: Path, **options: Any) -> AsyncGenerator[tuple[httpx.AsyncClient, HttpServer]]:
    """A host as it starts for the first time: nobody has made a key."""
    async with (
        shop().host(f"sqlite:///{folder}/orders.db") as host,
        host.serve_http(HttpOptions(port=0, **options)) as server,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{urlsplit(server.url).port}", timeout=PATIENCE_S
        ) as http,
    ):
        yield http, server


def on_bare(folder: Path, test: Test, **options: Any) -> None:
    async def whole() -> None:
        async with bare(folder, **options) as (http, server):
            await test(http, server)

    asyncio.run(whole())


def keys_in(folder: Path) -> KeyFile:
    """As the command line has them, in another process."""
    return KeyFile(folder / "orders.db.keys", lambda: 7)


def test_on_this_machine_nobody_is_asked_and_no_key_is_made(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, server: HttpServer) -> None:
        assert server.door is Door.UNLOCKED
        started = await http.post(f"{BASE}/orchestrators/waits/i")
        assert started.status_code == 202
        for path in (f"{BASE}/instances/i", f"{V1}/instances/i", f"{RPC}/{OPEN}/instances/i"):
            assert (await http.get(path)).status_code in {200, 202}, path
        for path in ("/api/guarded", "/api/top", "/admin/functions", f"{V1}/hosts"):
            assert (await http.get(path)).status_code == 200, path
        wrong = {"x-functions-key": "not one of ours"}
        assert (await http.get("/api/top", headers=wrong)).status_code == 200
        ring = keys_in(tmp_path).ring
        assert (ring.keys, ring.asks, len(ring.signing)) == ((), False, 1)
        (record,) = [json.loads(line.raw) for line in lines_of(tmp_path / "orders.db.audit")]
        assert (record["who"], record.get("via"), record["status"]) == ("local", None, 202)

    on_bare(tmp_path, test)


def test_other_sites_and_other_machines_are_asked_all_the_same(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, server: HttpServer) -> None:
        rebound = {"host": "evil.test"}
        assert (await http.get(f"{V1}/instances", headers=rebound)).status_code == 421
        assert (await http.get("/api/top", headers=rebound)).status_code == 421
        for foreign in ({"origin": "https://evil.test"}, {"origin": "null"}, {"sec-fetch-site": "same-site"}):
            for path in ("/api/place", f"{BASE}/orchestrators/waits"):
                assert (await http.post(path, headers=foreign)).status_code == 403, (path, foreign)
        for indirect in (
            {"sec-fetch-site": "cross-site"},
            {"x-forwarded-for": "10.0.0.7"},
            {"forwarded": "for=10.0.0.7"},
            {"x-forwarded-host": "shop.example"},
            {"via": "1.1 gate"},
            {"cf-connecting-ip": "10.0.0.7"},
        ):
            for path in ("/api/guarded", f"{V1}/instances"):
                assert (await http.get(path, headers=indirect)).status_code == 401, (path, indirect)
        own = {"origin": server.url, "sec-fetch-site": "same-origin"}
        assert (await http.post("/api/place", headers=own)).status_code == 202
        assert (await http.get("/api/guarded", headers={"sec-fetch-site": "none"})).status_code == 200

    on_bare(tmp_path, test)


def test_the_first_key_shuts_the_door_at_once_and_no_deletion_opens_it(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, server: HttpServer) -> None:
        link = (await http.post("/api/place")).headers["location"]
        keys = keys_in(tmp_path)
        key = {"x-functions-key": keys.create("ann", "developer")}
        paths = (f"{BASE}/instances", f"{V1}/instances", "/api/guarded")
        for path in paths:
            assert (await http.get(path)).status_code == 401, path
            assert (await http.get(path, headers=key)).status_code == 200, path
        assert (await http.get("/api/top", headers=key)).status_code == 401
        assert (await http.get(link)).status_code == 202  # a link says itself what it opens
        assert server.door is Door.LOCKED

        keys.delete("role", "ann")
        for headers in ({}, key):
            assert [(await http.get(path, headers=headers)).status_code for path in paths] == [401] * 3
        (tmp_path / "orders.db.keys").unlink()
        assert [(await http.get(path)).status_code for path in paths] == [401] * 3

    on_bare(tmp_path, test)


def test_a_key_that_was_deleted_before_the_start_leaves_the_door_shut(tmp_path: Path) -> None:
    keys = keys_in(tmp_path)
    keys.renew("master", "_master")
    keys.create("ann", "admin")
    keys.delete("role", "ann")

    async def test(http: httpx.AsyncClient, server: HttpServer) -> None:
        assert (await http.get("/api/guarded")).status_code == 401

    on_bare(tmp_path, test)


@pytest.mark.parametrize(
    "options",
    [
        {"allowed_hosts": "shop.example"},
        {"allowed_hosts": "*"},
        {"trusted_proxies": "127.0.0.1"},
        {
            "oidc_issuer": "https://login.example.com/",
            "oidc_audience": "orders",
            "oidc_jwks_url": "https://login.example.com/keys",
        },
    ],
    ids=["name", "any name", "proxy", "issuer"],
)
def test_what_says_that_others_come_through_this_machine_asks_from_the_start(
    tmp_path: Path, options: dict[str, str]
) -> None:
    async def test(http: httpx.AsyncClient, server: HttpServer) -> None:
        assert server.door is Door.LOCKED
        for path in ("/api/guarded", f"{BASE}/instances"):
            assert (await http.get(path)).status_code == 401, path

    on_bare(tmp_path, test, **options)


def test_beyond_this_machine_nothing_is_served_without_a_credential(tmp_path: Path) -> None:
    async def nothing(_: httpx.AsyncClient, __: HttpServer) -> None:
        raise AssertionError("it serves")

    with pytest.raises(UsageError, match=r"no credential yet.*keys create NAME --role ROLE"):
        on_bare(tmp_path, nothing, bind="0.0.0.0")
    assert not (tmp_path / "orders.db.keys").exists()
    viewer = keys_in(tmp_path).create("ann", "viewer")

    async def test(http: httpx.AsyncClient, server: HttpServer) -> None:
        assert server.door is Door.LOCKED
        assert (await http.get(f"{V1}/instances")).status_code == 401
        assert (await http.get(f"{V1}/instances", params={"code": viewer})).status_code == 200

    on_bare(tmp_path, test, bind="0.0.0.0")

    async def in_memory() -> None:
        async with shop().host("memory://") as host:
            with pytest.raises(UsageError, match="DURABLY_HTTP_KEY_FILE"):
                host.serve_http(HttpOptions(port=0, bind="0.0.0.0"))
            async with host.serve_http(HttpOptions(port=0)) as server:
                assert server.door is Door.UNLOCKED
                assert re.search("no key is asked for.*start with DURABLY_HTTP_KEY_FILE", server.way_in)

    asyncio.run(in_memory())


def test_a_file_of_keys_that_is_named_and_missing_lets_nobody_in(tmp_path: Path) -> None:
    """Also when the host starts again, although the file is there then."""
    path = tmp_path / "mounted.keys"

    async def test(http: httpx.AsyncClient, server: HttpServer) -> None:
        assert server.door is Door.LOCKED
        assert (
            f"'{path}' was missing or has no key: nobody gets in until 'durably keys create" in server.way_in
        )
        assert (await http.get("/api/guarded")).status_code == 401

    for _ in range(2):
        on_bare(tmp_path, test, key_file=str(path))
    key = KeyFile(path, lambda: 7).create("ann", "developer")

    async def with_key(http: httpx.AsyncClient, server: HttpServer) -> None:
        assert server.way_in == "keys: durably keys --help"
        assert (await http.get("/api/guarded", headers={"x-functions-key": key})).status_code == 200

    on_bare(tmp_path, with_key, key_file=str(path))


def test_roles_open_functions_of_their_level(tmp_path: Path) -> None:
    keys = keys_in(tmp_path)
    of = {role: keys.create(f"of {role}", role) for role in ROLES}

    async def test(http: httpx.AsyncClient, server: HttpServer) -> None:
        for path, who in (("guarded", {"developer", "admin"}), ("top", {"admin"})):
            for role, key in of.items():
                answer = await http.get(f"/api/{path}", headers={"x-functions-key": key})
                assert answer.status_code == (200 if role in who else 401), (path, role)
        started = await http.post("/api/place", headers={"x-functions-key": of["developer"]})
        assert started.status_code == 202
        (record,) = [json.loads(line.raw) for line in lines_of(tmp_path / "orders.db.audit")]
        assert (record["who"], record["via"]) == ("key of developer", "key")

    on_bare(tmp_path, test)


def test_which_addresses_are_of_this_machine() -> None:
    assert all(
        HttpOptions(bind=bind).open_until_keys for bind in ("127.0.0.1", "127.0.1.1", "localhost", "::1")
    )
    assert not any(HttpOptions(bind=bind).open_until_keys for bind in ("0.0.0.0", "::", "10.0.0.1", "shop"))
