"""Schedules: look, create, pause, resume, trigger, delete."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec
from msgspec import UNSET

from durably.http_api.reserved import check_orchestrator, checked_tags
from durably.http_api.served import Served
from durably.http_api.v1 import bodies, requests
from durably.http_api.v1.operation import Answer, Call, Operation
from durably.schedules.description import ScheduleDescription

_ONE: Final = "/schedules/{scheduleId}"


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
                summary="Create a schedule that starts an orchestration, by NCRONTAB or every so often",
                act=self._create,
                body=requests.CreateSchedule,
                answers={201: None},
            ),
            Operation(
                id="pauseSchedule",
                method="POST",
                path=f"{_ONE}/pause",
                needs="control",
                summary="Let no occurrence run until it is resumed; idempotent",
                act=self._pause,
                body=requests.Note,
                body_required=False,
            ),
            Operation(
                id="resumeSchedule",
                method="POST",
                path=f"{_ONE}/resume",
                needs="control",
                summary="Let occurrences run again, from now on; idempotent",
                act=self._resume,
                body=requests.Note,
                body_required=False,
            ),
            Operation(
                id="triggerSchedule",
                method="POST",
                path=f"{_ONE}/trigger",
                needs="start",
                summary="Run it now, once more than its occurrences",
                act=self._trigger,
                answers={200: bodies.Triggered},
            ),
            Operation(
                id="deleteSchedule",
                method="DELETE",
                path=_ONE,
                needs="purge",
                summary="Delete a schedule; what it has started goes on",
                act=self._delete,
            ),
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
        check_orchestrator(asked.orchestrator)
        await self._served.client.schedules.create(
            asked.schedule_id,
            asked.orchestrator,
            asked.input,
            cron=asked.cron,
            interval=None if asked.interval_s is None else timedelta(seconds=asked.interval_s),
            time_zone=asked.time_zone,
            start_at=asked.start_at,
            end_at=asked.end_at,
            overlap=asked.overlap,
            catch_up=asked.catch_up,
            version=asked.version,
            tags=checked_tags(asked.tags),
            paused=asked.paused,
            note=asked.note,
        )
        return Answer(201)

    async def _pause(self, call: Call) -> None:
        await self._served.client.schedules.pause(call.path["scheduleId"], call.body.note)

    async def _resume(self, call: Call) -> None:
        await self._served.client.schedules.resume(call.path["scheduleId"], call.body.note)

    async def _trigger(self, call: Call) -> bodies.Triggered:
        found = await self._served.client.schedules.trigger(call.path["scheduleId"])
        return bodies.Triggered(instance_id=found)

    async def _delete(self, call: Call) -> None:
        await self._served.client.schedules.delete(call.path["scheduleId"])


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
