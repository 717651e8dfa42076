"""What a schedule is to do, and when: as it is stored, and what is refused."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from durably.core.entities import EntityId, check_operation
from durably.core.ids import INSTANCE_ID_CHARS_MAX, check_instance_id, check_tags, check_text
from durably.errors import InvalidIdError, InvalidScheduleError
from durably.schedules.cron import parse_cron
from durably.schedules.zones import zone_of

SCHEDULE: Final = "durably.schedule"
"""The name of the entities that are schedules; their key is the id."""

Overlap = Literal["allow", "skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other"]
CatchUp = Literal["all", "latest", "skip"]

SECOND_US = 1_000_000
_SUFFIX_CHARS = 48
"""What ids of instances have behind the id of their schedule, at most."""


class StartAction(msgspec.Struct, frozen=True, omit_defaults=True, tag="start"):
    """Start an orchestration.

    Attributes:
        name: The orchestrator.
        input: Payload as text.
        version: As in `StartInstance`.
        tags: Set on the instance, beside those of the schedule.
    """

    name: str
    input: str | None = None
    version: str | None = None
    tags: dict[str, str] | None = None


class SignalAction(msgspec.Struct, frozen=True, omit_defaults=True, tag="signal"):
    """Signal an entity.

    Attributes:
        entity: Its id as text.
        operation: What it is asked for.
        input: Payload as text.
    """

    entity: str
    operation: str
    input: str | None = None


Action = StartAction | SignalAction


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule as it was asked for. Instants and lengths in microseconds. FORMAT: new fields have a default.

    Attributes:
        action: What to do.
        cron: When, as NCRONTAB; or
        interval: every so often.
        time_zone: Of `cron`.
        start_at: No occurrence before; occurrences of an interval are counted from here.
        end_at: No occurrence behind.
        jitter: Each occurrence comes later by up to so much.
        overlap: What to do while an instance of an occurrence before still runs.
        catch_up: Which of the occurrences are made up for that came due while nobody could see to it.
        catch_up_window: Those that are later than this are not.
    """

    action: Action
    cron: str | None = None
    interval: int | None = None
    time_zone: str = "UTC"
    start_at: int | None = None
    end_at: int | None = None
    jitter: int = 0
    overlap: Overlap = "skip"
    catch_up: CatchUp = "latest"
    catch_up_window: int | None = None

    @property
    def timing(self) -> tuple[Any, ...]:
        """What decides on the occurrences, but for their end."""
        return self.cron, self.interval, self.time_zone, self.start_at


class SpecChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """New values of some parts of a spec; see there.

    Attributes:
        input: Of the action as it is.
    """

    action: Action | UnsetType = UNSET
    input: str | UnsetType | None = UNSET
    cron: str | UnsetType | None = UNSET
    interval: int | UnsetType | None = UNSET
    time_zone: str | UnsetType = UNSET
    start_at: int | UnsetType | None = UNSET
    end_at: int | UnsetType | None = UNSET
    jitter: int | UnsetType = UNSET
    overlap: Overlap | UnsetType = UNSET
    catch_up: CatchUp | UnsetType = UNSET
    catch_up_window: int | UnsetType | None = UNSET

    def applied(self, spec: Spec) -> Spec:
        """The spec with these values."""
        given = {key: value for key, value in msgspec.structs.asdict(self).items() if value is not UNSET}
        payload = given.pop("input", UNSET)
        changed = msgspec.structs.replace(spec, **given)
        if payload is UNSET:
            return changed
        return msgspec.structs.replace(changed, action=msgspec.structs.replace(changed.action, input=payload))


def check_schedule_id(schedule_id: str) -> str:
    """Refuse an id whose entity, or whose instances, could not be stored.

    Raises:
        InvalidIdError: It is empty, too long, begins with ``@``, or holds a character that no instance id may have.
    """
    try:
        check_instance_id(schedule_id)
        EntityId(SCHEDULE, schedule_id)
    except InvalidIdError as error:
        raise InvalidIdError(f"As id of a schedule: {error}") from None
    if len(schedule_id) > INSTANCE_ID_CHARS_MAX - _SUFFIX_CHARS:
        raise InvalidIdError(
            f"Schedule id '{schedule_id[:40]}…' has {len(schedule_id)} characters: expected "
            f"{INSTANCE_ID_CHARS_MAX - _SUFFIX_CHARS} at most, as its instances get longer ones"
        )
    return schedule_id


def check_spec(spec: Spec, schedule_id: str) -> Spec:
    """Refuse what can never work.

    Raises:
        InvalidScheduleError: See the message.
        InvalidIdError: Of the entity to signal.
    """

    def refuse(what: str) -> InvalidScheduleError:
        return InvalidScheduleError(f"Schedule '{schedule_id}' {what}")

    if (spec.cron is None) == (spec.interval is None):
        raise refuse("has both cron and interval, or neither: expected one of the two")
    if spec.cron is not None:
        check_text(spec.cron, "cron expression")
        parse_cron(spec.cron)
    check_text(spec.time_zone, "time zone")
    zone_of(spec.time_zone)
    if spec.interval is not None:
        if spec.interval < SECOND_US:
            seconds = spec.interval / SECOND_US
            raise refuse(f"has an interval of {seconds:g} s: expected 1 s or more")
        if spec.time_zone != "UTC":
            raise refuse(
                f"has an interval and time_zone={spec.time_zone!r}: expected a time zone with cron only"
            )
    for value, known, what in (
        (spec.overlap, get_args(Overlap), "overlap"),
        (spec.catch_up, get_args(CatchUp), "catch_up"),
    ):
        if value not in known:
            raise refuse(f"has {what}={value!r}: expected one of {', '.join(map(repr, known))}")
    if spec.start_at is not None and spec.end_at is not None and spec.end_at < spec.start_at:
        raise refuse("ends before it starts: expected an end_at behind start_at")
    _check_action(spec.action)
    return spec


def _check_action(action: Action) -> None:
    if isinstance(action, SignalAction):
        EntityId.parse(action.entity)
        check_operation(action.operation)
    else:
        check_text(action.name, "name of the orchestrator")
        check_text(action.version, "version")
        check_tags(action.tags)
