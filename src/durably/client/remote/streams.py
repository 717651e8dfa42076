"""Server-sent events of a host. A stream of an instance goes on where it was, whatever cuts it off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Final, NamedTuple

import msgspec

from durably.client.remote.api import PATIENCE_S, HostApi
from durably.client.remote.refused import told
from durably.client.remote.wire import Trouble
from durably.errors import DurablyError, HubSilentError

SSE: Final = "text/event-stream"

ENDS: Final = frozenset(("end", "gone"))
"""Events behind which nothing follows."""

_PAUSE_S, _PAUSE_MAX_S = 0.05, 1.0


class Event(NamedTuple):
    """One of them; `id` is None where it has none."""

    kind: str
    data: bytes
    id: str | None


async def events_in(lines: AsyncIterable[str]) -> AsyncGenerator[Event]:
    """The events that lines make; what is cut off is none."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "event" in fields:
            yield Event(fields["event"], fields.get("data", "").encode(), fields.get("id"))
        fields = {}


def trouble_in(event: Event, **about: str) -> DurablyError:
    """The error that ended a stream."""
    body = msgspec.json.decode(event.data, type=Trouble)
    return told(body.status, body.kind, body.detail, body.failure, **about)


async def instance_events(api: HostApi, instance_id: str, *, history: bool) -> AsyncGenerator[Event]:
    """Status, and history, of an instance as they become durable, until it has ended or is gone.

    A host ends each stream after ten minutes, and all of them when it stops; connections are lost. It is asked again with
    the id of the last event: of a history nothing is missed and nothing comes twice, and the status is told anew.

    Args:
        api: The host.
        instance_id: The instance.
        history: Also each event of the history.

    Raises:
        InstanceNotFoundError: There is none.
        OperationError: The host cannot be reached, or is in trouble, for longer than anybody has the patience for.
    """
    seen: str | None = None
    pause, silent_s = _PAUSE_S, 0.0
    while True:
        try:
            async with aclosing(_once(api, instance_id, seen, history=history)) as events:
                async for event in events:
                    seen, pause, silent_s = event.id or seen, _PAUSE_S, 0.0
                    yield event
                    if event.kind in ENDS:
                        return
        except HubSilentError:
            if silent_s > PATIENCE_S:
                raise
        await asyncio.sleep(pause)
        silent_s += pause
        pause = min(2 * pause, _PAUSE_MAX_S)


async def _once(api: HostApi, instance_id: str, seen: str | None, *, history: bool) -> AsyncGenerator[Event]:
    headers = {"accept": SSE} if seen is None else {"accept": SSE, "last-event-id": seen}
    lines = api.stream(
        "GET",
        "instances",
        instance_id,
        "stream",
        about={"instance_id": instance_id},
        headers=headers,
        params={} if history else {"history": "false"},
    )
    async with aclosing(lines), aclosing(events_in(lines)) as events:
        async for event in events:
            if event.kind == "problem":
                raise trouble_in(event, instance_id=instance_id)
            yield event
