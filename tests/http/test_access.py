"""Who is let in: nobody without a credential, and everybody only as far as it says."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx
import pytest

from durably import OperationError, UsageError
from durably.http_api.durable.routes import durable_routes
from durably.http_api.links import BASE, RPC
from durably.http_api.options import HttpOptions
from durably.http_api.served import Served
from durably.security.access_keys import draw_key, is_well_formed
from durably.security.capabilities import sign, verify
from durably.security.key_file import KeyFile
from durably.security.roles import ROLES
from tests.http.scene import Scene, flows, serving, until

Test = Callable[[Scene], Awaitable[None]]

SECRET = "ab" * 32
HUB = "orders"


def in_scene(folder: Path, test: Test, **options: Any) -> None:
    """Run a test of a scene on a loop of its own."""

    async def whole() -> None:
        async with serving(flows(), folder, **options) as scene:
            await test(scene)

    asyncio.run(whole())


def routes(base: str = BASE) -> list[tuple[str, str]]:
    """Method and a path of each route there is."""
    table = durable_routes(Served(None, None, None, HUB), base)  # type: ignore[arg-type]
    values = {
        "{instanceId}": "i",
        "{functionName}": "waits",
        "{eventName}": "go",
        "{name}": "counter",
        "{key}": "k",
    }
    found: list[tuple[str, str]] = []
    for route in table:
        path = route.path.replace("[/{instanceId}]", "/i").replace("[/{name}]", "/counter")
        for name, value in values.items():
            path = path.replace(name, value)
        assert "{" not in path
        found.append((route.method, path))
    return found


def test_no_route_answers_without_a_credential(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        await scene.start("waits", "i")
        assert len(routes()) >= 16
        for method, path in [*routes(), ("GET", f"{BASE}/nothing"), ("GET", "/"), ("GET", "/api/nothing")]:
            for headers in ({}, {"x-functions-key": "wrong"}, {"x-functions-key": draw_key()}):
                answer = await scene.http.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path, headers, answer.text)
                assert "WWW-Authenticate" in answer.headers
            guessed = await scene.http.request(method, path, params={"code": draw_key()})
            assert guessed.status_code == 401
        for method, path in [pair for grant in ("open", "c1.0.r.x") for pair in routes(f"{RPC}/{grant}")]:
            assert (await scene.http.request(method, path)).status_code == 403, (method, path)
        assert (await scene.call("GET", "/instances/i")).json()["runtimeStatus"] in {"Pending", "Running"}

    in_scene(tmp_path, test)


def test_keys_open_what_they_are_for_and_nothing_else(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        await scene.start("waits", "i")
        host_key = scene.keys.renew("host", "default")
        function_key = scene.keys.renew("function", "default", "orders")
        other_system_key = scene.keys.renew("system", "another_extension")

        async def status(key: str) -> int:
            in_header = await scene.http.get(f"{BASE}/instances/i", headers={"x-functions-key": key})
            in_query = await scene.http.get(f"{BASE}/instances/i", params={"code": key})
            assert in_header.status_code == in_query.status_code
            return in_header.status_code

        assert [await status(key) for key in (scene.key, scene.master)] == [202, 202]
        assert [await status(key) for key in (host_key, function_key, other_system_key)] == [403, 403, 403]
        make = f"{BASE}/makeprimary"
        assert (await scene.http.post(make, params={"code": scene.key})).status_code == 403
        assert (await scene.http.post(make, params={"code": scene.master})).status_code == 200

    in_scene(tmp_path, test)


def test_a_renewed_key_is_void_at_once_also_when_another_process_renewed_it(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        async def status(key: str) -> int:
            answer = await scene.http.get(f"{BASE}/instances", headers={"x-functions-key": key})
            return answer.status_code

        assert await status(scene.key) == 200
        elsewhere = KeyFile(scene.keys.path, lambda: 7)  # as `durably keys renew` has it in its own process
        renewed = elsewhere.renew("system", "durabletask_extension")
        assert [await status(scene.key), await status(renewed)] == [401, 200]
        elsewhere.delete("system", "durabletask_extension")
        assert await status(renewed) == 401
        with pytest.raises(UsageError, match="no system key 'durabletask_extension'"):
            elsewhere.delete("system", "durabletask_extension")
        with pytest.raises(UsageError, match="master"):
            elsewhere.delete("master", "_master")

    in_scene(tmp_path, test)


def with_query(url: str, **changes: str | None) -> str:
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    for name, value in changes.items():
        query.pop(name, None)
        if value is not None:
            query[name] = value
    return urlunsplit(parts._replace(query=urlencode(query)))


def test_a_link_is_for_its_instance_and_nothing_else(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        link = (await scene.start("waits", "a")).json()["statusQueryGetUri"]
        await scene.start("waits", "b")
        token = parse_qs(urlsplit(link).query)["sig"][0]
        get = scene.http.get
        assert (await get(link)).status_code == 202
        altered = [
            link.replace("/instances/a?", "/instances/b?"),
            with_query(link, sig=token[:-1] + ("A" if token[-1] != "A" else "B")),
            with_query(link, sig=token.replace(".rvcsp.", ".rvcs.")),
            with_query(link, sig=f"c1.{int(token.split('.')[1], 16) + 1:x}.{token.split('.', 2)[2]}"),
            with_query(link, sig="c1.." * 3),
            with_query(link, sig=""),
        ]
        for url in altered:
            assert (await get(url)).status_code in {401, 403}, url
        assert (await get(with_query(link, taskHub="another"))).status_code == 404
        for method, path in (
            ("GET", f"{BASE}/instances"),
            ("DELETE", f"{BASE}/instances?createdTimeFrom=2001-01-01T00:00:00Z"),
            ("GET", f"{BASE}/entities"),
            ("POST", f"{BASE}/orchestrators/waits/c"),
        ):
            url = f"{path}{'&' if '?' in path else '?'}sig={token}"
            assert (await scene.http.request(method, url)).status_code in {401, 403}, (method, path)
        scene.keys.renew_signing(keep=1)
        assert (await get(link)).status_code == 202
        scene.keys.renew_signing()
        assert (await get(link)).status_code == 403

    in_scene(tmp_path, test)


def test_a_capability_says_one_thing() -> None:
    token = sign(SECRET, HUB, "i", "rv", 1_000)
    granted = verify((SECRET,), HUB, "i", token, 999)
    assert granted is not None
    assert granted.permissions == {"read", "payloads"}
    assert granted.may("read", "i")
    assert not granted.may("control", "i")
    assert not granted.may("read", "j")
    assert not granted.may("read")
    assert verify((SECRET,), HUB, "i", token, 1_000) is None  # over
    assert verify((SECRET,), "other", "i", token, 999) is None
    assert verify((SECRET,), HUB, "j", token, 999) is None
    assert verify(("cd" * 32,), HUB, "i", token, 999) is None
    assert verify(("cd" * 32, SECRET), HUB, "i", token, 999) is not None
    assert verify((), HUB, "i", token, 999) is None
    mac = token.rsplit(".", 1)[1]
    forged = (
        "",
        "c1",
        "c2.3e8.rv." + mac,
        f"c1.3E8.rv.{mac}",
        f"c1.03e8.rv.{mac}",
        f"c1.3e8.rvx.{mac}",
        "c1.3e8.rv.",
        "c1.-1.rv.é",
    )
    for text in forged:
        assert verify((SECRET,), HUB, "i", text, 1) is None, text


def test_roles_grow() -> None:
    """Each role may do what the one before may, and more."""
    names = ["viewer", "reader", "operator", "developer", "admin"]
    assert list(ROLES) == names
    for less, more in pairwise(names):
        assert ROLES[less] < ROLES[more]


def test_keys_are_recognised_by_their_form() -> None:
    keys = {draw_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key.startswith("durably_")
        assert is_well_formed(key)
        assert not is_well_formed(key[:-1])
        assert not is_well_formed(key.replace("durably_", ""))
        assert not is_well_formed(key[:10] + ("A" if key[10] != "A" else "B") + key[11:])


def test_the_key_file_holds_no_key_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "hub.db.keys"
    keys = KeyFile(file, lambda: 1)
    keys.prepare()
    first = keys.ring
    assert (first.keys, first.asks, len(first.signing)) == ((), False, 1)
    keys.prepare()
    assert keys.ring == first
    made = [keys.renew("master", "_master"), keys.renew("host", "default"), keys.create("ann", "viewer")]
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert not any(key in text for key in made)
    file.chmod(0o640)
    with pytest.raises(OperationError, match="chmod 600"):
        _ = KeyFile(file, lambda: 1).ring
    file.chmod(0o600)
    file.write_text("{")
    with pytest.raises(OperationError, match="cannot be read"):
        _ = KeyFile(file, lambda: 1).ring


def test_a_key_file_that_breaks_lets_nobody_in(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        assert scene.keys.path is not None
        scene.keys.path.write_text("{}x")
        answer = await scene.call("GET", "/instances")
        assert answer.status_code == 503

    in_scene(tmp_path, test)


def test_pages_of_other_sites_change_nothing(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        link = (await scene.start("waits", "i")).json()["terminatePostUri"]
        post = scene.http.post
        foreign = (
            {"origin": "https://evil.test"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        )
        for headers in foreign:
            assert (await post(link, headers=headers)).status_code == 403, headers
        rebound = await scene.http.get(link, headers={"host": "evil.test"})
        assert rebound.status_code == 421
        port = urlsplit(scene.url).port
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            answer = await scene.call("GET", "/instances", headers={"host": host})
            assert answer.status_code == 200, host
        preflight = await scene.http.options(
            f"{BASE}/instances",
            headers={"origin": "https://evil.test", "access-control-request-method": "POST"},
        )
        assert not any(name.startswith("access-control") for name in preflight.headers)
        own = await post(link, headers={"origin": scene.url, "sec-fetch-site": "same-origin"})
        assert own.status_code == 202

    in_scene(tmp_path, test)


def test_a_body_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        start = f"{BASE}/orchestrators/waits"
        headers = {"x-functions-key": scene.key}
        fits = await scene.http.post(start, content=b'"' + b"a" * 997 + b'"', headers=headers)
        assert fits.status_code == 202
        long = await scene.http.post(start, content=b'"' + b"a" * 1_000 + b'"', headers=headers)
        assert long.status_code == 413

        async def endless() -> Any:
            for _ in range(100_000):
                yield b" " * 1_000

        try:
            streamed = await scene.http.post(start, content=endless(), headers=headers)
            assert streamed.status_code == 413
        except (httpx.WriteError, httpx.ReadError):
            pass  # it was hung up on before it had said all of it

    in_scene(tmp_path, test, max_body_bytes=1_000)


def test_too_many_at_once_are_told_to_come_again(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        slow = [asyncio.create_task(scene.call("POST", "/orchestrators/waits?timeout=20")) for _ in range(2)]
        await until(scene.host.client.count_instances, 2)
        answer = await scene.call("GET", "/instances")
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        for instance in (await scene.host.client.query_instances()).instances:
            await scene.host.client.raise_event(instance.instance_id, "go")
        assert [one.status_code for one in await asyncio.gather(*slow)] == [200, 200]
        assert (await scene.call("GET", "/instances")).status_code == 200

    in_scene(tmp_path, test, max_outstanding_requests=2)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bind": "0.0.0.0", "insecure": True}, "anybody"),
        ({"port": 70_000}, "65535"),
        ({"hub_name": "a/b"}, "hub_name"),
        ({"tls_key": "x"}, "both"),
        ({"max_body_bytes": 0}, "1 or more"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        HttpOptions(**given)


def test_options_come_from_the_environment() -> None:
    variables = {"DURABLY_HTTP_PORT": "0", "DURABLY_HTTP_INSECURE": "true", "DURABLY_HTTP_MAX_WAIT_S": "2.5"}
    options = HttpOptions.from_environment(variables, hub_name="Shop", bind=None)
    assert (options.port, options.insecure, options.max_wait_s, options.hub_name) == (0, True, 2.5, "Shop")
    assert options.with_templates
    assert not HttpOptions(bind="10.0.0.1").with_templates
    for name, text in (("PORT", "high"), ("INSECURE", "maybe"), ("MAX_WAIT_S", "x")):
        with pytest.raises(UsageError, match=f"DURABLY_HTTP_{name}"):
            HttpOptions.from_environment({f"DURABLY_HTTP_{name}": text})


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        port = urlsplit(scene.url).port
        assert port is not None
        with pytest.raises(OperationError, match=f"port {port}"):
            await scene.host.serve_http(HttpOptions(port=port)).start()

    in_scene(tmp_path, test)
