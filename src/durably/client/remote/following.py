"""Instances as their streams tell them: who looks again and again asks nobody again."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Self

import msgspec

from durably.client.queries import Looks, status_of_row
from durably.client.remote import wire
from durably.client.remote.api import HostApi
from durably.client.remote.streams import instance_events
from durably.core.status import InstanceStatus
from durably.core.timeline import HistoryEntry
from durably.errors import InstanceNotFoundError

_STREAMS_MAX: Final = 20
"""So many instances are followed at once; the host is asked about any more."""


class Following:
    """Implements `durably.client.queries.Looks` with a stream for each instance that somebody looks at.

    Args:
        api: The host.
        client: Is asked for those that are too many.
    """

    def __init__(self, api: HostApi, client: Looks) -> None:
        self._api = api
        self._client = client
        self._followed: dict[str, _Followed] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ended: object) -> None:
        tasks = [one.task for one in self._followed.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def get_status(self, instance_id: str) -> InstanceStatus | None:
        """See `Looks.get_status`."""
        one = self._of(instance_id)
        if one is None:
            return await self._client.get_status(instance_id)
        await one.told.wait()
        if one.failed and not isinstance(one.task.exception(), InstanceNotFoundError):
            one.task.result()
        return one.status

    async def get_history(self, instance_id: str) -> list[HistoryEntry]:
        """See `Looks.get_history`: as of the last status."""
        one = self._followed.get(instance_id) or self._of(instance_id)
        return await self._client.get_history(instance_id) if one is None else one.entries

    def _of(self, instance_id: str) -> _Followed | None:
        one = self._followed.get(instance_id)
        if one is not None and one.failed:  # its error was told: perhaps it goes better now
            one = None
        if one is None and sum(not other.task.done() for other in self._followed.values()) < _STREAMS_MAX:
            one = self._followed[instance_id] = _Followed(self._api, instance_id)
        return one


class _Followed:
    """One instance.

    Attributes:
        status: What was told last; None: there is none.
        entries: The history that belongs to it.
        told: Set once something is known.
        task: Reads the stream.
    """

    def __init__(self, api: HostApi, instance_id: str) -> None:
        self.status: InstanceStatus | None = None
        self.entries: list[HistoryEntry] = []
        self.told = asyncio.Event()
        self.task: asyncio.Task[Any] = asyncio.ensure_future(self._read(api, instance_id))

    @property
    def failed(self) -> bool:
        """An error ended the stream."""
        return self.task.done() and self.task.exception() is not None

    async def _read(self, api: HostApi, instance_id: str) -> None:
        entries: list[HistoryEntry] = []
        try:
            async for event in instance_events(api, instance_id, history=True):
                match event.kind:
                    case "execution":
                        entries = []
                    case "history":
                        entries.append(msgspec.json.decode(event.data, type=wire.Entry).entry)
                    case "status":
                        row = msgspec.json.decode(event.data, type=wire.Instance).row
                        self.status, self.entries = status_of_row(row), entries.copy()
                        self.told.set()
                    case "gone":
                        self.status = None
                    case _:
                        pass
        finally:
            self.told.set()
