"""The management protocol, answered by the host in this process: messages to the partition, reads of committed rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from durably.core.commit import InstanceRow
from durably.core.events import HistoryEvent, Payload
from durably.core.history import decode_failure, decode_rows
from durably.core.ids import check_instance_id
from durably.core.messages import Cancel, Purge, RaiseEvent, Resume, StartInstance, Suspend, Terminate
from durably.core.query import Found, InstanceQuery
from durably.core.status import TERMINAL, Outcome
from durably.engine.host import Host
from durably.errors import HistoryCorruptError, InstanceNotFoundError, UnknownFunctionError, UsageError

T = TypeVar("T")

POLICIES = ("replace_finished", "fail", "replace", "attach")


class Operations:
    """Implements `durably.management.Management` for a host in the same process."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def start(self, instance_id: str, start: StartInstance) -> None:
        """See `Management.start`."""
        if not start.fresh:
            check_instance_id(instance_id)
        if start.on_existing not in POLICIES:
            raise UsageError(f"on_existing is {start.on_existing!r}: expected one of {', '.join(POLICIES)}")
        host = self._host
        if host.options.unknown_functions == "fail" and not host.executor.serves("orchestrator", start.name):
            known = ", ".join(host.executor.names("orchestrator")) or "none"
            raise UnknownFunctionError(
                f"Orchestrator '{start.name}' is not registered in this host; registered are: {known}. "
                "Register it with @app.orchestrator, or start one of these"
            )
        if not host.has_room:
            await host.wait_for_room()
        await host.submit(instance_id, start)

    async def raise_event(self, instance_id: str, name: str, data: Payload) -> None:
        """See `Management.raise_event`."""
        await self._host.submit(instance_id, RaiseEvent(name, data))

    async def cancel(self, instance_id: str, reason: str | None) -> None:
        """See `Management.cancel`."""
        await self._host.submit(instance_id, Cancel(reason))

    async def terminate(self, instance_id: str, reason: str | None) -> None:
        """See `Management.terminate`."""
        await self._host.submit(instance_id, Terminate(reason))

    async def suspend(self, instance_id: str, reason: str | None) -> None:
        """See `Management.suspend`."""
        await self._host.submit(instance_id, Suspend(reason))

    async def resume(self, instance_id: str, reason: str | None) -> None:
        """See `Management.resume`."""
        await self._host.submit(instance_id, Resume(reason))

    async def purge(self, instance_id: str) -> bool:
        """See `Management.purge`."""
        try:
            await self._host.submit(instance_id, Purge())
        except InstanceNotFoundError:
            return False
        return True

    async def get(self, instance_id: str) -> InstanceRow | None:
        """See `Management.get`."""
        return await self._host.store.get_instance(instance_id)

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
            partition = self._host.partition
            if partition is None or not partition.knows(instance_id):
                row = await self._host.store.get_instance(instance_id)
                if row is None:
                    raise InstanceNotFoundError(instance_id)
                if row.status in TERMINAL:
                    return Outcome(row.status, row.output, decode_failure(row.failure))
            return await (waiting if timeout_s is None else self._within(instance_id, waiting, timeout_s))
        finally:
            waiters.discard(instance_id, waiting)

    async def query(self, query: InstanceQuery) -> Found:
        """See `Management.query`."""
        return await self._host.store.query(query)

    async def history(self, instance_id: str) -> list[HistoryEvent]:
        """See `Management.history`."""
        for _ in range(3):
            row = await self._host.store.get_instance(instance_id)
            if row is None:
                raise InstanceNotFoundError(instance_id)
            rows = await self._host.store.read_history(instance_id)
            try:
                return decode_rows(instance_id, row.execution_id, rows)[0]
            except HistoryCorruptError:
                # Two reads: the instance may have continued as new between them. A damaged one stays damaged.
                again = await self._host.store.get_instance(instance_id)
                if again is not None and again.execution_id == row.execution_id:
                    raise
        raise InstanceNotFoundError(instance_id)

    async def _within(self, instance_id: str, waiting: Awaitable[T], timeout_s: float) -> T:
        future = asyncio.ensure_future(waiting)
        clock = self._host.clock

        def too_late() -> None:
            if not future.done():
                text = f"Instance '{instance_id}' has not ended within {timeout_s:g} s; it goes on: ask again later"
                future.set_exception(TimeoutError(text))

        wakeup = clock.call_at(clock.now() + int(timeout_s * 1_000_000), too_late)
        try:
            return await future
        finally:
            wakeup.cancel()
