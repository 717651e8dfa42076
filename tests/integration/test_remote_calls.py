"""Calls of HTTP functions: the key goes to the host that was named, whatever that host says."""

import asyncio
import json
from collections.abc import Callable

import pytest

from durably.client.remote.api import HostApi
from durably.client.remote.calls import filled, functions_of


async def one_answer(template: Callable[[str], str], base: str) -> str:
    """The URL for a function, of a host that lists it so."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        trigger = {"type": "httpTrigger", "methods": ["get"]}
        row = {"name": "f", "config": {"bindings": [trigger]}, "invoke_url_template": template(url)}
        body = json.dumps([row]).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{base}"
    async with server, HostApi(url, "key") as api:
        found = await functions_of(api)
        assert found is not None
        return filled(found[0], {"number": "7"}).removeprefix(url)


@pytest.mark.parametrize("base", ["", "/shop"])
@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{url}/api/orders/{number}/{page?}", "/api/orders/7"),
        ("https://evil.test/api/orders/{number}", "/api/orders/7"),
        ("https://evil.test:1\\@x/{number}", "/7"),
        ("//evil.test/{number}", "/7"),
        ("////evil.test/{number}", "/evil.test/7"),
        ("@evil.test/{number}", "/@evil.test/7"),
        (".evil.test/{number}", "/.evil.test/7"),
        ("http://{number}.evil.test/{number}", "/7"),
    ],
)
def test_the_key_stays_at_the_host_that_was_named(template: str, path: str, base: str) -> None:
    async def whole() -> None:
        assert await one_answer(lambda url: template.replace("{url}", url), base) == path

    asyncio.run(whole())
