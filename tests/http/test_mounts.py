"""Applications of other frameworks beside the HTTP functions: reached, let in, limited, started and stopped."""

import asyncio
import importlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio.from_thread
import flask
import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from durably import (
    App,
    DurableClient,
    HttpOptions,
    OperationError,
    OrchestrationContext,
    RegistrationError,
    UsageError,
    client_of,
)
from durably.http_api.links import BASE
from durably.security.audit_chain import lines_of
from tests.http.scene import PATIENCE_S, Scene, serving

pytestmark = pytest.mark.slow_once  # nothing of it depends on the version of Python

Client = Annotated[DurableClient, Depends(client_of)]


def shop() -> tuple[App, list[str]]:
    """An app with a FastAPI application, a Flask application, and HTTP functions of its own."""
    app = App()
    told: list[str] = []

    @app.orchestrator
    async def order(ctx: OrchestrationContext, item: str) -> str:
        return f"one {item}"

    @app.route("shop/inside", auth_level="anonymous")
    def inside() -> str:
        return "a function"

    app.mount("/shop", fast(told), auth_level="anonymous")
    app.mount("/api/shop", plain("below the prefix"), auth_level="anonymous")
    app.mount("/locked", plain("opened"))
    app.mount("/safe", plain("opened"), auth_level="admin", name="vault")
    app.mount_wsgi("/old", old(), auth_level="anonymous")
    return app, told


