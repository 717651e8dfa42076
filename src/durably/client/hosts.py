"""The verbs of a client for hosts: who is there, and who is to go."""

from __future__ import annotations

from durably.core.hosts import HostStatus
from durably.core.load import HubLoad
from durably.management import Management


class HostVerbs:
    """Part of `Client`."""

    _management: Management

    async def hosts(self) -> list[HostStatus]:
        """The live hosts of the hub, the oldest first.

        Raises:
            HubNotFoundError: There is no hub.
        """
        return await self._management.hosts()

    async def hub_load(self) -> HubLoad:
        """How much there is to do in the hub, and how many hosts it takes. Cheap: it may be asked every second.

        Raises:
            HubNotFoundError: There is no hub.
        """
        return await self._management.load()

    async def drain_host(self, host_id: str) -> None:
        """Ask a host to give its partitions to the others: before it is stopped, so that nothing waits. It stays up.

        Args:
            host_id: `HostStatus.host_id`.

        Raises:
            HostNotFoundError: No live host has this id, or the hub is a file: it has nobody else.
        """
        await self._management.drain_host(host_id)
