"""Waiting for instances to end by looking at rows: for a process that the owner of the instances cannot call."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from durably.client.heard import SELDOM_S, Heard
from durably.core.commit import InstanceRow
from durably.core.status import TERMINAL
from durably.engine.committed import find_newest
from durably.errors import HubClosedError, InstanceNotFoundError, StoreUnavailableError
from durably.storage.api import Store

_LOOK_MIN_S, _LOOK_MAX_S = 0.002, 0.05
"""A look comes after twice the time since the one before, while instances end; up to the longest delay while none does."""

_SHARE = 10
"""Looking takes a tenth of the time at most, however many are waited for."""


_LOOK_MAX = 1_000
"""Instances in one query; other reads of this process get their turn between two of them."""


_WATCH_S = 0.25


class PollingWatch:
    """Implements `durably.management.Watch` where nobody tells of commits: it is time to look again now and then."""

    async def changed(self) -> None:
        """See `Watch.changed`."""
        await asyncio.sleep(_WATCH_S)


class Endings:
    """All that this process waits for, looked at together: one query for all of them, and only while somebody waits.

    Args:
        store: The hub; opened by the caller.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, list[asyncio.Future[InstanceRow]]] = {}
        self._unborn: set[str] = set()
        """Those of them whose start waits for an owner, or may: what has ended under such an id may be what they replace."""
        self._looking: asyncio.Task[None] | None = None
        self._told: set[str] = set()
        self._anything_told = asyncio.Event()
        self.heard = Heard(store, self._on_endings)

    async def wait(self, instance_id: str, timeout_s: float | None) -> InstanceRow:
        """The row of the instance once it has ended.

        Raises:
            InstanceNotFoundError: No such instance; or it was purged meanwhile.
            TimeoutError: It has not ended in time.
        """
        future: asyncio.Future[InstanceRow] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(instance_id, []).append(future)  # at once: it may end while it is looked for
        self._unborn.add(instance_id)  # until that is known: a look may come first
        try:
            row = await find_newest(self._store, instance_id)
            if row is None:
                raise InstanceNotFoundError(instance_id)
            if row.status in TERMINAL:
                return row
            if row.execution:
                self._unborn.discard(instance_id)
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._look())
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            text = (
                f"Instance '{instance_id}' has not ended within {timeout_s:g} s; it goes on: ask again later"
            )
            raise TimeoutError(text) from None
        finally:
            self._forget(instance_id, future)

    def close(self) -> None:
        """Answer everybody that the hub is closed."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._fail(HubClosedError(f"The client of {self._store.url} was closed; open one and ask again"))

    def _on_endings(self, ended: frozenset[str]) -> None:
        told = self._waiting.keys() & ended
        if told:
            self._told |= told
            self._anything_told.set()

    def _forget(self, instance_id: str, future: asyncio.Future[InstanceRow]) -> None:
        waiting = self._waiting.get(instance_id)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[instance_id]
                self._unborn.discard(instance_id)

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        self._unborn.clear()
        for futures in waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # who waited may be gone: nobody has to be told that it was never retrieved

    async def _look(self) -> None:
        delay_s, loop = _LOOK_MIN_S, asyncio.get_running_loop()
        looked_at, waited = loop.time(), False
        while self._waiting:
            hears = waited and self.heard.listen()
            told = await self._wait_until(looked_at + (SELDOM_S if hears else delay_s))
            began = loop.time()
            try:
                some_ended = await self._look_once(told or list(self._waiting))
            except StoreUnavailableError:
                some_ended = False  # busy, or a disk that is full: the next look may be luckier
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to know
                self._fail(error)
                continue
            waited = True
            if told:
                continue
            looked_at = loop.time()
            delay_s = _LOOK_MIN_S if some_ended else min(2 * delay_s, _LOOK_MAX_S)
            delay_s = max(delay_s, _SHARE * (looked_at - began))
        self._looking = None

    async def _wait_until(self, then: float) -> list[str]:
        """Those that have ended as hosts say; empty: it is time to look at all."""
        loop = asyncio.get_running_loop()
        if not self._told:
            self._anything_told.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(then):
                    await self._anything_told.wait()
        if loop.time() >= then:
            self._told.clear()
        told, self._told = self._told, set()
        return sorted(told & self._waiting.keys())

    async def _look_once(self, ids: list[str]) -> bool:
        ended = 0
        for first in range(0, len(ids), _LOOK_MAX):
            ended += await self._look_at(ids[first : first + _LOOK_MAX])
        return ended > 0

    async def _look_at(self, ids: list[str]) -> int:
        ended = 0
        for instance_id, committed in zip(ids, await self._store.get_instances(ids), strict=True):
            row = committed
            if row is None or (row.status in TERMINAL and instance_id in self._unborn):
                row = await find_newest(self._store, instance_id)
            if row is not None and row.status not in TERMINAL:
                if row.execution:
                    self._unborn.discard(instance_id)
                continue
            ended += 1
            self._unborn.discard(instance_id)
            for future in self._waiting.pop(instance_id, ()):
                if future.done():
                    continue
                if row is None:
                    future.set_exception(InstanceNotFoundError(instance_id))
                else:
                    future.set_result(row)
        return ended
