"""One operation on all instances that match: in one answer, or as a stream of how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from msgspec import UNSET

from durably.client import Client
from durably.client.bulk import APPLIES_TO, BulkResult
from durably.client.bulk import Operation as Verb
from durably.errors import DurablyError
from durably.http_api.client import DurableClient
from durably.http_api.refusals import Refusal
from durably.http_api.served import Served
from durably.http_api.v1 import bodies, requests
from durably.http_api.v1.operation import SSE, Call, Operation
from durably.http_api.v1.streams import HEARTBEAT_S, Streams, event, trouble

_NEEDS: Final[dict[Verb, str]] = {
    "terminate": "control",
    "cancel": "control",
    "suspend": "control",
    "resume": "control",
    "rewind": "control",
    "restart": "start",
    "purge": "purge",
}


class Bulk:
    """Bulk operations. A row for each, since they need different permissions."""

    def __init__(self, served: Served, streams: Streams) -> None:
        self._served = served
        self._streams = streams

    @property
    def operations(self) -> list[Operation]:
        """Their rows."""
        return [
            Operation(
                id=f"{verb}Instances",
                method="POST",
                path=f"/bulk/{verb}",
                needs=needs,
                summary=f"{verb.capitalize()} all instances that match ({', '.join(APPLIES_TO[verb])} unless said "
                f"otherwise); with `Accept: {SSE}` as a stream of progress",
                act=self._carry_out(verb),
                body=requests.Bulk,
                answers={200: bodies.BulkSummary},
                events={
                    "progress": bodies.BulkSummary,
                    "end": bodies.BulkSummary,
                    "problem": bodies.Trouble,
                },
            )
            for verb, needs in _NEEDS.items()
        ]

    def _carry_out(self, verb: Verb) -> Callable[[Call], Awaitable[object]]:
        async def carry_out(call: Call) -> object:
            asked: requests.Bulk = call.body
            if asked.filter.is_empty and not asked.all:
                raise Refusal(
                    400,
                    'No filter is given: expected some, or "all": true, so that nobody means a whole hub by mistake',
                    "NoFilter",
                )
            if SSE in call.request.headers.get("accept", ""):
                return self._streams.answer(call.request, self._progress(call, verb, asked))
            return _summary(call, verb, await self._client(call, verb).bulk(verb, **_arguments(asked)))

        return carry_out

    def _client(self, call: Call, verb: Verb) -> Client:
        """The client of the hub; where starts have a limit, each that it restarts waits for its turn."""
        starts = self._served.starts
        if starts is None or _NEEDS[verb] != "start":
            return self._served.client
        return DurableClient.serving(self._served).pacing(starts.turns(call.principal))

    async def _progress(self, call: Call, verb: Verb, asked: requests.Bulk) -> AsyncGenerator[bytes]:
        """The work waits for its reader, a page ahead at most; it ends with the connection."""
        pages: asyncio.Queue[BulkResult] = asyncio.Queue(maxsize=1)
        client = self._client(call, verb)
        work = asyncio.ensure_future(client.bulk(verb, progress=pages.put, **_arguments(asked)))
        try:
            while not (work.done() and pages.empty()) and not self._streams.is_closing:
                page = asyncio.ensure_future(pages.get())
                await asyncio.wait({page, work}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if page.done():
                    yield event("progress", _summary(call, verb, page.result()))
                    continue
                page.cancel()
                if not work.done():
                    yield b": at work\n\n"
            if work.done():
                yield event("end", _summary(call, verb, work.result()))
        except DurablyError as error:
            yield trouble(error)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def _arguments(asked: requests.Bulk) -> dict[str, Any]:
    return {"dry_run": asked.dry_run, "reason": asked.reason, **asked.filter.filters}


def _summary(call: Call, verb: Verb, result: BulkResult) -> bodies.BulkSummary:
    return bodies.BulkSummary(
        operation=verb,
        dry_run=result.dry_run,
        matched=result.matched,
        done=result.done,
        failed=result.failed,
        errors=result.errors if call.sees_payloads else UNSET,
    )
