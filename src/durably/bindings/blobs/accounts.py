"""Stores of blobs by the names of connections: a setting says where one is, its scheme says what it is."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from durably.bindings.blobs.folder import FolderStore
from durably.bindings.blobs.store import BlobStore
from durably.bindings.connections import scheme_of
from durably.config.names import setting
from durably.errors import RegistrationError

DEFAULT: Final = "DURABLY_BLOBS"
"""The setting of blobs without a connection; when it is not set, they are in the folder ``blobs`` beside the hub."""

_REMOTE: Final = ("az", "azure", "s3")
_EXTRA: Final = "blob"


class BlobAccounts:
    """The stores of blobs of a host, by the names of their settings. Each is made once, at its first use.

    Args:
        hub_url: The default folder is beside it.
        settings: The environment by default.
    """

    def __init__(self, hub_url: str, settings: Mapping[str, str] | None = None) -> None:
        self._hub_url = hub_url
        self._settings = settings
        self._stores: dict[str | None, BlobStore] = {}

    def store(self, connection: str | None = None) -> BlobStore:
        """The store behind a connection. Nothing is connected yet.

        Raises:
            RegistrationError: The setting is missing, is no URL of a store, or its extra is not installed.
        """
        found = self._stores.get(connection)
        if found is None:
            found = self._stores[connection] = self._make(connection)
        return found

    async def close(self) -> None:
        """Let go of all of them. Idempotent, never raises."""
        stores, self._stores = self._stores, {}
        await asyncio.gather(*(store.close() for store in stores.values()))

    def _make(self, connection: str | None) -> BlobStore:
        settings = os.environ if self._settings is None else self._settings
        if connection is None:
            url = settings.get(DEFAULT)
            return FolderStore(beside(self._hub_url)) if not url else _store_of(url, DEFAULT)
        return _store_of(setting(connection, f"Connection '{connection}'", settings), connection)


def beside(hub_url: str) -> Path:
    """The folder of blobs beside a hub; in the current folder when the hub is no file."""
    scheme, _, rest = hub_url.partition("://")
    path = rest.partition("?")[0]
    return Path(path[1:]).parent / "blobs" if scheme == "sqlite" and path else Path("blobs")


def _store_of(url: str, name: str) -> BlobStore:
    scheme = scheme_of(url)
    if scheme == "file":
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc or not path.startswith("/") or len(path) < 2:
            raise RegistrationError(
                f"The setting {name} is {url!r}: expected the absolute path of a folder, such as file:///data/blobs"
            )
        return FolderStore(Path(path))
    if scheme not in _REMOTE:
        raise RegistrationError(  # the value is not shown: it may hold a password
            f"The setting {name} is no connection to a store of blobs: expected file:///folder, s3://, az://account, or a "
            "connection string of Azure Storage"
        )
    try:
        module = importlib.import_module("durably.bindings.blobs.remote")
    except ImportError as error:
        raise RegistrationError(
            f"Connection '{name}' needs the extra '{_EXTRA}' ({error}): pip install 'durably[{_EXTRA}]'"
        ) from None
    made: BlobStore = module.make(url, name)
    return made
