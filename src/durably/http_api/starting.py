"""How much somebody may start over the APIs: each instance counts, whatever asks for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from durably.http_api.refusals import Refusal
from durably.management import Management
from durably.security.buckets import Buckets
from durably.security.roles import Principal

TOO_MANY_STARTS: Final = "TooManyStarts"


class Starts:
    """A rate of starts for each principal.

    Args:
        per_s: So many a second, and at once.
    """

    def __init__(self, per_s: float) -> None:
        self._buckets = Buckets(per_s, per_s)
        self.most = self._buckets.most

    def take(self, principal: Principal, count: int = 1) -> None:
        """Let some start, or none of them.

        Raises:
            Refusal: 429.
        """
        wait_s = self._buckets.take(principal.name, count)
        if wait_s:
            text = f"The {principal.name} starts too many: try again in {wait_s:.1f} s"
            raise Refusal(429, text, TOO_MANY_STARTS, {"Retry-After": str(math.ceil(wait_s))})

    def turns(self, principal: Principal) -> Callable[[], Awaitable[None]]:
        """Waits for each start of many; the first one was taken when the request was let in."""
        waiting, free = asyncio.Lock(), True

        async def turn() -> None:
            nonlocal free
            async with waiting:  # one after the other: else each would wake, and look
                if free:
                    free = False
                    return
                while wait_s := self._buckets.take(principal.name):  # noqa: ASYNC110 - a bucket tells nobody that it fills
                    await asyncio.sleep(wait_s)

        return turn


class _Paced:
    def __init__(self, management: Management, turn: Callable[[], Awaitable[None]]) -> None:
        self._management = management
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._management, name)

    async def restart(self, *arguments: Any, **named: Any) -> Any:
        await self._turn()
        return await self._management.restart(*arguments, **named)


def paced(management: Management, turn: Callable[[], Awaitable[None]]) -> Management:
    """The same operations, but each restart waits for its turn."""
    return cast("Management", _Paced(management, turn))
