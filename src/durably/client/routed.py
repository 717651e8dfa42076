"""The management protocol of a host that shares its hub: what it owns it does itself, the rest it asks others for.

So any host answers for any instance. A message to a partition of another host goes through the inbox of that one, exactly as
from a process without a host.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from durably.client.connection import Connection
from durably.client.endings import PollingWatch
from durably.client.outside import OutsideOperations
from durably.core.commit import InstanceRow
from durably.core.events import Payload
from durably.core.history import decode_failure
from durably.core.messages import MessageBody
from durably.core.status import Outcome
from durably.engine.host import Host
from durably.engine.operations import Operations
from durably.errors import NotServedHereError, OperationError
from durably.management import Watch

_TRIES = 64
"""Of finding an id that is near, a microsecond or two each: most hosts have more than one partition of thirty-two."""


class RoutedOperations(Operations):
    """Implements `durably.management.Management` for a host beside others.

    Args:
        host: In this process.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._connection = Connection(host.store)
        self._others = OutsideOperations(self._connection, host.clock, host.random)

    def new_instance_id(self) -> str:
        """See `Management.new_instance_id`. Of a partition of this host, which starts it without a way through the store.

        Not while this host has enough to do: then it may be anybody's.
        """
        instance_id = self._host.random.token()
        for _ in range(_TRIES if self._host.is_calm else 0):
            if self._host.serves(instance_id):
                break
            instance_id = self._host.random.token()
        return instance_id

    async def _submit(self, target: str, body: MessageBody) -> Payload:
        """See `Operations`. A partition may come and go meanwhile: what was not taken here is sent there."""
        if self._host.serves(target):
            try:
                return await self._host.submit(target, body)
            except NotServedHereError as error:
                if error.in_doubt:
                    raise OperationError(str(error)) from None
        return await self._others.ask(target, body)

    async def outcome(self, instance_id: str, timeout_s: float | None) -> Outcome:
        """See `Management.outcome`."""
        if self._host.serves(instance_id):
            try:
                return await super().outcome(instance_id, timeout_s)
            except NotServedHereError:
                pass  # it has just gone; the time begins anew, which is at most twice as long
        row = await self._elsewhere(instance_id, timeout_s)
        return Outcome(row.status, row.output, decode_failure(row.failure))

    async def wait(self, instance_id: str, timeout_s: float | None) -> InstanceRow:
        """See `Management.wait`."""
        if self._host.serves(instance_id):
            try:
                return await super().wait(instance_id, timeout_s)
            except NotServedHereError:
                pass
        return await self._elsewhere(instance_id, timeout_s)

    async def _elsewhere(self, instance_id: str, timeout_s: float | None) -> InstanceRow:
        await self._connection.store()
        return await self._connection.endings.wait(instance_id, timeout_s)

    @contextmanager
    def watch(self, instance_id: str) -> Generator[Watch]:
        """See `Management.watch`. One that is elsewhere, or moves there, is looked at now and then."""
        with super().watch(instance_id) as here:
            yield _RoutedWatch(here, lambda: self._host.serves(instance_id))

    def close(self) -> None:
        """The host stops: nobody is waited for any more. Idempotent."""
        self._connection.endings.close()


class _RoutedWatch:
    """Implements `durably.management.Watch` for an instance that may be here now, and elsewhere the next time."""

    def __init__(self, here: Watch, is_here: Callable[[], bool]) -> None:
        self._here = here
        self._elsewhere = PollingWatch()
        self._is_here = is_here

    async def changed(self) -> None:
        """See `Watch.changed`. One that moves while it is waited for here is told so, see `Waiters.moved`."""
        await (self._here if self._is_here() else self._elsewhere).changed()
