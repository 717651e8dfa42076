"""Delete what has ended, and end what has not."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import msgspec

from durably.client.pacing import Pace
from durably.core.query import FIRST, PAGE_SIZE_MAX, InstanceQuery, Place
from durably.core.status import TERMINAL
from durably.errors import InstanceNotFoundError, InstanceStateError
from durably.executors.remote.wire import has, microseconds_of, pb, text_of
from durably.grpc_server.refusals import Code, Refusal
from durably.grpc_server.served import Call, Rpc, Rpcs, Served, check_batch, is_instance
from durably.grpc_server.shown import first_instant, last_before, statuses_of

_FINISHED: Final = tuple(sorted(TERMINAL))

_PAGE: Final = 500


class Purging:
    """The calls that delete, and the one that ends without ceremony."""

    def __init__(self, served: Served) -> None:
        self._management = served.management

    @property
    def rpcs(self) -> Rpcs:
        """Their rows."""
        return {
            "PurgeInstances": Rpc(pb.PurgeInstancesRequest, "purge", self._purge),
            "SkipGracefulOrchestrationTerminations": Rpc(
                pb.SkipGracefulOrchestrationTerminationsRequest, "control", self._skip_graceful
            ),
        }

    async def _purge(self, request: pb.PurgeInstancesRequest, call: Call) -> pb.PurgeInstancesResponse:
        which = request.WhichOneof("request")
        complete = True
        if which == "purgeInstanceFilter":
            deleted, complete = await self._purge_found(
                request.purgeInstanceFilter, recursive=request.recursive
            )
        elif which == "instanceId":
            deleted = await self._purge_one(request.instanceId, recursive=request.recursive)
        elif which == "instanceBatch":
            check_batch(len(request.instanceBatch.instanceIds))
            deleted = await self._purge_each(
                list(request.instanceBatch.instanceIds), recursive=request.recursive
            )
        else:
            raise Refusal(
                Code.INVALID_ARGUMENT,
                "Nothing says what to purge: expected instanceId, purgeInstanceFilter or instanceBatch",
            )
        response = pb.PurgeInstancesResponse(deletedInstanceCount=deleted)
        response.isComplete.value = complete
        return response

    async def _purge_found(self, asked: pb.PurgeInstanceFilter, *, recursive: bool) -> tuple[int, bool]:
        """How many were deleted, and whether these are all that match."""
        wanted = statuses_of(asked.runtimeStatus) & TERMINAL if asked.runtimeStatus else TERMINAL
        if not wanted:
            return 0, True
        query = InstanceQuery(
            statuses=tuple(sorted(wanted)),
            created_from=first_instant(asked, "createdTimeFrom"),
            created_to=last_before(asked, "createdTimeTo"),
            payloads=False,
            page_size=_PAGE,
        )
        ends = None
        if has(asked, "timeout"):
            limit_us = microseconds_of(asked.timeout.seconds, asked.timeout.nanos)
            ends = asyncio.get_running_loop().time() + limit_us / 1_000_000
        deleted = 0
        after: Place | None = FIRST
        while after is not None:
            rows, after = await self._management.query(msgspec.structs.replace(query, after=after))
            ids = [row.instance_id for row in rows]
            for start in range(0, len(ids), _STEP):
                if ends is not None and asyncio.get_running_loop().time() >= ends:
                    return deleted, False
                deleted += await self._purge_each(ids[start : start + _STEP], recursive=recursive)
        return deleted, True

    async def _purge_each(self, ids: list[str], *, recursive: bool) -> int:
        """Together, so that they become durable together; families one after the other, so that nobody is counted twice."""
        deleted = 0

        async def one(instance_id: str) -> None:
            nonlocal deleted
            gone = await self._purge_one(instance_id, recursive=recursive)
            deleted += gone  # read behind the await: others count meanwhile

        await Pace(1 if recursive else _STEP, 1).work(list(dict.fromkeys(ids)), one)
        return deleted

    async def _purge_one(self, instance_id: str, *, recursive: bool) -> int:
        """How many were deleted: none when it has not ended, or is none."""
        if not is_instance(instance_id):
            return 0  # an entity goes when its state does
        descendants = await self._descendants(instance_id) if recursive else 0
        try:
            gone = await self._management.purge(instance_id, recursive=recursive)
        except InstanceStateError:
            return 0
        return 1 + descendants if gone else 0

    async def _descendants(self, instance_id: str) -> int:
        """How many go with an instance: what is below one that has not ended stays."""
        count, parents = 0, [instance_id]
        while parents:
            query = InstanceQuery(
                statuses=_FINISHED,
                parent_instance_id=parents.pop(),
                payloads=False,
                page_size=PAGE_SIZE_MAX,
            )
            after: Place | None = FIRST
            while after is not None:
                rows, after = await self._management.query(msgspec.structs.replace(query, after=after))
                parents += [row.instance_id for row in rows]
                count += len(rows)
        return count

    async def _skip_graceful(
        self, request: pb.SkipGracefulOrchestrationTerminationsRequest, call: Call
    ) -> pb.SkipGracefulOrchestrationTerminationsResponse:
        """Terminate at once, which is how the engine does it always; locks that an instance holds are released with it."""
        ids = list(dict.fromkeys(request.instanceBatch.instanceIds))
        check_batch(len(ids))
        reason = text_of(request, "reason")
        left: set[str] = set(ids)

        async def one(instance_id: str) -> None:
            with suppress(InstanceNotFoundError, InstanceStateError):
                await self._management.terminate(instance_id, reason)
                left.discard(instance_id)

        await Pace(_STEP, 1).work([each for each in ids if is_instance(each)], one)
        return pb.SkipGracefulOrchestrationTerminationsResponse(
            unterminatedInstanceIds=[each for each in ids if each in left]
        )


_STEP: Final = 50
"""So many at once; between two steps the time that a purge may take is looked at."""
