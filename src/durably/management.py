"""The protocol that every face calls: all that can be asked of a hub, with payloads as JSON bytes.

Implemented by the engine, for the host in the same process (`durably.engine.operations`) and for a process without one
(`durably.engine.outside`). A call that changes something returns once the change is durable.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from durably.core.commit import EntityRow, InboxRow, InstanceRow
from durably.core.events import HistoryEvent, Payload
from durably.core.hosts import HostStatus
from durably.core.ids import check_instance_id
from durably.core.load import HubLoad
from durably.core.messages import CallEntity, Restart, Rewind, StartInstance
from durably.core.parked import ParkedFound, ParkedQuery
from durably.core.query import Counts, EntitiesFound, EntityQuery, Found, InstanceQuery
from durably.core.shared_tasks import TaskInfo
from durably.core.status import Outcome
from durably.errors import UsageError

POLICIES = ("replace_finished", "fail", "replace", "attach")
"""What a start may do when its id is taken; see `durably.client.Client.start`."""


def check_start(instance_id: str, start: StartInstance) -> None:
    """Refuse a start that no hub takes.

    Raises:
        InvalidIdError: The hub cannot hold the id.
        UsageError: The policy is none.
    """
    if not start.fresh:
        check_instance_id(instance_id)
    if start.on_existing not in POLICIES:
        raise UsageError(f"on_existing is {start.on_existing!r}: expected one of {', '.join(POLICIES)}")


class Watch(Protocol):
    """Tells that an instance may have changed. It says nothing about what: whoever wants to know reads."""

    async def changed(self) -> None:
        """Return when something of it may have become durable since the last call; at once if that was meanwhile."""
        ...


class Management(Protocol):
    """Every operation on instances. All may raise `HubClosedError`, and `OperationError` when the store is in trouble."""

    def new_instance_id(self) -> str:
        """An id that no instance has had: random, and where several hosts share a hub near the one that is asked."""
        ...

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

    async def terminate(
        self,
        instance_id: str,
        reason: str | None,
        *,
        recursive: bool = False,
        compensate: bool = True,
        output: Payload = None,
    ) -> None:
        """Stop the instance at once; with its descendants, none of which runs any more on return. Raises as above.

        Its output, and theirs, is `output`, else the reason as JSON.
        """
        ...

    async def suspend(self, instance_id: str, reason: str | None) -> None:
        """Let no turn run until it is resumed. Idempotent. Raises as `raise_event`."""
        ...

    async def resume(self, instance_id: str, reason: str | None) -> None:
        """Go on after a suspend. Idempotent. Raises as `raise_event`."""
        ...

    async def rewind(self, instance_id: str, rewind: Rewind) -> None:
        """Let a failed instance go on from before its failure.

        Raises:
            InstanceNotFoundError: No such instance.
            InstanceStateError: It is not Failed.
            HistoryCorruptError: Its rows are damaged.
        """
        ...

    async def restart(self, instance_id: str, restart: Restart) -> None:
        """Replace a finished instance by a new one with the same name, version, input and tags.

        Raises:
            InstanceNotFoundError: No such instance.
            InstanceStateError: It has not ended.
            UnknownFunctionError: This host does not know the orchestrator any more, and serves its hub alone.
        """
        ...

    async def purge(self, instance_id: str, *, recursive: bool = False) -> bool:
        """Delete a finished instance with its history; False when there is none of this id.

        With `recursive`, its descendants too. One that has not ended stays, with all that is below it.

        Raises:
            InstanceStateError: It has not ended.
        """
        ...

    async def signal_entity(self, entity: str, call: CallEntity) -> None:
        """Send an operation to an entity. Raises `UnknownFunctionError` when the host knows no such entity."""
        ...

    async def call_entity(self, entity: str, call: CallEntity, timeout_s: float | None) -> Payload:
        """The same, and return the result of the operation.

        Raises:
            EntityOperationFailedError: It failed.
            TimeoutError: There was none in time.
        """
        ...

    async def get_entity(self, entity: str) -> EntityRow | None:
        """The committed row of an entity, or None."""
        ...

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """Entities that match, page by page."""
        ...

    async def messages_to(self, target: str) -> list[InboxRow]:
        """The messages that wait for an instance or entity, as far as they are durable, in their order."""
        ...

    async def release_orphaned(self, row: EntityRow) -> bool:
        """Release the lock of an entity, if the orchestration that has it has ended or is gone; True when that was so."""
        ...

    async def is_served(self) -> bool:
        """True when a live host serves the hub: what is asked for happens now, and not when the next host starts."""
        ...

    async def shared_tasks(self, instance_id: str) -> list[TaskInfo]:
        """The activities of an instance that are in the queue that all hosts share."""
        ...

    async def hosts(self) -> list[HostStatus]:
        """The live hosts of the hub, the oldest first."""
        ...

    async def load(self) -> HubLoad:
        """How much there is to do in the hub. Cheap: it may be asked every second."""
        ...

    async def now(self) -> int:
        """The time of the hub (microseconds since 1970 UTC): that of its database where it has one, else of this machine."""
        ...

    async def drain_host(self, host_id: str) -> None:
        """Ask a host to give its partitions away. Raises `HostNotFoundError` when there is none of this id."""
        ...

    async def query_parked(self, query: ParkedQuery) -> ParkedFound:
        """What is parked, page by page."""
        ...

    async def redrive(self, item_id: str) -> None:
        """Try a parked instance or message again, with nothing counted against it.

        Raises:
            InstanceNotFoundError: Nothing has this id.
            InstanceStateError: The instance is not parked, or cannot go on.
        """
        ...

    async def discard(self, item_id: str) -> None:
        """Give a parked instance or message up. Raises as `redrive`.

        A parked activity call fails, and its orchestration goes on; an instance that is parked for another reason is
        terminated; a message is deleted, and an orchestration that waits for its result is told.
        """
        ...

    async def get(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """The committed read model; of an instance whose start waits for an owner, what it will be; or None.

        Without `payloads`, its input and output are None.
        """
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

    def watch(self, instance_id: str) -> AbstractContextManager[Watch]:
        """A watch on an instance, which need not exist. A read that begins after it was opened misses nothing."""
        ...

    async def query(self, query: InstanceQuery) -> Found:
        """Instances that match, page by page; also those whose start waits for an owner."""
        ...

    async def count(self, query: InstanceQuery) -> Counts:
        """How many instances `query` finds on all its pages, by name and status."""
        ...

    async def history(self, instance_id: str) -> list[HistoryEvent]:
        """The committed events of the current execution, checked against their checksums.

        Raises:
            InstanceNotFoundError: No such instance.
            HistoryCorruptError: The rows are damaged.
        """
        ...
