"""From a hub URL to a store. Each provider is imported only when a URL asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from durably.errors import UsageError
from durably.storage.api import Store
from durably.storage.checkup import Finding

_KNOWN = "memory://, sqlite:///hub.db (relative to the working directory), sqlite:////var/lib/app/hub.db (absolute)"


def open_store(url: str) -> Store:
    """The store that a hub URL names; it is not opened yet.

    Raises:
        UsageError: The URL names no store, or one that this installation lacks.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise UsageError(f"Hub URL {url!r} has no scheme; expected one of {_KNOWN}")
    match scheme.lower():
        case "memory":
            return _memory(url, rest)
        case "sqlite":
            return _sqlite(url, rest)
        case "postgresql" | "postgres":
            raise UsageError("Hubs on PostgreSQL are not available yet; use a SQLite hub: sqlite:///hub.db")
        case _:
            raise UsageError(f"Hub URL {url!r} has the unknown scheme '{scheme}'; expected one of {_KNOWN}")


def examine_hub(url: str, now: int, *, deep: bool = False) -> Iterator[Finding]:
    """Look at a hub for what may be wrong with it, without opening it as a store: it may be damaged, or not a hub at all.

    Args:
        url: Of the hub.
        now: In microseconds since 1970 UTC.
        deep: Also what takes long.

    Raises:
        UsageError: The URL names no hub that another process could serve.
    """
    open_store(url)  # says what is wrong with the URL
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "memory":
        raise UsageError(
            "A hub in memory ends with its host: there is nothing to examine; expected sqlite:///hub.db"
        )
    from durably.storage.sqlite.checkup import examine

    return examine(rest[1:], now, deep=deep)


def _memory(url: str, rest: str) -> Store:
    from durably.storage.memory import MemoryStore

    if rest:
        raise UsageError(f"Hub URL {url!r} has a name; a hub in memory has none: memory://")
    return MemoryStore()


def _sqlite(url: str, rest: str) -> Store:
    if not rest.startswith("/") or rest in {"/", "/:memory:"}:
        raise UsageError(
            f"Hub URL {url!r} names no file; expected three slashes and a path: sqlite:///hub.db, or four for an "
            "absolute one: sqlite:////var/lib/app/hub.db. A hub without a file is memory://"
        )
    path = rest[1:]
    if "?" in path or "\0" in path:
        raise UsageError(f"Hub URL {url!r} has options; a SQLite hub takes none")
    try:
        from durably.storage.sqlite.store import SqliteStore
    except ImportError as error:
        raise UsageError(
            f"SQLite hubs cannot be used here: {error}; they need a POSIX system and the package apsw"
        ) from error
    return SqliteStore(path)
