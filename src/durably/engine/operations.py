"""The management protocol, answered by the host in this process: messages to the partition, reads of committed rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from durably.core.commit import EntityRow, InboxRow, InstanceRow
from durably.core.events import HistoryEvent, Payload
from durably.core.history import decode_failure
from durably.core.hosts import HostStatus
from durably.core.load import HubLoad
from durably.core.messages import (
    CallEntity,
    Cancel,
    Discard,
    MessageBody,
    Purge,
    RaiseEvent,
    Redrive,
    ReleaseEntity,
    Restart,
    Resume,
    Rewind,
    StartInstance,
    Suspend,
    Terminate,
)
from durably.core.parked import ParkedFound, ParkedQuery
from durably.core.query import Counts, EntitiesFound, EntityQuery, Found, InstanceQuery
from durably.core.shared_tasks import TaskInfo
from durably.core.status import TERMINAL, Outcome
from durably.engine.committed import find, no_answer, orphaned_section, read_events
from durably.engine.desk import not_registered
from durably.engine.families import order_family
from durably.engine.host import Host
from durably.engine.listing import count_instances, query_instances
from durably.engine.load import hub_load
from durably.engine.ownership import moved
from durably.engine.parked import addressee, query_parked
from durably.engine.presence import drain_host, live_hosts, shared_tasks
from durably.errors import InstanceNotFoundError, UnknownFunctionError
from durably.management import Watch, check_start

T = TypeVar("T")


class Operations:
    """Implements `durably.management.Management` for a host in the same process."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def new_instance_id(self) -> str:
        """See `Management.new_instance_id`."""
        return self._host.random.token()

    async def start(self, instance_id: str, start: StartInstance) -> None:
        """See `Management.start`."""
        check_start(instance_id, start)
        self._refuse_unknown(start.name)
        host = self._host
        if not host.has_room:
            await host.wait_for_room()
        await self._submit(instance_id, start)

    async def _submit(self, target: str, body: MessageBody) -> Payload:
        """Send a message, and return when what it did is durable."""
        return await self._host.submit(target, body)

    def _refuse_unknown(self, name: str) -> None:
        host = self._host
        if host.options.unknown_functions == "fail" and not host.executor.serves("orchestrator", name):
            raise UnknownFunctionError(
                f"{not_registered(host.executor, name)}. Register it with @app.orchestrator, or start one of these"
            )

    async def raise_event(self, instance_id: str, name: str, data: Payload) -> None:
        """See `Management.raise_event`."""
        await self._submit(instance_id, RaiseEvent(name, data))

    async def cancel(self, instance_id: str, reason: str | None) -> None:
        """See `Management.cancel`."""
        await self._submit(instance_id, Cancel(reason))

    async def terminate(
        self,
        instance_id: str,
        reason: str | None,
        *,
        recursive: bool = False,
        compensate: bool = True,
        output: Payload = None,
    ) -> None:
        """See `Management.terminate`."""
        order = Terminate(reason, recursive, compensate=compensate, output=output)
        obey = partial(self._submit, instance_id, order)
        if not recursive:
            await obey()
            return
        await order_family(self._host.store, self._submit, instance_id, order, obey)

    async def suspend(self, instance_id: str, reason: str | None) -> None:
        """See `Management.suspend`."""
        await self._submit(instance_id, Suspend(reason))

    async def resume(self, instance_id: str, reason: str | None) -> None:
        """See `Management.resume`."""
        await self._submit(instance_id, Resume(reason))

    async def rewind(self, instance_id: str, rewind: Rewind) -> None:
        """See `Management.rewind`."""
        await self._submit(instance_id, rewind)

    async def restart(self, instance_id: str, restart: Restart) -> None:
        """See `Management.restart`."""
        row = await self._host.store.get_instance(instance_id, payloads=False)
        if row is not None:
            self._refuse_unknown(row.name)
        await self._submit(instance_id, restart)

    async def purge(self, instance_id: str, *, recursive: bool = False) -> bool:
        """See `Management.purge`."""
        order = Purge(recursive)
        obey = partial(self._submit, instance_id, order)
        try:
            if recursive:
                await order_family(self._host.store, self._submit, instance_id, order, obey)
            else:
                await obey()
        except InstanceNotFoundError:
            return False
        return True

    async def signal_entity(self, entity: str, call: CallEntity) -> None:
        """See `Management.signal_entity`."""
        host = self._host
        if not host.has_room:
            await host.wait_for_room()
        await self._submit(entity, call)

    async def call_entity(self, entity: str, call: CallEntity, timeout_s: float | None) -> Payload:
        """See `Management.call_entity`."""
        host = self._host
        if not host.has_room:
            await host.wait_for_room()
        if timeout_s is None:
            return await self._submit(entity, call)
        task = asyncio.ensure_future(self._submit(entity, call))
        late: list[bool] = []
        wakeup = host.clock.call_later(
            int(timeout_s * 1_000_000), lambda: late.append(True) if task.cancel() else None
        )
        try:
            return await task
        except asyncio.CancelledError:
            if late and task.cancelled():
                raise TimeoutError(no_answer(entity, call.operation, timeout_s)) from None
            task.cancel()
            raise
        finally:
            wakeup.cancel()

    async def get_entity(self, entity: str) -> EntityRow | None:
        """See `Management.get_entity`."""
        return await self._host.store.get_entity(entity)

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Management.query_entities`."""
        return await self._host.store.query_entities(query)

    async def messages_to(self, target: str) -> list[InboxRow]:
        """See `Management.messages_to`."""
        return await self._host.store.read_messages(target)

    async def release_orphaned(self, row: EntityRow) -> bool:
        """See `Management.release_orphaned`."""
        section = await orphaned_section(self._host.store, row)
        if section is not None:
            await self._submit(row.instance_id, ReleaseEntity(section))
        return section is not None

    async def is_served(self) -> bool:
        """See `Management.is_served`."""
        return self._host.failure is None

    async def shared_tasks(self, instance_id: str) -> list[TaskInfo]:
        """See `Management.shared_tasks`."""
        return await shared_tasks(self._host.store, instance_id)

    async def hosts(self) -> list[HostStatus]:
        """See `Management.hosts`."""
        return await live_hosts(self._host.store)

    async def load(self) -> HubLoad:
        """See `Management.load`."""
        return await hub_load(self._host.store, self._host.clock.now())

    async def now(self) -> int:
        """See `Management.now`."""
        return self._host.clock.now()

    async def drain_host(self, host_id: str) -> None:
        """See `Management.drain_host`."""
        await drain_host(self._host.store, host_id)

    async def query_parked(self, query: ParkedQuery) -> ParkedFound:
        """See `Management.query_parked`."""
        return await query_parked(self._host.store, query)

    async def redrive(self, item_id: str) -> None:
        """See `Management.redrive`."""
        target, message_id = await addressee(self._host.store, item_id, "redrive")
        await self._submit(target, Redrive(message_id))

    async def discard(self, item_id: str) -> None:
        """See `Management.discard`."""
        target, message_id = await addressee(self._host.store, item_id, "discard")
        await self._submit(target, Discard(message_id))

    async def get(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """See `Management.get`."""
        return await find(self._host.store, instance_id, payloads=payloads)

    async def wait(self, instance_id: str, timeout_s: float | None) -> InstanceRow:
        """See `Management.wait`."""
        await self.outcome(instance_id, timeout_s)
        row = await self._host.store.get_instance(instance_id)
        if row is None:  # purged between its end and now
            raise InstanceNotFoundError(instance_id)
        return row

    async def outcome(self, instance_id: str, timeout_s: float | None) -> Outcome:
        """How the instance ended, once it has; cheaper than `wait`. Raises as `wait`."""
        waiters = self._host.waiters
        waiting = waiters.add(instance_id)
        try:
            if not self._host.serves(instance_id):
                raise moved(instance_id, in_doubt=False)
            partition = self._host.partition_for(instance_id)
            if partition is None or not partition.knows(instance_id):
                row = await find(
                    self._host.store, instance_id
                )  # its start may wait in the inbox, as that of an undo
                if row is None:
                    raise InstanceNotFoundError(instance_id)
                if row.status in TERMINAL:
                    return Outcome(row.status, row.output, decode_failure(row.failure))
            return await (waiting if timeout_s is None else self._within(instance_id, waiting, timeout_s))
        finally:
            waiters.discard(instance_id, waiting)

    def watch(self, instance_id: str) -> AbstractContextManager[Watch]:
        """See `Management.watch`."""
        return self._host.waiters.watch(instance_id)

    async def query(self, query: InstanceQuery) -> Found:
        """See `Management.query`."""
        return await query_instances(self._host.store, query)

    async def count(self, query: InstanceQuery) -> Counts:
        """See `Management.count`."""
        return await count_instances(self._host.store, query)

    async def history(self, instance_id: str) -> list[HistoryEvent]:
        """See `Management.history`."""
        return await read_events(self._host.store, instance_id)

    async def _within(self, instance_id: str, waiting: Awaitable[T], timeout_s: float) -> T:
        future = asyncio.ensure_future(waiting)
        clock = self._host.clock

        def too_late() -> None:
            if not future.done():
                text = f"Instance '{instance_id}' has not ended within {timeout_s:g} s; it goes on: ask again later"
                future.set_exception(TimeoutError(text))

        wakeup = clock.call_later(int(timeout_s * 1_000_000), too_late)
        try:
            return await future
        finally:
            wakeup.cancel()
