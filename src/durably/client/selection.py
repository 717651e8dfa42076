"""Which instances: the filters that queries and bulk operations have in common."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict

from durably.core.ids import check_tags, check_text
from durably.core.query import FIRST, InstanceQuery, Place
from durably.core.status import RuntimeStatus
from durably.errors import UsageError
from durably.program.durations import micros_of

Statuses = RuntimeStatus | str | Iterable[RuntimeStatus | str]


class Filters(TypedDict, total=False):
    """Filters of instances; all that are given must match.

    Attributes:
        name: Of the orchestrator.
        runtime_status: One status, or several.
        created_from: Created at or after (naive means UTC).
        created_to: Created at or before.
        updated_from: Last updated at or after; of a finished instance: when it ended.
        updated_to: Last updated at or before.
        instance_id_prefix: The id begins with it.
        tags: All of these, with these values.
        parent_instance_id: Children that this instance called; not those that it started without waiting for them.
        stuck: True: only instances that are blocked or parked; False: only others.
    """

    name: str | None
    runtime_status: Statuses | None
    created_from: datetime | None
    created_to: datetime | None
    updated_from: datetime | None
    updated_to: datetime | None
    instance_id_prefix: str | None
    tags: dict[str, str] | None
    parent_instance_id: str | None
    stuck: bool | None


def selection(
    filters: Filters, *, page_size: int = 100, after: Place = FIRST, payloads: bool = True
) -> InstanceQuery:
    """The query of some filters.

    Raises:
        UsageError: A filter is out of its range.
    """
    unknown = set(filters) - set(Filters.__annotations__)
    if unknown:
        known = ", ".join(Filters.__annotations__)
        raise UsageError(f"There is no filter '{min(unknown)}': expected some of {known}")
    check_text(filters.get("name"), "name of the orchestrator")
    check_text(filters.get("instance_id_prefix"), "instance_id_prefix")
    check_text(filters.get("parent_instance_id"), "parent_instance_id")
    return InstanceQuery(
        name=filters.get("name"),
        statuses=_statuses(filters.get("runtime_status")),
        created_from=_bound(filters.get("created_from"), "created_from"),
        created_to=_bound(filters.get("created_to"), "created_to"),
        updated_from=_bound(filters.get("updated_from"), "updated_from"),
        updated_to=_bound(filters.get("updated_to"), "updated_to"),
        instance_id_prefix=filters.get("instance_id_prefix"),
        tags=check_tags(filters.get("tags")),
        parent_instance_id=filters.get("parent_instance_id"),
        stuck=filters.get("stuck"),
        payloads=payloads,
        page_size=page_size,
        after=after,
    )


def _bound(moment: datetime | None, what: str) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
        raise UsageError(f"{what} is {moment!r}: expected a datetime")
    return micros_of(moment)


def _statuses(given: Statuses | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    try:
        names = [given] if isinstance(given, str) else list(given)
        return tuple(RuntimeStatus(name).value for name in names)
    except (ValueError, TypeError) as error:
        known = ", ".join(status.value for status in RuntimeStatus)
        raise UsageError(
            f"runtime_status holds an unknown status ({error}): expected some of {known}"
        ) from None
