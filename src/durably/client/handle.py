"""Handle: one instance, as whoever started it sees it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from durably.core.status import InstanceStatus
from durably.core.timeline import HistoryEntry

if TYPE_CHECKING:
    from durably.client.client import Client

R = TypeVar("R")


class Handle(Generic[R]):
    """One instance, to follow and to control.

    Attributes:
        instance_id: Its id.
    """

    __slots__ = ("_client", "_result_type", "instance_id")

    def __init__(self, client: Client, instance_id: str, result_type: Any) -> None:
        self._client = client
        self._result_type = result_type
        self.instance_id = instance_id

    def __repr__(self) -> str:
        return f"Handle({self.instance_id!r})"

    async def result(self, timeout: timedelta | float | None = None) -> R:
        """The result of the instance, once it has ended.

        Args:
            timeout: How long to wait (timedelta or seconds); for ever by default. The instance goes on after it.

        Raises:
            OrchestrationFailedError: It failed, was cancelled or terminated; `details` says why.
            TimeoutError: It has not ended in time.
            InstanceNotFoundError: It was purged.
            PayloadError: Its result does not fit the declared type.
        """
        return await self._client.result_of(self.instance_id, self._result_type, timeout)

    async def status(self) -> InstanceStatus | None:
        """See `Client.get_status`."""
        return await self._client.get_status(self.instance_id)

    async def wait_for_completion(self, timeout: timedelta | float | None = None) -> InstanceStatus:
        """See `Client.wait_for_completion`."""
        return await self._client.wait_for_completion(self.instance_id, timeout)

    async def why(self) -> str:
        """See `Client.why`."""
        return await self._client.why(self.instance_id)

    async def raise_event(self, name: str, data: Any = None) -> None:
        """See `Client.raise_event`."""
        await self._client.raise_event(self.instance_id, name, data)

    async def cancel(self, reason: str | None = None) -> None:
        """See `Client.cancel`."""
        await self._client.cancel(self.instance_id, reason)

    async def terminate(
        self, reason: str | None = None, *, recursive: bool = False, compensate: bool = True
    ) -> None:
        """See `Client.terminate`."""
        await self._client.terminate(self.instance_id, reason, recursive=recursive, compensate=compensate)

    async def suspend(self, reason: str | None = None) -> None:
        """See `Client.suspend`."""
        await self._client.suspend(self.instance_id, reason)

    async def resume(self, reason: str | None = None) -> None:
        """See `Client.resume`."""
        await self._client.resume(self.instance_id, reason)

    async def rewind(self, reason: str | None = None) -> None:
        """See `Client.rewind`."""
        await self._client.rewind(self.instance_id, reason)

    async def restart(self, *, new_instance_id: bool = False, reason: str | None = None) -> Handle[R]:
        """See `Client.restart`."""
        again = await self._client.restart(self.instance_id, new_instance_id=new_instance_id, reason=reason)
        return Handle(self._client, again.instance_id, self._result_type)

    async def purge(self, *, recursive: bool = False) -> bool:
        """See `Client.purge`."""
        return await self._client.purge(self.instance_id, recursive=recursive)

    async def history(self) -> list[HistoryEntry]:
        """See `Client.get_history`."""
        return await self._client.get_history(self.instance_id)
