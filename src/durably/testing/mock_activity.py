"""A context for the test of one activity."""

from __future__ import annotations

from typing import Any

from durably.core.ids import task_key
from durably.program.activity_context import ActivityContext


class MockActivityContext(ActivityContext):
    """An `ActivityContext` for the test of an activity: pass it as the host would.

    Call `cancel` to see what the activity does when nobody waits for it any more.

    Attributes:
        heartbeats: The details of all heartbeats, in order.
    """

    __slots__ = ("heartbeats",)

    def __init__(
        self,
        *,
        instance_id: str = "test",
        task_id: int = 0,
        attempt: int = 1,
        delivery: int = 1,
        idempotency_key: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        key = task_key(instance_id, "0" * 32, task_id) if idempotency_key is None else idempotency_key
        super().__init__(
            instance_id=instance_id,
            task_id=task_id,
            attempt=attempt,
            delivery=delivery,
            idempotency_key=key,
            tags=tags,
        )
        self.heartbeats: list[Any] = []

    def heartbeat(self, details: Any = None) -> None:
        """See `ActivityContext.heartbeat`."""
        super().heartbeat(details)
        self.heartbeats.append(details)
