# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""The examination of a hub file. Reads only, takes no lock that a host could miss, and works on what is damaged too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from durably.core.spans import span
from durably.core.timeline import instant
from durably.errors import DurablyError
from durably.storage.checkup import Finding, size_text
from durably.storage.sqlite import connection as opening
from durably.storage.sqlite import schema
from durably.storage.sqlite.calls import Execute, executor, one_moment, pragma
from durably.storage.sqlite.entity_checkup import look_at_entities
from durably.storage.sqlite.key_usage import look_at_keys
from durably.storage.sqlite.lock import Holder, holder_of

_LOG_LONG = 64_000_000
"""A host copies its log into the file every 16 MB; four times that says that something keeps it from doing so."""

_DISK_LOW, _DISK_OUT = 1_000_000_000, 50_000_000
_STALE_US = 10_000_000
"""A live host takes messages in within milliseconds."""

_DAY_US = 86_400_000_000
_NAMED_MAX = 3
_PROBLEMS_MAX = 10
_LIVE = "status <> 'Completed' AND status IN ('Pending', 'Running', 'Suspended')"
_HELD = "i.status IN ('Suspended', 'Pending') OR i.blocked IS NOT NULL OR i.parked IS NOT NULL"

_LOCKED = "EXISTS (SELECT 1 FROM entities e WHERE e.instance_id = m.instance_id AND e.locked_by IS NOT NULL)"


def examine(path: str, now: int, *, deep: bool) -> Iterator[Finding]:
    """Look at a hub file, one thing after the other; ends early when it cannot be read.

    Args:
        path: The file.
        now: In microseconds since 1970 UTC.
        deep: Also read every page and compare tables with their indexes; takes seconds a gigabyte.
    """
    file = Path(path).absolute()
    yield _versions()
    found = _file(file)
    yield found
    if found.level == "FAIL":
        return
    yield _disk(file)
    try:
        connection = opening.connect(file, cache_kib=opening.READER_CACHE_KIB, read_only=True)
    except apsw.Error as error:
        yield _unreadable(error)
        return
    if _log_octets(file):
        # The last one who closes a file moves its log into it: not our business, and it may be evidence.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    try:
        schema_found = _schema(connection, file)
        yield schema_found
        if schema_found.level == "FAIL":
            return
        yield _log(file, connection)
        with one_moment(connection):
            up_to_date = schema_found.level == "OK"
            holder = holder_of(Path(f"{file}.lock"))
            yield from _contents(executor(connection), holder, now, up_to_date=up_to_date)
            if up_to_date:
                yield from look_at_entities(executor(connection), deep=deep)
                yield look_at_keys(executor(connection), deep=deep)
        if deep:
            yield _integrity(executor(connection))
    except apsw.Error as error:
        yield _unreadable(error)
    finally:
        connection.close()


# --- the machine -----------------------------------------------------------------------------------------------------


def _versions() -> Finding:
    versions = f"SQLite {apsw.sqlite_lib_version()}, apsw {apsw.apsw_version()}"
    try:
        opening.check_sqlite()
    except DurablyError as error:
        return Finding("FAIL", "sqlite", versions, str(error))
    return Finding("OK", "sqlite", versions)


def _file(file: Path) -> Finding:
    try:
        about = file.stat()
    except FileNotFoundError:
        return Finding(
            "FAIL",
            "file",
            f"{file} does not exist",
            "Check the URL; a host creates the hub, and so does a client that starts an instance",
        )
    except OSError as error:
        return Finding(
            "FAIL", "file", f"{file} cannot be looked at: {error.strerror}", "Check the rights of its folder"
        )
    if not file.is_file():
        return Finding("FAIL", "file", f"{file} is no file", "Name a file in the URL of the hub")
    missing = [
        what
        for what, place, right in (
            ("read the file", file, os.R_OK),
            ("write the file", file, os.W_OK),
            ("write into its folder, where the log lies", file.parent, os.W_OK | os.X_OK),
        )
        if not os.access(place, right)
    ]
    if missing:
        text = f"{file}: this user may not {', nor '.join(missing)}"
        return Finding("FAIL", "file", text, "Run as the user of the hub, or change owner or mode")
    return Finding("OK", "file", f"{file}, {size_text(about.st_size)}, readable and writable")


