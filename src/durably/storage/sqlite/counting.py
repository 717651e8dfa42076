"""How many instances match, by name and status, from indexes as far as they go.

No index has the status of finished instances: it would cost every instance a second entry when it ends. So what is Completed
is what is left of all instances of a name. Both numbers come from indexes that hold all that is asked for.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from durably.core.query import FIRST, Counts, InstanceQuery
from durably.core.status import RuntimeStatus
from durably.storage.sqlite.calls import Execute
from durably.storage.sqlite.conditions import Where, require_filters, require_status
from durably.storage.sqlite.reader import Reader
from durably.storage.sqlite.search import asked

_COMPLETED = RuntimeStatus.Completed.value

_BY_STATUS = "SELECT i.name, i.status, count(*) FROM instances i WHERE {} GROUP BY i.name, i.status"
_BY_NAME = "SELECT i.name, count(*) FROM instances i WHERE {} GROUP BY i.name"


def count(reader: Reader, query: InstanceQuery) -> Counts:
    """See `Store.count`."""
    with asked(reader):
        return _count(reader.execute, msgspec.structs.replace(query, after=FIRST))
    return {}


def _count(execute: Execute, query: InstanceQuery) -> Counts:
    where = Where()
    require_filters(execute, query, where)
    statuses = query.statuses
    completed_too = statuses is None or _COMPLETED in statuses
    if not _is_covered(query):
        if statuses is not None:
            require_status(statuses, where)
        if not completed_too:
            where.require("i.status <> 'Completed'")
        return _grouped(execute, where)
    names: list[tuple[str, int]] = []
    if completed_too:
        names = execute(_BY_NAME.format(where.text), where.values).fetchall()
    where.require("i.status <> 'Completed'")
    others = _grouped(execute, where)
    unfinished: Counter[str] = Counter()
    for (name, _), number in others.items():
        unfinished[name] += number
    completed = {(name, _COMPLETED): number - unfinished[name] for name, number in names}
    return {
        key: number for key, number in (others | completed).items() if number and _wanted(key[1], statuses)
    }


def _is_covered(query: InstanceQuery) -> bool:
    """True when nothing is asked for but what the indexes by name hold: name, status, time of creation."""
    others: tuple[Any, ...] = (
        query.instance_id_prefix,
        query.tags,
        query.updated_from,
        query.updated_to,
        query.stuck,
        query.parent_instance_id,
    )
    return not query.parked and all(value is None for value in others)


def _wanted(status: str, statuses: tuple[str, ...] | None) -> bool:
    return statuses is None or status in statuses


def _grouped(execute: Execute, where: Where) -> Counts:
    rows = execute(_BY_STATUS.format(where.text), where.values).fetchall()
    return {(name, status): number for name, status, number in rows}
