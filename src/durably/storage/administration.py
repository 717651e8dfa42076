"""What those who look after a hub do with it, whatever stores it. For programs without a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from durably.errors import HubNotFoundError, UsageError
from durably.storage.hub_state import HubState, SchemaStep
from durably.storage.open import open_store


def hub_state(url: str) -> HubState:
    """See `HubState`.

    Raises:
        HubNotFoundError: There is no hub.
        UsageError: The URL names no hub that another process could serve.
    """
    name = _file(url)
    if name is None:
        from durably.storage.postgres import administration

        return asyncio.run(administration.hub_state(url))
    from durably.storage.sqlite import state

    return state.hub_state(name)


def migrate_hub(
    url: str,
    *,
    post: bool = False,
    partitions: int | None = None,
    grant: str | None = None,
    told: Callable[[SchemaStep], None],
) -> list[SchemaStep]:
    """Make a hub where there is none, or bring its schema to the version of this installation.

    Args:
        url: Of the hub.
        post: Also what waits until the last older host is gone.
        partitions: Of a new hub.
        grant: A role of the server that shall be able to run hosts.
        told: Called with each step that begins.

    Returns:
        What is left to be done, behind the last older host.

    Raises:
        HubVersionError: The hub is newer; or it may not be changed from here, or not now.
        AccessDeniedError: It may not be made from here.
        UsageError: An argument has no meaning for this hub.
    """
    name = _file(url)
    if name is None:
        from durably.storage.postgres import administration

        work = administration.migrate_hub(url, post=post, partitions=partitions, grant=grant, told=told)
        return asyncio.run(work)
    _check_plain(partitions, grant)
    pending = _pending_of_file(url, name)
    asyncio.run(_open_and_close(url))
    for step in pending:
        told(step)
    return []


def migration_script(
    url: str, *, post: bool = False, partitions: int | None = None, grant: str | None = None
) -> str:
    """The SQL that `migrate_hub` would run; nothing is changed. Raises as that."""
    name = _file(url)
    if name is None:
        from durably.storage.postgres import administration

        work = administration.migration_script(url, post=post, partitions=partitions, grant=grant)
        return asyncio.run(work)
    _check_plain(partitions, grant)
    from durably.storage.sqlite import state

    pending = _pending_of_file(url, name)
    return state.script(pending[0].number - 1) if pending else ""


def _pending_of_file(url: str, name: str) -> list[SchemaStep]:
    from durably.storage.sqlite import state

    try:
        return state.hub_state(name).pending
    except HubNotFoundError:
        return state.pending(0)


def _file(url: str) -> str | None:
    """The file of a hub on SQLite; None: it is on PostgreSQL."""
    open_store(url)  # says what is wrong with the URL
    scheme, _, rest = url.partition("://")
    match scheme.lower():
        case "memory":
            raise UsageError(
                "A hub in memory ends with its host, and nobody else reaches it; expected sqlite:///hub.db or "
                "postgresql://host/database?hub=name"
            )
        case "sqlite":
            return rest[1:]
        case _:
            return None


def _check_plain(partitions: int | None, grant: str | None) -> None:
    if partitions not in {None, 1}:
        raise UsageError(f"A hub on SQLite has one partition, {partitions} are asked for")
    if grant is not None:
        raise UsageError(
            "A hub on SQLite knows no roles: who may use the file may use the hub (chmod, chown)"
        )


async def _open_and_close(url: str) -> None:
    store = open_store(url).inner
    await store.open()
    await store.close()
