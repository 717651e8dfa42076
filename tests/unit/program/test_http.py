"""Durable HTTP as an orchestrator sees it: what is asked, when, and what is refused before it is."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Generator
from typing import Any

import msgspec
import pytest

from durably.codec.convert import JsonConverter
from durably.core.events import (
    ActionCanceled,
    CancelRequested,
    ExecutionCanceled,
    TaskScheduled,
    TimerCreated,
)
from durably.errors import UsageError
from durably.program.context import OrchestrationContext
from durably.program.http import (
    HTTP_ACTIVITY,
    DurableHttpResponse,
    HttpReply,
    HttpRequest,
    TokenSource,
    response_of,
)
from durably.program.run import ProgramOptions
from tests.unit.program.harness import T0, Play

URI = "https://a.test/x"
DONE = msgspec.to_builtins(HttpReply(DurableHttpResponse(200, {"a": "b"}, "yes")))


def later(after_s: float, path: str = "/poll") -> Any:
    return msgspec.to_builtins(HttpReply(None, HttpRequest("GET", f"https://a.test{path}"), after_s))


async def one(ctx: OrchestrationContext) -> str:
    return (await ctx.call_http("GET", URI)).content


def asked(play: Play) -> list[Any]:
    """The inputs of all requests."""
    return [
        msgspec.json.decode(event.input or b"") for event in play.history if isinstance(event, TaskScheduled)
    ]


# --- the future ------------------------------------------------------------------------------------------------------


def test_requests_and_timers_follow_each_other() -> None:
    play = Play(one)
    assert (play.open, asked(play)) == ([0], [{"method": "GET", "uri": URI}])
    made = play.complete(0, later(7))
    assert made == [TimerCreated(1, T0 + 8_000_000)]
    play.fire(1)
    assert asked(play)[1] == {"method": "GET", "uri": "https://a.test/poll"}
    play.complete(2, later(0, "/again"))
    play.fire(3)
    play.complete(4, DONE)
    assert play.result == "yes"


def test_a_call_acts_when_it_is_made() -> None:
    async def flow(ctx: OrchestrationContext) -> list[str]:
        first, second = ctx.call_http("GET", URI), ctx.call_http("GET", URI)
        await ctx.create_timer(1)
        return [(await call).content for call in (second, first)]

    play = Play(flow)
    assert play.open == [0, 1, 2]
    play.complete(1, DONE)
    play.complete(0, later(9))
    play.fire(2)
    play.fire(3)
    play.complete(4, DONE)
    assert play.result == ["yes", "yes"]


def test_generators_may_yield_a_call() -> None:
    def flow(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
        response = yield ctx.call_http("GET", URI)
        return response.content

    play = Play(flow)
    play.complete(0, later(1))
    play.fire(1)
    play.complete(2, DONE)
    assert play.result == "yes"


@pytest.mark.parametrize("waiting", [False, True])
def test_a_call_that_is_given_up_gives_up_what_is_open(waiting: bool) -> None:
    async def flow(ctx: OrchestrationContext) -> bool:
        call = ctx.call_http("GET", URI)
        await ctx.wait_for_external_event("stop")
        call.cancel()
        await ctx.create_timer(1)
        return call.cancelled() and not call.cancel()

    play = Play(flow)
    if waiting:
        play.complete(0, later(60))
    open_one = 2 if waiting else 0
    assert ActionCanceled(open_one) in play.event("stop")
    play.fire(3 if waiting else 2)
    assert play.result is True


def test_a_timeout_and_a_cancellation_reach_the_call() -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            async with asyncio.timeout(5):
                await ctx.call_http("GET", URI)
        except TimeoutError:
            await ctx.call_http("DELETE", URI)
        return "?"

    play = Play(flow)
    play.fire(0)
    play.send(CancelRequested("enough"))
    assert isinstance(play.outcome, ExecutionCanceled)
    assert [event.seq for event in play.history if isinstance(event, ActionCanceled)] == [1, 2]


def test_polling_counts_as_actions_of_the_execution() -> None:
    play = Play(one, options=ProgramOptions(actions_max=4))
    play.complete(0, later(1))
    play.fire(1)
    play.complete(2, later(1))
    play.fire(3)
    assert "more than 4 actions" in play.failed.message


def test_a_reply_of_an_unknown_form_fails_the_call() -> None:
    play = Play(one)
    play.complete(0, {"response": 7})
    assert play.failed.type == "ValidationError"


# --- the request -----------------------------------------------------------------------------------------------------


def request(*arguments: Any, **options: Any) -> Any:
    """The stored request of a call."""

    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.call_http(*arguments, **options)

    return asked(Play(flow))[0]


def test_the_stored_form_is_frozen() -> None:
    """Histories hold it: a change here strands requests that are on their way."""
    assert request(
        "post",
        URI,
        b"\xff",
        {"X-A": "1"},
        TokenSource("t", "r"),
        asynchronous_pattern_enabled=False,
        poll_interval=1.5,
        retry_status_codes=[503],
    ) == {
        "method": "POST",
        "uri": URI,
        "headers": {"x-a": "1"},
        "content": "/w==",
        "is_base64": True,
        "token_source": {"name": "t", "resource": "r"},
        "polls": False,
        "poll_interval_s": 1.5,
        "retry_status_codes": [503],
    }
    assert later(1.5) == {"next": {"method": "GET", "uri": "https://a.test/poll"}, "after_s": 1.5}
    assert DONE == {
        "response": {"status_code": 200, "headers": {"a": "b"}, "content": "yes", "is_base64": False}
    }
    assert HTTP_ACTIVITY == "BuiltIn::HttpActivity"


@pytest.mark.parametrize(
    ("content", "stored", "kind"),
    [
        ({"a": [1, None]}, '{"a":[1,null]}', "application/json"),
        (7, "7", "application/json"),
        ("text", "text", None),
        (b"", "", None),
        (None, "", None),
    ],
)
def test_content_is_text_bytes_or_json(content: Any, stored: str, kind: str | None) -> None:
    found = request("POST", URI, content)
    assert found.get("content", "") == stored
    assert found.get("headers", {}).get("content-type") == kind


def test_a_content_type_that_was_given_stays() -> None:
    found = request("POST", URI, {"a": 1}, {"Content-Type": "application/vnd.a+json"})
    assert found["headers"] == {"content-type": "application/vnd.a+json"}


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("GET POST", URI), {}, "HTTP method is 'GET POST'"),
        (("CONNECT", URI), {}, "HTTP method"),
        ((None, URI), {}, "HTTP method"),
        (("GET", "/relative"), {}, "expected an absolute one"),
        (("GET", "ftp://a.test"), {}, "expected an absolute one"),
        (("GET", None), {}, "expected an absolute one"),
        (("GET", URI, None, {"a b": "c"}), {}, "HTTP header 'a b'"),
        (("GET", URI, None, {"": "c"}), {}, "no name"),
        (("GET", URI, None, {"a": "canary\r\nb: c"}), {}, "value that cannot be sent"),
        (("GET", URI, None, {"a": " canary"}), {}, "no space around it"),
        (("GET", URI, None, {"a": "canary€"}), {}, "value that cannot be sent"),
        (("GET", URI, None, {"a": 1}), {}, "value that cannot be sent"),
        (("GET", URI, None, {"Host": "b.test"}), {}, "follows from the URI"),
        (("GET", URI, None, {"content-length": "1"}), {}, "follows from the URI"),
        (("GET", URI, None, ["a"]), {}, "expected a mapping"),
        (("GET", URI), {"token_source": 7}, "expected a TokenSource"),
        (("GET", URI), {"retry_status_codes": 503}, None),
        (("GET", URI), {"retry_status_codes": ["503"]}, "status codes such as 503"),
        (("GET", URI), {"retry_status_codes": [5030]}, "status codes such as 503"),
        (("GET", URI), {"poll_interval": -1}, "poll_interval"),
        (("GET", URI), {"timeout": 0}, "timeout"),
        (("GET", URI), {"retry": 3}, "expected a RetryPolicy"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_the_orchestrator(
    arguments: Any, options: Any, message: str | None
) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            ctx.call_http(*arguments, **options)
        except UsageError as error:
            return str(error)
        return "taken"

    found = Play(flow).result
    assert found == "taken" if message is None else message in found
    assert "canary" not in found


# --- the response ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "content"),
    [
        ("", b"", ""),
        ("text/plain", "grün".encode(), "grün"),
        ("text/plain; charset=ISO-8859-1", "grün".encode("latin-1"), "grün"),
        ('text/plain; charset="utf-8"', "grün".encode(), "grün"),
        ("text/plain; charset=utf-8", b"\xff\x00", None),
        ("text/plain; charset=utf-16", "grün".encode("utf-16"), None),
        ("text/plain; charset=unicode_escape", rb"\n", None),
        ("text/plain; charset", b"a", "a"),
        ("image/png", bytes(range(256)), None),
    ],
)
def test_a_body_is_text_or_base64_and_never_lost(kind: str, body: bytes, content: str | None) -> None:
    found = response_of(200, {"content-type": kind}, body)
    assert found.body == body
    assert found.content == (base64.b64encode(body).decode() if content is None else content)
    assert found.is_base64 is (content is None)


def test_a_response_is_plain_data() -> None:
    converter = JsonConverter()
    found = response_of(404, {"content-type": "image/png"}, b"\xff\xfe")
    assert converter.decode(converter.encode(found), DurableHttpResponse) == found


def test_a_body_may_be_json() -> None:
    assert response_of(200, {}, b'\xef\xbb\xbf{"a": 1}').json() == {"a": 1}
    for wrong in (b"no", b"", b"[" * 100_000, b"\xff"):
        with pytest.raises((ValueError, RecursionError)):
            response_of(200, {}, wrong).json()
