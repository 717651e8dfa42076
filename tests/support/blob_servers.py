"""Stores of blobs of our own: Azurite and an S3 of moto, and how to make containers in them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from tests.support.servers import Server, azurite, free_port, program

_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of Azurite: the same everywhere, and no secret."""


def azurite_blobs(folder: Path) -> Server:
    """The blobs of Azurite."""
    port = free_port()
    arguments = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    quiet = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    command = [program("node", "nodejs"), str(azurite("azurite-blob")), *arguments, *quiet]
    url = f"AccountName={_ACCOUNT};AccountKey={_KEY};BlobEndpoint=http://127.0.0.1:{port}/{_ACCOUNT}"
    return Server(folder, command, port, url)


def s3_server(folder: Path) -> Server:
    """An S3 in memory, by moto."""
    port = free_port()
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    url = f"s3://?endpoint=http://127.0.0.1:{port}&region=us-east-1&access_key_id=a&secret_access_key=b%2F+"
    return Server(folder, [sys.executable, "-c", code], port, url)


def make_bucket(server: Server, name: str) -> None:
    """A bucket of `s3_server`, which looks at no signature."""
    _put(f"http://127.0.0.1:{server.port}/{name}", {})


def put_object(server: Server, bucket: str, path: str) -> None:
    """An object with a name that no client of ours would write; `path` is as it goes over the wire."""
    _put(f"http://127.0.0.1:{server.port}/{bucket}/{path}", {})


def make_container(server: Server, name: str) -> None:
    """A container of `azurite_blobs`: a request that is signed by its shared key."""
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
    signed += f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    digest = hmac.new(base64.b64decode(_KEY), signed.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": "2021-08-06",
        "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}",
    }
    _put(f"http://127.0.0.1:{server.port}/{_ACCOUNT}/{name}?restype=container", headers)


def _put(url: str, headers: dict[str, str]) -> None:
    request = urllib.request.Request(url, method="PUT", headers={**headers, "Content-Length": "0"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status in (200, 201)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"PUT {url}: {error}\n{error.read().decode(errors='replace')}") from error
