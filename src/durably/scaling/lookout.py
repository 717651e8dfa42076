"""Looks at the load of a hub when it may have changed, and seldom otherwise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Final

from durably.clock import Clock
from durably.core.load import RULE, HubLoad, Rule, is_idle
from durably.engine.load import hub_load
from durably.errors import OperationError
from durably.storage.api import Store

_FRESH_S: Final = 0.5
"""Looks are so far apart at least, however many ask."""

_BUSY_S: Final = 2.0
"""As long as there is something to do, it is looked at so often."""

_IDLE_S: Final = 60.0
"""When nothing is to do, and nobody says that there is: a notice may be lost. Where none can be heard, it is `_BUSY_S`."""

_log = logging.getLogger("durably.scaling")


class Lookout:
    """The load of one hub, for any number of those who ask.

    Args:
        store: Open.
        clock: Time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.Task[HubLoad] | None = None
        self._looked_at = float("-inf")
        self._looks = 0
        self._waiting: set[asyncio.Event] = set()
        store.on_arrival(self._stir)

    async def look(self) -> HubLoad:
        """The load as it is, or was half a second ago.

        Raises:
            OperationError: The store cannot be asked.
        """
        return await self._look_beyond(0)

    async def _look_beyond(self, number: int) -> HubLoad:
        """What a later look than this one found. Those that are under way may not have seen what has come meanwhile."""
        while True:
            if self._looking is None or (self._looking.done() and self._age_s >= _FRESH_S):
                self._looked_at = self._loop.time()
                self._looks += 1
                self._looking = asyncio.ensure_future(hub_load(self._store, self._clock.now()))
            found = self._looks
            load = await asyncio.shield(self._looking)
            if found > number:
                return load
            await asyncio.sleep(max(0.0, _FRESH_S - self._age_s))

    async def changes(self, rule: Rule = RULE) -> AsyncGenerator[HubLoad]:
        """The load now, and again when it may have changed: a message came, a timer will soon be due, or some time passed.

        While the store cannot be asked, nothing comes.
        """
        stirred = asyncio.Event()
        self._waiting.add(stirred)
        try:
            while True:
                stirred.clear()
                try:
                    load = await self._look_beyond(self._looks)  # an older one may lack what has stirred
                except OperationError as error:
                    _log.warning("the load of %s cannot be told now: %s", self._store.url, error)
                    await asyncio.sleep(_BUSY_S)
                    continue
                yield load
                if not is_idle(load, rule):
                    await asyncio.sleep(_BUSY_S)
                else:
                    await self._quiet(stirred, load, rule)
        finally:
            self._waiting.discard(stirred)

    async def _quiet(self, stirred: asyncio.Event, load: HubLoad, rule: Rule) -> None:
        """Nothing is to do: until something stirs."""
        wait_s = _IDLE_S if self._store.listening else _BUSY_S
        if load.next_timer is not None:
            wait_s = min(wait_s, (load.next_timer - rule.wake - load.at).total_seconds())
        try:
            async with asyncio.timeout(max(wait_s, _FRESH_S)):
                await stirred.wait()
        except TimeoutError:
            return

    @property
    def _age_s(self) -> float:
        return self._loop.time() - self._looked_at

    def _stir(self) -> None:
        for one in self._waiting:
            one.set()
