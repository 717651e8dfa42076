"""Azure Blob Storage and S3 as stores of blobs, by obstore (the Rust library object_store)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import AzureStore, S3Store

from durably.bindings.blobs.names import check_blob, check_container, is_blob
from durably.bindings.blobs.store import BlobEntry
from durably.bindings.connections import scheme_of
from durably.errors import BlobNotFoundError, BrokerError, RegistrationError

_PAGE: Final = 1_000
_PIECE: Final = 1 << 20

_RETRIES: Final[Any] = {"max_retries": 2, "retry_timeout": timedelta(seconds=15)}
"""Beyond that the host itself tries again, and says so."""

_NO_CONTAINER: Final = ("NoSuchBucket", "ContainerNotFound")
_URL: Final = re.compile(r"\w+://\S+")

_S3: Final = {
    "endpoint": "endpoint",
    "region": "region",
    "access_key_id": "access_key_id",
    "secret_access_key": "secret_access_key",
    "session_token": "session_token",
    "virtual_hosted_style_request": "virtual_hosted_style_request",
}
_AZURE: Final = {
    "accountname": "account_name",
    "accountkey": "account_key",
    "sharedaccesssignature": "sas_key",
    "blobendpoint": "endpoint",
}
_EMULATOR: Final = {
    "account_name": "devstoreaccount1",
    "account_key": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "endpoint": "http://127.0.0.1:10000/devstoreaccount1",
}
"""Of Azurite: the same everywhere, and no secret."""


class Place(NamedTuple):
    """A container: what it is in, and what names in there begin with."""

    store: S3Store | AzureStore
    base: str


def make(url: str, name: str) -> RemoteStore:
    """The store behind a connection.

    Raises:
        RegistrationError: It says something that is not known here; the value is not shown, as it may hold a secret.
    """
    scheme = scheme_of(url)
    try:
        return RemoteStore(_s3(url) if scheme == "s3" else _azure(url, scheme))
    except (ValueError, BaseError) as error:
        raise RegistrationError(
            f"The setting {name} cannot be used for blobs: {_said(error)}; expected s3://bucket?endpoint=…&region=…, "
            "az://account?key=…, or a connection string of Azure Storage"
        ) from None


def _s3(url: str) -> Callable[[str], Place]:
    """``s3://bucket/folder``: containers are folders in there; ``s3://``: they are buckets."""
    parts = urlsplit(url)
    config = _options(parts.query, _S3)
    bucket, folder = parts.netloc, parts.path.strip("/")
    base = f"{folder}/" if folder else ""

    def place(container: str) -> Place:
        options = _client(config)
        if not bucket:
            return Place(S3Store(container, **options), "")
        return Place(S3Store(bucket, **options), f"{base}{container}/")

    place("probe")  # a mistake shows at once
    return place


def _azure(url: str, scheme: str) -> Callable[[str], Place]:
    if scheme == "az":
        parts = urlsplit(url)
        known = {"key": "account_key", "sas": "sas_key", "endpoint": "endpoint"}
        config = {"account_name": parts.netloc, **_options(parts.query, known)}
    else:
        config = _connection_string(url)
    if "account_name" not in config and "endpoint" in config:
        config["account_name"] = urlsplit(config["endpoint"]).netloc.partition(".")[0]
    if "sas_key" in config:
        config["sas_key"] = config["sas_key"].removeprefix("?")

    def place(container: str) -> Place:
        return Place(AzureStore(container, **_client(config)), "")

    place("probe")
    return place