def fast(told: list[str]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        told.append("started")
        yield {"greeting": "welcome"}
        told.append("stopped")

    api = FastAPI(lifespan=lifespan)

    @api.post("/orders/{number}", status_code=202)
    async def place(number: str, body: dict[str, Any], request: Request, client: Client) -> Any:
        await client.start("order", body["item"], instance_id=number)
        return client.create_http_management_payload(request, number)

    @api.post("/in-a-thread/{number}")
    def in_a_thread(number: str, client: Client) -> str:
        start = partial(client.start, "order", "tea", instance_id=number)
        return anyio.from_thread.run(start).instance_id

    @api.get("/hello")
    async def hello(request: Request) -> dict[str, Any]:
        request.state.greeting += ", you"  # of this request only
        return {
            "says": request.state.greeting,
            "at": str(request.url_for("hello")),
            "path": request.scope["path"],
        }

    @api.post("/upload")
    async def upload(request: Request) -> int:
        try:
            return len(await request.body())
        except Exception:  # noqa: BLE001 - an application may do that
            return -1

    @api.get("/breaks")
    async def breaks() -> None:
        raise RuntimeError("out of paper")

    @api.get("/breaks-late")
    async def breaks_late() -> Response:
        async def body() -> AsyncGenerator[bytes]:
            yield b"half of it"
            raise RuntimeError("out of paper")

        return StreamingResponse(body())

    return api


def plain(text: str) -> Starlette:
    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{text}: {request.url.path}")

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


def old() -> flask.Flask:
    site = flask.Flask("old")

    @site.post("/orders/<number>")
    def place(number: str) -> Any:
        environ = flask.request.environ
        client: DurableClient = environ["durably.client"]
        handle = environ["durably.run"](
            client.start("order", flask.request.get_json()["item"], instance_id=number)
        )
        output = environ["durably.run"](handle.result(timeout=PATIENCE_S))
        return {"output": output, "root": environ["SCRIPT_NAME"], "path": environ["PATH_INFO"]}

    @site.post("/upload")
    def upload() -> str:
        return str(len(flask.request.get_data()))

    return site


def run(work: Any, folder: Path, app: App | None = None, **options: Any) -> None:
    async def main() -> None:
        async with serving(shop()[0] if app is None else app, folder, **options) as scene:
            await work(scene)

    asyncio.run(main())


def test_a_fastapi_application_starts_orchestrations(tmp_path: Path) -> None:
    app, told = shop()

    async def work(scene: Scene) -> None:
        assert told == ["started"]
        placed = await scene.http.post("/shop/orders/7", json={"item": "tea"})
        assert placed.status_code == 202, placed.text
        links = placed.json()
        # They are of the host, not of the application, and open the instance.
        assert links["statusQueryGetUri"].startswith(f"{scene.url}{BASE}/instances/7?")
        assert await scene.host.client.handle("7").result(timeout=PATIENCE_S) == "one tea"
        assert (await scene.http.get(links["statusQueryGetUri"])).status_code == 200

        assert (await scene.http.post("/shop/in-a-thread/9")).json() == "9"
        assert await scene.host.client.handle("9").result(timeout=PATIENCE_S) == "one tea"
        for _ in range(2):
            hello = (await scene.http.get("/shop/hello")).json()
            assert hello == {"says": "welcome, you", "at": f"{scene.url}/shop/hello", "path": "/shop/hello"}
        docs = (await scene.http.get("/shop/openapi.json")).json()
        assert docs["servers"] == [{"url": "/shop"}]
        assert (await scene.http.get("/shop/nothing")).json() == {"detail": "Not Found"}
        assert (await scene.http.get("/shopping")).status_code == 401  # is not below it

    run(work, tmp_path, app)
    assert told == ["started", "stopped"]


def test_functions_come_before_what_is_mounted_around_them(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        assert (await scene.http.get("/api/shop/inside")).text == "a function"
        assert (await scene.http.get("/api/shop/other")).text == "below the prefix: /api/shop/other"
        there = await scene.http.get(
            "/api/shop", follow_redirects=True
        )  # where its own root is, it says itself
        assert there.text == "below the prefix: /api/shop/"

    run(work, tmp_path)


def test_levels_and_keys_are_those_of_functions(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        def key(kind: Any, function: str | None = None) -> str:
            return scene.keys.renew(kind, "test", function)

        own, other, host = key("function", "locked"), key("function", "vault"), key("host")
        opened = {
            "/locked/a": {
                "": 401,
                "wrong": 401,
                own: 200,
                other: 401,
                host: 200,
                scene.master: 200,
                scene.key: 401,
            },
            "/safe/a": {"": 401, own: 401, other: 401, host: 401, scene.master: 200, scene.key: 401},
        }
        for path, expected in opened.items():
            for shown, status in expected.items():
                headers = {"x-functions-key": shown} if shown else {}
                answer = await scene.http.get(path, headers=headers)
                assert answer.status_code == status, (path, answer.text)
            assert (await scene.http.get(path, params={"code": scene.master})).text == f"opened: {path}"
        # A page of another site changes nothing through it, whatever cookies the application has.
        foreign = await scene.http.post(
            "/shop/upload", content=b"x", headers={"origin": "https://elsewhere.example"}
        )
        assert foreign.status_code == 403
        assert (await scene.http.get("/shop/hello", headers={"host": "elsewhere.example"})).status_code == 421

    run(work, tmp_path)


def test_what_needs_a_key_is_recorded_and_what_it_has_changed(tmp_path: Path) -> None:
    app, told = App(), list[str]()

    @app.orchestrator
    async def order(ctx: OrchestrationContext, item: str) -> str:
        return item

    app.mount("/shop", fast(told))
    app.mount("/open", fast(told), auth_level="anonymous")
    log = tmp_path / "orders.db.audit"

    async def work(scene: Scene) -> None:
        headers, body = {"x-functions-key": scene.master}, {"item": "tea"}
        answers = [
            await scene.http.post("/shop/orders/7", json=body, headers=headers),
            await scene.http.post("/shop/orders/8", json=body),
            await scene.http.post("/shop/upload", content=b"x" * 3_001, headers=headers),
            await scene.http.put("/shop/breaks", headers=headers),
        ]
        assert (await scene.http.get("/shop/hello", headers=headers)).status_code == 200  # a read
        assert (await scene.http.post("/open/orders/9", json=body)).status_code == 202  # of nobody
        records = [json.loads(placed.raw) for placed in lines_of(log)]
        assert (
            [one["status"] for one in records] == [one.status_code for one in answers] == [202, 401, 413, 405]
        )
        assert [one["request"] for one in records] == [one.headers["x-request-id"] for one in answers]
        assert {one["action"] for one in records} == {"POST /shop/*", "PUT /shop/*"}
        assert {one["function"] for one in records} == {"shop"}
        assert records[0]["did"] == ["start 7"]

    run(work, tmp_path, app, max_body_bytes=3_000)


def test_an_answer_has_to_begin_in_time_and_may_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLY_FUNCTION_TIMEOUT_S", "0.2")
    app, cancelled = App(), asyncio.Event()

    async def never(_: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async def long(_: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes]:
            for _ in range(4):
                yield b"piece"
                await asyncio.sleep(0.1)  # the answer is longer than the limit

        return StreamingResponse(pieces())

    routes = [Route("/never", never), Route("/long", long)]
    app.mount("/slow", Starlette(routes=routes), auth_level="anonymous")

    async def work(scene: Scene) -> None:
        late = await scene.http.get("/slow/never")
        assert (late.status_code, late.json()["ExceptionType"]) == (504, "FunctionTimeoutError")
        assert cancelled.is_set()
        assert (await scene.http.get("/slow/long")).content == b"piece" * 4

    run(work, tmp_path, app)


def test_the_host_lists_what_is_mounted(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        found = (await scene.http.get("/admin/functions", headers={"x-functions-key": scene.master})).json()
        vault = next(one for one in found if one["name"] == "vault")
        assert (
            vault["config"]["bindings"][0] | {"route": "safe/{*path}", "authLevel": "admin"}
            == vault["config"]["bindings"][0]
        )
        assert f"any      {scene.url}/safe/*  (admin, vault)" in scene.server.routes
        assert f"any      {scene.url}/shop/*  (anonymous, shop)" in scene.server.routes

    run(work, tmp_path)


@pytest.mark.parametrize("path", ["/shop", "/old"])
def test_a_body_that_is_too_long_is_refused_whatever_the_application_says(tmp_path: Path, path: str) -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1_000

    async def work(scene: Scene) -> None:
        assert (await scene.http.post(f"{path}/upload", content=b"x" * 3_000)).text == "3000"
        assert (await scene.http.post(f"{path}/upload", content=pieces(3))).text == "3000"
        for body in (b"x" * 3_001, pieces(4)):
            refused = await scene.http.post(f"{path}/upload", content=body)
            assert (refused.status_code, refused.json()["ExceptionType"]) == (413, "PayloadTooLarge")

    run(work, tmp_path, max_body_bytes=3_000)


@pytest.mark.parametrize("path", ["/shop", "/old"])
def test_a_body_that_is_too_slow_is_refused(tmp_path: Path, path: str) -> None:
    async def work(scene: Scene) -> None:
        host, port = scene.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST {path}/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\nfew".encode())
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        writer.close()

    run(work, tmp_path, body_timeout_s=0.1)


def test_a_wsgi_application_never_takes_a_part_of_a_body_for_the_whole(tmp_path: Path) -> None:
    app, read, done = App(), list[int | str](), asyncio.Event()
    loop = None

    def site(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            read.append(len(environ["wsgi.input"].read()))
        except ConnectionError:
            read.append("left")
        loop.call_soon_threadsafe(done.set)
        start_response("200 OK", [])
        return [b""]

    app.mount_wsgi("/old", site, auth_level="anonymous")

    async def work(scene: Scene) -> None:
        nonlocal loop
        host, port = scene.url.removeprefix("http://").split(":")
        loop = asyncio.get_running_loop()
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST /old/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\nfew".encode())
        await writer.drain()
        writer.close()
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()

    run(work, tmp_path, app)
    assert read == ["left"]


def test_a_flask_application_asks_the_client_from_its_thread(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        placed = await scene.http.post("/old/orders/8", json={"item": "tea"})
        assert placed.json() == {"output": "one tea", "root": "/old", "path": "/orders/8"}
        many = await asyncio.gather(
            *(scene.http.post(f"/old/orders/n{number}", json={"item": "tea"}) for number in range(30))
        )
        assert {one.status_code for one in many} == {200}
        assert (await scene.http.get("/old/nothing")).status_code == 404

    run(work, tmp_path)


def test_what_an_application_raises_is_500_without_details(tmp_path: Path) -> None:
    app, _ = shop()

    async def careless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise AssertionError("it knows no lifespan")
        raise RuntimeError("out of paper")

    app.mount("/careless", careless, auth_level="anonymous")

    async def work(scene: Scene) -> None:
        for path in ("/careless", "/shop/breaks"):
            broken = await scene.http.get(path)
            assert broken.status_code == 500
            assert "paper" not in broken.text
        with pytest.raises(httpx.RemoteProtocolError):  # half an answer is no answer
            await scene.http.get("/shop/breaks-late")
        assert (await scene.http.get("/shop/hello")).status_code == 200

    run(work, tmp_path, app)


def test_requests_that_pass_count_as_outstanding(tmp_path: Path) -> None:
    app = App()
    here, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        here.set()
        await go.wait()
        return JSONResponse("done")

    app.mount("/slow", Starlette(routes=[Route("/", slow)]), auth_level="anonymous")

    async def work(scene: Scene) -> None:
        first = asyncio.create_task(scene.http.get("/slow/"))
        await here.wait()
        assert (await scene.http.get("/slow/")).status_code == 429
        go.set()
        assert (await first).json() == "done"

    run(work, tmp_path, app, max_outstanding_requests=1)


def test_an_application_at_the_root_gets_what_nothing_else_answers(tmp_path: Path) -> None:
    app = App()

    @app.route("mine", auth_level="anonymous")
    def mine() -> str:
        return "a function"

    app.mount("/", plain("root"), auth_level="anonymous")
    app.mount("/more", plain("more"), auth_level="anonymous")

    async def work(scene: Scene) -> None:
        for path, text in {
            "/": "root: /",
            "/any/thing": "root: /any/thing",
            "/api/mine": "a function",
            "/api/other": "root: /api/other",
            "/more/a": "more: /more/a",
            "/%6dore/a": "more: /more/a",  # it sees the path decoded: that decides who answers
            "/more%2Fa": "more: /more/a",
        }.items():
            assert (await scene.http.get(path)).text == text
        # What is the host's own stays its own, also where it has nothing.
        for path in (
            f"{BASE}/instances",
            f"{BASE}/nothing",
            "/api/v1/hub",
            "/api/v1/none",
            "/admin/none",
            "/runtime",
            "/ADMIN/x",
            "/%61dmin/x",
            "/admin%2Fx",
            "/api%2fv1/hub",
        ):
            assert (await scene.http.get(path)).status_code == 401, path

    run(work, tmp_path, app)


@pytest.mark.parametrize(
    "path",
    [
        "/runtime", "/runtime/webhooks/durabletask", "/api/v1", "/api/v1/mine", "/admin", "/Admin/x", "/durabletask",
        "shop", "", "/shop/", "//shop", "/a//b", "/../a", "/a/./b", "/a b", "/a%2fb", "/{name}", 7,
    ],
)  # fmt: skip
def test_paths_that_cannot_be(path: Any) -> None:
    with pytest.raises(RegistrationError, match=re.escape(f"Application at {path!r}")):
        App().mount(path, plain("x"))


def test_applications_that_cannot_be() -> None:
    app = App()
    app.mount("/shop", plain("x"))
    with pytest.raises(RegistrationError, match="mounted at '/shop' already"):
        app.mount("/shop", plain("y"))
    with pytest.raises(RegistrationError, match="another name= than 'shop'"):
        app.mount("/other", plain("y"), name="shop")
    with pytest.raises(RegistrationError, match=r"auth_level='nobody'"):
        app.mount("/level", plain("x"), auth_level="nobody")  # type: ignore[arg-type]
    with pytest.raises(RegistrationError, match=r"ASGI.*mount_wsgi\(\) is for WSGI"):
        app.mount("/old", lambda environ, start_response: [])
    with pytest.raises(RegistrationError, match=r"WSGI.*mount\(\) is for ASGI"):
        app.mount_wsgi("/new", plain("x"))
    with pytest.raises(RegistrationError, match="callable"):
        app.mount("/text", "module:app")  # type: ignore[arg-type]
    with pytest.raises(RegistrationError, match="threads=0"):
        app.mount_wsgi("/none", old(), threads=0)

    other = App()
    other.mount("/new", plain("z"))
    app.include(other)
    with pytest.raises(RegistrationError, match="'/new' already"):
        app.include(other)


def test_a_function_and_an_application_of_one_name_would_share_their_keys(tmp_path: Path) -> None:
    app = App()
    app.mount("/shop", plain("x"))
    app.route("other", name="shop")(lambda: "y")
    with pytest.raises(RegistrationError, match="both named 'shop'"):
        run(None, tmp_path, app)


def test_an_application_that_cannot_start_keeps_the_host_from_serving(tmp_path: Path) -> None:
    app, told = App(), list[str]()

    @asynccontextmanager
    async def fails(_: Any) -> AsyncIterator[None]:
        raise ValueError("no database")
        yield

    app.mount("/longer-path", fast(told))
    app.mount("/shop", Starlette(lifespan=fails))
    with pytest.raises(OperationError, match="application at '/shop' cannot start: ValueError: no database"):
        run(None, tmp_path, app)
    assert told == ["started", "stopped"]


def test_an_application_that_does_not_stop_is_given_up(tmp_path: Path) -> None:
    app = App()

    @asynccontextmanager
    async def stays(_: Any) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    app.mount("/shop", Starlette(lifespan=stays))

    async def work(scene: Scene) -> None: ...

    run(work, tmp_path, app, max_wait_s=0.05)


def test_an_app_is_served_again_after_it_was_stopped(tmp_path: Path) -> None:
    app, told = shop()

    async def main() -> None:
        async with app.host("memory://") as host:
            for _ in range(2):
                async with (
                    host.serve_http(HttpOptions(port=0, insecure=True)) as server,
                    httpx.AsyncClient() as http,
                ):
                    assert (await http.get(f"{server.url}/shop/hello")).status_code == 200
                    placed = await http.post(f"{server.url}/old/upload", content=b"abc")
                    assert placed.text == "3"

    asyncio.run(main())
    assert told == ["started", "stopped"] * 2


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RegistrationError, match=r"durably\[server,wsgi\]"):
        App().mount_wsgi("/old", old())


def test_a_client_is_for_requests_through_a_host() -> None:
    with pytest.raises(UsageError, match=r"App\.mount"):
        client_of(Request({"type": "http"}))


def test_a_path_in_other_letters_does_not_pass_by_the_level_of_its_application(tmp_path: Path) -> None:
    app = App()
    app.mount("/", plain("root"), auth_level="anonymous")
    app.mount("/locked", plain("opened"))

    async def work(scene: Scene) -> None:
        for path in ("/locked/a", "/%6cocked/a", "/locked%2fa"):
            assert (await scene.http.get(path)).status_code == 401, path

    run(work, tmp_path, app)


def test_an_application_that_gives_no_answer_is_a_500_that_is_recorded(tmp_path: Path) -> None:
    app = App()

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    app.mount("/silent", silent)

    async def work(scene: Scene) -> None:
        answer = await scene.http.post("/silent/x", headers={"x-functions-key": scene.master})
        assert answer.status_code == 500
        (one,) = [json.loads(placed.raw) for placed in lines_of(tmp_path / "orders.db.audit")]
        assert (one["status"], one["request"]) == (500, answer.headers["x-request-id"])

    run(work, tmp_path, app)


def test_what_an_application_calls_sig_is_no_business_of_the_host(tmp_path: Path) -> None:
    app = App()

    @app.route("hook", methods=["GET", "POST"])
    def hook(request: Request) -> str:
        return request.query_params["sig"]

    app.mount("/locked", plain("opened"))

    async def work(scene: Scene) -> None:
        code = {"code": scene.master, "sig": "theirs"}
        assert (await scene.http.post("/api/hook", params=code)).text == "theirs"
        assert (await scene.http.post("/locked/a", params=code)).text == "opened: /locked/a"
        assert (await scene.http.post("/api/hook", params={"sig": "theirs"})).status_code == 401
        seen = [json.loads(placed.raw) for placed in lines_of(tmp_path / "orders.db.audit")]
        assert [(one["status"], one.get("via", "")) for one in seen] == [
            (200, "key"),
            (200, "key"),
            (401, ""),
        ]

    run(work, tmp_path, app)


def test_an_application_in_a_thread_makes_links(tmp_path: Path) -> None:
    app = App()
    site = flask.Flask("links")

    @site.get("/<number>")
    def links(number: str) -> Any:
        environ = flask.request.environ
        client: DurableClient = environ["durably.client"]
        return client.create_http_management_payload(Request(environ["asgi.scope"]), number)

    app.mount_wsgi("/old", site, auth_level="anonymous")

    async def work(scene: Scene) -> None:
        for _ in range(2):
            made = await scene.http.get("/old/7")
            assert "sig=" in made.json()["statusQueryGetUri"], made.text

    run(work, tmp_path, app)