def _disk(file: Path) -> Finding:
    usage = shutil.disk_usage(file.parent)
    text = f"{size_text(usage.free)} free of {size_text(usage.total)}"
    if usage.free < _DISK_OUT:
        return Finding("FAIL", "disk", text, "Make room: commits are refused while the disk is full")
    if usage.free < _DISK_LOW:
        return Finding("WARN", "disk", text, "Make room, or purge finished instances")
    return Finding("OK", "disk", text)


# --- the file --------------------------------------------------------------------------------------------------------


def _schema(connection: apsw.Connection, file: Path) -> Finding:
    try:
        with one_moment(connection):
            version = schema.inspect(connection, str(file))
    except DurablyError as error:
        return Finding("FAIL", "schema", str(error))
    if version == 0:
        return Finding(
            "FAIL", "schema", "the file is empty", "Name another file; a host makes a hub of this one"
        )
    if version < schema.VERSION:
        text = f"version {version}; this durably writes {schema.VERSION}"
        return Finding(
            "WARN", "schema", text, "The next host, or client that is no examination, brings it up to date"
        )
    return Finding("OK", "schema", f"version {version}")


def _log(file: Path, connection: apsw.Connection) -> Finding:
    mode: str = pragma(connection, "journal_mode")
    if mode != "wal":
        advice = "Let a host open the hub alone once"
        return Finding("FAIL", "log", f"journal mode is '{mode}', expected 'wal'", advice)
    octets = _log_octets(file)
    pages, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)  # only says how long it is
    left = max(0, pages - copied)
    text = f"{size_text(octets)}, {_count(left, 'page')} to be copied into the file"
    if left * pragma(connection, "page_size") > _LOG_LONG:
        advice = "Something keeps an old state of the file open: end long readers; a host that starts empties the log"
        return Finding("WARN", "log", text, advice)
    return Finding("OK", "log", text)


def _log_octets(file: Path) -> int:
    wal = Path(f"{file}-wal")
    return wal.stat().st_size if wal.exists() else 0


def _integrity(execute: Execute) -> Finding:
    problems = [text for (text,) in execute(f"PRAGMA integrity_check({_PROBLEMS_MAX})").fetchall()]
    if problems == ["ok"]:
        return Finding("OK", "integrity", "every page and index is sound")
    return Finding(
        "FAIL", "integrity", "; ".join(problems), "Stop the host, copy the file, and restore a backup"
    )


def _unreadable(error: apsw.Error) -> Finding:
    if isinstance(error, apsw.NotADBError):
        return Finding("FAIL", "schema", "it is no SQLite database", "Name another file, or restore a backup")
    text = f"the file cannot be read: {type(error).__name__}: {error}"
    return Finding("FAIL", "integrity", text, "Stop the host, copy the file, and restore a backup")


# --- what is in it ---------------------------------------------------------------------------------------------------


def _contents(execute: Execute, holder: Holder | None, now: int, *, up_to_date: bool) -> Iterator[Finding]:
    waits = bool(
        execute(f"SELECT 1 FROM instances WHERE {_LIVE} UNION ALL SELECT 1 FROM inbox LIMIT 1").fetchall()
    )
    yield _host(holder, waits=waits)
    yield _clock(execute, now)
    yield _inbox(execute, holder, now, up_to_date=up_to_date)
    yield _set_aside(
        execute,
        "blocked",
        "whose code and history disagree",
        "Deploy code that fits; durably instances why ID shows the difference",
    )
    parked = _set_aside(execute, "parked", "set aside", "durably instances why ID tells the cause")
    yield _with_messages(execute, parked) if up_to_date else parked
    yield _failed(execute, now)


def _host(holder: Holder | None, *, waits: bool) -> Finding:
    if holder is not None:
        return Finding("OK", "host", f"served by {holder.text}")
    if waits:
        return Finding(
            "WARN", "host", "no host serves the hub, and work waits for one", "durably run APP --hub URL"
        )
    return Finding("OK", "host", "no host serves the hub, and nothing waits for one")


