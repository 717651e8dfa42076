"""A client of a host that serves HTTP."""

from __future__ import annotations

from typing import Any

from durably.client.client import Client
from durably.client.handle import Handle
from durably.client.remote.api import HostApi
from durably.client.remote.bodies import entries_of
from durably.client.remote.management import HttpManagement
from durably.clock import SystemClock, SystemRandom
from durably.codec.convert import JsonConverter
from durably.core.status import TERMINAL, RuntimeStatus
from durably.core.timeline import HistoryEntry
from durably.core.why import why
from durably.errors import InstanceNotFoundError
from durably.program.registry import Registry


class HttpClient(Client):
    """A `Client` that asks a host over HTTP. What its management API has no words for is refused with `UsageError`.

    Args:
        url: Where the host is.
        key: A key of it; None where none is asked for.

    Raises:
        UsageError: The URL is none.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self._api = HostApi(url, key)
        self._over_http = HttpManagement(self._api)
        self._attach(self._over_http, Registry(), JsonConverter(), SystemClock(), SystemRandom())

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        await self._api.close()

    async def restart(
        self, instance_id: str, *, new_instance_id: bool = False, reason: str | None = None
    ) -> Handle[Any]:
        """See `Client.restart`; a reason is refused."""
        return self.handle(await self._over_http.restarted(instance_id, reason, fresh=new_instance_id))

    async def get_history(self, instance_id: str) -> list[HistoryEntry]:
        """See `Client.get_history`. As Durable Functions shows it: what was scheduled and has completed is one entry."""
        params = {"showHistory": "true", "showHistoryOutput": "true", "showInput": "false"}
        path = ("instances", instance_id)
        answer = await self._api.manage("GET", *path, instance_id=instance_id, params=params)
        return entries_of(answer.json()["historyEvents"])

    async def why(self, instance_id: str) -> str:
        """See `Client.why`. Of an instance that goes on it tells no more than its status."""
        row = await self._over_http.get(instance_id, payloads=False)
        if row is None:
            raise InstanceNotFoundError(instance_id)
        if row.status in TERMINAL or row.status == RuntimeStatus.Pending.value:
            return why(row, [], self._clock.now())
        return f"Is {row.status}; what it waits for is told under the URL of the hub itself, not over HTTP."
