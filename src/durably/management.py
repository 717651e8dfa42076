"""The protocol that every face calls: all that can be asked of a hub, with payloads as JSON bytes.

Implemented by the engine for the host in the same process (`durably.engine.operations`). A call that changes something
returns once the change is durable.
"""

from __future__ import annotations

from typing import Protocol

from durably.core.commit import InstanceRow
from durably.core.events import HistoryEvent, Payload
from durably.core.messages import StartInstance
from durably.core.query import Found, InstanceQuery
from durably.core.status import Outcome


class Management(Protocol):
    """Every operation on instances. All may raise `HubClosedError`, and `OperationError` when the store is in trouble."""

    async def start(self, instance_id: str, start: StartInstance) -> None:
        """Create an instance.

        Raises:
            InvalidIdError: The hub cannot hold the id.
            UnknownFunctionError: No such orchestrator, and this host serves its hub alone.
            InstanceAlreadyExistsError: The id is taken, and the policy of the start refuses.
        """
        ...

    async def raise_event(self, instance_id: str, name: str, data: Payload) -> None:
        """Deliver an external event; applied exactly once.

        Raises:
            InstanceNotFoundError: No such instance.
            InstanceStateError: It has ended.
        """
        ...

    async def cancel(self, instance_id: str, reason: str | None) -> None:
        """Ask the instance to cancel itself. Raises as `raise_event`."""
        ...

    async def terminate(self, instance_id: str, reason: str | None) -> None:
        """Stop the instance at once. Raises as `raise_event`."""
        ...

    async def suspend(self, instance_id: str, reason: str | None) -> None:
        """Let no turn run until it is resumed. Idempotent. Raises as `raise_event`."""
        ...

    async def resume(self, instance_id: str, reason: str | None) -> None:
        """Go on after a suspend. Idempotent. Raises as `raise_event`."""
        ...

    async def purge(self, instance_id: str) -> bool:
        """Delete a finished instance with its history; False when there is none of this id.

        Raises:
            InstanceStateError: It has not ended.
        """
        ...

    async def get(self, instance_id: str) -> InstanceRow | None:
        """The committed read model, or None."""
        ...

    async def wait(self, instance_id: str, timeout_s: float | None) -> InstanceRow:
        """Return the read model once the instance has ended.

        Raises:
            InstanceNotFoundError: No such instance.
            TimeoutError: It has not ended in time; it goes on.
        """
        ...

    async def outcome(self, instance_id: str, timeout_s: float | None) -> Outcome:
        """Return how the instance ended, once it has; cheaper than `wait`. Raises as `wait`."""
        ...

    async def query(self, query: InstanceQuery) -> Found:
        """Instances that match, page by page."""
        ...

    async def history(self, instance_id: str) -> list[HistoryEvent]:
        """The committed events of the current execution, checked against their checksums.

        Raises:
            InstanceNotFoundError: No such instance.
            HistoryCorruptError: The rows are damaged.
        """
        ...
