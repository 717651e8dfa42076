"""One request: it goes to the address that was checked, and brings back no more than allowed."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from durably.errors import FailureDetails, HttpRefusedError, HttpRequestError
from durably.executors.http import exchange as room
from durably.executors.http.exchange import Answer, Outgoing, Resolver, exchange
from durably.executors.http.hops import parsed
from durably.executors.http.policy import HttpPolicy
from tests.support.web import Said, Web

HERE = HttpPolicy(allow_networks=("127.0.0.1",), max_response_bytes=1000)

PEM = Path(__file__).with_name("service_test.pem")


def names(*answers: list[str]) -> tuple[Resolver, list[str]]:
    """A name server that gives one answer after the other, and what it was asked."""
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolver, asked


async def fetch(url: str, policy: HttpPolicy = HERE, resolver: Resolver = room.resolve) -> Answer:
    return await exchange(Outgoing("GET", parsed(url), {}, b""), policy, resolver)


# --- where it goes ---------------------------------------------------------------------------------------------------


async def test_the_request_is_made_in_the_name_of_the_host() -> None:
    resolver, asked = names(["127.0.0.1"])
    async with Web() as web:
        answer = await fetch(f"http://service.test:{web.port}/a?b=c#d", resolver=resolver)
        assert answer.status == 200
        assert asked == ["service.test"]
        request = web.requests[0]
        assert (request.path, request.headers["host"]) == ("/a?b=c", f"service.test:{web.port}")
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["user-agent"].startswith("durably/")


async def test_a_name_that_is_rebound_after_the_check_leads_nowhere_else() -> None:
    """The second answer would be a forbidden one: nobody asks for it."""
    resolver, asked = names(["127.0.0.1"], ["127.0.0.2"])
    async with Web() as web:
        assert (await fetch(f"http://rebind.test:{web.port}", resolver=resolver)).status == 200
        assert len(asked) == 1
        with pytest.raises(HttpRefusedError, match=r"127\.0\.0\.2"):
            await fetch(f"http://rebind.test:{web.port}", resolver=resolver)
        assert web.connections == 1


async def test_of_several_addresses_only_those_that_are_allowed_are_tried() -> None:
    resolver, _ = names(["169.254.169.254", "127.0.0.2", "127.0.0.1"])
    async with Web() as web:
        assert (await fetch(f"http://service.test:{web.port}", resolver=resolver)).status == 200


async def test_the_next_address_is_tried_when_nobody_listens_at_the_first() -> None:
    resolver, _ = names(["127.0.0.2", "127.0.0.1"])
    policy = HttpPolicy(allow_networks=("127.0.0.0/8",))
    async with Web() as web:
        assert (await fetch(f"http://service.test:{web.port}", policy, resolver)).status == 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"],
)
async def test_each_way_to_write_this_machine_is_refused(host: str) -> None:
    async with Web() as web:
        with pytest.raises((HttpRefusedError, HttpRequestError)):  # a resolver may know fewer ways
            await fetch(f"http://{host}:{web.port}/", HttpPolicy())
        assert web.connections == 0


async def test_ports_of_other_services_are_refused() -> None:
    with pytest.raises(HttpRefusedError, match="port 25"):
        await fetch("http://127.0.0.1:25/")


async def test_a_name_that_does_not_exist_is_an_error_to_try_again() -> None:
    async def resolver(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(HttpRequestError, match="no such name"):
        await fetch("http://nowhere.test/?code=canary", resolver=resolver)


async def test_a_name_without_addresses_is_refused() -> None:
    resolver, _ = names([])
    with pytest.raises(HttpRefusedError, match=r"\(none\)"):
        await fetch("http://empty.test/", resolver=resolver)


async def test_what_cannot_be_sent_is_refused_without_showing_it() -> None:
    async with Web() as web:
        sent = Outgoing("GET", parsed(web.url()), {"authorization": "canary "}, b"")
        with pytest.raises(HttpRefusedError, match="cannot be written") as raised:
            await exchange(sent, HERE)
        assert "canary" not in repr(FailureDetails.of(raised.value))


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    room._trust.cache_clear()
    yield
    room._trust.cache_clear()


def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


async def test_the_certificate_is_that_of_the_name_not_of_the_address(trusted: None) -> None:
    resolver, _ = names(["127.0.0.1"])
    async with Web(tls=tls()) as web:
        assert (await fetch(f"https://service.test:{web.port}", resolver=resolver)).status == 200
        with pytest.raises(HttpRequestError, match=r"(?i)certificate"):
            await fetch(f"https://other.test:{web.port}", resolver=resolver)
        assert len(web.requests) == 1


async def test_a_certificate_of_nobody_we_know_is_refused() -> None:
    resolver, _ = names(["127.0.0.1"])
    async with Web(tls=tls()) as web:
        with pytest.raises(HttpRequestError, match=r"(?i)certificate"):
            await fetch(f"https://service.test:{web.port}", resolver=resolver)
        assert web.requests == []


# --- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1000])
async def test_a_body_up_to_the_limit_is_read(size: int) -> None:
    async with Web(lambda asked: Said(body=b"x" * size)) as web:
        assert (await fetch(web.url())).body == b"x" * size


CHUNK = b"400\r\n" + b"x" * 1024 + b"\r\n"


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(Said(body=b"x" * 1001), id="said"),
        pytest.param(Said(raw=b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000), id="until the end"),
        pytest.param(
            Said(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK * 99), id="chunked"
        ),
        pytest.param(
            Said(headers={"content-encoding": "gzip"}, body=gzip.compress(bytes(500_000))), id="decompressed"
        ),
    ],
)
async def test_a_body_beyond_the_limit_is_refused(said: Said) -> None:
    async with Web(lambda asked: said) as web:
        with pytest.raises(HttpRefusedError, match="larger than 1,000 bytes"):
            await fetch(web.url())


async def test_a_body_that_is_compressed_nevertheless_is_decompressed() -> None:
    body = gzip.compress(b"plain")
    async with Web(lambda asked: Said(headers={"content-encoding": "GZIP"}, body=body)) as web:
        answer = await fetch(web.url())
        assert answer.body == b"plain"
        assert "content-encoding" not in answer.headers


async def test_an_unknown_encoding_is_left_as_it_is() -> None:
    async with Web(lambda asked: Said(headers={"content-encoding": "br"}, body=b"??")) as web:
        answer = await fetch(web.url())
        assert (answer.body, answer.headers["content-encoding"]) == (b"??", "br")


async def test_a_body_that_only_says_to_be_compressed_is_no_answer() -> None:
    async with Web(lambda asked: Said(headers={"content-encoding": "gzip"}, body=b"no")) as web:
        with pytest.raises(HttpRequestError):
            await fetch(web.url())


async def test_cookies_are_not_kept_for_the_next_request() -> None:
    async with Web(lambda asked: Said(headers={"set-cookie": "a=b"})) as web:
        assert (await fetch(web.url())).headers["set-cookie"] == "a=b"
        await fetch(web.url())
        assert "cookie" not in web.requests[1].headers
        assert web.connections == 2


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would resolve names itself."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with Web() as web:
        assert (await fetch(web.url())).status == 200
