"""FEATURES 4.11: durable HTTP, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    App,
    AppHost,
    DurableHttpResponse,
    EngineOptions,
    HttpPolicy,
    HttpRefusedError,
    HttpRequestError,
    HttpStatusError,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
    TaskTimeoutError,
    TokenSource,
)
from tests.support.clock import START, ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet, reaches
from tests.support.web import Asked, Said, Web

HERE = HttpPolicy(allow_networks=("127.0.0.1",))

THREE_TIMES = RetryPolicy(first_retry_interval=5, max_number_of_attempts=3)


def caller(http: HttpPolicy | None = HERE) -> App:
    """An app whose "call" makes one call with the arguments in its input."""
    app = App(http=http)

    @app.orchestrator
    async def call(ctx: OrchestrationContext, arguments: dict[str, Any]) -> DurableHttpResponse:
        return await ctx.call_http(**arguments)

    return app


def get(url: str, **more: Any) -> dict[str, Any]:
    return {"method": "GET", "uri": url, **more}


async def failure_of(host: AppHost, instance_id: str) -> Any:
    status = await host.client.wait_for_completion(instance_id)
    assert status.runtime_status == "Failed", status
    assert status.failure is not None
    return status.failure


async def asked(web: Web, count: int) -> Asked:
    """The request of that number, once it has come."""
    await eventually(lambda: len(web.requests) >= count, f"request {count}")
    return web.requests[count - 1]


class Operation:
    """A long operation: 202 so often, then 200."""

    def __init__(self, polls: int, **headers: str) -> None:
        self.left = polls
        self.headers = {"location": "/status/1", **{name.replace("_", "-"): v for name, v in headers.items()}}

    def __call__(self, asked: Asked) -> Said:
        self.left -= 1
        if self.left >= 0:
            return Said(202, self.headers, b"accepted")
        return Said(200, {"content-type": "application/json"}, b'{"done": true}')


async def poll_waits(host: AppHost, instance_id: str, count: int = 1) -> None:
    """So many waits between polls have begun, and nothing else is to be done."""
    await has_event(host, instance_id, "TimerCreated", count)
    await is_quiet(host)


# --- 1: polling ------------------------------------------------------------------------------------------------------


async def test_4_11_1_a_202_is_polled_with_get_and_the_headers_but_the_functions_key(
    hub: Deployment, clock: ManualClock
) -> None:
    headers = {"X-Functions-Key": "k", "Authorization": "Bearer t", "X-Tenant": "7"}
    async with Web(Operation(2, retry_after="7")) as web, hub.host(caller(), clock=clock) as host:
        arguments = {"method": "post", "uri": web.url("/begin"), "content": {"n": 1}, "headers": headers}
        handle = await host.client.start("call", arguments, instance_id="i")
        first = await asked(web, 1)
        assert (first.method, first.path, first.body) == ("POST", "/begin", b'{"n":1}')
        assert first.headers["content-type"] == "application/json"
        assert first.headers["x-functions-key"] == "k"
        for count in (1, 2):
            await poll_waits(host, "i", count)
            clock.advance(timedelta(seconds=7) - timedelta(microseconds=1))
            await is_quiet(host)
            assert len(web.requests) == count
            clock.advance(timedelta(microseconds=1))
            poll = await asked(web, count + 1)
            assert (poll.method, poll.path, poll.body) == ("GET", "/status/1", b"")
            assert poll.headers["authorization"] == "Bearer t"
            assert poll.headers["x-tenant"] == "7"
            assert "x-functions-key" not in poll.headers
            assert "content-type" not in poll.headers
        result: Any = await handle.result()
        assert (result.status_code, result.json()) == (200, {"done": True})


@pytest.mark.parametrize(
    ("policy", "interval", "seconds"),
    [
        pytest.param({}, None, 30, id="default"),
        pytest.param({"poll_interval_s": 3.0}, None, 3, id="of the policy"),
        pytest.param({"poll_interval_s": 3.0}, 5, 5, id="of the call"),
    ],
)
async def test_4_11_1_without_retry_after_the_configured_interval_counts(
    memory: Deployment, clock: ManualClock, policy: dict[str, float], interval: float | None, seconds: float
) -> None:
    app = caller(HttpPolicy(allow_networks=("127.0.0.1",), **policy))  # type: ignore[arg-type]
    async with Web(Operation(1)) as web, memory.host(app, clock=clock) as host:
        handle = await host.client.start("call", get(web.url(), poll_interval=interval), instance_id="i")
        await poll_waits(host, "i")
        clock.advance(seconds - 0.001)
        await is_quiet(host)
        assert len(web.requests) == 1
        clock.advance(0.001)
        assert (await handle.result()).status_code == 200


async def test_4_11_1_a_crash_in_the_middle_of_polling_asks_nothing_twice(
    hub: Deployment, clock: ManualClock
) -> None:
    app = caller()
    async with Web(Operation(2, retry_after="10")) as web:
        host = await hub.start(app, clock=clock)
        await host.client.start("call", get(web.url("/begin")), instance_id="i")
        await poll_waits(host, "i", 1)
        clock.advance(4)
        host = await hub.recover(host, app, clock=clock)
        await is_quiet(host)
        clock.advance(5.9)
        await is_quiet(host)
        assert len(web.requests) == 1
        clock.advance(0.1)  # the wait goes on over the crash
        await poll_waits(host, "i", 2)
        host = await hub.recover(host, app, clock=clock)
        clock.advance(10)
        status = await host.client.wait_for_completion("i")
        assert status.runtime_status == "Completed"
        assert [one.path for one in web.requests] == ["/begin", "/status/1", "/status/1"]


async def test_4_11_1_a_crash_during_a_request_makes_it_again(hub: Deployment) -> None:
    app = caller()
    holds = asyncio.Event()

    async def answer(asked: Asked) -> Said:
        if len(web.requests) == 1:
            await holds.wait()
        return Said(body=b"second")

    async with Web(answer) as web:
        host = await hub.start(app)
        await host.client.start("call", get(web.url()), instance_id="i")
        await asked(web, 1)
        host = await hub.recover(host, app)
        result = (await host.client.wait_for_completion("i")).output
        assert result["content"] == "second"
        assert len(web.requests) == 2


# --- 2: location, dates, and when not --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("status/2?x=1", "/jobs/status/2?x=1"),
        ("../up", "/up"),
        ("//{host}/net", "/net"),
        ("{url}", "/absolute"),
    ],
)
async def test_4_11_2_a_location_is_resolved(memory: Deployment, location: str, path: str) -> None:
    def answer(asked: Asked) -> Said:
        if asked.path != "/jobs/begin":
            return Said(200)
        return Said(
            202,
            {
                "location": location.format(host=f"127.0.0.1:{web.port}", url=web.url("/absolute")),
                "retry-after": "0",
            },
        )

    async with Web(answer) as web, memory.host(caller()) as host:
        handle = await host.client.start("call", get(web.url("/jobs/begin")))
        assert (await handle.result()).status_code == 200
        assert [one.path for one in web.requests] == ["/jobs/begin", path]


@pytest.mark.parametrize(
    "date",
    [
        pytest.param("Sun, 01 Mar 2026 08:00:00 GMT", id="by the clock of the server"),
        pytest.param(None, id="by ours, without a date"),
    ],
)
async def test_4_11_2_retry_after_may_be_a_date(
    memory: Deployment, clock: ManualClock, date: str | None
) -> None:
    due = (
        "Sun, 01 Mar 2026 08:00:40 GMT"
        if date
        else f"{START + timedelta(seconds=40):%a, %d %b %Y %H:%M:%S GMT}"
    )
    operation = Operation(1, retry_after=due, **({"date": date} if date else {}))
    async with Web(operation) as web, memory.host(caller(), clock=clock) as host:
        handle = await host.client.start("call", get(web.url()), instance_id="i")
        await poll_waits(host, "i")
        clock.advance(39.9)
        await is_quiet(host)
        assert len(web.requests) == 1
        clock.advance(0.1)
        assert (await handle.result()).status_code == 200


async def test_4_11_2_a_202_without_location_is_returned(memory: Deployment) -> None:
    async with (
        Web(lambda asked: Said(202, {"Retry-After": "1"}, b"ok")) as web,
        memory.host(caller()) as host,
    ):
        handle = await host.client.start("call", get(web.url()))
        result: Any = await handle.result()
        assert (result.status_code, result.content, result.headers["retry-after"]) == (202, "ok", "1")


async def test_4_11_2_polling_can_be_switched_off(memory: Deployment) -> None:
    async with Web(Operation(1)) as web, memory.host(caller()) as host:
        handle = await host.client.start("call", get(web.url(), asynchronous_pattern_enabled=False))
        result: Any = await handle.result()
        assert (result.status_code, result.headers["location"]) == (202, "/status/1")


# --- 3: waiting ------------------------------------------------------------------------------------------------------


async def test_4_11_3_who_waits_occupies_no_worker_and_no_memory(hub: Deployment, clock: ManualClock) -> None:
    left: dict[str, int] = {}

    def answer(asked: Asked) -> Said:
        name = asked.path.rpartition("/")[2]
        left[name] = left.get(name, 2) - 1
        return Said(202, {"location": f"/status/{name}"}) if left[name] > 0 else Said(body=name.encode())

    options = EngineOptions(max_concurrent_activities=1, max_resident_instances=1)
    async with Web(answer) as web, hub.host(caller(), clock=clock, options=options) as host:
        handles = [
            await host.client.start("call", get(web.url(f"/{n}")), instance_id=f"i{n}") for n in range(10)
        ]
        for n in range(10):
            await has_event(host, f"i{n}", "TimerCreated")
        await is_quiet(host)
        assert len(web.requests) == 10  # ten wait at the same time, with a place for one
        assert host.engine.partition is not None
        assert len(host.engine.partition.residents) < 10
        clock.advance(30)
        results: list[Any] = [await handle.result() for handle in handles]
        assert [one.content for one in results] == [str(n) for n in range(10)]


async def test_4_11_3_a_wait_can_be_given_up(hub: Deployment, clock: ManualClock) -> None:
    app = App(http=HERE)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> str:
        try:
            async with asyncio.timeout(45):
                await ctx.call_http("GET", url)
        except TimeoutError:
            return "given up"
        return "?"

    async with Web(Operation(9)) as web, hub.host(app, clock=clock) as host:
        handle = await host.client.start(flow, web.url(), instance_id="i")
        await poll_waits(host, "i", 2)  # one of them is the time-out
        clock.advance(30)
        await poll_waits(host, "i", 3)
        clock.advance(15)
        assert await handle.result() == "given up"
        assert [entry.event_type for entry in await handle.history()].count("TimerCanceled") == 1
        assert len(web.requests) == 2


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_4_11_3_a_call_ends_with_its_instance(hub: Deployment, how: str) -> None:
    gone = asyncio.Event()

    async def answer(asked: Asked) -> Said:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return Said()

    async with hub.host(caller()) as host:
        async with Web(answer) as web:
            handle = await host.client.start("call", get(web.url(), timeout=None), instance_id="i")
            await asked(web, 1)
            await getattr(handle, how)()
            await reaches(host, "i", "Canceled" if how == "cancel" else "Terminated")
        await gone.wait()


async def test_4_11_3_calls_are_futures_like_all_others(memory: Deployment) -> None:
    app = App(http=HERE)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> list[str]:
        calls = [ctx.call_http("GET", f"{url}{n}") for n in range(3)]
        first, second, third = await asyncio.gather(*calls)
        winner = await ctx.when_any([ctx.call_http("GET", f"{url}w"), ctx.wait_for_external_event("never")])
        return [first.content, second.content, third.content, (await winner).content]

    async with Web(lambda asked: Said(body=asked.path.encode())) as web, memory.host(app) as host:
        handle = await host.client.start(flow, web.url())
        assert await handle.result() == ["/0", "/1", "/2", "/w"]


# --- 4: credentials --------------------------------------------------------------------------------------------------

SECRETS = {
    "Authorization": "Bearer canary-a",
    "Cookie": "session=canary-b",
    "X-Functions-Key": "canary-c",
    "X-Api-Key": "canary-d",
    "Proxy-Authorization": "canary-e",
    "Accept": "text/plain",
}


@asynccontextmanager
async def two_origins(status: int) -> AsyncIterator[tuple[Web, Web]]:
    """One that sends to the other, which sends back to the first."""
    async with Web() as home, Web() as other:
        away = {"location": other.url("/away"), "retry-after": "0"}
        home.answers = lambda asked: Said(status, away) if asked.path == "/" else Said(body=b"home again")
        back = {"location": home.url("/back"), "retry-after": "0"}
        other.answers = lambda asked: Said(status, back)
        yield home, other


@pytest.mark.parametrize("status", [202, 302, 303, 307, 308])
async def test_4_11_4_credentials_never_follow_to_another_origin(hub: Deployment, status: int) -> None:
    app = caller()
    tokens: list[str | None] = []

    @app.token_source("entra")
    async def entra(resource: str | None) -> str:
        tokens.append(resource)
        return f"canary-token-{resource}"

    async with two_origins(status) as (home, other), hub.host(app) as host:
        arguments = get(home.url(), headers=SECRETS, token_source="entra")
        result: Any = await (await host.client.start("call", arguments)).result()
        assert result.content == "home again"
        first, away, back = home.requests[0], other.requests[0], home.requests[1]
        assert first.headers["authorization"] == "Bearer canary-token-None"
        for request in (away, back):  # also not when another origin sends it back with a URL of its choice
            assert "canary" not in repr(request)
            assert request.headers["accept"] == "text/plain"
        assert tokens == [None]


async def test_4_11_4_a_token_is_asked_for_each_request_and_is_in_no_history(
    hub: Deployment, clock: ManualClock
) -> None:
    app = App(http=HERE)
    given: list[str] = []

    @app.token_source("vault")
    async def vault(resource: str | None) -> dict[str, str]:
        given.append(f"canary-{resource}-{len(given)}")
        return {"X-Api-Key": given[-1]}

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> int:
        source = TokenSource("vault", resource="db")
        return (await ctx.call_http("GET", url, token_source=source)).status_code

    async with Web(Operation(1)) as web, hub.host(app, clock=clock) as host:
        handle = await host.client.start(flow, web.url(), instance_id="i")
        await poll_waits(host, "i")
        clock.advance(30)
        assert await handle.result() == 200
        assert [one.headers["x-api-key"] for one in web.requests] == ["canary-db-0", "canary-db-1"]
        assert "canary" not in repr(await handle.history())


# --- 5: failures and statuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 304, 400, 404, 409, 429, 500, 503])
async def test_4_11_5_other_statuses_are_returned(memory: Deployment, status: int) -> None:
    async with Web(lambda asked: Said(status)) as web, memory.host(caller()) as host:
        handle = await host.client.start("call", get(web.url()))
        assert (await handle.result()).status_code == status
        assert len(web.requests) == 1


def failing(kind: str) -> Said:
    return {
        "hangs up": Said(raw=b""),
        "is no HTTP": Said(raw=b"220 mail.test ESMTP\r\n\r\n"),
        "hangs up in the middle": Said(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        "endless headers": Said(raw=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000),
    }[kind]


@pytest.mark.parametrize("kind", ["hangs up", "is no HTTP", "hangs up in the middle", "endless headers"])
async def test_4_11_5_transport_errors_can_be_caught(memory: Deployment, kind: str) -> None:
    app = App(http=HERE)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> str:
        try:
            await ctx.call_http("GET", url)
        except TaskFailedError as error:
            return error.details.message if error.details.is_caused_by(HttpRequestError) else repr(error)
        return "?"

    async with Web(lambda asked: failing(kind)) as web, memory.host(app) as host:
        message = await (await host.client.start(flow, web.url("/p?code=canary"))).result()
        assert message.startswith(f"GET '{web.url('/p')}' got no answer: ")
        assert "canary" not in message


async def test_4_11_5_a_closed_port_is_a_transport_error_that_is_tried_again(
    memory: Deployment, clock: ManualClock
) -> None:
    async with Web() as web:
        url = web.url()
    app = App(http=HERE)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.call_http("GET", url, retry=THREE_TIMES)

    async with memory.host(app, clock=clock) as host:
        await host.client.start(flow, instance_id="i")
        for count in (1, 2):
            await has_event(host, "i", "TaskAttemptFailed", count)
            await is_quiet(host)
            clock.advance(5)
        failure = await failure_of(host, "i")
        assert failure.is_caused_by(HttpRequestError)
        assert "ConnectError" in failure.message


async def test_4_11_5_a_timeout_is_a_timeout_error(hub: Deployment, clock: ManualClock) -> None:
    app = App(http=HERE)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> str:
        try:
            await ctx.call_http("GET", url, timeout=300)
        except TaskTimeoutError:  # also a TimeoutError
            return "timed out"
        return "?"

    async def answer(asked: Asked) -> Said:
        await asyncio.Event().wait()
        return Said()

    async with Web(answer) as web, hub.host(app, clock=clock) as host:
        handle = await host.client.start(flow, web.url(), instance_id="i")
        await asked(web, 1)
        clock.advance(299)
        await is_quiet(host)
        await reaches(host, "i", "Running")
        clock.advance(1)
        assert await handle.result() == "timed out"


async def test_4_11_5_statuses_of_the_retry_list_are_tried_again(hub: Deployment, clock: ManualClock) -> None:
    app = App(http=HERE)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> int:
        return (await ctx.call_http("GET", url, retry=THREE_TIMES, retry_status_codes={503, 429})).status_code

    statuses = [503, 429, 200]
    async with (
        Web(lambda asked: Said(statuses[len(web.requests) - 1])) as web,
        hub.host(app, clock=clock) as host,
    ):
        handle = await host.client.start(flow, web.url(), instance_id="i")
        for count in (1, 2):
            await asked(web, count)
            await has_event(host, "i", "TaskAttemptFailed", count)
            await is_quiet(host)
            clock.advance(5)
        assert await handle.result() == 200


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        pytest.param({"retry-after": "60"}, 60, id="seconds"),
        pytest.param({"retry-after": "2"}, 5, id="sooner than the policy"),
        pytest.param(
            {"retry-after": "Sun, 01 Mar 2026 10:01:00 GMT", "date": "Sun, 01 Mar 2026 10:00:00 GMT"},
            60,
            id="date",
        ),
        pytest.param({"retry-after": "soon"}, 5, id="nonsense"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_4_11_5_a_retry_comes_no_sooner_than_the_service_wants(
    memory: Deployment, clock: ManualClock, status: int, said: dict[str, str], waited: float
) -> None:
    app = App(http=HERE)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> int:
        return (await ctx.call_http("GET", url, retry=THREE_TIMES, retry_status_codes={503, 429})).status_code

    async with (
        Web(lambda asked: Said(status, said) if len(web.requests) == 1 else Said(200)) as web,
        memory.host(app, clock=clock) as host,
    ):
        handle = await host.client.start(flow, web.url(), instance_id="i")
        await has_event(host, "i", "TaskAttemptFailed")
        await is_quiet(host)
        clock.advance(timedelta(seconds=waited) - timedelta(microseconds=1))
        await is_quiet(host)
        assert len(web.requests) == 1
        clock.advance(timedelta(microseconds=1))
        assert await handle.result() == 200


async def test_4_11_5_a_service_that_wants_to_be_left_alone_too_long_is_given_up(memory: Deployment) -> None:
    app = App(http=HERE)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, url: str) -> None:
        policy = RetryPolicy(0.01, max_number_of_attempts=9, retry_timeout=timedelta(hours=1))
        await ctx.call_http("GET", url, retry=policy, retry_status_codes={429})

    async with (
        Web(lambda asked: Said(429, {"retry-after": "3601"})) as web,
        memory.host(app) as host,
    ):
        await host.client.start(flow, web.url(), instance_id="i")
        assert (await failure_of(host, "i")).is_caused_by(HttpStatusError)
        assert len(web.requests) == 1


async def test_4_11_5_statuses_of_the_retry_list_are_raised_in_the_end(memory: Deployment) -> None:
    async with Web(lambda asked: Said(503)) as web, memory.host(caller()) as host:
        await host.client.start(
            "call", get(web.url("/x?code=canary"), retry_status_codes=[503]), instance_id="i"
        )
        failure = await failure_of(host, "i")
        assert failure.is_caused_by(HttpStatusError)
        assert "503" in failure.message
        assert "canary" not in failure.message


# --- the policy, on every hop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [None, 202, 302, 307])
async def test_4_11_4_s08_each_hop_is_subject_to_the_policy(memory: Deployment, status: int | None) -> None:
    """The server lives at an address that is allowed, what it points to does not."""
    async with Web() as web, memory.host(caller()) as host:
        forbidden = f"http://127.0.0.2:{web.port}/metadata"
        if status is not None:
            web.answers = lambda asked: Said(status, {"location": forbidden, "retry-after": "0"})
        url = forbidden if status is None else web.url()
        await host.client.start("call", get(url), instance_id="i")
        failure = await failure_of(host, "i")
        assert failure.is_caused_by(HttpRefusedError)
        assert "127.0.0.2" in failure.message
        assert "allow_networks" in failure.message
        assert [one.path for one in web.requests] == ([] if status is None else ["/"])


async def test_4_11_4_s08_redirects_end(memory: Deployment) -> None:
    async with Web(lambda asked: Said(302, {"location": "/again"})) as web, memory.host(caller()) as host:
        await host.client.start("call", get(web.url()), instance_id="i")
        assert (await failure_of(host, "i")).is_caused_by(HttpRefusedError)
        assert len(web.requests) == 11


async def test_4_11_4_s08_by_default_this_machine_is_not_reachable(
    memory: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Web() as web:
        async with memory.host(caller(None)) as host:
            await host.client.start("call", get(web.url()), instance_id="i")
            assert (await failure_of(host, "i")).is_caused_by(HttpRefusedError)
        monkeypatch.setenv("DURABLY_HTTP_ALLOW_NETWORKS", "10.0.0.0/8, 127.0.0.0/8")
        async with memory.host(caller(None)) as host:
            handle = await host.client.start("call", get(web.url()))
            assert (await handle.result()).status_code == 200
