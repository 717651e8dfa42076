"""The partitions that a host owns: how they come, how they go, and which of them an instance belongs to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from durably.clock import Clock, Random
from durably.engine.activities import ActivityPool
from durably.engine.commands import Commands
from durably.engine.committer import RETRY_DELAY_MAX_US
from durably.engine.company import Company
from durably.engine.executor import Executor
from durably.engine.holding import Holding, Keeper
from durably.engine.options import EngineOptions
from durably.engine.partition import Partition, Share
from durably.engine.residents import Delivery
from durably.engine.routes import Routes
from durably.engine.spread import Room
from durably.engine.suspicion import Suspicion
from durably.engine.waiters import Waiters, refuse
from durably.engine.watched import WatchedExecutor
from durably.errors import LeaseLostError, NotServedHereError, OperationError, StoreUnavailableError
from durably.storage.api import Lease, Store

_log = logging.getLogger("durably.engine")

_NOBODY = Suspicion()
"""Where nobody died, nobody is suspected."""


class Means(NamedTuple):
    """What a host has for all its partitions.

    Attributes:
        closing: Whether the host stops.
        spawn: Runs something to its end, or to that of the host.
        pause: Sleeps for some microseconds by the engine's clock.
        bounded: Waits for something, but not for ever: for some seconds by the engine's clock.
        gave_up: The host cannot go on.
        moved: A partition is not served here any more.
    """

    store: Store
    pool: ActivityPool
    commands: Commands
    waiters: Waiters
    clock: Clock
    random: Random
    options: EngineOptions
    company: Company
    closing: Callable[[], bool]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    pause: Callable[[int], Awaitable[None]]
    bounded: Callable[[Coroutine[Any, Any, None], float], Awaitable[None]]
    gave_up: Callable[[Exception], None]
    moved: Callable[[], None]


class Ownership:
    """What one host owns of a hub.

    Args:
        means: What the host has for all its partitions.
        executor: Reaches user code.
        name: Of the host, for people.

    Attributes:
        holdings: By number of the partition.
        routes: None where the hub has one partition, and one owner.
    """

    def __init__(self, means: Means, executor: Executor, name: str) -> None:
        self.holdings: dict[int, Holding] = {}
        self.routes: Routes | None = None
        self._room: Room | None = None
        self._means = means
        self._executor = executor
        self._name = name
        self._suspicions: dict[int, Suspicion] = {}
        self._going: dict[int, asyncio.Event] = {}
        """By number: partitions that are being let go of, and what is set when they are."""
        self._giving: dict[int, asyncio.Event] = {}
        """The same from the moment in which nothing new of them begins."""
        self._lost_early: dict[int, int] = {}
        """By number: the epoch of a lease that was lost before this host knew that it had it, or while it prepared."""
        self._keeper = Keeper(means.closing, means.spawn, means.pause, self._loaded, self._ended)

    def share(self, room: Room | None) -> Routes:
        """Other hosts serve the same hub: from now on it matters which partition an instance belongs to.

        Args:
            room: What this host keeps for itself; None where there is no queue that hosts share.
        """
        self._room = room
        self.routes = Routes(self._means.store.partition_of, self._receiver)
        return self.routes

    # --- who is where ------------------------------------------------------------------------------------------------

    def holding_of(self, instance_id: str) -> Holding | None:
        """Of an instance, if its partition is served here."""
        return self.holdings.get(0 if self.routes is None else self.routes.partition_of(instance_id))

    @property
    def partitions(self) -> list[Partition]:
        """The partition objects in memory."""
        return [holding.partition for holding in self.holdings.values() if holding.partition is not None]

    @property
    def trouble(self) -> StoreUnavailableError | None:
        """Why nothing can be made durable for now, or None."""
        return next((one.trouble for one in self.holdings.values() if one.trouble is not None), None)

    def _receiver(self, number: int) -> Partition | None:
        holding = self.holdings.get(number)
        return None if holding is None else holding.partition

    def _is_in(self, number: int) -> Callable[[str], bool]:
        routes = self.routes
        if routes is None:
            return _everybody
        return lambda instance_id: routes.partition_of(instance_id) == number

    # --- they come ---------------------------------------------------------------------------------------------------

    async def take(self, number: int) -> None:
        """Become the owner of a partition, and go on with what is in flight there.

        Raises:
            HubLockedError: Another live host owns it.
        """
        going = self._going.get(number)
        if going is not None:
            await going.wait()
        lease = await self._means.store.acquire(number, self._name)
        try:
            await self._hold(lease)
        except BaseException:
            if self.routes is not None:  # else nobody would serve it as long as this host lives and renews
                self._means.spawn(self._release(lease))
            raise

    async def _hold(self, lease: Lease) -> None:
        suspicion = await self._suspicion_for(lease)
        if self._lost_early.pop(lease.partition, 0) == lease.epoch:
            raise _ran_out(lease)
        holding = Holding(self._share_with(suspicion), lease, self._keeper)
        self._suspicions[lease.partition] = suspicion
        self.holdings[lease.partition] = holding
        try:
            await holding.load()
        except BaseException:
            self._forget(holding)
            raise

    def _share_with(self, suspicion: Suspicion) -> Share:
        means = self._means
        return Share(
            means.store,
            self._executor,
            means.pool,
            means.waiters,
            means.clock,
            means.random,
            means.options,
            means.company,
            suspicion,
            lambda: len(self.holdings),
            self.routes,
            self._room,
        )

    async def _suspicion_for(self, lease: Lease) -> Suspicion:
        """Of an owner that died: find out what it was doing, and note from now on what this one does."""
        if not lease.orphaned:
            return Suspicion()
        try:
            log = await self._means.store.work_log(lease)
        except StoreUnavailableError as error:
            _log.warning("what kills this process, if anything does, will not be found: %s", error)
            return Suspicion()
        if not isinstance(self._executor, WatchedExecutor):
            self._executor = self._means.pool.executor = WatchedExecutor(self._executor, self._suspicion_of)
        return Suspicion(log)

    def _suspicion_of(self, instance_id: str) -> Suspicion:
        number = 0 if self.routes is None else self.routes.partition_of(instance_id)
        return self._suspicions.get(number, _NOBODY)

    def _loaded(self, holding: Holding) -> None:
        """What is under way is delivered to an object that has just been loaded."""
        whose = self._is_in(holding.number)
        for instance_id, done in self._means.pool.results():
            if whose(instance_id):
                holding.deliver(Delivery(instance_id, done))
        for delivery in self._means.commands.unanswered(whose):
            holding.deliver(delivery)  # it was under way when the partition object before was thrown away

    @property
    def numbers(self) -> list[int]:
        """Partitions that are here, or have not gone yet."""
        return sorted({*self.holdings, *self._giving})

    # --- they go -----------------------------------------------------------------------------------------------------

    async def give(self, number: int, timeout_s: float) -> None:
        """Give a partition back: let what runs of it end, begin nothing new, and tell others that it is free.

        What still runs after the time is cancelled, and runs again where the partition is served next. One that is being
        given back is waited for.
        """
        holding = self.holdings.get(number)
        under_way = self._giving.get(number)
        if under_way is not None:
            await under_way.wait()
            return
        if holding is None or holding.leaving:
            return
        holding.leave()
        given = self._giving[number] = asyncio.Event()
        try:
            await self._give(holding, timeout_s)
        finally:
            del self._giving[number]
            given.set()

    async def _give(self, holding: Holding, timeout_s: float) -> None:
        number, means = holding.number, self._means
        await means.pool.finish(self._is_in(number), timeout_s)
        await means.bounded(holding.becomes_quiet(), max(timeout_s, 1.0))
        if self.holdings.get(number) is not holding:
            return  # it was lost meanwhile
        partition = self._forget(holding)
        gone = self._going[number] = asyncio.Event()
        try:
            in_doubt = holding.in_doubt()
            if partition is not None:
                await means.bounded(partition.landed(), max(timeout_s, 1.0))
                in_doubt |= partition.committer.in_doubt()
            self._send_on(number, in_doubt)
            await self._release(holding.lease)
        finally:
            del self._going[number]
            gone.set()

    async def _release(self, lease: Lease) -> None:
        """Give a lease back. As long as that fails the store keeps it alive, and nobody else can have the partition."""
        means = self._means
        delay_us = int(means.options.commit_retry_s * 1_000_000)
        while True:
            try:
                await means.store.release(lease)
            except OperationError as error:
                which = f"partition {lease.partition} of {means.store.url}"
                _log.warning("%s could not be given back: %s", which, error)
                if means.closing() or not isinstance(error, StoreUnavailableError):
                    return  # it ends with the store
            else:
                return
            await means.pause(delay_us)
            delay_us = min(2 * delay_us, RETRY_DELAY_MAX_US)

    def lease_lost(self, lease: Lease) -> None:
        """The store tells that somebody else has a partition, or may have it by now."""
        holding = self.holdings.get(lease.partition)
        if holding is not None and holding.lease.epoch == lease.epoch:
            holding.lose(_ran_out(lease))
        else:
            self._lost_early[lease.partition] = (
                lease.epoch
            )  # it is told once: whoever is about to hold it must know

    def forgive(self) -> None:
        """The host stops: nobody who is cut off now is to blame."""
        for suspicion in self._suspicions.values():
            suspicion.forgive()

    def abandon(self) -> None:
        """Drop everything at once, as a crash would."""
        for suspicion in self._suspicions.values():
            suspicion.abandon()
        for holding in self.holdings.values():
            holding.drop()
        self.holdings.clear()

    def _forget(self, holding: Holding) -> Partition | None:
        if self.holdings.get(holding.number) is holding:
            del self.holdings[holding.number]
            self._suspicions.pop(holding.number, _NOBODY).forgive()
        return holding.drop()

    def _ended(self, holding: Holding, error: Exception) -> None:
        """A holding cannot go on. A partition that is another host's now is no reason to stop where there are more."""
        means = self._means
        if self.routes is None or not isinstance(error, LeaseLostError):
            means.gave_up(error)
            return
        _log.warning("partition %d of %s is lost: %s", holding.number, means.store.url, error)
        self._forget(holding)
        self._send_on(holding.number, holding.in_doubt())
        means.moved()

    def _send_on(self, number: int, in_doubt: frozenset[asyncio.Future[Any]]) -> None:
        """Instances are not served here any more: drop what runs of them, and send their callers to whom has them."""
        whose, means = self._is_in(number), self._means
        means.pool.forget(whose)
        for delivery in means.commands.unanswered(whose):
            if delivery.reply is not None:
                refuse(delivery.reply, moved(delivery.target, in_doubt=delivery.reply in in_doubt))
        means.waiters.moved(whose, moved("", in_doubt=False))


def moved(instance_id: str, *, in_doubt: bool) -> NotServedHereError:
    """An instance is served by another host, or will be."""
    whose = f"Instance '{instance_id}'" if instance_id else "The instance"
    text = f"{whose} is served by another host; ask that one, through the hub"
    if in_doubt:
        text = (
            f"Partition of instance '{instance_id}' was lost while the answer was on its way: what was asked for may have been "
            "done. Look at the instance before you repeat it"
        )
    return NotServedHereError(text, in_doubt=in_doubt)


def _ran_out(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"Its lease of epoch {lease.epoch} ran out, or another host has it")


def _everybody(_: str) -> bool:
    return True
