"""Schedules of a hub behind a host."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from durably.client.remote import wire
from durably.client.remote.answer import Answer
from durably.client.remote.api import HostApi
from durably.core.timeline import instant
from durably.schedules import orders
from durably.schedules.description import ScheduleDescription, SchedulePage
from durably.schedules.spec import Action, SignalAction, Spec, SpecChange

_LENGTHS = {"interval": "intervalS", "jitter": "jitterS", "catch_up_window": "catchUpWindowS"}
_INSTANTS = {"start_at": "startAt", "end_at": "endAt"}
_WORDS = {"cron": "cron", "time_zone": "timeZone", "overlap": "overlap", "catch_up": "catchUp"}


class ScheduleApi:
    """The part of `durably.client.remote.v1.V1Api` that is about schedules.

    Args:
        api: The host.
    """

    def __init__(self, api: HostApi) -> None:
        self._api = api

    async def order_schedule(self, schedule_id: str, operation: str, order: Any) -> bytes | None:
        """See `RemoteHost.order_schedule`."""
        path, about = ("schedules", schedule_id), {"schedule_id": schedule_id}
        match order:
            case orders.CreateOrder():
                body = {
                    "scheduleId": schedule_id,
                    "paused": order.paused,
                    "note": order.note,
                    **_spec(order.spec),
                }
                await self._send("POST", "schedules", body=body, about=about)
            case orders.UpdateOrder():
                await self._send("POST", *path, "update", body=_change(order.change), about=about)
            case orders.TriggerOrder():
                body = {"overlap": order.overlap}
                answer = await self._send("POST", *path, "trigger", body=body, about=about)
                return msgspec.json.encode(answer.of(wire.Triggered).instance_id)
            case orders.BackfillOrder():
                body = {"start": instant(order.start), "end": instant(order.end), "atOnce": order.at_once}
                await self._send("POST", *path, "backfill", body=body, about=about)
            case orders.NoteOrder():
                await self._send("POST", *path, operation, body={"note": order.note}, about=about)
            case _:
                await self._api.ask("DELETE", *path, about=about)
        return None

    async def schedule(self, schedule_id: str) -> ScheduleDescription:
        """See `RemoteHost.schedule`."""
        answer = await self._api.ask("GET", "schedules", schedule_id, about={"schedule_id": schedule_id})
        return answer.of(wire.Schedule).description

    async def schedule_page(self, prefix: str, page_size: int, token: str | None) -> SchedulePage:
        """See `RemoteHost.schedule_page`."""
        given = {"prefix": prefix or None, "limit": page_size, "cursor": token}
        params = {name: value for name, value in given.items() if value is not None}
        page = (await self._api.ask("GET", "schedules", params=params)).of(wire.SchedulePage)
        return SchedulePage([one.description for one in page.schedules], page.next_cursor)

    async def _send(
        self, method: str, *path: str, body: dict[str, Any], about: dict[str, str] | None = None
    ) -> Answer:
        content = msgspec.json.encode(body)
        headers = {"content-type": "application/json"}
        return await self._api.ask(method, *path, about=about, content=content, headers=headers)


def _spec(spec: Spec) -> dict[str, Any]:
    """A schedule to create; what is not said is as it is by default."""
    given = msgspec.structs.asdict(spec)
    body = _action(given.pop("action"))
    return body | _said({name: value for name, value in given.items() if value is not None})


def _change(change: SpecChange) -> dict[str, Any]:
    """What changes. Of cron and interval, the one that goes is not told."""
    given = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    action, payload = given.pop("action", None), given.pop("input", UNSET)
    body = {} if action is None else _action(action)
    if payload is not UNSET:
        body["input"] = _raw(payload)
    gone = {name for name in ("cron", "interval") if given.get(name, UNSET) is None}
    return body | _said({name: value for name, value in given.items() if name not in gone})


def _said(given: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in given.items():
        if name in _LENGTHS:
            body[_LENGTHS[name]] = None if value is None else value / 1_000_000
        elif name in _INSTANTS:
            body[_INSTANTS[name]] = None if value is None else instant(value)
        else:
            body[_WORDS[name]] = value
    return body


def _action(action: Action) -> dict[str, Any]:
    if isinstance(action, SignalAction):
        body: dict[str, Any] = {"entity": action.entity, "operation": action.operation}
    else:
        body = {"orchestrator": action.name}
        if action.version is not None:
            body["version"] = action.version
        if action.tags:
            body["tags"] = action.tags
    if action.input is not None:
        body["input"] = _raw(action.input)
    return body


def _raw(payload: str | None) -> msgspec.Raw:
    return msgspec.Raw(b"null" if payload is None else payload.encode())
