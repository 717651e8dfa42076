"""The history of an instance, in pieces that any client can take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from durably.executors.remote.told import past_of, told
from durably.executors.remote.wire import pb, text_of
from durably.grpc_server.served import Call, Rpc, Rpcs, Served

_EVENTS_MAX: Final = 100
_BYTES_MAX: Final = 1024 * 1024
"""Of a piece; one event alone may have more."""


class Histories:
    """The call that reads a history."""

    def __init__(self, served: Served) -> None:
        self._management = served.management

    @property
    def rpcs(self) -> Rpcs:
        """Its row."""
        return {
            "StreamInstanceHistory": Rpc(
                pb.StreamInstanceHistoryRequest, "payloads", self._stream, streams=True
            )
        }

    async def _stream(
        self, request: pb.StreamInstanceHistoryRequest, call: Call
    ) -> AsyncIterator[pb.HistoryChunk]:
        """Of the current execution. Unknown: NOT_FOUND. Another execution than the one that is asked for: nothing."""
        del call
        row = await self._management.get(request.instanceId, payloads=False)
        history = await self._management.history(request.instanceId)
        wanted = text_of(request, "executionId")
        if wanted and row is not None and row.execution_id != wanted:
            return
        events = past_of(history) if request.forWorkItemProcessing else told(history)
        for chunk in _chunks(events):
            yield chunk


def _chunks(events: Sequence[pb.HistoryEvent]) -> Iterator[pb.HistoryChunk]:
    chunk: list[pb.HistoryEvent] = []
    size = 0
    for event in events:
        length = event.ByteSize()
        if chunk and (len(chunk) == _EVENTS_MAX or size + length > _BYTES_MAX):
            yield pb.HistoryChunk(events=chunk)
            chunk, size = [], 0
        chunk.append(event)
        size += length
    if chunk:
        yield pb.HistoryChunk(events=chunk)
