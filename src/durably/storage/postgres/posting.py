"""Messages from anybody: those of one turn of the loop, or that come while others are on their way, are one commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from durably.core.commit import InboxRow
from durably.errors import DurablyError, StoreUnavailableError
from durably.storage.postgres.arrivals import Arrivals
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.columns import message_row
from durably.storage.postgres.gathering import Gathering

_AT_ONCE: Final = 2
"""Statements on their way: one that waits for the disk does not keep the next one from being read."""

_POST: Final = "SELECT {s}.post_1($1, $2, $3, $4, $5)"
_TELL: Final = """
WITH lapsed AS (
    SELECT id FROM {s}.partitions WHERE id = ANY($3::int[]) AND lease_until < clock_timestamp()
    ORDER BY id FOR NO KEY UPDATE
), shut_out AS (
    UPDATE {s}.partitions p SET holder = '' FROM lapsed WHERE p.id = lapsed.id AND p.holder <> ''
)
SELECT pg_notify($1, $2), ARRAY(SELECT id FROM lapsed)
"""
"""Whoever is told that nobody owns a partition may rely on it: an owner whose lease ran out commits nothing behind that."""


class Posting:
    """Posts.

    Args:
        schema: Quoted.
        arrivals: Tells others.
        connection: Gives one.
        partitions: How many the hub has.
        posted: Called when something is in the inbox.
    """

    def __init__(
        self,
        schema: str,
        arrivals: Arrivals,
        *,
        connection: Callable[[], AbstractAsyncContextManager[Connection]],
        partitions: Callable[[], int],
        posted: Callable[[], None],
    ) -> None:
        self._post_text = _POST.replace("{s}", schema)
        self._tell_text = _TELL.replace("{s}", schema)
        self._arrivals = arrivals
        self._connection = connection
        self._partitions = partitions
        self._posted = posted
        self._gathering: Callable[[Sequence[InboxRow]], Awaitable[bool | DurablyError]] = Gathering(
            self._each, name="durably-postgres-posts", at_once=_AT_ONCE
        )

    async def post(self, messages: Sequence[InboxRow]) -> bool:
        """See `Store.post`; there are some."""
        answer = await self._gathering(messages)
        if isinstance(answer, DurablyError):
            raise answer
        return answer

    async def _each(self, asked: Sequence[Sequence[InboxRow]]) -> list[bool | DurablyError]:
        """What becomes of each: who sends what the server refuses does not take the others along."""
        try:
            return [*await self._together(asked)]
        except StoreUnavailableError:
            raise
        except DurablyError as error:
            if len(asked) == 1:
                return [error]
        return [answer for one in asked for answer in await self._each([one])]

    async def _together(self, asked: Sequence[Sequence[InboxRow]]) -> list[bool]:
        async with self._connection() as connection:
            many = self._partitions()
            rows = [[message_row(message, many) for message in messages] for messages in asked]
            await connection.rows(self._post_text, *zip(*(row for one in rows for row in one), strict=True))
            self._posted()
            to = [{row[1] for row in one} for one in rows]
            told = (self._arrivals.channel, self._arrivals.me, sorted(set[int]().union(*to)))
            ((_, lapsed),) = await connection.rows(self._tell_text, *told)
            return [one.isdisjoint(lapsed) for one in to]