def _clock(execute: Execute, now: int) -> Finding:
    rows = execute("SELECT at FROM history ORDER BY rowid DESC LIMIT 1").fetchall()
    text = f"{instant(now):%Y-%m-%dT%H:%M:%SZ}"
    if not rows:
        return Finding("OK", "clock", text)
    newest: int = rows[0][0]
    if newest > now + 1_000_000:
        ahead = span((newest - now) / 1_000_000)
        advice = "Set the clock; until it has caught up, new events get the time of the newest one, and timers are late"
        return Finding("WARN", "clock", f"{text}, {ahead} behind the newest event of the hub", advice)
    return Finding("OK", "clock", f"{text}, the newest event is {span(max(0, now - newest) / 1_000_000)} old")


def _with_messages(execute: Execute, parked: Finding) -> Finding:
    """What is parked, with the messages."""
    count: int = execute("SELECT count(*) FROM parked_messages").fetchall()[0][0]
    if not count:
        return parked
    text = f"{_count(count, 'message')} set aside"
    if parked.level != "OK":
        text = f"{parked.text}; {text}"
    return Finding("WARN", "parked", text, "durably parked list tells the causes")


def _inbox(execute: Execute, holder: Holder | None, now: int, *, up_to_date: bool) -> Finding:
    total, oldest = execute("SELECT count(*), min(at) FROM inbox").fetchall()[0]
    if not total:
        return Finding("OK", "inbox", "empty")
    held = f"{_HELD} OR {_LOCKED}" if up_to_date else _HELD
    starts, waiting, oldest_waiting = execute(
        "SELECT sum(i.instance_id IS NULL AND m.instance_id NOT LIKE '@%'), count(*), min(m.at) FROM inbox m"
        f" LEFT JOIN instances i USING (instance_id) WHERE ({held}) IS NOT TRUE"
    ).fetchall()[0]
    locked: int = 0
    if up_to_date:
        locked = execute(f"SELECT count(*) FROM inbox m WHERE {_LOCKED}").fetchall()[0][0]
    text = f"{_count(total, 'message')}, the oldest {_age(oldest, now)} old"
    if total - locked > waiting:
        text += f"; {_count(total - locked - waiting, 'message')} held for instances that are suspended, scheduled, blocked or parked"
    if locked:
        text += f"; {_count(locked, 'message')} held for entities that are locked"
    if starts:
        text += f"; {_count(starts, 'start')} not taken in yet"
    if not waiting:
        return Finding("OK", "inbox", text)
    if holder is None:
        return Finding("WARN", "inbox", text, "Start a host: they wait for one")
    if now - oldest_waiting > _STALE_US:
        advice = (
            "The host does not take them in: look at its log; a function that never returns may hold it up"
        )
        return Finding("WARN", "inbox", text, advice)
    return Finding("OK", "inbox", text)


def _set_aside(execute: Execute, column: str, what: str, advice: str) -> Finding:
    """Instances with something in a column; those that have completed are not looked at, there may be millions."""
    where = f"WHERE status <> 'Completed' AND {column} IS NOT NULL"
    return _found(execute, where, (), Finding("WARN", column, what, advice))


def _failed(execute: Execute, now: int) -> Finding:
    where = "WHERE status <> 'Completed' AND status = 'Failed' AND updated_at >= ?"
    advice = "durably instances list --status Failed; durably instances show ID tells why"
    return _found(
        execute, where, (now - _DAY_US,), Finding("WARN", "failed", "failed in the last 24 hours", advice)
    )


def _found(execute: Execute, where: str, values: tuple[Any, ...], otherwise: Finding) -> Finding:
    """None, or how many there are and the first of them."""
    count: int = execute(f"SELECT count(*) FROM instances {where}", values).fetchall()[0][0]
    if not count:
        return Finding("OK", otherwise.subject, "none")
    some = execute(f"SELECT instance_id FROM instances {where} LIMIT {_NAMED_MAX}", values).fetchall()
    more = f" and {count - len(some):,} more" if count > len(some) else ""
    ids = ", ".join(text for (text,) in some)
    return otherwise._replace(text=f"{_count(count, 'instance')} {otherwise.text}: {ids}{more}")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _age(at: int, now: int) -> str:
    return span(max(0, now - at) / 1_000_000)
