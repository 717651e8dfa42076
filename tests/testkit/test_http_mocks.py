"""HTTP services in the test kit: canned answers, behind the redirects, polls and retries of the real activity."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durably import (
    App,
    HttpRequestError,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    TokenSource,
    UsageError,
)
from durably.testing import MockOrchestrationContext

app = App()

BANK = "https://bank.example/accounts"


@app.orchestrator
async def ask(ctx: OrchestrationContext, url: str) -> Any:
    answer = await ctx.call_http("POST", url, {"amount": 3}, token_source=TokenSource("vault"))
    return [answer.status_code, answer.json()]


@app.orchestrator
async def insist(ctx: OrchestrationContext, url: str) -> str:
    policy = RetryPolicy(timedelta(minutes=1), max_number_of_attempts=3)
    return (await ctx.call_http("GET", url, retry=policy, retry_status_codes=(503,))).content


async def test_a_service_is_mocked_with_json(durable_env: Any) -> None:
    async with durable_env(app) as env:
        mock = env.mock_http(BANK, method="post", status=201, json={"id": 7})
        assert await env.run(ask, f"{BANK}?test=1") == [201, {"id": 7}]
        (request,) = mock.calls
        assert (request.method, request.url, request.json()) == ("POST", f"{BANK}?test=1", {"amount": 3})
        assert request.headers["authorization"] == "Bearer token of vault"
        assert request.headers["content-type"] == "application/json"


async def test_a_long_operation_is_polled_on_virtual_time(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.mock_http(BANK, status=202, headers={"Location": "/jobs/7", "Retry-After": "3600"})
        job = env.mock_http(
            "https://bank.example/jobs/*", status=202, headers={"Location": "/jobs/7"}, times=2
        )
        env.mock_http("https://bank.example/jobs/7", json="done")
        began = env.now
        assert await env.run(ask, BANK) == [200, "done"]
        assert [request.method for request in job.calls] == ["GET", "GET"]
        assert env.now - began >= timedelta(hours=1)


async def test_redirects_are_followed_without_credentials_of_others(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.mock_http(BANK, status=307, headers={"Location": "https://other.example/x"})
        other = env.mock_http(lambda request: request.url.startswith("https://other"), json=1)
        assert await env.run(ask, BANK) == [200, 1]
        assert "authorization" not in other.calls[0].headers


async def test_chosen_answers_and_lost_connections_are_retried(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.mock_http(BANK, status=503, times=1)
        env.mock_http(BANK, raises=HttpRequestError("no line"), times=1)
        env.mock_http(BANK, content="at last", delay=30)
        began = env.now
        assert await env.run(insist, BANK) == "at last"
        assert env.now - began == timedelta(minutes=2, seconds=30)


async def test_what_is_not_mocked_fails_and_reaches_no_service(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.mock_http("https://elsewhere.example/*")
        with pytest.raises(
            OrchestrationFailedError, match=r"GET 'https://bank.example/accounts' is not mocked"
        ):
            await env.run(insist, BANK)


def test_an_orchestrator_alone_calls_a_service() -> None:
    ctx = MockOrchestrationContext()
    ctx.mock_http(BANK, status=503, times=2)
    mock = ctx.mock_http(BANK, content=b"paid", delay=10)
    began = ctx.now
    assert ctx.run(insist, BANK) == "paid"
    assert (ctx.now - began, len(mock.calls)) == (timedelta(minutes=2, seconds=10), 1)
    with pytest.raises(OrchestrationFailedError, match="is not mocked"):
        MockOrchestrationContext().run(insist, BANK)


def test_a_mock_that_contradicts_itself_is_refused() -> None:
    ctx = MockOrchestrationContext()
    with pytest.raises(UsageError, match="json and content"):
        ctx.mock_http(BANK, json=1, content="1")
    with pytest.raises(UsageError, match="status of the mock of an HTTP service is 99"):
        ctx.mock_http(BANK, status=99)
    with pytest.raises(UsageError, match="times of the mock of an HTTP service is 0"):
        ctx.mock_http(BANK, times=0)
