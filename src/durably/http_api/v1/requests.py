"""What ``/api/v1`` is asked with: queries and bodies, as structs."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from durably.client.selection import Filters
from durably.core.status import RuntimeStatus
from durably.errors import UsageError
from durably.http_api.v1.bodies import Instant, Status
from durably.http_api.v1.parameters import Cursor, Limit
from durably.http_api.v1.where import CHARS_MAX, CONDITIONS_MAX
from durably.schedules.spec import CatchUp, Overlap

WAIT_S_MAX: Final = 60.0

Wait = Annotated[float, Meta(ge=0, le=WAIT_S_MAX, description="How long to wait for the end, in seconds")]

Tag = Annotated[str, Meta(pattern="^[^=]+=", description="`key=value`; all that are given must match")]

Text = Annotated[str, Meta(min_length=1)]

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Interval = Annotated[float, Meta(ge=1, le=1e9)]


class _Asked(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What is asked."""


class Page(_Asked, frozen=True, kw_only=True):
    """A page of a list."""

    limit: Limit = 100
    cursor: Cursor | None = None


class InstanceFilters(_Asked, frozen=True, kw_only=True):
    """Which instances; all that is given must match."""

    name: Annotated[Text, Meta(description="Of the orchestrator")] | None = None
    status: Annotated[tuple[Status, ...], Meta(description="Any of these")] = ()
    created_from: Annotated[Instant, Meta(description="Created at or after")] | None = None
    created_to: Annotated[Instant, Meta(description="Created at or before")] | None = None
    updated_from: Annotated[Instant, Meta(description="Last updated at or after")] | None = None
    updated_to: Annotated[Instant, Meta(description="Last updated at or before")] | None = None
    id_prefix: Annotated[Text, Meta(description="The id begins with it")] | None = None
    tag: tuple[Tag, ...] = ()
    parent: Annotated[Text, Meta(description="Id of the instance that called it")] | None = None
    stuck: Annotated[bool, Meta(description="Whether it is blocked or parked")] | None = None

    @property
    def filters(self) -> Filters:
        """As the client takes them.

        Raises:
            UsageError: Two tags contradict each other.
        """
        tags: dict[str, str] = {}
        for text in self.tag:
            key, _, value = text.partition("=")
            if tags.setdefault(key, value) != value:
                raise UsageError(
                    f"Tag {key!r} is asked for twice, with different values: no instance has both"
                )
        return Filters(
            name=self.name,
            runtime_status=[RuntimeStatus(one) for one in self.status] if self.status else None,
            created_from=self.created_from,
            created_to=self.created_to,
            updated_from=self.updated_from,
            updated_to=self.updated_to,
            instance_id_prefix=self.id_prefix,
            tags=tags or None,
            parent_instance_id=self.parent,
            stuck=self.stuck,
        )

    @property
    def is_empty(self) -> bool:
        """True when everything is meant."""
        return self == type(self)()


class InstanceQuery(InstanceFilters, frozen=True, kw_only=True):
    """Instances, page by page, in the order of creation."""

    where: Annotated[
        tuple[Annotated[str, Meta(max_length=CHARS_MAX)], ...],
        Meta(
            max_length=CONDITIONS_MAX,
            description="Conditions on payloads, such as `input.customer.id=42`; all must hold. Needs the permission "
            "`payloads`. A request looks at a limited number of instances: a page may be short, or empty, and have a cursor",
        ),
    ] = ()
    payloads: Annotated[bool, Meta(description="With inputs and outputs; a page may be shorter then")] = False
    limit: Limit = 100
    cursor: Cursor | None = None


class OneInstance(_Asked, frozen=True, kw_only=True):
    """One instance."""

    payloads: Annotated[bool, Meta(description="With input and output")] = True
    wait_s: Wait = 0.0


class HistoryQuery(_Asked, frozen=True, kw_only=True):
    """A page of a history."""

    limit: Annotated[int, Meta(ge=1, le=10_000, description="How many at most")] = 1_000
    cursor: Cursor | None = None


class StreamQuery(_Asked, frozen=True, kw_only=True):
    """What a stream tells."""

    history: Annotated[bool, Meta(description="Also each event of the history")] = True


class Recursive(_Asked, frozen=True, kw_only=True):
    """How far an order reaches."""

    recursive: Annotated[bool, Meta(description="Its descendants, too")] = False


class Start(_Asked, frozen=True, kw_only=True):
    """An instance to start."""

    name: Text
    input: Raw | UnsetType = UNSET
    instance_id: Text | None = None
    version: str | None = None
    start_at: Instant | None = None
    tags: dict[str, str] = {}
    on_existing: Literal["replace_finished", "fail", "replace", "attach"] = "fail"


