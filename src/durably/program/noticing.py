"""The orchestrator that every host has: it tells others what became of an instance, again and again until they know."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final

import msgspec

from durably.core.notices import NOTICE, Notice
from durably.errors import DurablyError
from durably.program.context import OrchestrationContext
from durably.program.registry import OrchestratorFunction
from durably.program.retry_policy import RetryPolicy

PATIENCE: Final = timedelta(hours=24)
"""For so long it is tried again."""

_AGAIN: Final = RetryPolicy(
    first_retry_interval=timedelta(seconds=1),
    max_number_of_attempts=1_000_000,
    backoff_coefficient=2.0,
    max_retry_interval=timedelta(minutes=5),
    retry_timeout=PATIENCE,
    jitter=0.2,
)


class NoticeFailedError(DurablyError):
    """Somebody could not be told. The instance of the notice can be rewound: then it is tried again."""


async def tell(ctx: OrchestrationContext, notice: Notice) -> None:
    """Tell all destinations of a notice; that one of them is gone stops no other.

    Raises:
        NoticeFailedError: Some could not be told for good.
    """
    plain: dict[str, Any] = msgspec.to_builtins(notice)
    calls = [
        ctx.call_activity(NOTICE, {"notice": plain, "to": msgspec.to_builtins(one)}, retry=_AGAIN)
        for one in notice.to
    ]
    told = await asyncio.gather(*calls, return_exceptions=True)
    failures = [error for error in told if isinstance(error, Exception)]
    if failures:
        raise NoticeFailedError(f"{len(failures)} of {len(calls)} were not told") from failures[0]


NOTICING = OrchestratorFunction(tell, NOTICE, "coroutine", None)
"""What hosts register it as."""
