"""Which host owns which partitions: each takes its fair share of those that are free, and gives back what is too much.

Nobody directs. All hosts see the same survey and compute the same shares; a lease decides where two want the same. Only what
exceeds a share moves, so a host that joins or leaves costs the others no more than what it gets, or had.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from durably.clock import Clock, Wakeup
from durably.errors import HubLockedError, OperationError
from durably.storage.api import HostInfo, HostReport, Store, Survey

_log = logging.getLogger("durably.engine")

_AT_ONCE = 8
"""So many partitions are loaded at once: a few hide the way to the server, more would only wait for each other."""

_LOOKS_A_LEASE = 3

_PAUSE_US = 500_000
"""When something was written, hosts may have come or gone; but most of it is messages, so looks keep this far apart."""


class Shares(NamedTuple):
    """What hosts should own, by their ids."""

    wanted: dict[str, int]
    me: str


def shares_of(survey: Survey) -> Shares:
    """The fair share of each host that takes part; those that stop, or were told to drain, get none."""
    there = [host for host in survey.hosts if _takes_part(host)]
    wanted = {host.host_id: 0 for host in survey.hosts}
    if there:
        each, left = divmod(len(survey.partitions), len(there))
        for rank, host in enumerate(there):
            wanted[host.host_id] = each + (rank < left)
    me = next((host.host_id for host in survey.hosts if host.is_me), "")
    return Shares(wanted, me)


def to_take(survey: Survey, shares: Shares, owned: Sequence[int]) -> list[int]:
    """Partitions that are free, as many as a host lacks; two hosts begin at different ones."""
    free = [one.partition for one in survey.partitions if one.host_id is None and one.partition not in owned]
    missing = shares.wanted.get(shares.me, 0) - len(owned)
    if missing <= 0 or not free:
        return []
    before = 0
    for host in survey.hosts:
        if host.is_me:
            break
        before += max(0, shares.wanted[host.host_id] - host.partitions)
    start = before % len(free)
    return [*free[start:], *free[:start]][:missing]


def to_give(survey: Survey, shares: Shares, owned: Sequence[int]) -> list[int]:
    """Partitions beyond the share of a host, as many as others lack; all of one that drains."""
    wanted = shares.wanted.get(shares.me, 0)
    surplus = len(owned) - wanted
    if surplus <= 0:
        return []
    if wanted:
        lacking = (
            max(0, shares.wanted[host.host_id] - host.partitions) for host in survey.hosts if not host.is_me
        )
        surplus = min(surplus, sum(lacking))
    return sorted(owned)[len(owned) - surplus :]


def _takes_part(host: HostInfo) -> bool:
    return not (host.report.draining or host.told_to_drain)


class Balance:
    """Keeps the share of one host right.

    Args:
        store: The hub.
        owned: Numbers of the partitions of this host that it is not giving away.
        take: Becomes the owner of one.
        give: Gives one away; may take as long as what runs of it.
        report: What the host says of itself.
        seen: Takes each survey.
        clock: Says when to look again.
        heard: Told the hub's time, with when it was asked and when it had answered; None: nobody wants to know.
        lease_s: A few looks are taken in this time.
        spawn: Runs something to its end, or to that of the host.
    """

    def __init__(
        self,
        store: Store,
        *,
        owned: Callable[[], list[int]],
        take: Callable[[int], Awaitable[None]],
        give: Callable[[int], Coroutine[Any, Any, None]],
        report: Callable[[], HostReport],
        seen: Callable[[Survey], None],
        clock: Clock,
        heard: Callable[[int, int, int], None] | None,
        lease_s: float,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._store = store
        self._owned = owned
        self._take = take
        self._give = give
        self._report = report
        self._seen = seen
        self._clock = clock
        self._heard = heard
        self._interval_us = int(lease_s * 1_000_000 / _LOOKS_A_LEASE)
        self._pause_us = min(_PAUSE_US, self._interval_us)
        self._spawn = spawn
        self._due = asyncio.Event()
        self._looked_at = self._said_at = 0
        self._stirred: Wakeup | None = None
        self._closed = False

    def look(self) -> None:
        """Something has changed: look now."""
        self._due.set()

    def stir(self) -> None:
        """Something may have changed: look soon."""
        if self._stirred is None and not self._closed:
            wait_us = self._looked_at + self._pause_us - self._clock.now()
            self._stirred = self._clock.call_later(max(0, min(wait_us, self._pause_us)), self._due.set)

    def close(self) -> None:
        """Take and give nothing any more."""
        self._closed = True
        self._due.set()
        self._settle()

    async def begin(self) -> None:
        """Join the others, and take what is free.

        Raises:
            OperationError: The store cannot be asked.
        """
        await self._round()

    async def work(self) -> None:
        """Look again and again, until closed."""
        while not self._closed:
            wakeup = self._clock.call_later(self._interval_us, self._due.set)
            try:
                await self._due.wait()
            finally:
                wakeup.cancel()
            self._due.clear()
            if self._closed:
                return
            try:
                await self._round()
            except OperationError as error:  # partitions that are owned here go on; it is asked again
                _log.warning("the hosts of %s cannot be told from here now: %s", self._store.url, error)
            except Exception:  # noqa: BLE001 - a task that nobody awaits must not end unseen
                _log.exception("balancing of %s failed inside the engine, trying again", self._store.url)

    def _settle(self) -> None:
        if self._stirred is not None:
            self._stirred.cancel()
            self._stirred = None

    async def _round(self) -> None:
        self._settle()
        now = self._looked_at = self._clock.now()
        says = not 0 <= now - self._said_at < self._interval_us
        survey = await self._store.survey(self._report() if says else None)
        if says:
            self._said_at = now
            self._tell_time(survey, now)
        self._seen(survey)
        shares, owned = shares_of(survey), self._owned()
        for number in to_give(survey, shares, owned):
            self._spawn(self._give(number))
        missing = to_take(survey, shares, owned)
        for first in range(0, len(missing), _AT_ONCE):
            if not self._closed:
                await asyncio.gather(*(self._try(number) for number in missing[first : first + _AT_ONCE]))

    def _tell_time(self, survey: Survey, asked: int) -> None:
        me = next((host for host in survey.hosts if host.is_me), None)
        if self._heard is not None and me is not None:
            self._heard(me.seen_at, asked, self._clock.now())

    async def _try(self, number: int) -> None:
        try:
            await self._take(number)
        except HubLockedError:
            self.stir()  # somebody was quicker: there may be others
        except OperationError as error:  # nobody has it now; others that were asked for need not wait for it
            _log.warning("partition %d of %s cannot be served here now: %s", number, self._store.url, error)
