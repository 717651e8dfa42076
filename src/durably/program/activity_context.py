"""What an activity knows of the call that it serves."""

from __future__ import annotations

from typing import Any


class ActivityContext:
    """Given to the parameter of an activity that is annotated with this class. Its members may be used from any thread.

    Attributes:
        instance_id: The orchestration that made the call.
        task_id: The number of the call in its execution.
        attempt: Which attempt this is; the first is 1.
        delivery: How often this attempt was handed to a host, this time included; above 1 after a crash.
        idempotency_key: Names the logical call: the same for its retries and redeliveries, never that of another call.
            Pass it to services that take one.
        tags: What the caller set.
    """

    __slots__ = (
        "_cancelled",
        "attempt",
        "delivery",
        "idempotency_key",
        "instance_id",
        "last_heartbeat",
        "tags",
        "task_id",
    )

    def __init__(
        self,
        *,
        instance_id: str,
        task_id: int,
        attempt: int,
        delivery: int,
        idempotency_key: str,
        tags: dict[str, str] | None = None,
    ) -> None:
        self.instance_id = instance_id
        self.task_id = task_id
        self.attempt = attempt
        self.delivery = delivery
        self.idempotency_key = idempotency_key
        self.tags = dict(tags) if tags else {}
        self.last_heartbeat: Any = None
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """True once nobody waits for the result any more: the call was cancelled, timed out, or the host stops.

        A coroutine also gets `asyncio.CancelledError`; a plain function in a thread has to look here from time to time,
        and may then return or raise whatever it likes. One in a worker process is unwound by a `SystemExit`, and finds
        True here in its ``finally`` blocks.
        """
        return self._cancelled

    def heartbeat(self, details: Any = None) -> None:
        """Say that the activity is alive.

        The newest `details` of a running attempt are kept in the memory of the host, also those of a worker process: the
        error of one that dies ends with them. Nothing is stored, and nothing depends on the beat yet. It never raises; look
        at `cancelled` to learn whether to stop. From a worker process only JSON of 64 KiB at most gets through.
        """
        self.last_heartbeat = details

    def cancel(self) -> None:
        """Called by the host: from now on `cancelled` is True. Idempotent."""
        self._cancelled = True
