"""As many workers as there is work for: ``--processes MIN:MAX``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from datetime import timedelta
from math import isfinite
from typing import Final

from durably.cli.processes.child import Plan
from durably.cli.processes.count import Count
from durably.cli.processes.team import Team
from durably.cli.processes.voice import say, warn
from durably.clock import SystemClock
from durably.core.load import RULE, HubLoad, recommended_hosts
from durably.errors import HubNotFoundError, StoreUnavailableError, UsageError
from durably.scaling.lookout import Lookout
from durably.storage.api import Store
from durably.storage.open import open_store

SCALE_DOWN_S: Final = 60.0
SCALE_DOWN_MIN_S: Final = 1.0

_RULE: Final = RULE._replace(wake=timedelta(seconds=3))
"""A worker is there within a second or two: sooner than a pod."""

_AGAIN_S: Final = 2.0


def scale_down_s(settings: Mapping[str, str]) -> float:
    """How long there has to be less to do before workers stop.

    Raises:
        UsageError: ``DURABLY_SCALE_DOWN_S`` is no number of seconds, or too short.
    """
    text = settings.get("DURABLY_SCALE_DOWN_S", "")
    try:
        seconds = float(text or SCALE_DOWN_S)
    except ValueError:
        seconds = -1.0
    if not isfinite(seconds) or seconds < SCALE_DOWN_MIN_S:
        raise UsageError(
            f"DURABLY_SCALE_DOWN_S is {text!r}: expected a number of seconds, 1 or more, such as 60"
        )
    return seconds


class Scaling:
    """Tells a team how many workers it should have.

    Args:
        team: What is scaled.
        plan: What its workers serve.
        count: Between how many and how many.
        calm_s: How long there has to be less to do before workers stop.
    """

    def __init__(self, team: Team, plan: Plan, count: Count, calm_s: float) -> None:
        self._team = team
        self._plan = plan
        self._count = count
        self._calm_s = calm_s
        self._lower: asyncio.TimerHandle | None = None
        self._peak = 0
        self._expecting = False
        self._loop = asyncio.get_running_loop()

    async def work(self) -> None:
        """Until it is cancelled."""
        store = open_store(self._plan.hub).inner  # what is encrypted is not read
        await self._open(store)
        try:
            async with aclosing(Lookout(store, SystemClock()).changes(_RULE)) as loads:
                async for load in loads:
                    self._heed(load)
        finally:
            self.close()
            await store.close()

    async def _open(self, store: Store) -> None:
        while True:
            try:
                await store.open(create=False)
                return
            except HubNotFoundError:  # the first worker makes it, with the partitions that it wants
                pass
            except StoreUnavailableError as error:
                warn(f"The number of processes stays as it is: {error}")
            await asyncio.sleep(_AGAIN_S)

    def _heed(self, load: HubLoad) -> None:
        """More at once; fewer when that was so for a while, and no fewer than were needed meanwhile."""
        mine = sum(child.serves for child in self._team.children)
        elsewhere = max(0, load.hosts - mine)
        wanted = recommended_hosts(load, _RULE) - elsewhere
        wanted = min(max(wanted, self._count.least), self._count.most)
        if wanted >= self._team.wanted:
            self._stay()
            self._want(wanted)
        elif self._lower is None:
            self._peak = wanted
            self._lower = self._loop.call_later(self._calm_s, self._calm)
        else:
            self._peak = max(self._peak, wanted)

    def _calm(self) -> None:
        self._lower = None
        if sum(child.serves for child in self._team.staying) >= self._team.wanted:
            self._want(self._peak)
        else:  # one that is just coming, or is to be, may have been wanted for what nobody sees here
            self._lower = self._loop.call_later(self._calm_s, self._calm)

    def _stay(self) -> None:
        if self._lower is not None:
            self._lower.cancel()
            self._lower = None

    def _want(self, number: int) -> None:
        if number > self._team.wanted:
            say(f"There is more to do: {number} {'process' if number == 1 else 'processes'}")
        self._team.want(number)
        if number:
            self._expect_nobody()
        else:
            self._expect_visitors()

    # --- nobody is there ---------------------------------------------------------------------------------------------

    def _expect_visitors(self) -> None:
        """The first connection starts a worker, which takes it."""
        port = self._plan.listening
        if port is not None and not self._expecting:
            self._expecting = True
            self._loop.add_reader(port, self._visited)

    def _expect_nobody(self) -> None:
        port = self._plan.listening
        if port is not None and self._expecting:
            self._expecting = False
            self._loop.remove_reader(port)

    def _visited(self) -> None:
        self._want(1)
        self._stay()
        self._peak = 0
        self._lower = self._loop.call_later(self._calm_s, self._calm)

    def close(self) -> None:
        """Leave team and port alone. Idempotent."""
        self._stay()
        self._expect_nobody()
