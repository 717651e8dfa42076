# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""The examination of entities: locks that nobody will give back, and rows that contradict themselves. Needs no key."""

from __future__ import annotations

from collections.abc import Iterator

from durably.codec.wrap import WrapError, inflate, is_sealed, is_wrapped
from durably.core.commit import EntityRow
from durably.core.entities import EntityId, EntityState
from durably.core.history import is_release
from durably.core.messages import TIMER_IDLE, TIMER_SIGNAL
from durably.core.status import TERMINAL
from durably.errors import EntityCorruptError, InvalidIdError
from durably.storage.checkup import Finding
from durably.storage.sqlite.calls import Execute

_COLUMNS = "instance_id, name, execution, created_at, updated_at, state, version, locked_by, rest, checksum"
_NAMED_MAX = 3


def look_at_entities(execute: Execute, *, deep: bool) -> Iterator[Finding]:
    """Locks and rows; `deep`: all rows, and their timers, and not only those of entities that are locked."""
    yield _locks(execute)
    yield _rows(execute, deep=deep)


def _locks(execute: Execute) -> Finding:
    held, orphans = 0, list[str]()
    for entity, owner, status in execute(
        "SELECT e.instance_id, e.locked_by, i.status FROM entities e LEFT JOIN instances i ON i.instance_id = e.locked_by"
        " WHERE e.locked_by IS NOT NULL ORDER BY e.instance_id"
    ).fetchall():
        held += 1
        if (status is None or status in TERMINAL) and not _is_being_released(execute, entity):
            orphans.append(f"{entity} (by '{owner}', {'which is gone' if status is None else status})")
    if not held:
        return Finding("OK", "locks", "none")
    if not orphans:
        return Finding("OK", "locks", f"{held:,} held")
    text = (
        f"{len(orphans):,} of {held:,} held by orchestrations that will not give them back: {_some(orphans)}"
    )
    return Finding("WARN", "locks", text, "durably entities clean")


def _is_being_released(execute: Execute, entity: str) -> bool:
    """True when the release waits in the inbox for a host; also when what waits there is encrypted, and may be one."""
    bodies = execute("SELECT body FROM inbox WHERE instance_id = ?", (entity,)).fetchall()
    return any(is_sealed(body) or is_release(_plain(body)) for (body,) in bodies)


def _rows(execute: Execute, *, deep: bool) -> Finding:
    count: int = execute("SELECT count(*) FROM entities").fetchall()[0][0]
    if not count:
        return Finding("OK", "entities", "none")
    where = "" if deep else " WHERE locked_by IS NOT NULL"
    timers = _timers(execute) if deep else None
    broken, sealed = list[str](), 0
    for columns in execute(f"SELECT {_COLUMNS} FROM entities{where}"):
        row = EntityRow._make(columns)
        if is_sealed(row.rest):
            sealed += 1
            continue
        problem = _problem(row, timers)
        if problem is not None:
            broken.append(f"{row.instance_id} {problem}")
    if timers:
        broken += [
            f"{instance_id} has a timer and no row" for instance_id in timers if instance_id.startswith("@")
        ]
    if broken:
        text = f"{len(broken):,} of {count:,} contradict themselves: {_some(broken)}"
        return Finding("FAIL", "entities", text, "Stop the host, copy the file, and restore a backup")
    unseen = f", {sealed:,} of them encrypted and not looked into" if sealed else ""
    return Finding("OK", "entities", f"{count:,}{unseen}")


_Timers = dict[str, set[tuple[int, int, int, int]]]


def _timers(execute: Execute) -> _Timers:
    """Execution, seq, kind and instant of the timers of each entity."""
    found: _Timers = {}
    kinds = f"{TIMER_SIGNAL}, {TIMER_IDLE}"
    for instance_id, *timer in execute(
        f"SELECT instance_id, execution, seq, kind, due_at FROM timers WHERE kind IN ({kinds})"
    ):
        execution, seq, kind, due_at = timer
        found.setdefault(instance_id, set()).add((execution, seq, kind, due_at))
    return found


def _problem(row: EntityRow, timers: _Timers | None) -> str | None:
    """What is wrong with a row, and with the timers of its entity; these are taken out."""
    armed = set[tuple[int, int, int, int]]() if timers is None else timers.pop(row.instance_id, set())
    try:
        state = EntityState.of(row._replace(state=_plain(row.state), rest=_plain(row.rest) or b""))
        name = EntityId.parse(row.instance_id).name
    except (EntityCorruptError, InvalidIdError, WrapError):
        return "is not what was written"
    holder = None if state.holder is None else state.holder.instance_id
    if name != row.name:
        return f"stands under the name '{row.name}'"
    if holder != row.locked_by:
        return f"is locked by {holder!r} and stands among those locked by {row.locked_by!r}"
    if state.gone:
        return "has a row, and nothing in it"
    wanted = {(state.execution, one.seq, TIMER_SIGNAL, one.due_at) for one in state.delayed.values()}
    if state.idle_timer is not None:
        wanted.add((state.execution, -1, TIMER_IDLE, state.idle_timer))
    if timers is not None and armed != wanted:
        return (
            f"has {len(armed):,} timers, expected {len(wanted):,}"
            if len(armed) != len(wanted)
            else "has other timers"
        )
    return None


def _plain(stored: bytes | None) -> bytes | None:
    return inflate(stored) if stored is not None and is_wrapped(stored) and not is_sealed(stored) else stored


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - _NAMED_MAX:,} more" if len(texts) > _NAMED_MAX else ""
    return ", ".join(texts[:_NAMED_MAX]) + more
