"""Server-sent events: an instance as it goes on, and bulk work as it gets on.

Nothing is queued for a reader: a slow one is told what is the case when it is ready for more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import StreamingResponse

from durably.core.commit import InstanceRow
from durably.core.status import TERMINAL
from durably.core.timeline import HistoryEntry, timeline
from durably.errors import DurablyError, InstanceNotFoundError
from durably.http_api.refusals import Refusal, refusal_of
from durably.http_api.served import Served
from durably.http_api.v1 import bodies, requests, shown
from durably.http_api.v1.instances import mark, read_history
from durably.http_api.v1.operation import SSE, Answer, Call, Operation
from durably.http_api.v1.problems import refusal_of_v1
from durably.http_api.v1.shown import failure_of
from durably.management import Management, Watch

HEARTBEAT_S: Final = 15.0

LIFE_S: Final = 600.0
"""A stream ends after this, and a heartbeat at most: its reader comes again, if its credential still opens that."""

_ENTRIES: Final = 2_000
_CHARS: Final = 4 * 1024 * 1024
"""So much of a history is kept for a reader; more is read when it has taken this."""

_SHARE: Final = 10
"""Reading for one stream takes at most this part of the time, however often the instance changes."""

_PAUSE_S: Final = (0.02, 2.0)

_ENDED: Final = "ended"


class Streams:
    """All streams of a host.

    Args:
        most: So many at once; more are refused with 429.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Request] = set()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all of them: the host stops, and readers come again with the id of what they have seen last."""
        self._closing.set()

    @property
    def is_closing(self) -> bool:
        """True when no more is to be said."""
        return self._closing.is_set()

    def answer(self, request: Request, events: AsyncGenerator[bytes]) -> StreamingResponse:
        """A response that says these. It counts from now on, until `leave`.

        Raises:
            Refusal: 429, there are too many.
        """
        if len(self._open) >= self._most:
            text = f"{len(self._open)} streams are open: close some, or try again later"
            raise Refusal(429, text, "TooManyStreams", {"Retry-After": "5"})
        self._open.add(request)
        return StreamingResponse(
            _closed(events),
            media_type=SSE,
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def leave(self, request: Request) -> None:
        """A request is over, whether its stream was ever read or not. Nothing, for one without a stream."""
        self._open.discard(request)

    async def pause(self, seconds: float) -> None:
        """Let time pass, unless it is over for all."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    async def done(self, work: asyncio.Future[Any]) -> bool:
        """True when this is done; False after the time of a heartbeat, or when the host stops."""
        closing: asyncio.Future[Any] = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({work, closing}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            return work.done()
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    async def news(self, watch: Watch) -> bool:
        """True when something may have changed; False after the time of a heartbeat, or when the host stops."""
        changed: asyncio.Future[Any] = asyncio.ensure_future(watch.changed())
        try:
            return await self.done(changed)
        finally:
            changed.cancel()
            await asyncio.gather(changed, return_exceptions=True)


async def _closed(events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(events):
        async for event in events:
            yield event


async def _for_a_while(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """What is said in the life of a stream: one event at least, so that a reader gets on."""
    loop = asyncio.get_running_loop()
    over = loop.time() + LIFE_S
    async with aclosing(events):
        async for one in events:
            yield one
            if loop.time() >= over:
                return


def event(kind: str, body: Any, event_id: str | None = None) -> bytes:
    """An event in the format of the stream. JSON as it is written here has no line breaks."""
    lines = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    return b"%sevent: %s\ndata: %s\n\n" % (lines, kind.encode(), msgspec.json.encode(body))


def trouble(error: DurablyError) -> bytes:
    """The last event of a stream that cannot go on."""
    refusal = refusal_of_v1(error, refusal_of(error))
    body = bodies.Trouble(
        status=refusal.status,
        kind=refusal.kind,
        detail=str(refusal),
        failure=UNSET if refusal.failure is None else failure_of(refusal.failure),
    )
    return event("problem", body)


class InstanceStreams:
    """The stream of an instance."""

    def __init__(self, served: Served, streams: Streams) -> None:
        self._management = served.management
        self._streams = streams

    @property
    def operations(self) -> list[Operation]:
        """Its row."""
        return [
            Operation(
                id="streamInstance",
                method="GET",
                path="/instances/{instanceId}/stream",
                needs="read",
                summary="Status and history as server-sent events, until the instance has ended",
                act=self._stream,
                query=requests.StreamQuery,
                answers={200: None, 204: None},
                events={
                    "status": bodies.Instance,
                    "history": bodies.Entry,
                    "execution": bodies.Execution,
                    "end": bodies.Ended,
                    "gone": bodies.Gone,
                    "problem": bodies.Trouble,
                },
            )
        ]

    async def _stream(self, call: Call) -> Any:
        instance_id = call.path["instanceId"]
        row = await self._management.get(instance_id, payloads=False)
        if row is None:
            raise InstanceNotFoundError(instance_id)
        last = call.request.headers.get("last-event-id")
        if last == f"{row.execution_id}.{_ENDED}" and row.status in TERMINAL:
            return Answer(204)  # a browser comes again until it is told so
        query: requests.StreamQuery = call.query
        one = _InstanceStream(self._management, self._streams, call, mark(last), with_history=query.history)
        return self._streams.answer(call.request, _for_a_while(one.events()))


class _InstanceStream:
    """One reader of one instance."""

    def __init__(
        self,
        management: Management,
        streams: Streams,
        call: Call,
        seen: tuple[str, int],
        *,
        with_history: bool,
    ) -> None:
        self._management = management
        self._streams = streams
        self._instance_id = call.path["instanceId"]
        self._payloads = call.sees_payloads
        self._execution_id, self._number = seen
        self._with_history = with_history
        self._told: InstanceRow | None = None

    async def events(self) -> AsyncGenerator[bytes]:
        """What there is to say, from now until it has ended."""
        loop = asyncio.get_running_loop()
        try:
            with self._management.watch(self._instance_id) as watch:
                while not self._streams.is_closing:
                    began = loop.time()
                    row = await self._management.get(self._instance_id, payloads=False)
                    if row is None:
                        yield event("gone", bodies.Gone(instance_id=self._instance_id))
                        return
                    async with aclosing(self._of(row)) as said:
                        async for one in said:
                            yield one
                    if row.status in TERMINAL:
                        end = bodies.Ended(status=row.status)  # type: ignore[arg-type]
                        yield event("end", end, f"{row.execution_id}.{_ENDED}")
                        return
                    least, most = _PAUSE_S
                    await self._streams.pause(min(most, max(least, (loop.time() - began) * _SHARE)))
                    while not (await self._streams.news(watch) or self._streams.is_closing):
                        yield b": nothing new\n\n"
        except DurablyError as error:
            yield trouble(error)

    async def _of(self, row: InstanceRow) -> AsyncGenerator[bytes]:
        """What is new. The row was read first: the history of one that has ended is whole."""
        if self._with_history:
            async with aclosing(self._history()) as entries:
                async for entry in entries:
                    yield entry
        if row == self._told:
            return
        self._told = row
        whole = row
        if row.status in TERMINAL and self._payloads:  # what is large is said once, and kept by nobody
            whole = await self._management.get(self._instance_id) or row
        body = shown.instance_of(whole, payloads=self._payloads, inputs=whole is not row)
        yield event("status", body, f"{row.execution_id}.{self._number}")

    async def _history(self) -> AsyncGenerator[bytes]:
        while not self._streams.is_closing:
            execution_id, events = await read_history(self._management, self._instance_id)
            if execution_id != self._execution_id or len(events) < self._number:
                self._execution_id, self._number = execution_id, 0
                yield event("execution", bodies.Execution(execution_id=execution_id), f"{execution_id}.0")
            fresh = _some(timeline(events)[self._number :])
            is_all = self._number + len(fresh) >= len(events)
            del events
            for entry in fresh:
                self._number += 1
                body = shown.entry_of(self._number, entry, payloads=self._payloads)
                yield event("history", body, f"{execution_id}.{self._number}")
            if is_all:
                return


def _some(entries: list[HistoryEntry]) -> list[HistoryEntry]:
    """The first entries, as many as may be kept; one at least."""
    chars = 0
    for taken, entry in enumerate(entries[:_ENTRIES]):
        chars += len(entry.input or "") + len(entry.result or "")
        if chars > _CHARS and taken:
            return entries[:taken]
    return entries[:_ENTRIES]