class Reason(_Asked, frozen=True, kw_only=True):
    """Why, for people."""

    reason: str | None = None


class Terminate(_Asked, frozen=True, kw_only=True):
    """How to terminate."""

    reason: str | None = None
    recursive: bool = False
    compensate: bool = True


class Restart(_Asked, frozen=True, kw_only=True):
    """How to restart: under the same id, or a new one."""

    reason: str | None = None
    new_id: bool = False


class Bulk(_Asked, frozen=True, kw_only=True):
    """On which instances. Without any filter, `all` has to be true, so that nobody means a whole hub by mistake."""

    filter: InstanceFilters = InstanceFilters()
    all: bool = False
    dry_run: bool = False
    reason: str | None = None


class EntityQuery(Page, frozen=True, kw_only=True):
    """Entities, page by page."""

    name: Annotated[Text, Meta(description="Of the class or function")] | None = None
    key_prefix: Annotated[Text, Meta(description="The key begins with it; needs `name`")] | None = None
    updated_from: Annotated[Instant, Meta(description="Changed at or after")] | None = None
    updated_to: Annotated[Instant, Meta(description="Changed at or before")] | None = None
    state: Annotated[bool, Meta(description="With their states")] = False
    transient: Annotated[bool, Meta(description="Also those that are only locked or waited for")] = False
    locked: Annotated[bool, Meta(description="Only those that an instance has locked")] = False


class Signal(_Asked, frozen=True, kw_only=True):
    """An operation that nobody waits for."""

    operation: Text
    input: Raw | UnsetType = UNSET
    at: Instant | None = None


class CallOperation(_Asked, frozen=True, kw_only=True):
    """An operation whose result is wanted; as a stream it is waited for as long as it takes."""

    operation: Text
    input: Raw | UnsetType = UNSET
    wait_s: Annotated[float, Meta(ge=0, le=WAIT_S_MAX)] = 10.0


class ScheduleQuery(Page, frozen=True, kw_only=True):
    """Schedules, page by page."""

    prefix: Annotated[Text, Meta(description="Their ids begin with it")] | None = None


class CreateSchedule(_Asked, frozen=True, kw_only=True):
    """A schedule that starts an orchestration, or asks an `entity` for an `operation`: by `cron` or by `intervalS`."""

    schedule_id: Text
    orchestrator: Text | None = None
    entity: Text | None = None
    operation: Text | None = None
    input: Any = None
    cron: str | None = None
    interval_s: Interval | None = None
    time_zone: str = "UTC"
    start_at: Instant | None = None
    end_at: Instant | None = None
    jitter_s: Seconds = 0.0
    overlap: Overlap = "skip"
    catch_up: CatchUp = "latest"
    catch_up_window_s: Seconds | None = None
    version: str | None = None
    tags: dict[str, str] = {}
    paused: bool = False
    note: str | None = None


class UpdateSchedule(_Asked, frozen=True, kw_only=True):
    """What changes; what is not there stays. `version` and `tags` go with `orchestrator`, `operation` with `entity`."""

    orchestrator: Text | UnsetType = UNSET
    entity: Text | UnsetType = UNSET
    operation: Text | UnsetType = UNSET
    input: Any = UNSET
    cron: str | UnsetType = UNSET
    interval_s: Interval | UnsetType = UNSET
    time_zone: str | UnsetType = UNSET
    start_at: Instant | UnsetType | None = UNSET
    end_at: Instant | UnsetType | None = UNSET
    jitter_s: Seconds | UnsetType = UNSET
    overlap: Overlap | UnsetType = UNSET
    catch_up: CatchUp | UnsetType = UNSET
    catch_up_window_s: Seconds | UnsetType | None = UNSET
    version: str | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET


class Trigger(_Asked, frozen=True, kw_only=True):
    """What to do while an instance of the schedule still runs, in the place of its own policy."""

    overlap: Overlap | None = None


class Backfill(_Asked, frozen=True, kw_only=True):
    """A past range, both ends included; its occurrences one after the other, or at once."""

    start: Instant
    end: Instant
    at_once: bool = False


class Note(_Asked, frozen=True, kw_only=True):
    """Why, for people."""

    note: str | None = None


class ParkedQuery(Page, frozen=True, kw_only=True):
    """What is parked, page by page."""

    kind: Literal["instance", "message"] | None = None
    id_prefix: Annotated[Text, Meta(description="The id of the instance begins with it")] | None = None
