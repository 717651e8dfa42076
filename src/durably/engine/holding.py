"""One partition as its host holds it: the lease, the object in memory, and how that comes back after it has failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from durably.engine.committer import RETRY_DELAY_MAX_US, TROUBLE_DELAY_US
from durably.engine.partition import Partition, Share
from durably.engine.residents import Delivery
from durably.engine.strikes import Strikes
from durably.errors import (
    HubClosedError,
    InvariantError,
    LeaseLostError,
    StoreFailedError,
    StoreUnavailableError,
)
from durably.storage.api import Lease

_log = logging.getLogger("durably.engine")

_RELOADS_MAX = 20
"""Reloads in a row, without a commit between them and without a culprit to park, after which the host gives up."""


class Keeper(NamedTuple):
    """What a holding needs of its host.

    Attributes:
        closing: Whether the host stops.
        spawn: Runs something to its end, or to that of the host.
        pause: Sleeps for some microseconds by the engine's clock.
        loaded: A partition object is there: what is under way is delivered to it.
        ended: It cannot go on: the holding, and why.
    """

    closing: Callable[[], bool]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    pause: Callable[[int], Awaitable[None]]
    loaded: Callable[[Holding], None]
    ended: Callable[[Holding, Exception], None]


class Holding:
    """A partition that this host owns.

    Args:
        share: What it has of the host.
        lease: The right to it.
        keeper: The host.

    Attributes:
        lease: The right to it.
        partition: The object in memory; None while it is loaded anew.
        leaving: It goes to another host: nobody else should begin to give it away.
    """

    def __init__(self, share: Share, lease: Lease, keeper: Keeper) -> None:
        self.share = share
        self.lease = lease
        self.partition: Partition | None = None
        self.leaving = False
        self._keeper = keeper
        self._lost_one: Partition | None = None
        """The object before, as long as a batch of it may be on its way."""
        self._settled: asyncio.Future[None] | None = None
        self._strikes = Strikes(share.options.invariant_strikes)
        self._unloaded: StoreUnavailableError | None = None
        self._dropped = False
        self._polling = False
        self._sweeping = False
        self._missed = False

    @property
    def number(self) -> int:
        """Of the partition."""
        return self.lease.partition

    @property
    def trouble(self) -> StoreUnavailableError | None:
        """Why nothing of it can be made durable for now, or None."""
        return self._unloaded if self.partition is None else self.partition.committer.trouble

    # --- objects come and go -----------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Make the partition object anew from its rows."""
        partition = Partition(
            self.share,
            self.lease,
            condemned=self._strikes.condemned,
            cautious=self._strikes.cautious,
            lost=self._lost,
        )
        try:
            await partition.load()
        except BaseException:
            partition.close()  # it may have gone half of the way
            raise
        if self._dropped:
            partition.close()
            return
        self.partition, self._unloaded = partition, None
        if self.leaving:
            partition.leave()
        self._keeper.loaded(self)
        self._tell_settled()
        if self._missed:  # it may have come behind what was read
            self.arrived()

    def reload(self, why: str) -> None:
        """Throw the object away and load it anew from its rows, as after a broken invariant."""
        partition = self.partition
        if partition is not None:
            partition.close()
            self._lost(InvariantError("I11", "-", why), None)

    def leave(self) -> None:
        """It goes to another host soon: start no activity any more."""
        self.leaving = True
        if self.partition is not None:
            self.partition.leave()

    def lose(self, error: LeaseLostError) -> None:
        """It is, or may be, another host's."""
        partition = self.partition
        if partition is not None:
            partition.fail(error, None)
        elif not self._dropped:
            self._keeper.ended(self, error)

    def drop(self) -> Partition | None:
        """Stop at once; what is not committed never happened. Returns the object, which may have a batch on its way."""
        self._dropped = True
        self._tell_settled()
        partition, self.partition = self.partition, None
        if partition is not None:
            partition.close()
        return partition

    def in_doubt(self) -> frozenset[asyncio.Future[Any]]:
        """Whose answers hang on a batch of an object that has ended, of which nobody knows yet whether it was applied."""
        return frozenset() if self._lost_one is None else self._lost_one.committer.in_doubt()

    async def becomes_quiet(self) -> None:
        """Return when nothing of it waits, gathers or is on its way; also behind the object that is being loaded."""
        while self.partition is None and not self._dropped:
            self._settled = asyncio.get_running_loop().create_future()
            await self._settled
        if self.partition is not None:
            await self.partition.becomes_quiet()

    def _tell_settled(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _lost(self, error: Exception, culprit: str | None) -> None:
        """The object ended. Its rows are the truth: load it anew, or give up when that cannot help."""
        lost, self.partition = self.partition, None
        self._lost_one = lost
        if self._keeper.closing() or self._dropped:
            return
        if isinstance(error, (StoreFailedError, LeaseLostError, HubClosedError)):
            self._keeper.ended(self, error)
            return
        progressed = lost is not None and lost.progressed
        strikes = self._strikes.count(error, culprit, progressed=progressed)
        if culprit is None and strikes > _RELOADS_MAX:
            self._keeper.ended(self, error)
            return
        if isinstance(error, InvariantError):
            _log.error("the partition is reloaded: %s", error)
        self._keeper.spawn(self._reload(lost, strikes))

    async def _reload(self, lost: Partition | None, strikes: int) -> None:
        if lost is not None:
            await lost.landed()
            self._lost_one = None
        delay_us = int(self.share.options.commit_retry_s * 1_000_000)
        attempt = 0 if strikes <= 1 else 1
        while not (self._keeper.closing() or self._dropped):
            if attempt:
                await self._keeper.pause(delay_us)
                delay_us = min(2 * delay_us, RETRY_DELAY_MAX_US)
            attempt += 1
            try:
                await self.load()
            except StoreUnavailableError as error:
                if delay_us >= TROUBLE_DELAY_US:
                    self._unloaded = error
                _log.warning("%s cannot be loaded, trying again: %s", self.share.store.url, error)
            except Exception as error:  # noqa: BLE001 - nothing above this task could act on it
                self._keeper.ended(self, error)
                return
            else:
                return

    # --- what it is given --------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Take a message; one that comes between two objects is lost, and delivered again by who sent it."""
        if self.partition is not None:
            self.partition.deliver(delivery)

    def arrived(self) -> None:
        """Somebody may have posted: look behind what was seen."""
        self._missed = self.partition is None
        if not (self._missed or self._polling):
            self._polling = True
            # Where messages appear out of order, one behind what was seen may hide an earlier one of the same sender.
            self._keeper.spawn(self._read_inbox(everything=not self.share.store.capabilities.inbox_in_order))

    def poll(self) -> None:
        """Look for what nobody has told of."""
        if not self._sweeping:  # else the store is slow: more reads would only make it slower
            self._sweeping = True
            self._keeper.spawn(self._sweep())

    async def _sweep(self) -> None:
        try:
            # Where messages appear in order, what waits for its time is not read every second.
            await self._read_inbox(everything=not self.share.store.capabilities.inbox_in_order)
        finally:
            self._sweeping = False

    async def _read_inbox(self, *, everything: bool) -> None:
        self._polling = False  # a post that comes from here on asks again
        partition = self.partition
        if partition is None:
            return
        try:
            await partition.read_inbox(everything=everything)
        except StoreUnavailableError as error:
            _log.warning("the inbox of %s could not be read, trying again: %s", self.share.store.url, error)
        except Exception as error:  # noqa: BLE001 - a store that cannot read cannot be served
            partition.fail(error, None)
