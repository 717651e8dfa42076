"""A client over HTTP, and what else than a host of durably may answer it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durably.client import Client
from durably.client.remote import api
from durably.client.remote.api import HostApi
from durably.client.remote.client import HttpClient
from durably.client.remote.following import Following
from durably.client.remote.streams import instance_events
from durably.client.remote.v1 import V1Api
from durably.errors import (
    AccessDeniedError,
    HubSilentError,
    OperationError,
    StoreUnavailableError,
    UsageError,
)
from tests.support.web import Asked, Said, Web

HUB = Said(body=b'{"isServed": true}')
PEM = Path(__file__).parent.parent / "executors" / "http" / "service_test.pem"
NO_V1 = Said(404, body=b"<h1>not here</h1>")
HELD = {"retry-after": "0"}
GONE = Said(404, body=b'{"type": "urn:durably:problem:InstanceNotFoundError"}')


def asked(*said: Said, change: bool = False) -> tuple[Exception | None, Web]:
    """What becomes of a look at an instance, or of a change, with these answers; the last one stays."""
    answers = iter(said)

    def answer(_: Asked) -> Said:
        return next(answers, said[-1])

    async def run() -> tuple[Exception | None, Web]:
        async with Web(answer) as web, HttpClient(web.url("/base/"), key="secret") as client:
            try:
                await (client.suspend("..") if change else client.get_status(".."))
            except (OperationError, UsageError) as error:
                return error, web
            return None, web

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "kind", "says"),
    [
        ((NO_V1,), OperationError, "no host of durably"),
        ((Said(200, body=b"<h1>hello</h1>"),), OperationError, "expected JSON"),
        ((HUB, Said(200, body=b'{"instances": 1}')), OperationError, "expected JSON"),
        ((Said(302, {"location": "http://127.0.0.1:1/"}),), OperationError, "status 302"),
        ((Said(502, body=b"bad gateway"),), OperationError, "status 502"),
        ((HUB, Said(503, {"retry-after": "100"}, b"{}")), OperationError, "status 503"),
        ((Said(403, body=b'{"Message": "Void"}'),), AccessDeniedError, "Void. Give a key"),
        ((HUB, Said(400, body=b'{"Message": "no", "ExceptionType": "exit"}')), UsageError, "no"),
        ((Said(raw=b""),), HubSilentError, "whether it did what it was asked for"),
        ((Said(429, {"retry-after": "100"}, b'{"detail": "Too many"}'),), OperationError, "Too many"),
    ],
)
def test_other_answers_are_errors_that_say_so(
    said: tuple[Said, ...], kind: type[Exception], says: str
) -> None:
    error, web = asked(*said)
    assert type(error) is kind
    assert says in str(error)
    assert len(web.requests) <= 2


def test_the_key_travels_in_a_header_and_ids_are_escaped() -> None:
    _, web = asked(HUB, Said(500))
    assert {one.headers["x-functions-key"] for one in web.requests} == {"secret"}
    assert [one.path for one in web.requests] == ["/base/api/v1/hub", "/base/api/v1/instances/%2E%2E"]


def test_a_host_without_our_api_is_asked_by_that_of_durable_functions() -> None:
    _, web = asked(NO_V1, Said(500))
    assert web.requests[1].path == "/base/runtime/webhooks/durabletask/instances/%2E%2E?showInput=true"


def test_a_look_is_repeated_and_a_change_is_sent_once() -> None:
    error, web = asked(HUB, Said(raw=b""), Said(raw=b""), GONE)
    assert (error, len(web.requests)) == (None, 4)
    error, web = asked(HUB, Said(raw=b""), Said(204), change=True)
    assert isinstance(error, HubSilentError)
    assert [one.method for one in web.requests] == ["GET", "POST"]


def test_what_is_turned_away_is_sent_again_when_the_host_says_so() -> None:
    error, web = asked(HUB, Said(429, HELD), Said(429, HELD), Said(204), change=True)
    assert (error, len(web.requests)) == (None, 4)


def test_a_change_is_not_repeated_when_the_host_is_in_trouble_and_a_look_is() -> None:
    error, web = asked(HUB, Said(503, HELD), Said(204), change=True)
    assert (type(error), len(web.requests)) == (OperationError, 2)
    error, web = asked(HUB, Said(502, HELD), Said(503, HELD), Said(504, HELD), GONE)
    assert (error, len(web.requests)) == (None, 5)


def test_between_two_tries_is_a_pause_whatever_the_host_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PATIENCE_S", 0.5)
    error, web = asked(HUB, Said(429, HELD), change=True)
    assert type(error) is OperationError
    assert len(web.requests) <= 5  # 0.05, 0.1, 0.2 s


def test_a_watch_outlives_a_host_that_is_away_behind_a_proxy() -> None:
    answers = iter(
        (Said(502, HELD), Said(body=b"event: status\nid: 1\ndata: {}\n\n"), Said(503, HELD), Said(504, HELD))
    )
    end = Said(body=b"event: end\ndata: {}\n\n")

    async def run() -> list[str]:
        async with (
            Web(lambda asked: HUB if asked.path.endswith("/hub") else next(answers, end)) as web,
            HostApi(web.url("")) as host,
        ):
            await host.ask("GET", "hub")
            return [event.kind async for event in instance_events(host, "x", history=True)]

    assert asyncio.run(run()) == ["status", "end"]


def test_a_request_for_which_no_connection_was_free_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        free, taken = asyncio.Event(), asyncio.Event()

        async def answer(_: Asked) -> Said:
            if len(web.requests) == 100:
                taken.set()
            await free.wait()
            return HUB

        async with Web(answer) as web, HostApi(web.url("")) as host:
            sent = [asyncio.create_task(host.send("POST", web.url(f"/{number}"))) for number in range(100)]
            await taken.wait()
            monkeypatch.setattr(
                host._client, "timeout", 0.2
            )  # for who comes now: those on their way keep theirs
            with pytest.raises(OperationError, match="was not sent") as refused:
                await host.send("POST", web.url("/100"))
            assert type(refused.value) is OperationError
            assert len(web.requests) == 100
            free.set()
            assert [await one for one in sent]

    asyncio.run(run())


def test_a_follower_that_ended_with_an_error_is_replaced_at_the_next_look() -> None:
    trouble = {"status": 503, "kind": "StoreUnavailableError", "detail": "disk"}
    first = Said(body=b"event: problem\ndata: " + json.dumps(trouble).encode() + b"\n\n")
    answers = iter((first, GONE))

    async def run() -> None:
        async with (
            Web(lambda _: next(answers)) as web,
            HttpClient(web.url("")) as client,
            HostApi(web.url("")) as host,
            Following(host, client) as looks,
        ):
            with pytest.raises(StoreUnavailableError, match="disk"):
                await looks.get_status("x")
            assert await looks.get_status("x") is None
            assert len(web.requests) == 2

    asyncio.run(run())


def test_waiting_keeps_to_its_time_whoever_else_waits() -> None:
    """The host holds each look that may wait, for as long as it was asked to."""
    at = "2026-01-01T00:00:00Z"
    row = {
        "instanceId": "x",
        "executionId": "e",
        "name": "n",
        "version": None,
        "status": "Running",
        "createdAt": at,
    }
    row |= {"updatedAt": at, "startAt": None, "parentInstanceId": None, "tags": {}, "stuck": None}
    held: list[float] = []
    full, over = asyncio.Event(), asyncio.Event()

    async def answer(asked: Asked) -> Said:
        _, _, wait = asked.path.partition("waitS=")
        if wait:
            held.append(float(wait))
            if len(held) == 20:
                full.set()
            await over.wait()
        return Said(body=json.dumps(row).encode())

    async def run() -> None:
        async with Web(answer) as web, HostApi(web.url("")) as host:
            v1 = V1Api(host)
            long = [asyncio.create_task(v1.wait(f"l{number}", None)) for number in range(60)]
            await full.wait()
            assert max(held) < 1  # they take turns
            with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
                await asyncio.wait_for(v1.wait("x", 0.2), 8)
            for one in long:
                one.cancel()
            await asyncio.gather(*long, return_exceptions=True)

    asyncio.run(run())


def test_a_host_that_is_away_for_a_while_is_waited_for_once_it_is_known() -> None:
    async def run() -> None:
        async with Web(lambda _: HUB) as web:
            client = Client(web.url(""))
            assert await client.is_served()
            port = web.port
        back = asyncio.create_task(client.is_served())
        await asyncio.sleep(0)
        server = await asyncio.start_server(_says(HUB), "127.0.0.1", port)
        async with server, client:
            assert await back

    asyncio.run(run())


def _says(said: Said) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said.encoded())
        writer.close()

    return answer


def test_a_client_of_a_url_asks_that_with_credentials_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DURABLY_TOKEN", "bearer")

    async def run() -> Iterator[str]:
        async with Web(lambda _: HUB) as web, Client(web.url("")) as client:
            assert isinstance(client, HttpClient)
            assert await client.is_served()
            return iter([one.headers["authorization"] for one in web.requests])

    assert set(asyncio.run(run())) == {"Bearer bearer"}


def test_credentials_are_for_hosts_and_have_no_other_characters() -> None:
    with pytest.raises(UsageError, match="for the URL of a host"):
        Client("sqlite:///x.db", key="k")
    with pytest.raises(UsageError, match="expected ASCII"):
        Client("http://127.0.0.1:1", key="schlüssel")


def test_a_file_of_certificates_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "nowhere.pem")
    with pytest.raises(UsageError, match=r"nowhere\.pem"):
        Client("https://127.0.0.1:1")


def test_certificates_are_those_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *more, **named: real("127.0.0.1", *more, **named))
    monkeypatch.setenv("NO_PROXY", "*")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)

    async def is_served() -> Any:
        async with (
            Web(lambda _: HUB, tls=context) as web,
            Client(f"https://service.test:{web.port}") as client,
        ):
            return await client.is_served()

    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(OperationError, match="SSL_CERT_FILE"):
        asyncio.run(is_served())
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    assert asyncio.run(is_served())
