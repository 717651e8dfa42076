"""HTTPS: served with a certificate of the test, renewed while the host runs, and refused where it cannot be."""

import asyncio
import os
import shutil
import socket
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from durably.client.remote.client import HttpClient
from durably.errors import OperationError, UsageError
from durably.http_api import tls as tls_files
from durably.http_api.links import BASE
from durably.http_api.options import HttpOptions
from durably.http_api.server import HttpServer
from durably.http_api.tls import Tls
from durably.security.key_file import KeyFile
from tests.http.scene import flows, until
from tests.support.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def secured(folder: Path, pair: Pair, **options: Any) -> AsyncGenerator[tuple[HttpServer, str]]:
    """A host that serves HTTPS, and its system key."""
    given = HttpOptions(port=0, **pair.options, **options)
    async with flows().host(f"sqlite:///{folder / 'orders.db'}") as host:
        keys = KeyFile(given.keys_at(host.engine.store.url), host.engine.clock.now)
        key = keys.renew("system", "durabletask_extension")
        async with host.serve_http(given) as server:
            yield server, key


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))


async def shaken(url: str, context: ssl.SSLContext) -> dict[str, Any]:
    """What a new connection sees of the certificate, and what it speaks."""
    parts = urlsplit(url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
    tls = writer.get_extra_info("ssl_object")
    seen = {"version": tls.version(), "peer": dict(one[0] for one in tls.getpeercert()["subject"])}
    writer.close()
    return seen


def test_https_is_served_and_links_say_so(tmp_path: Path, authority: Authority) -> None:
    pair = authority.pair("encrypted", passphrase="open sesame")

    async def whole() -> None:
        options = {"tls_passphrase": "open sesame"}
        async with secured(tmp_path, pair, **options) as (server, key):
            assert server.url.startswith("https://127.0.0.1:")
            async with httpx.AsyncClient(base_url=server.url, verify=trusting(authority)) as http:
                started = await http.post(
                    f"{BASE}/orchestrators/waits/i", headers={"x-functions-key": key}, json=1
                )
                assert started.status_code == 202, started.text
                links = [started.headers["location"], *list(started.json().values())[1:]]
                assert len(links) == 9
                assert all(link.startswith(f"{server.url}/") for link in links)
                assert (await http.get(links[0])).status_code == 202
            async with httpx.AsyncClient(base_url=server.url) as stranger:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await stranger.get("/")

    asyncio.run(whole())


def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path, authority: Authority) -> None:
    pair = authority.pair("versions")

    async def whole() -> None:
        async with secured(tmp_path, pair) as (server, _):
            assert (await shaken(server.url, trusting(authority)))["version"] == "TLSv1.3"
            second = trusting(authority)
            second.maximum_version = ssl.TLSVersion.TLSv1_2
            assert (await shaken(server.url, second))["version"] == "TLSv1.2"
            old = trusting(authority)
            old.set_ciphers("ALL:@SECLEVEL=0")
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await shaken(server.url, old)

    with pytest.warns(DeprecationWarning, match="TLSv1"):
        asyncio.run(whole())
    context = Tls(*pair, "").context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION


