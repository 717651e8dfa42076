"""Schedules as users ask for them, turned into what is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from durably.codec.convert import Converter
from durably.core.entities import EntityId, check_operation
from durably.core.ids import check_tags
from durably.errors import InvalidScheduleError
from durably.program.durations import micros_of, microseconds
from durably.program.registry import Registry
from durably.schedules.spec import (
    Action,
    CatchUp,
    Overlap,
    SignalAction,
    Spec,
    StartAction,
    check_schedule_id,
    check_spec,
)

Length = timedelta | float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRequest:
    """What `Schedules.create` and `App.schedule` are given; see there."""

    schedule_id: str
    fn: Callable[..., Any] | str | None
    input: Any
    entity: EntityId | str | None
    operation: str | None
    cron: str | None
    interval: Length | None
    time_zone: str
    start_at: datetime | None
    end_at: datetime | None
    jitter: Length
    overlap: Overlap
    catch_up: CatchUp
    catch_up_window: Length | None
    version: str | None
    tags: dict[str, str] | None

    def spec(self, registry: Registry, converter: Converter) -> Spec:
        """As it is stored.

        Args:
            registry: Knows the names of functions.
            converter: Of the input.

        Raises:
            InvalidScheduleError: It can never work; the message says why.
            InvalidIdError: An id is not usable.
            PayloadError: The input cannot become JSON.
        """
        check_schedule_id(self.schedule_id)
        spec = Spec(
            action=action_of(
                self.schedule_id,
                registry,
                converter,
                fn=self.fn,
                input=self.input,
                entity=self.entity,
                operation=self.operation,
                version=self.version,
                tags=self.tags,
            ),
            cron=self.cron,
            interval=length(self.interval, "interval"),
            time_zone=self.time_zone,
            start_at=moment(self.start_at, "start_at"),
            end_at=moment(self.end_at, "end_at"),
            jitter=length(self.jitter, "jitter") or 0,
            overlap=self.overlap,
            catch_up=self.catch_up,
            catch_up_window=length(self.catch_up_window, "catch_up_window"),
        )
        return check_spec(spec, self.schedule_id)


def action_of(
    schedule_id: str,
    registry: Registry,
    converter: Converter,
    *,
    fn: Callable[..., Any] | str | None,
    input: Any,
    entity: EntityId | str | None,
    operation: str | None,
    version: str | None,
    tags: dict[str, str] | None,
) -> Action:
    """What a schedule does. Raises as `ScheduleRequest.spec`."""
    if (fn is None) == (entity is None):
        raise InvalidScheduleError(
            f"Schedule '{schedule_id}' has both an orchestrator and an entity, or neither: expected one of the two"
        )
    if (entity is None) != (operation is None):
        raise InvalidScheduleError(
            f"Schedule '{schedule_id}' has one of entity and operation only: expected both, or neither"
        )
    if entity is not None and (version is not None or tags):
        raise InvalidScheduleError(
            f"Schedule '{schedule_id}' signals an entity, and has a version or tags: expected these for instances only"
        )
    payload = payload_text(input, converter)
    if fn is None:
        return SignalAction(str(EntityId.of(entity)), check_operation(operation or ""), payload)
    asked = registry.asked_version(fn, version)
    return StartAction(registry.orchestrator_name(fn), payload, asked, check_tags(tags))


def payload_text(value: Any, converter: Converter) -> str | None:
    """An input as it is stored."""
    return None if value is None else converter.encode(value).decode()


def length(given: Length | None, what: str) -> int | None:
    """A length of time in microseconds. Raises `UsageError`."""
    return None if given is None else microseconds(given, what)


def moment(given: datetime | None, what: str) -> int | None:
    """An instant in microseconds; a naive one is UTC.

    Raises:
        InvalidScheduleError: It is none.
    """
    if given is None:
        return None
    if not isinstance(given, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
        raise InvalidScheduleError(f"{what} is {given!r}: expected a datetime")
    return micros_of(given)
