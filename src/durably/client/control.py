"""The verbs of a client for one instance: events to it, and orders to stop, to pause, to go on, to go."""

from __future__ import annotations

from typing import Any

from durably.clock import Random
from durably.codec.convert import Converter
from durably.core.ids import check_text
from durably.core.messages import Rewind
from durably.errors import UsageError
from durably.management import Management


class ControlVerbs:
    """Part of `Client`."""

    _management: Management
    _converter: Converter
    _random: Random

    async def raise_event(self, instance_id: str, name: str, data: Any = None) -> None:
        """Deliver an external event. It is applied exactly once, and kept until the instance waits for it.

        Args:
            instance_id: The instance.
            name: The event; compared without case.
            data: Its payload, any value that becomes JSON.

        Raises:
            InstanceNotFoundError: No such instance.
            InstanceStateError: It has ended.
            PayloadError: The data cannot become JSON.
        """
        check_text(name, "name of the event")
        if not name:
            raise UsageError(
                "The name of an external event is empty: expected the name that the instance waits for"
            )
        payload = None if data is None else self._converter.encode(data)
        await self._management.raise_event(instance_id, name, payload)

    async def cancel(self, instance_id: str, reason: str | None = None) -> None:
        """Ask an instance to cancel itself: its code sees `asyncio.CancelledError` and may clean up. Raises as above."""
        check_text(reason, "reason")
        await self._management.cancel(instance_id, reason)

    async def terminate(
        self,
        instance_id: str,
        reason: str | None = None,
        *,
        recursive: bool = False,
        compensate: bool = True,
    ) -> None:
        """Stop an instance at once; its code sees nothing, its activities are cancelled. Raises as `raise_event`.

        Args:
            instance_id: The instance.
            reason: For people; the output of what is terminated.
            recursive: Its descendants too: children, their children, and so on. Otherwise they go on. Those that
                `start_orchestration` started are on their own. Once the order is durable, all of them will end, whatever
                happens to this process.
            compensate: What its sagas have done is undone by a child, ``{id}:undo``. False leaves it as it is.
        """
        check_text(reason, "reason")
        await self._management.terminate(instance_id, reason, recursive=recursive, compensate=compensate)

    async def suspend(self, instance_id: str, reason: str | None = None) -> None:
        """Let no turn run until `resume`; what arrives is kept. Idempotent. Raises as `raise_event`."""
        check_text(reason, "reason")
        await self._management.suspend(instance_id, reason)

    async def resume(self, instance_id: str, reason: str | None = None) -> None:
        """Go on after `suspend`. Idempotent. Raises as `raise_event`."""
        check_text(reason, "reason")
        await self._management.resume(instance_id, reason)

    async def rewind(self, instance_id: str, reason: str | None = None) -> None:
        """Let a failed instance go on from before its failure: only failed work runs again.

        Kept is all that came before the failure that ended it, and every success that came after it. The failed calls
        are open again, with their whole retry policy and new idempotency keys; children that failed are rewound
        themselves. What the code did about the failure is dropped, compensations included: the code asks again. Open
        timers and time-outs get the time back that passed meanwhile. An instance that failed by itself, without a failed
        call, sees once more what it saw last: so rewind it when its code is mended.

        Args:
            instance_id: The instance; one that continued as new is rewound in its current execution.
            reason: For people; in the history.

        Raises:
            InstanceNotFoundError: No such instance.
            InstanceStateError: It is not Failed.
            HistoryCorruptError: Its rows are damaged.
        """
        check_text(reason, "reason")
        await self._management.rewind(instance_id, Rewind(reason, self._random.token()))

    async def purge(self, instance_id: str, *, recursive: bool = False) -> bool:
        """Delete a finished instance with its history; False when there is none of this id. The id is free again.

        Args:
            instance_id: The instance.
            recursive: Its descendants too: children, their children, and so on. One that has not ended stays, with all
                that is below it: purge deletes what is finished, and stops nothing.

        Raises:
            InstanceStateError: It has not ended.
        """
        return await self._management.purge(instance_id, recursive=recursive)
