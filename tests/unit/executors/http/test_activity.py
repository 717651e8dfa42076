"""The built-in activity in a host: token sources, what an app registers, and a host that lacks the library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from durably import (
    App,
    EngineOptions,
    HttpPolicy,
    NonRetryableError,
    OrchestrationContext,
    PayloadError,
    RegistrationError,
    TokenSource,
)
from durably.clock import SystemClock
from durably.errors import HttpRefusedError
from durably.program.http import HTTP_ACTIVITY
from tests.support.web import Said, Web

HERE = HttpPolicy(allow_networks=("127.0.0.1",))


async def perform(app: App, url: str, **more: Any) -> Any:
    return await app.http_activity(SystemClock()).perform({"method": "GET", "uri": url, **more})


# --- token sources ---------------------------------------------------------------------------------------------------


def app_with(*tokens: object) -> App:
    app = App(http=HERE)
    left = list(tokens)

    @app.token_source("t")
    async def source(resource: str | None) -> Any:
        return left.pop(0)

    return app


async def test_a_token_replaces_a_header_of_the_call() -> None:
    async with Web() as web:
        await perform(app_with("tok"), web.url(), headers={"authorization": "x"}, token_source={"name": "t"})
        assert web.requests[0].headers["authorization"] == "Bearer tok"


@pytest.mark.parametrize(
    "token", ["canary\r\nx: y", {"a b": "canary"}, {"a": 7}, {"a": "canary€"}, 7, None, b"canary"]
)
async def test_what_is_no_credential_is_refused_without_showing_it(token: object) -> None:
    async with Web() as web:
        with pytest.raises(PayloadError, match="Token source 't'") as raised:
            await perform(app_with(token), web.url(), token_source={"name": "t"})
        assert "canary" not in str(raised.value)
        assert web.requests == []


async def test_an_unknown_token_source_is_named_and_no_retry_helps() -> None:
    with pytest.raises(NonRetryableError, match=r"'other' is not registered in this host: expected one of t"):
        await perform(app_with(), "http://127.0.0.1/", token_source={"name": "other"})


async def test_the_address_is_checked_before_the_port_is_tried_and_after_the_token_is_known() -> None:
    with pytest.raises(HttpRefusedError):
        await perform(app_with("tok"), "http://127.0.0.2/", token_source={"name": "t"})


def test_token_sources_are_registered_once_as_coroutine_functions() -> None:
    app = App()

    async def one(resource: str | None) -> str:
        return ""

    async def two(resource: str | None) -> str:
        return ""

    assert app.token_source("a")(one) is one
    app.token_source("a")(one)
    with pytest.raises(RegistrationError, match="registered twice"):
        app.token_source("a")(two)
    with pytest.raises(RegistrationError, match="expected async def"):
        app.token_source("b")(lambda resource: "")  # type: ignore[arg-type, return-value]
    with pytest.raises(RegistrationError, match="expected a name"):
        app.token_source(" ")
    with pytest.raises(RegistrationError, match="expected a name"):
        app.token_source(one)  # type: ignore[arg-type] - the parentheses were forgotten


async def test_an_included_app_brings_its_token_sources() -> None:
    outer, inner = App(http=HERE), app_with("tok")
    outer.include(inner)
    async with Web() as web:
        await perform(outer, web.url(), token_source={"name": "t"})
        assert web.requests[0].headers["authorization"] == "Bearer tok"

    clashing = app_with("other")

    @clashing.activity
    def never() -> None: ...

    with pytest.raises(RegistrationError, match="'t' is registered in both apps"):
        outer.include(clashing)
    assert outer.registry.activity("never") is None  # all or nothing


# --- hosts -----------------------------------------------------------------------------------------------------------


def test_names_of_the_runtime_cannot_be_taken() -> None:
    with pytest.raises(RegistrationError, match="those of the runtime"):
        App().activity(name=HTTP_ACTIVITY)(lambda: None)


@pytest.mark.parametrize("unknown", ["fail", "wait"])
async def test_each_host_serves_the_built_in_activity(unknown: Any) -> None:
    app = App(http=HERE)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> int:
        return (await ctx.call_http("GET", url)).status_code

    options = EngineOptions(unknown_functions=unknown)
    async with Web() as web, app.host("memory://", options=options) as host:
        handle = await host.client.start(flow, web.url())
        assert await handle.result() == 200
    assert app.registry.names("activity") == []


@contextmanager
def without_httpx() -> Iterator[None]:
    rooms = [name for name in sys.modules if name.startswith("durably.executors.http.")]
    kept = {name: sys.modules.pop(name) for name in [*rooms, "httpx"] if name in sys.modules}
    sys.modules["httpx"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in [*rooms, "httpx"]:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


async def test_a_host_without_the_library_says_what_to_install() -> None:
    activity = App().http_activity(SystemClock())
    with without_httpx(), pytest.raises(NonRetryableError, match=r"'httpx'.*pip install 'durably\[http\]'"):
        await activity.perform({"method": "GET", "uri": "http://a.test/"})


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


async def test_no_file_of_a_hub_holds_a_token(tmp_path: Path) -> None:
    app = app_with("canary-1", "canary-2", "canary-3\n")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> list[int]:
        source = TokenSource("t", "visible-resource")
        first = await ctx.call_http("GET", url, token_source=source)
        try:
            await ctx.call_http("GET", url, token_source=source)
        except Exception:  # noqa: BLE001 - the last token cannot be sent
            return [first.status_code]
        return []

    def answer(asked: Any) -> Said:
        return Said(202, {"location": "/", "retry-after": "0"}) if len(web.requests) == 1 else Said()

    async with Web(answer) as web, app.host(f"sqlite:///{tmp_path}/hub.db") as host:
        handle = await host.client.start(flow, web.url())
        assert await handle.result() == [200]
        assert len(web.requests) == 2
        held = contents(tmp_path)
        assert b"visible-resource" in held
        assert b"canary" not in held
