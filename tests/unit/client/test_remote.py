"""A client over HTTP, and what else than a host of durably may answer it."""

from __future__ import annotations

import asyncio

import pytest

from durably.client.remote.client import HttpClient
from durably.errors import AccessDeniedError, HubSilentError, OperationError, UsageError
from tests.support.web import Said, Web


def asked(said: Said) -> tuple[Exception, Web]:
    """What a look at an instance raises when this is the answer."""

    async def run() -> tuple[Exception, Web]:
        async with Web(lambda _: said) as web, HttpClient(web.url("/base/"), "secret") as client:
            with pytest.raises((OperationError, UsageError)) as caught:
                await client.get_status("..")
            return caught.value, web

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "kind", "says"),
    [
        (Said(404, body=b"<h1>not here</h1>"), OperationError, "no host of durably"),
        (Said(200, body=b"<h1>hello</h1>"), OperationError, "expected JSON"),
        (Said(302, {"location": "http://127.0.0.1:1/"}), OperationError, "status 302"),
        (Said(502, body=b"bad gateway"), OperationError, "status 502"),
        (
            Said(403, body=b'{"Message": "The link is void"}'),
            AccessDeniedError,
            "The link is void. Give a key",
        ),
        (Said(400, body=b'{"Message": "no", "ExceptionType": "exit"}'), UsageError, "no"),
        (Said(raw=b""), HubSilentError, "whether it did what it was asked for"),
    ],
)
def test_other_answers_are_errors_that_say_so(said: Said, kind: type[Exception], says: str) -> None:
    error, web = asked(said)
    assert type(error) is kind
    assert says in str(error)
    assert len(web.requests) == 1


def test_the_key_travels_in_a_header_and_ids_are_escaped() -> None:
    _, web = asked(Said(500))
    assert web.requests[0].headers["x-functions-key"] == "secret"
    path = web.requests[0].path
    assert path == "/base/runtime/webhooks/durabletask/instances/%2E%2E?showInput=true"