def _connection_string(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    given = {key.strip().lower(): value.strip() for key, _, value in pairs}
    if given.get("usedevelopmentstorage", "").lower() == "true":
        return dict(_EMULATOR)
    config = {_AZURE[key]: value for key, value in given.items() if key in _AZURE}
    suffix = given.get("endpointsuffix")
    if suffix and "endpoint" not in config:
        protocol = given.get("defaultendpointsprotocol", "https")
        config["endpoint"] = f"{protocol}://{config.get('account_name', '')}.blob.{suffix}"
    return config


def _options(query: str, known: dict[str, str]) -> dict[str, str]:
    config: dict[str, str] = {}
    for key, value in parse_qsl(query.replace("+", "%2B"), strict_parsing=bool(query)):  # keys hold a plus
        if key not in known:
            raise ValueError(f"it has {key!r}, which is none of {', '.join(sorted(known))}")
        config[known[key]] = value
    return config


def _client(config: dict[str, str]) -> dict[str, Any]:
    plain = config.get("endpoint", "").startswith("http://")
    client = {"allow_http": plain, "timeout": timedelta(seconds=60), "connect_timeout": timedelta(seconds=5)}
    return {**config, "client_options": client, "retry_config": _RETRIES}


class RemoteStore:
    """Implements `BlobStore`.

    Args:
        place: Where a container is.
    """

    interval_s = 10.0

    def __init__(self, place: Callable[[str], Place]) -> None:
        self._place = place
        self._places: dict[str, Place] = {}

    async def list(self, container: str, prefix: str = "", after: str = "") -> AsyncIterator[list[BlobEntry]]:
        """See `BlobStore.list`."""
        store, base = self._of(container)
        folder = f"{base}{prefix}".rpartition("/")[0]  # object_store knows prefixes of whole parts only
        offset = f"{base}{after}" if after else None
        with _words(container):
            pages = obstore.list(store, folder or None, offset=offset, chunk_size=_PAGE)  # pyright: ignore[reportUnknownMemberType] - of Arrow
            while page := await _next(pages):
                found = [_entry(one, base) for one in page]
                wanted = [
                    one
                    for one in found
                    if is_blob(one.name) and one.name.startswith(prefix) and one.name > after
                ]
                if wanted:
                    yield wanted

    async def head(self, container: str, name: str) -> BlobEntry | None:
        """See `BlobStore.head`."""
        store, base = self._of(container)
        path = f"{base}{check_blob(name)}"
        with _words(container):
            try:
                return _entry(await obstore.head_async(store, path), base)
            except FileNotFoundError:
                return None

    async def stream(
        self, container: str, name: str, *, version: str | None = None, limit: int | None = None
    ) -> AsyncIterator[bytes]:
        """See `BlobStore.stream`. The service itself sees to it that it is all of one version."""
        store, base = self._of(container)
        path = f"{base}{check_blob(name)}"
        options: Any = {} if version is None else {"if_match": _etag(version)}
        with _words(container):
            try:
                found = await obstore.get_async(store, path, options=options)
                if version is not None and _entry(found.meta, base).version != version:
                    raise BlobNotFoundError(container, name, version)
                left = found.meta["size"] if limit is None else limit
                async for piece in found.stream(min_chunk_size=_PIECE):
                    if left <= 0:
                        break
                    yield bytes(piece)[:left]
                    left -= len(piece)
            except (FileNotFoundError, PreconditionError):
                raise BlobNotFoundError(container, name, version) from None

    async def write(self, container: str, name: str, data: bytes) -> BlobEntry:
        """See `BlobStore.write`. The container has to be there."""
        store, base = self._of(container)
        path = f"{base}{check_blob(name)}"
        with _words(container):
            await obstore.put_async(store, path, data)
            return _entry(await obstore.head_async(store, path), base)

    async def delete(self, container: str, name: str) -> bool:
        """See `BlobStore.delete`."""
        if await self.head(container, name) is None:
            return False
        store, base = self._of(container)
        with _words(container):
            try:
                await obstore.delete_async(store, f"{base}{name}")
            except FileNotFoundError:
                return False
        return True

    async def close(self) -> None:
        """See `BlobStore.close`."""
        self._places.clear()

    def _of(self, container: str) -> Place:
        found = self._places.get(container)
        if found is None:
            found = self._places[container] = self._place(check_container(container))
        return found


async def _next(pages: Any) -> Any:
    """The next page; None behind the last one, and where there is no such container."""
    try:
        return await anext(pages, None)
    except (BaseError, OSError) as error:
        if any(code in str(error) for code in _NO_CONTAINER):
            return None
        raise


def _entry(meta: Any, base: str) -> BlobEntry:
    """A blob as the service tells of it; its time counts in seconds, as a listing may know more of it than a look does."""
    modified = int(meta["last_modified"].timestamp())
    etag = (meta["e_tag"] or "").strip('"')  # Azure quotes it in some of its answers
    return BlobEntry(
        meta["path"].removeprefix(base), f"{etag}@{modified}", meta["size"], modified * 1_000_000
    )


def _etag(version: str) -> str:
    return f'"{version.rpartition("@")[0]}"'


@contextmanager
def _words(container: str) -> Generator[None]:
    """Say what the service refuses in words of ours."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise BrokerError(f"Container '{container}' cannot be used: {_said(error)}") from None


def _said(error: Exception) -> str:
    """What an error says, without addresses: they may carry a signature."""
    text = " ".join(str(error).partition("\n\nDebug source")[0].split())
    return _URL.sub("…", text)[:400]
