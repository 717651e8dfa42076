# ruff: noqa: S608 - statements are put together from constants and the quoted schema; values are bound
"""What a schema says of itself: whether it is a hub, of which version, and which hosts may use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from durably.errors import AccessDeniedError, HubNotFoundError, HubVersionError
from durably.storage.postgres.address import Address
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.migrations import STEPS, VERSION, Step
from durably.storage.postgres.schema import quoted


class Recorded(NamedTuple):
    """A hub that is there.

    Attributes:
        hub_id: Random bytes that were made with it.
        partitions: How many it has.
        version: The newest version of which a step was begun.
        oldest: Hosts of versions below are too old: what they need was dropped, or is being dropped.
        done: Numbers of the steps that are done.
    """

    hub_id: bytes
    partitions: int
    version: int
    oldest: int
    done: frozenset[int]

    def pending(self, steps: Sequence[Step] = STEPS, *, post: bool = False) -> list[Step]:
        """The steps that a host with these steps needs and misses, in order.

        Args:
            steps: All steps that the host knows.
            post: Also those that wait until the last older host is gone.
        """
        newest = steps[-1].version
        return [
            step
            for step in steps
            if step.number not in self.done and (post or step.phase == "pre" or step.version < newest)
        ]


async def look(connection: Connection, address: Address) -> Recorded | None:
    """Read what the schema says; None: there is no hub.

    Raises:
        HubNotFoundError: The schema is something else.
        AccessDeniedError: This role may not read it.
    """
    found = await connection.rows(
        "SELECT c.relname, has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')",
        address.schema,
    )
    if not found:
        return None
    readable = {row[0]: row[1] for row in found}
    if not {"hub", "migrations"} <= readable.keys():
        raise HubNotFoundError(
            f"Schema '{address.schema}' is not a hub: it has tables of something else; name another hub in the URL (?hub=…)"
        )
    if not (readable["hub"] and readable["migrations"]):
        user = await connection.value("SELECT current_user")
        raise AccessDeniedError(
            f"Role '{user}' may not use hub {address.url}: let the role that owns schema '{address.schema}' run durably hub "
            f"migrate --grant {user}"
        )
    schema = quoted(address.schema)
    ((hub_id, partitions),) = await connection.rows(f"SELECT hub_id, partitions FROM {schema}.hub")
    rows = await connection.rows(f"SELECT step, version, phase, done_at IS NOT NULL FROM {schema}.migrations")
    return Recorded(
        hub_id,
        partitions,
        max(row[1] for row in rows),
        max((row[1] for row in rows if row[2] == "post"), default=0),
        frozenset(row[0] for row in rows if row[3]),
    )


async def schema_exists(connection: Connection, address: Address) -> bool:
    """True when there is a schema of this name, whatever is in it."""
    text = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1"
    return bool(await connection.rows(text, address.schema))


def check_age(found: Recorded, url: str, newest: int = VERSION) -> None:
    """Refuse a hub that this code is too old for. One version newer is fine until its ``post`` steps begin.

    Raises:
        HubVersionError: The message says what to install.
    """
    if found.version <= newest + 1 and found.oldest <= newest:
        return
    if found.oldest > newest:
        reason = f"what hosts below version {found.oldest} need is gone from it"
    else:
        reason = "hosts work with a schema that is one version newer, not more"
    raise HubVersionError(
        f"Hub {url} has schema version {found.version}, this durably knows up to {newest}, and {reason}; install the version "
        "of durably that wrote it, or a newer one"
    )
