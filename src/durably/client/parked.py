"""The verbs of a client for what is parked: list, redrive, discard, one or many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from durably.client.pacing import Pace
from durably.client.plain import plain_data
from durably.core.parked import (
    ParkedItem,
    ParkedKind,
    ParkedPage,
    ParkedPlace,
    ParkedQuery,
    ParkedRow,
    parked_place_of,
    token_of_parked,
)
from durably.core.query import PAGE_SIZE_MAX
from durably.core.timeline import instant
from durably.errors import InstanceNotFoundError, InstanceStateError
from durably.management import Management


class ParkedVerbs:
    """Part of `Client`."""

    _management: Management

    async def query_parked(
        self,
        *,
        kind: ParkedKind | None = None,
        instance_id_prefix: str | None = None,
        page_size: int = 100,
        continuation_token: str | None = None,
    ) -> ParkedPage:
        """Work items that were set aside, page by page: see `ParkedItem`.

        Args:
            kind: ``"instance"`` or ``"message"``; both by default, instances first.
            instance_id_prefix: The id of the instance begins with it.
            page_size: 1 to 1,000.
            continuation_token: Of the page before.

        Raises:
            UsageError: A filter is out of its range, or the token is not one of ours.
        """
        query = ParkedQuery(
            kind=kind,
            instance_id_prefix=instance_id_prefix,
            page_size=page_size,
            after=ParkedPlace() if continuation_token is None else parked_place_of(continuation_token),
        )
        found = await self._management.query_parked(query)
        token = None if found.next_after is None else token_of_parked(found.next_after)
        return ParkedPage([_parked(row) for row in found.rows], token)

    async def redrive(self, item_id: str) -> None:
        """Try a parked instance or message again, with nothing counted against it: after a deployment that cures it.

        Args:
            item_id: `ParkedItem.id`.

        Raises:
            InstanceNotFoundError: Nothing has this id.
            InstanceStateError: The instance is not parked, or its history cannot be read.
        """
        await self._management.redrive(item_id)

    async def discard(self, item_id: str) -> None:
        """Give a parked instance or message up. Raises as `redrive`.

        A parked activity call fails with a `TaskFailedError` that no policy retries, and its orchestration goes on. An
        instance that is parked for another reason is terminated. A message is deleted for good; an orchestration that waits
        for the result of that operation of an entity gets an `EntityOperationFailedError`.
        """
        await self._management.discard(item_id)

    async def redrive_all(
        self, *, kind: ParkedKind | None = None, instance_id_prefix: str | None = None
    ) -> int:
        """`redrive` all that is parked now and matches; returns how many. What is parked again meanwhile stays parked."""
        return await self._for_all_parked(self._management.redrive, kind, instance_id_prefix)

    async def discard_all(
        self, *, kind: ParkedKind | None = None, instance_id_prefix: str | None = None
    ) -> int:
        """`discard` all that is parked now and matches; returns how many."""
        return await self._for_all_parked(self._management.discard, kind, instance_id_prefix)

    async def _for_all_parked(
        self, act: Callable[[str], Awaitable[None]], kind: ParkedKind | None, prefix: str | None
    ) -> int:
        query = ParkedQuery(kind=kind, instance_id_prefix=prefix, page_size=PAGE_SIZE_MAX)
        found = await self._management.query_parked(query)
        ids = [row.id for row in found.rows]
        while found.next_after is not None:
            found = await self._management.query_parked(
                msgspec.structs.replace(query, after=found.next_after)
            )
            ids += [row.id for row in found.rows]
        done = 0

        async def one(item_id: str) -> None:
            nonlocal done
            with suppress(
                InstanceNotFoundError, InstanceStateError
            ):  # somebody else has dealt with it meanwhile
                await act(item_id)
                done += 1

        await Pace().work(ids, one)
        return done


def _parked(row: ParkedRow) -> ParkedItem:
    payload: Any = row.payload
    if row.kind == "instance":
        payload = plain_data(row.payload)
    return ParkedItem(
        kind=row.kind,
        id=row.id,
        instance_id=row.instance_id,
        cause=row.cause,
        payload=payload,
        since=instant(row.since),
        deliveries=row.deliveries,
    )