def test_plain_http_is_hung_up_on_and_others_go_on(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.pair("plain")

    async def whole() -> None:
        async with secured(tmp_path, pair) as (server, key):
            parts = urlsplit(server.url)
            for said in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01"):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                writer.write(said)
                writer.write_eof()
                async with asyncio.timeout(30):
                    (answer,) = await asyncio.gather(reader.read(), return_exceptions=True)
                assert not isinstance(answer, bytes) or b"HTTP/" not in answer
                writer.close()
            async with HttpClient(server.url, key=key, ca=str(authority.file)) as client:
                assert await client.get_status("nobody") is None

    asyncio.run(whole())
    assert not [one for one in caplog.records if one.levelname in {"WARNING", "ERROR"}]


def test_a_renewed_certificate_is_taken_over_while_the_host_runs(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = authority.pair("first"), authority.pair("second")
    live = Pair(tmp_path / "host.crt", tmp_path / "host.key")
    for source, target in zip(first, live, strict=True):
        shutil.copy(source, target)

    async def whole() -> None:
        async with secured(tmp_path, live) as (server, key):
            context = trusting(authority)
            async with httpx.AsyncClient(base_url=server.url, verify=context) as http:
                ask = {"url": f"{BASE}/instances/nobody", "headers": {"x-functions-key": key}}
                assert (await http.get(**ask)).status_code == 404
                assert (await shaken(server.url, context))["peer"] == {"commonName": "first"}
                shutil.copy(second.certificate, live.certificate)  # for a while, half of a pair

                async def told() -> bool:
                    return "not taken over" in caplog.text

                async def seen() -> dict[str, str]:
                    return (await shaken(server.url, context))["peer"]

                await until(told, expected=True)
                assert (await shaken(server.url, context))["peer"] == {"commonName": "first"}
                shutil.copy(second.key, live.key)
                await until(seen, {"commonName": "second"})
                assert (await http.get(**ask)).status_code == 404  # on the connection that is open

    asyncio.run(whole())
    assert str(live.key) in caplog.text
    assert caplog.text.count("not taken over") == 1


def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path, authority: Authority) -> None:
    good, other, closed = authority.pair("good"), authority.pair("other"), authority.pair("closed", "secret")
    nothing, missing = tmp_path / "nothing.pem", tmp_path / "missing.pem"
    nothing.write_text("no PEM\n")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    async def whole(pair: Pair, passphrase: str) -> None:
        async with secured(tmp_path, pair, tls_passphrase=passphrase):
            pytest.fail("it serves")

    for pair, passphrase, says in (
        (Pair(missing, good.key), "", f"tls_certificate '{missing}' cannot be read: No such file"),
        (Pair(good.certificate, missing), "", f"tls_key '{missing}' cannot be read: No such file"),
        (Pair(tmp_path, good.key), "", f"tls_certificate '{tmp_path}' cannot be read: Is a directory"),
        (Pair(nothing, good.key), "", f"tls_certificate '{nothing}' holds no certificate"),
        (Pair(good.certificate, good.certificate), "", f"tls_key '{good.certificate}' holds no private key"),
        (Pair(broken, good.key), "", f"tls_certificate '{broken}'"),
        (Pair(good.certificate, other.key), "", f"tls_key '{other.key}' is not the key of"),
        (closed, "", f"tls_key '{closed.key}' is encrypted, and tls_passphrase is not given"),
        (closed, "wrong", f"tls_key '{closed.key}' is encrypted, and tls_passphrase does not open it"),
    ):
        for file in tmp_path.glob("orders.db*"):
            file.unlink()
        with pytest.raises(UsageError) as caught:
            asyncio.run(whole(pair, passphrase))
        assert says in str(caught.value), caught.value
    shown = repr(HttpOptions(**good.options, tls_passphrase="secret"))
    assert "secret" not in shown


@pytest.mark.slow_once
def test_the_command_line_asks_over_https(tmp_path: Path, authority: Authority) -> None:
    pair = authority.pair("cli")

    async def run(*arguments: str, **more: str) -> tuple[int, str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DURABLY_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "durably", *arguments),
            env={**environment, **more},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), " ".join(err.decode().split())

    async def whole() -> None:
        async with secured(tmp_path, pair) as (server, key):
            ca, reach = str(authority.file), ("--hub", server.url)
            start = ("instances", "start", "shout", "--input", '"hi"', "--id", "a", *reach)
            found, _, told = await run(*start, "--ca", ca, DURABLY_KEY=key)
            assert found == 0, told
            listed = ("instances", "list", "-o", "ids", *reach)
            good, strange, wrong = await asyncio.gather(
                run(*listed, DURABLY_KEY=key, SSL_CERT_FILE=ca),
                run(*listed, DURABLY_KEY=key, SSL_CERT_FILE=""),
                run(*listed, "--ca", str(tmp_path / "none.pem"), DURABLY_KEY=key),
            )
            assert good == (0, "a\n", ""), good
            assert strange[0] != 0
            assert "is not trusted" in strange[2]
            assert "--ca or SSL_CERT_FILE" in strange[2]
            assert wrong[0] == 2
            assert "none.pem" in wrong[2]

    asyncio.run(whole())


def test_whoever_asks_the_wrong_way_is_told(tmp_path: Path, authority: Authority) -> None:
    pair = authority.pair("wrong-way")

    async def whole() -> None:
        async with secured(tmp_path, pair) as (server, key):
            async with HttpClient(server.url.replace("https:", "http:"), key=key) as plain:
                with pytest.raises(OperationError, match="not answered"):
                    await plain.get_status("a")
            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                nobody = f"https://127.0.0.1:{closed.getsockname()[1]}"
            async with HttpClient(nobody, key=key, ca=str(authority.file)) as client:
                with pytest.raises(OperationError, match="Nobody answers"):
                    await client.get_status("a")

    asyncio.run(whole())


def test_files_that_are_moved_while_they_are_read_are_looked_at_again(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    live = Pair(tmp_path / "host.crt", tmp_path / "host.key")
    for source, target in zip(authority.pair("first"), live, strict=True):
        shutil.copy(source, target)
    mine = Tls(live.certificate, live.key, "")
    check = tls_files._check

    def checked(setting: str, path: Path, begins: bytes) -> Any:
        content = check(setting, path, begins)
        if path == live.key:
            path.unlink()
        return content

    second = authority.pair("second")
    shutil.copy(second.certificate, live.certificate)
    with monkeypatch.context() as patch:
        patch.setattr(tls_files, "_check", checked)
        mine.refresh()
    assert "not taken over" in caplog.text
    shutil.copy(second.key, live.key)
    with caplog.at_level("INFO", "durably.http"):
        mine.refresh()
    assert "was renewed" in caplog.text
