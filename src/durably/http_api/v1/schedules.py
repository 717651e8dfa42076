"""Schedules: look, create, change, pause, resume, trigger, backfill, delete."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec
from msgspec import UNSET

from durably.core.entities import EntityId
from durably.core.notices import checked_tags
from durably.http_api.access import require
from durably.http_api.durable.entities import of_users
from durably.http_api.refusals import Refusal
from durably.http_api.reserved import check_orchestrator
from durably.http_api.served import Served
from durably.http_api.starting import Starts
from durably.http_api.v1 import bodies, requests
from durably.http_api.v1.operation import Answer, Call, Operation
from durably.program.durations import micros_of
from durably.schedules.cron import parse_cron
from durably.schedules.description import ScheduleDescription
from durably.schedules.zones import next_match, zone_of
from durably.security.roles import Principal

_ONE: Final = "/schedules/{scheduleId}"

_UPDATE: Final = "Change what is said, and nothing else"
_PAUSE: Final = "Let no occurrence run until it is resumed; idempotent"
_RESUME: Final = "Let occurrences run again, from now on; idempotent"
_TRIGGER: Final = "Run it now, once more than its occurrences"
_BACKFILL: Final = "Run the occurrences of a past range, each once"

_LENGTHS: Final = {"interval_s": "interval", "jitter_s": "jitter", "catch_up_window_s": "catch_up_window"}
"""What is in seconds here, and its name there."""


class Schedules:
    """Operations on schedules. What makes something start needs the permission to start."""

    def __init__(self, served: Served) -> None:
        self._served = served

    @property
    def operations(self) -> list[Operation]:
        """Their rows."""
        return [
            Operation(
                id="getSchedule",
                method="GET",
                path=_ONE,
                needs="read",
                summary="One schedule: when it comes due, what runs, what ran",
                act=self._get,
                answers={200: bodies.Schedule},
            ),
            Operation(
                id="listSchedules",
                method="GET",
                path="/schedules",
                needs="read",
                summary="Schedules, in the order of their ids, page by page",
                act=self._list,
                query=requests.ScheduleQuery,
                answers={200: bodies.SchedulePage},
            ),
            Operation(
                id="createSchedule",
                method="POST",
                path="/schedules",
                needs="start",
                summary="Create a schedule that starts an orchestration, or signals an entity, by NCRONTAB or every so often",
                act=self._create,
                body=requests.CreateSchedule,
                answers={201: None},
            ),
            *self._changes,
            Operation(
                id="deleteSchedule",
                method="DELETE",
                path=_ONE,
                needs="purge",
                summary="Delete a schedule; what it has started goes on",
                act=self._delete,
            ),
        ]

    @property
    def _changes(self) -> list[Operation]:
        return [
            Operation(
                id=f"{verb}Schedule",
                method="POST",
                path=f"{_ONE}/{verb}",
                needs=needs,
                summary=summary,
                act=act,
                body=body,
                body_required=required,
                answers={200: bodies.Triggered} if verb == "trigger" else {204: None},
            )
            for verb, needs, act, body, required, summary in (
                ("update", "start", self._update, requests.UpdateSchedule, True, _UPDATE),
                ("pause", "control", self._pause, requests.Note, False, _PAUSE),
                ("resume", "control", self._resume, requests.Note, False, _RESUME),
                ("trigger", "start", self._trigger, requests.Trigger, False, _TRIGGER),
                ("backfill", "start", self._backfill, requests.Backfill, True, _BACKFILL),
            )
        ]

    async def _get(self, call: Call) -> bodies.Schedule:
        found = await self._served.client.schedules.describe(call.path["scheduleId"])
        return schedule_of(found, payloads=call.sees_payloads)

    async def _list(self, call: Call) -> bodies.SchedulePage:
        query: requests.ScheduleQuery = call.query
        page = await self._served.client.schedules.list(
            prefix=query.prefix or "", page_size=query.limit, continuation_token=query.cursor
        )
        return bodies.SchedulePage(
            schedules=[schedule_of(one, payloads=call.sees_payloads) for one in page.schedules],
            next_cursor=page.continuation_token,
        )

    async def _create(self, call: Call) -> Answer:
        asked: requests.CreateSchedule = call.body
        _check_target(call, asked.orchestrator, asked.entity)
        await self._served.client.schedules.create(
            asked.schedule_id,
            asked.orchestrator,
            asked.input,
            entity=asked.entity,
            operation=asked.operation,
            cron=asked.cron,
            interval=asked.interval_s,
            time_zone=asked.time_zone,
            start_at=asked.start_at,
            end_at=asked.end_at,
            jitter=asked.jitter_s,
            overlap=asked.overlap,
            catch_up=asked.catch_up,
            catch_up_window=asked.catch_up_window_s,
            version=asked.version,
            tags=checked_tags(asked.tags),
            paused=asked.paused,
            note=asked.note,
        )
        return Answer(201)

    async def _update(self, call: Call) -> None:
        given = {
            _LENGTHS.get(name, name): value
            for name, value in msgspec.structs.asdict(call.body).items()
            if value is not UNSET
        }
        orchestrator, entity = given.pop("orchestrator", None), given.get("entity")
        _check_target(call, orchestrator, entity)
        if (
            "input" in given and orchestrator is None and entity is None
        ):  # of what it starts, or signals, already
            found = await self._served.client.schedules.describe(call.path["scheduleId"])
            _check_target(call, found.orchestrator, None if found.entity_id is None else str(found.entity_id))
        if "tags" in given:
            given["tags"] = checked_tags(given["tags"])
        await self._served.client.schedules.update(call.path["scheduleId"], orchestrator, **given)

    async def _pause(self, call: Call) -> None:
        await self._served.client.schedules.pause(call.path["scheduleId"], call.body.note)

    async def _resume(self, call: Call) -> None:
        await self._served.client.schedules.resume(call.path["scheduleId"], call.body.note)

    async def _trigger(self, call: Call) -> bodies.Triggered:
        asked: requests.Trigger = call.body
        found = await self._served.client.schedules.trigger(call.path["scheduleId"], overlap=asked.overlap)
        return bodies.Triggered(instance_id=found)

    async def _backfill(self, call: Call) -> None:
        asked: requests.Backfill = call.body
        schedules, starts = self._served.client.schedules, self._served.starts
        if starts is not None:
            found = await schedules.describe(call.path["scheduleId"])
            _take_all(starts, call.principal, _occurrences(found, asked, starts.most))
        await schedules.backfill(call.path["scheduleId"], asked.start, asked.end, at_once=asked.at_once)

    async def _delete(self, call: Call) -> None:
        await self._served.client.schedules.delete(call.path["scheduleId"])


def _check_target(call: Call, orchestrator: str | None, entity: str | None) -> None:
    """Refuse what is of the runtime, and orders to entities by somebody who may give none."""
    if orchestrator is not None:
        check_orchestrator(orchestrator)
    if entity is not None:
        require(call.principal, "control", None)
        of_users(EntityId.of(entity))


def _take_all(starts: Starts, principal: Principal, count: int) -> None:
    """Take a start for each occurrence; one was taken when the request was let in."""
    if count > starts.most:
        raise Refusal(
            400,
            f"The range has more occurrences than this host lets anybody start at once ({starts.most:g}): expected a shorter "
            "one; ask for the next when those have started",
            "RangeTooLong",
        )
    if count > 1:
        starts.take(principal, count - 1)


def _occurrences(found: ScheduleDescription, asked: requests.Backfill, most: float) -> int:
    """How many a range may have, counted until there are more than `most`."""
    first, last = micros_of(asked.start), micros_of(asked.end)
    if found.interval is not None:
        return (last - first) // (found.interval // timedelta(microseconds=1)) + 1
    count, moment = 0, first - 1
    if found.cron is None:
        return count
    cron, zone = parse_cron(found.cron), zone_of(found.time_zone)
    while count <= most and (due := next_match(cron, zone, moment)) is not None and due <= last:
        count, moment = count + 1, due
    return count


def schedule_of(found: ScheduleDescription, *, payloads: bool) -> bodies.Schedule:
    """A schedule for people who may see payloads, or may not."""
    said = msgspec.structs.asdict(found)
    runs = [bodies.ScheduleRun(**msgspec.structs.asdict(run)) for run in said.pop("recent")]
    entity, told, trouble = said.pop("entity_id"), said.pop("input"), said.pop("trouble")
    return bodies.Schedule(
        **said,
        entity=None if entity is None else str(entity),
        recent=runs,
        input=told if payloads else UNSET,
        trouble=trouble if payloads else UNSET,
    )
