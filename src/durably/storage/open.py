"""From a hub URL to a store. Each provider is imported only when a URL asks for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import PurePath

from durably.codec.keys import EncryptionKeys
from durably.errors import UsageError
from durably.storage.api import Store
from durably.storage.checkup import Finding
from durably.storage.wrapped import COMPRESS_ABOVE, WrappedStore

_POSTGRES = ("postgresql", "postgres")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,44}")
_KNOWN = (
    "memory://, sqlite:///hub.db (relative to the working directory), sqlite:////var/lib/app/hub.db (absolute), "
    "postgresql://host/database?hub=name"
)


def open_store(
    url: str,
    keys: EncryptionKeys | None = None,
    *,
    compress_above: int = COMPRESS_ABOVE,
    inline_max: int | None = None,
    partitions: int | None = None,
    lease_s: float | None = None,
) -> WrappedStore:
    """The store that a hub URL names, with its payloads compressed and encrypted; it is not opened yet.

    Args:
        url: Of the hub.
        keys: See `WrappedStore`.
        compress_above: See `WrappedStore`.
        inline_max: Bytes of a payload of an instance from which on it lies outside of its row; None: as the provider does.
        partitions: Of a hub that hosts can share, see `PostgresStore`; None: what it has, or the usual number.
        lease_s: A host of such a hub that is silent for so long has lost its partitions; None: as the provider does.

    Raises:
        UsageError: The URL names no store, or one that this installation lacks.
    """
    provider = _provider(url, inline_max, partitions, lease_s)
    return WrappedStore(provider, keys, compress_above=compress_above)


def store_of(
    hub: str | Store,
    keys: EncryptionKeys | None,
    *,
    compress_above: int = COMPRESS_ABOVE,
    inline_max: int | None = None,
    partitions: int | None = None,
    lease_s: float | None = None,
) -> Store:
    """The store of a URL, see `open_store`; or a store that is given, which is wrapped when there are keys.

    Raises:
        UsageError: See `open_store`; or the store would not encrypt although there are keys.
    """
    if isinstance(hub, str):
        return open_store(
            hub,
            keys,
            compress_above=compress_above,
            inline_max=inline_max,
            partitions=partitions,
            lease_s=lease_s,
        )
    if keys is None or (isinstance(hub, WrappedStore) and hub.encrypts):
        return hub
    if isinstance(hub, WrappedStore):
        raise UsageError(
            "This store does not encrypt, and there are keys: expected them where the store was made"
        )
    return WrappedStore(hub, keys, compress_above=compress_above)


def moved_store(url: str) -> Store:
    """The store that a hub URL names, for `Store.dump` and `Store.restore` only: rows as they are stored, without keys.

    Raises:
        UsageError: The URL names no store, or one that ends with this process.
    """
    if url.lower().startswith("memory:"):
        raise UsageError(
            f"A hub in memory ends with its process and cannot be moved ({url}): expected one of {_KNOWN}"
        )
    return _provider(url, None, None, None)


def _provider(url: str, inline_max: int | None, partitions: int | None, lease_s: float | None) -> Store:
    scheme, separator, rest = url.partition("://")
    if not separator:
        text = "***" if "@" in url else url  # whoever forgot the scheme did not forget the password
        raise UsageError(f"Hub URL {text!r} has no scheme; expected one of {_KNOWN}")
    match scheme.lower():
        case "memory":
            return _memory(url, rest)
        case "sqlite":
            return _sqlite(url, rest, inline_max)
        case scheme if scheme in _POSTGRES:
            return _postgres(url, partitions, lease_s)
        case _:
            text = f"{scheme}://***" if "@" in rest else url
            raise UsageError(f"Hub URL {text!r} has the unknown scheme '{scheme}'; expected one of {_KNOWN}")


def examine_hub(url: str, now: int, *, deep: bool = False) -> Iterator[Finding]:
    """Look at a hub for what may be wrong with it, without opening it as a store: it may be damaged, or not a hub at all.

    Args:
        url: Of the hub.
        now: In microseconds since 1970 UTC.
        deep: Also what takes long; of a file.

    Raises:
        UsageError: The URL names no hub that another process could serve.
    """
    open_store(url)  # says what is wrong with the URL
    scheme, _, rest = url.partition("://")
    match scheme.lower():
        case "memory":
            raise UsageError(
                "A hub in memory ends with its host: there is nothing to examine; expected sqlite:///hub.db or "
                "postgresql://host/database?hub=name"
            )
        case "sqlite":
            from durably.storage.sqlite import checkup

            return checkup.examine(rest[1:], now, deep=deep)
        case _:
            return iter(asyncio.run(_examined(url, now)))


async def _examined(url: str, now: int) -> list[Finding]:
    from durably.storage.postgres.checkup import examine

    return [finding async for finding in examine(url, now)]


def shown_url(url: str) -> str:
    """A hub URL without secrets; one that is none stays as it is, where it cannot have any."""
    scheme = url.partition("://")[0].lower()
    if scheme not in _POSTGRES:
        return url
    from durably.storage.postgres.address import Address

    return Address.of(url).url


def hub_name(url: str) -> str:
    """What a hub is called: its file without suffix, or its schema; "" for one in memory."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in _POSTGRES:
        return PurePath(rest).stem
    from durably.storage.postgres.address import Address

    return Address.of(url).schema


def sibling_hub(url: str, name: str) -> str:
    """The URL of the hub of another name beside this one: a file in the same folder, or a schema in the same database.

    Args:
        url: Of a hub. One in memory has as many others as are asked for.
        name: What `hub_name` calls the other one.

    Raises:
        UsageError: No hub there can have this name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"Hub name {name[:100]!r} is not usable: expected a letter, then letters, digits, '_' or '-', 45 at most"
        )
    scheme, _, rest = url.partition("://")
    if scheme.lower() in _POSTGRES:
        from durably.storage.postgres.address import sibling

        return sibling(url, name)
    if scheme.lower() == "sqlite":
        path = PurePath(rest[1:])
        return f"sqlite:///{path.with_name(f'{name}{path.suffix}')}"
    return url


def _memory(url: str, rest: str) -> Store:
    from durably.storage.memory import MemoryStore

    if rest:
        raise UsageError(f"Hub URL {url!r} has a name; a hub in memory has none: memory://")
    return MemoryStore()


def _sqlite(url: str, rest: str, inline_max: int | None) -> Store:
    if not rest.startswith("/") or rest in {"/", "/:memory:"}:
        raise UsageError(
            f"Hub URL {url!r} names no file; expected three slashes and a path: sqlite:///hub.db, or four for an "
            "absolute one: sqlite:////var/lib/app/hub.db. A hub without a file is memory://"
        )
    path = rest[1:]
    if "?" in path or "\0" in path:
        raise UsageError(f"Hub URL {url!r} has options; a SQLite hub takes none")
    try:
        from durably.storage.sqlite.store import INLINE_MAX, SqliteStore
    except ImportError as error:
        raise UsageError(
            f"SQLite hubs cannot be used here: {error}; they need a POSIX system and the package apsw"
        ) from error
    return SqliteStore(path, inline_max=INLINE_MAX if inline_max is None else inline_max)


def _postgres(url: str, partitions: int | None, lease_s: float | None) -> Store:
    try:
        from durably.storage.postgres.store import LEASE_S, PostgresStore
    except ImportError as error:
        raise UsageError(
            f"Hubs on PostgreSQL need the extra 'postgres' ({error}): pip install 'durably[postgres]'"
        ) from error
    return PostgresStore(url, partitions=partitions, lease_s=LEASE_S if lease_s is None else lease_s)
