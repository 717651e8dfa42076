"""HTTP functions: routes, parameters, answers, levels."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from durably import App, Client, DurableClient, OrchestrationContext, RegistrationError
from durably.http_api.functions.templates import RouteTemplate
from tests.http.scene import Scene, serving


@dataclass
class Order:
    item: str
    count: int = 1


def shop() -> App:
    app = App()

    @app.orchestrator
    async def buy(ctx: OrchestrationContext, order: Order) -> str:
        if order.count > 5:
            await ctx.wait_for_external_event("approve")
        if order.count < 0:
            raise ValueError("less than nothing")
        return f"{order.count} {order.item}"

    @app.route("orders/{number}", methods=["POST"], auth_level="anonymous")
    async def place(number: str, order: Order, client: Client) -> Any:
        return await client.start(buy, order, instance_id=number)

    @app.route("orders/{number}/now", methods=["POST"], auth_level="anonymous")
    async def now(request: Request, number: str, order: Order, client: DurableClient) -> Response:
        await client.start(buy, order, instance_id=number)
        wait = client.wait_for_completion_or_create_check_status_response
        strict = "strict" in request.query_params
        return await wait(
            request, number, timeout=0.3, retry_interval=0.1, return_internal_server_error_on_failure=strict
        )

    @app.route("orders/{number}/links", methods="get", auth_level="anonymous")
    async def links(req: Request, number: str, client: DurableClient) -> Response:
        return client.create_check_status_response(req, number)

    @app.route("echo/{number:int}/{word?}", auth_level="anonymous")
    def echo(request: Request, number: int, word: str = "none") -> dict[str, Any]:
        return {"number": number, "word": word, "method": request.method}

    @app.route("files/{*path}", methods=["GET"], auth_level="anonymous")
    async def files(path: str) -> str:
        return path

    @app.route("answers/{kind}", auth_level="anonymous")
    async def answers(kind: str, body: bytes) -> Any:
        kinds: dict[str, Any] = {
            "text": "hello",
            "bytes": b"\x00\x01",
            "nothing": None,
            "list": [1, {"a": 2}],
            "own": PlainTextResponse("teapot", 418),
            "body": len(body),
        }
        if kind == "broken":
            raise RuntimeError("secret detail")
        if kind == "refused":
            raise HTTPException(422, "no such tea", {"x-tea": "none"})
        return kinds[kind]

    @app.route(auth_level="function")
    async def guarded() -> str:
        return "in"

    @app.route("also", name="other", auth_level="function")
    async def other() -> str:
        return "in"

    @app.route("top", auth_level="admin")
    async def top() -> str:
        return "in"

    return app


def in_shop(folder: Path, test: Callable[[Scene], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        async with serving(shop(), folder, **options) as scene:
            await test(scene)

    asyncio.run(whole())


def test_a_function_starts_an_orchestration_and_answers_with_links(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        answer = await scene.http.post("/api/orders/o1", json={"item": "tea", "count": 2})
        assert answer.status_code == 202
        assert answer.headers["retry-after"] == "10"
        status = await scene.http.get(answer.headers["location"])
        while status.status_code == 202:
            status = await scene.http.get(answer.headers["location"])
        assert status.json()["output"] == "2 tea"
        again = await scene.http.get("/api/orders/o1/links")
        assert again.json() == answer.json()

    in_shop(tmp_path, test)


def test_a_function_may_wait_for_the_output(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        async def place(number: int, query: str = "") -> httpx.Response:
            body = {"item": "tea", "count": number}
            return await scene.http.post(f"/api/orders/o{number}/now{query}", json=body)

        done = await place(1)
        assert (done.status_code, done.json()) == (200, "1 tea")
        waits = await place(9)
        assert (waits.status_code, waits.json()["id"]) == (202, "o9")
        failed = await place(-1)
        assert (failed.status_code, failed.json()["runtimeStatus"]) == (200, "Failed")
        strict = await place(-1, "?strict=1")
        assert strict.status_code == 500

    in_shop(tmp_path, test)


def test_parameters_of_the_route_and_kinds_of_answers(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        async def get(path: str) -> httpx.Response:
            return await scene.http.get(f"/api/{path}")

        assert (await get("echo/7/up%2Fdown")).json() == {"number": 7, "word": "up/down", "method": "GET"}
        assert (await get("ECHO/-7/")).json()["word"] == "none"
        assert (await scene.http.request("PATCH", "/api/echo/7")).json()["method"] == "PATCH"
        assert (await get("echo/seven")).status_code == 401
        assert (await get("files/a/b%20c.txt")).text == "a/b c.txt"
        assert (await scene.http.post("/api/files/a")).status_code == 401

        text = await get("answers/text")
        assert (text.text, text.headers["content-type"]) == ("hello", "text/plain; charset=utf-8")
        assert (await get("answers/bytes")).content == b"\x00\x01"
        assert ((await get("answers/nothing")).status_code, (await get("answers/list")).json()) == (
            204,
            [1, {"a": 2}],
        )
        assert (await get("answers/own")).status_code == 418
        assert (await scene.http.post("/api/answers/body", content=b"\xff" * 10)).json() == 10
        refused = await get("answers/refused")
        assert (refused.status_code, refused.headers["x-tea"], "no such tea" in refused.text) == (
            422,
            "none",
            True,
        )
        broken = await get("answers/broken")
        assert broken.status_code == 500
        assert "secret" not in broken.text

    in_shop(tmp_path, test)


def test_a_body_that_does_not_fit_is_the_callers_mistake(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        missing = await scene.http.post("/api/orders/o1", json={"count": 1})
        assert missing.status_code == 400
        assert "item" in missing.text
        wrong = await scene.http.post("/api/orders/o1", content="{")
        assert wrong.status_code == 400
        assert await scene.host.client.get_status("o1") is None
        await scene.http.post("/api/orders/o2", json={"item": "tea", "count": 9})
        taken = await scene.http.post("/api/orders/o2", json={"item": "tea", "count": 9})
        assert taken.status_code == 409

    in_shop(tmp_path, test)


def test_levels(tmp_path: Path) -> None:
    """Statement 4.13.5: function level without a key: 401; admin with a function key: 401; anonymous ignores keys."""

    async def test(scene: Scene) -> None:
        keys = {
            "none": "",
            "wrong": "wrong",
            "guarded": scene.keys.renew("function", "default", "guarded"),
            "host": scene.keys.renew("host", "default"),
            "system": scene.key,
            "master": scene.master,
        }
        opens = {
            "guarded": {"guarded", "host", "master"},
            "also": {"host", "master"},
            "top": {"master"},
            "answers/text": set(keys),
        }
        for path, who in opens.items():
            for name, key in keys.items():
                headers = {"x-functions-key": key} if key else {}
                answer = await scene.http.get(f"/api/{path}", headers=headers)
                assert answer.status_code == (200 if name in who else 401), (path, name)
                if key:
                    in_query = await scene.http.get(f"/api/{path}", params={"code": key})
                    assert in_query.status_code == answer.status_code

        before = keys["guarded"]
        after = scene.keys.renew("function", "default", "guarded")
        assert (await scene.http.get("/api/guarded", params={"code": before})).status_code == 401
        assert (await scene.http.get("/api/guarded", params={"code": after})).status_code == 200

    in_shop(tmp_path, test)


@pytest.mark.parametrize(("prefix", "path"), [("", "/guarded"), ("v2/api/", "/v2/api/guarded")])
def test_the_prefix_is_a_setting(tmp_path: Path, prefix: str, path: str) -> None:
    async def test(scene: Scene) -> None:
        assert (await scene.http.get(path, params={"code": scene.master})).text == "in"
        assert (await scene.http.get("/api/guarded", params={"code": scene.master})).status_code == 404
        assert (await scene.call("GET", "/instances")).status_code == 200

    in_shop(tmp_path, test, route_prefix=prefix)


def test_without_keys_nobody_is_asked(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        assert (await scene.http.get("/api/top")).text == "in"
        started = await scene.http.post(
            "/runtime/webhooks/durabletask/orchestrators/buy", json={"item": "tea"}
        )
        assert started.status_code == 202
        assert "sig=" not in started.text
        assert (await scene.http.get("/api/top", headers={"host": "evil.test"})).status_code == 421

    in_shop(tmp_path, test, insecure=True)


@pytest.mark.parametrize(
    ("route", "matches", "misses"),
    [
        ("", ["", "/"], ["a"]),
        ("a/b", ["a/b", "A/B/"], ["a", "a/b/c", "ab"]),
        ("a/{x}", ["a/1", "a/x%2Fy"], ["a", "a/", "a/1/2"]),
        ("a/{x?}", ["a", "a/1"], ["a/1/2", "b"]),
        ("a/{*x}", ["a", "a/1", "a/1/2"], ["b"]),
        ("{x:guid}", ["2f3d5c1e-0000-4000-8000-000000000000"], ["2f3d5c1e"]),
        ("{x:alpha}.{y:int}", ["file.7"], ["file.x", "7.7"]),
        ("v{x:int}/{y:bool}", ["v1/true", "V-1/False"], ["v/true", "v1/yes"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_templates(route: str, matches: list[str], misses: list[str]) -> None:
    template = RouteTemplate(route, "f")
    for path in matches:
        assert template.match(path) is not None, path
    for path in misses:
        assert template.match(path) is None, path


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ("a/{x}/{x}", "twice"),
        ("a/{x:colour}", "colour"),
        ("a/{x?}/b", "last segment"),
        ("a/{*x}/b", "last segment"),
        ("a/{", "braces"),
        ("a/{1x}", "braces"),
    ],
)
def test_templates_that_cannot_be(route: str, says: str) -> None:
    with pytest.raises(RegistrationError, match=says):
        App().route(route, name="f")(print)


def test_registrations_that_cannot_be() -> None:
    app = App()

    @app.route("a", methods=["GET"])
    def one() -> None: ...

    app.route("a", methods=["POST"], name="two")(one)
    with pytest.raises(RegistrationError, match="registered already"):
        app.route("b")(one)
    with pytest.raises(RegistrationError, match="same route"):
        app.route("A", name="three")(one)
    with pytest.raises(RegistrationError, match="FETCH"):
        app.route("c", name="four", methods=["fetch"])(one)
    with pytest.raises(RegistrationError, match="auth_level"):
        app.route("d", name="five", auth_level="nobody")(one)  # type: ignore[arg-type]
    other = App()
    other.route("a", methods=["GET"], name="six")(one)
    with pytest.raises(RegistrationError, match="same route"):
        app.include(other)

    def two_bodies(first: dict[str, Any], second: dict[str, Any]) -> None: ...

    app.route("e")(two_bodies)
    with pytest.raises(RegistrationError, match="second"):
        app.host("memory://").serve_http()


def test_apps_bring_their_functions_along(tmp_path: Path) -> None:
    async def whole() -> None:
        app = App()
        app.include(shop())
        async with serving(app, tmp_path) as scene:
            assert (await scene.http.get("/api/answers/text")).text == "hello"

    asyncio.run(whole())
