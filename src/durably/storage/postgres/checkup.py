# ruff: noqa: S608 - statements are put together from constants and the quoted schema; values are bound
"""The examination of a hub on PostgreSQL. Reads only."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Final

from durably.core.spans import span
from durably.errors import DurablyError, UsageError
from durably.storage.checkup import Finding
from durably.storage.postgres.address import Address
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.migrations import VERSION
from durably.storage.postgres.pool import Pool
from durably.storage.postgres.recorded import Recorded, check_age, look
from durably.storage.postgres.schema import quoted
from durably.storage.postgres.servers import Servers
from durably.storage.postgres.state import partitions

_SKEW_S: Final = 1.0
_STALE_US: Final = 10_000_000
"""A live host takes messages in within milliseconds."""

_DAY_US: Final = 86_400_000_000
_NAMED_MAX: Final = 3
_FULL: Final = 0.9

_UNSAFE: Final = {
    "fsync": "what was acknowledged is lost when the machine ends, and more may be damaged",
    "synchronous_commit": "what was acknowledged is lost when the server ends",
    "full_page_writes": "pages may be damaged when the machine ends",
}
_SESSIONS: Final = (
    "SELECT (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'),"
    " current_setting('max_connections')::int"
)
_HELD: Final = "i.status IN ('Suspended', 'Pending') OR i.blocked IS NOT NULL OR i.parked IS NOT NULL OR e.locked_by IS NOT NULL"


async def examine(url: str, now: int) -> AsyncIterator[Finding]:
    """Look at a hub, one thing after the other; ends early when there is none.

    Args:
        url: Of the hub.
        now: In microseconds since 1970 UTC.
    """
    began = time.monotonic()
    address = Address.of(url)
    pool = Pool(Servers(address), address.url, name="durably doctor", size=1, answer_s=None)
    try:
        async with pool.use() as connection:
            yield await _server(connection)
            yield await _settings(connection)
            yield await _sessions(connection)
            yield await _clock(connection, now, began)
            found, finding = await _schema(connection, address)
            yield finding
            if found is None:
                return
            yield await _rights(connection, address)
            async for finding in _contents(connection, quoted(address.schema), now):
                yield finding
    except UsageError:
        raise
    except DurablyError as error:
        advice = "Check the URL, and whether the server runs and lets this machine and user in"
        yield Finding("FAIL", "server", str(error), advice)
    finally:
        await pool.close()


# --- the server ------------------------------------------------------------------------------------------------------


async def _server(connection: Connection) -> Finding:
    ((version, user, encrypted),) = await connection.rows(
        "SELECT current_setting('server_version'), current_user,"
        " coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()), false)"
    )
    way = "over TLS" if encrypted else "without TLS"
    return Finding("OK", "server", f"PostgreSQL {version}, as role '{user}', {way}")


async def _settings(connection: Connection) -> Finding:
    """Those without which "acknowledged" does not mean durable."""
    off = [name for name in _UNSAFE if await connection.value("SELECT current_setting($1)", name) == "off"]
    if not off:
        return Finding("OK", "settings", "fsync, synchronous_commit and full_page_writes are on")
    texts = "; ".join(f"{name} is off: {_UNSAFE[name]}" for name in off)
    return Finding("FAIL", "settings", texts, "Set them to on, for the server and for this role and database")


async def _sessions(connection: Connection) -> Finding:
    ((used, most),) = await connection.rows(_SESSIONS)
    text = f"{used} of {most} connections are used"
    if used > most * _FULL:
        return Finding("WARN", "sessions", text, "Raise max_connections, or put PgBouncer before the server")
    return Finding("OK", "sessions", text)


async def _clock(connection: Connection, now: int, began: float) -> Finding:
    asked = time.monotonic()
    server = float(await connection.value("SELECT extract(epoch FROM clock_timestamp())::float8"))
    answered = time.monotonic()
    here = now / 1_000_000 + (asked + answered) / 2 - began
    apart = server - here
    text = f"{span(abs(apart))} {'behind' if apart > 0 else 'ahead of'} the clock of the server"
    if abs(apart) > _SKEW_S + (answered - asked):
        return Finding(
            "WARN", "clock", text, "Set the clock of this machine: timers of its hosts are off by that"
        )
    return Finding("OK", "clock", "as that of the server")


# --- the hub ---------------------------------------------------------------------------------------------------------


async def _schema(connection: Connection, address: Address) -> tuple[Recorded | None, Finding]:
    try:
        found = await look(connection, address)
        if found is not None:
            check_age(found, address.url)
    except DurablyError as error:
        return None, Finding("FAIL", "schema", str(error))
    if found is None:
        text = f"the database has no schema '{address.schema}'"
        return None, Finding(
            "FAIL", "schema", text, "Check the URL; a host makes the hub, and so does durably hub migrate"
        )
    missing = found.pending()
    if missing:
        text = (
            f"version {found.version}; this durably needs version {VERSION}, and {len(missing)} steps to it"
        )
        advice = "durably hub migrate, or start a host whose role may do it"
        return None, Finding("FAIL", "schema", text, advice)
    if found.version > VERSION:
        text = f"version {found.version}; this durably writes {VERSION}, and may still be used"
        return found, Finding(
            "WARN", "schema", text, "Deploy the newer version, then run durably hub migrate --post"
        )
    if found.pending(post=True):
        text = f"version {found.version}, with what older hosts need"
        return found, Finding(
            "WARN", "schema", text, "When no older host is left: durably hub migrate --post"
        )
    return found, Finding("OK", "schema", f"version {found.version}")


async def _rights(connection: Connection, address: Address) -> Finding:
    rows = await connection.rows(
        "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname NOT IN ('hub', 'migrations')"
        " AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')"
        " AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) ORDER BY 1",
        address.schema,
    )
    if rows:
        text = f"this role may not read and write {', '.join(row[0] for row in rows)}"
        return Finding("FAIL", "rights", text, "The role that owns the hub: durably hub migrate --grant ROLE")
    owner = await connection.value(
        "SELECT pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = to_regclass($1 || '.hub')",
        quoted(address.schema),
    )
    may = (
        "and change its schema" if owner else "and not change its schema: its owner runs durably hub migrate"
    )
    return Finding("OK", "rights", f"this role may use the hub, {may}")


async def _contents(connection: Connection, schema: str, now: int) -> AsyncIterator[Finding]:
    served = 0
    async with connection.moment():
        owned = [one for one in await partitions(connection, schema) if one.owner is not None]
        served = len(owned)
        total = await connection.value(f"SELECT count(*) FROM {schema}.partitions")
        waits = await connection.value(
            f"SELECT EXISTS (SELECT 1 FROM {schema}.inbox)"
            f" OR EXISTS (SELECT 1 FROM {schema}.instances WHERE status IN ('Pending', 'Running', 'Suspended'))"
        )
        hosts = sorted({one.owner for one in owned if one.owner})
        yield _leases(hosts, served, total, waits=waits)
        yield await _inbox(connection, schema, now, served=bool(served))
        yield await _set_aside(connection, schema, "blocked", "whose code and history disagree", "")
        yield await _set_aside(connection, schema, "parked", "set aside", "parked_messages")
        rows = await connection.rows(
            f"SELECT instance_id FROM {schema}.instances WHERE status <> 'Completed' AND status = 'Failed'"
            " AND updated_at >= $1 ORDER BY created_at",
            now - _DAY_US,
        )
        advice = "durably instances list --status Failed; durably instances show ID tells why"
        yield _named(rows, "failed", "failed in the last 24 hours", advice)


def _leases(hosts: list[str], served: int, total: int, *, waits: bool) -> Finding:
    if served == total:
        return Finding("OK", "leases", f"all {total} partitions are served, by {_some(hosts)}")
    if not served:
        text = "no host serves the hub, and " + ("work waits for one" if waits else "nothing waits for one")
        return Finding("WARN" if waits else "OK", "leases", text, "durably run APP --hub URL")
    text = f"{served} of {total} partitions are served, by {_some(hosts)}"
    return Finding(
        "WARN", "leases", text, "Hosts take the others within a lease; look again, then at their logs"
    )


async def _inbox(connection: Connection, schema: str, now: int, *, served: bool) -> Finding:
    ((count, oldest),) = await connection.rows(f"SELECT count(*), min(at) FROM {schema}.inbox")
    if not count:
        return Finding("OK", "inbox", "empty")
    ((waiting, oldest_waiting),) = await connection.rows(
        f"SELECT count(*), min(m.at) FROM {schema}.inbox m LEFT JOIN {schema}.instances i USING (instance_id)"
        f" LEFT JOIN {schema}.entities e USING (instance_id) WHERE ({_HELD}) IS NOT TRUE"
    )
    text = f"{_count(count, 'message')}, the oldest {span(max(0, now - oldest) / 1_000_000)} old"
    if count > waiting:
        text += f"; {_count(count - waiting, 'message')} held for what is suspended, scheduled, blocked, parked or locked"
    if waiting and not served:
        return Finding("WARN", "inbox", text, "Start a host: they wait for one")
    if waiting and now - oldest_waiting > _STALE_US:
        return Finding("WARN", "inbox", text, "The hosts do not take them in: look at their logs")
    return Finding("OK", "inbox", text)


async def _set_aside(connection: Connection, schema: str, column: str, what: str, messages: str) -> Finding:
    rows = await connection.rows(
        f"SELECT instance_id FROM {schema}.instances WHERE {column} IS NOT NULL AND status <> 'Completed'"
        " ORDER BY created_at"
    )
    found = _named(rows, column, what, "durably instances why ID tells the cause")
    if not messages:
        return found
    count = await connection.value(f"SELECT count(*) FROM {schema}.{messages}")
    if not count:
        return found
    text = f"{_count(count, 'message')} set aside"
    if found.level != "OK":
        text = f"{found.text}; {text}"
    return Finding("WARN", column, text, "durably parked list tells the causes")


def _named(rows: Any, subject: str, what: str, advice: str) -> Finding:
    """None, or how many there are and the first of them."""
    if not rows:
        return Finding("OK", subject, "none")
    return Finding(
        "WARN",
        subject,
        f"{_count(len(rows), 'instance')} {what}: {_some([row[0].decode() for row in rows])}",
        advice,
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX:,} more" if len(names) > _NAMED_MAX else ""
    return f"{', '.join(names[:_NAMED_MAX])}{more}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
