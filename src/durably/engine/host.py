"""Host: opens a hub, owns its partition, keeps what must outlive a partition object, and decides after failures."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Coroutine
from typing import Any

from durably.clock import Clock, Random, SystemClock, SystemRandom
from durably.core.events import Payload
from durably.core.messages import ActivityDone, MessageBody
from durably.engine.activities import ActivityPool
from durably.engine.commands import Commands
from durably.engine.committer import RETRY_DELAY_MAX_US, TROUBLE_DELAY_US
from durably.engine.company import Company
from durably.engine.executor import Executor
from durably.engine.gate import Gate
from durably.engine.janitor import Janitor
from durably.engine.options import EngineOptions
from durably.engine.partition import Partition, Share
from durably.engine.residents import Delivery
from durably.engine.strikes import Strikes
from durably.engine.suspicion import Suspicion
from durably.engine.waiters import Waiters
from durably.engine.watched import WatchedExecutor
from durably.errors import (
    HubClosedError,
    InvariantError,
    LeaseLostError,
    OperationError,
    StoreFailedError,
    StoreUnavailableError,
    UsageError,
)
from durably.storage.api import Lease, Store

_log = logging.getLogger("durably.engine")

_RELOADS_MAX = 20
"""Reloads in a row, without a commit between them and without a culprit to park, after which the host gives up."""


class Host:
    """One process's share of a hub.

    Args:
        store: The hub; opened by `start`, closed by `stop`.
        executor: Reaches user code; closed by `stop`.
        options: Limits.
        clock: Time.
        random: Ids.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        options: EngineOptions | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.store = store
        self.executor: Executor = executor
        self.options = options or EngineOptions.from_environment()
        self.clock: Clock = clock or SystemClock()
        self.random: Random = random or SystemRandom()
        self.waiters = Waiters()
        self.partition: Partition | None = None
        self.failure: Exception | None = None
        """Why the host stopped by itself, or None."""
        self._company = Company(self.options.max_deliveries)
        self._suspicion = Suspicion()
        self.pool = ActivityPool(
            executor,
            self.clock,
            self.options.max_concurrent_activities,
            self._activity_done,
            company=self._company,
            unknown_wait=self.options.unknown_functions == "wait",
        )
        self._room = Gate(lambda: self.has_room)
        self.pool.freed = self._room.look
        self._lease: Lease | None = None
        self._commands = Commands(self.options.max_commands, self._deliver, lambda: self._refuses)
        self._strikes = Strikes(self.options.invariant_strikes)
        self._closing = False
        self._stopped: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._polling = False
        self._sweeping = False
        self._unloaded: StoreUnavailableError | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the hub, become its owner, and go on with what is in flight.

        Raises:
            HubLockedError: Another live host serves it.
            OperationError: The store cannot be opened; see `Store.open`.
            UsageError: It was started before.
        """
        if self._closing or self._lease is not None:
            raise UsageError(f"The host of {self.store.url} was started before; make another one")
        self._failed = asyncio.get_running_loop().create_future()
        await self.store.open(create=True)
        try:
            self._lease = await self.store.acquire(0, f"pid {os.getpid()} on {platform.node()}")
            if self._lease.orphaned:
                await self._become_suspicious(self._lease)
            await self._load()
        except BaseException:
            self.abandon()
            await self._close()
            raise
        self.store.on_arrival(self._arrived)
        self._poll_later()
        if self.options.keep_finished_s:
            keep_us = int(self.options.keep_finished_s * 1_000_000)
            janitor = Janitor(self.store, self.submit, self._pause, self.clock, keep_us)
            self._spawn(janitor.work())

    async def _become_suspicious(self, lease: Lease) -> None:
        """The host before died: find out what it was doing, and note from now on what this one does."""
        try:
            log = await self.store.work_log(lease)
        except StoreUnavailableError as error:
            _log.warning("what kills this process, if anything does, will not be found: %s", error)
            return
        self._suspicion = Suspicion(log)
        self.executor = self.pool.executor = WatchedExecutor(self.executor, self._suspicion)

    async def stop(self, drain_timeout_s: float | None = None) -> None:
        """Take nothing new, let running activities end (up to the drain time-out), commit, let go. Idempotent.

        What is still running then is cancelled without a result, and runs again when the hub is served next. So is what
        runs when the caller is cancelled meanwhile: the hub is let go of all the same. A second call waits for the first.
        """
        if self._closing:
            if self._stopped is not None:
                await asyncio.shield(self._stopped)
            return
        self._closing = True
        self._room.look()
        self._stopped = asyncio.get_running_loop().create_future()
        self._suspicion.forgive()
        timeout_s = self.options.drain_timeout_s if drain_timeout_s is None else drain_timeout_s
        try:
            await self._drain(timeout_s)
        except BaseException:
            await self.pool.stop(0)
            raise
        finally:
            try:
                await self._let_go(max(timeout_s, 1.0))
            finally:
                self._stopped.set_result(None)

    async def _drain(self, timeout_s: float) -> None:
        await self.pool.stop(timeout_s if self.failure is None else 0)
        if self.partition is not None and self.failure is None:
            await self._bounded(self.partition.becomes_quiet(), max(timeout_s, 1.0))

    async def _let_go(self, timeout_s: float) -> None:
        partition = self.partition
        if partition is not None:
            partition.close()
            await self._bounded(partition.landed(), timeout_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refuse_all(
            self.failure or HubClosedError(f"The host of {self.store.url} stopped; start one and ask again")
        )
        try:
            if self._lease is not None and self.failure is None:
                await self.store.release(self._lease)
        except OperationError as error:  # it ends with the store, or runs out
            _log.warning("the lease of %s could not be given back: %s", self.store.url, error)
        finally:
            await self._close()

    async def _close(self) -> None:
        try:
            await self.executor.close()
        finally:
            await self.store.close()

    def abandon(self) -> None:
        """Drop everything at once, as a crash would: nothing is committed, nobody is answered. For simulations."""
        self._closing = True
        self._suspicion.abandon()
        self.pool.abandon()
        if self.partition is not None:
            self.partition.close()
            self.partition = None
        for task in self._tasks:
            task.cancel()

    @property
    def trouble(self) -> StoreUnavailableError | None:
        """Why nothing can be made durable for now, or None when the host is ready.

        What was sent before waits and is not lost, reads go on, and new messages are refused, until the store takes
        something again.
        """
        return self._unloaded if self.partition is None else self.partition.committer.trouble

    async def failed(self) -> None:
        """Return when the host has stopped by itself; `failure` says why. Never returns for one that goes on."""
        if self._failed is not None:
            await asyncio.shield(self._failed)

    async def _bounded(self, waiting: Coroutine[Any, Any, None], timeout_s: float) -> None:
        """Wait, but not for ever, by the engine's own clock."""
        task = asyncio.get_running_loop().create_task(waiting)
        wakeup = self.clock.call_later(int(timeout_s * 1_000_000), lambda: _cancel(task))
        try:
            await asyncio.gather(task, return_exceptions=True)
        finally:
            wakeup.cancel()

    # --- commands ----------------------------------------------------------------------------------------------------

    async def submit(self, target: str, body: MessageBody) -> Payload:
        """Send a message to an instance or entity and return when what it did is durable, with the result if it has one.

        Raises:
            HubClosedError: The host is stopping.
            StoreUnavailableError: The store takes nothing for now (see `trouble`); the message was not sent.
            UsageError: The instance refuses it; see the operations.
        """
        trouble = self.trouble
        if trouble is not None:
            raise StoreUnavailableError(str(trouble))
        await self._commands.wait_for_place()
        if self._refuses:
            raise self.failure or HubClosedError(f"The host of {self.store.url} is stopping; ask another one")
        return await self._commands.send(target, body)

    @property
    def _refuses(self) -> bool:
        return self._closing or self.failure is not None

    def _deliver(self, delivery: Delivery) -> None:
        if self.partition is not None:
            self.partition.deliver(delivery)

    @property
    def has_room(self) -> bool:
        """True when another start may come: fewer activities are open than the host may hold."""
        room = len(self.pool) <= self.options.max_open_activities
        return room or self._closing or self.failure is not None

    async def wait_for_room(self) -> None:
        """Return when the host has room for another start."""
        await self._room.passed()

    async def _pause(self, delay_us: int) -> None:
        """Sleep by the engine's own clock."""
        over = asyncio.Event()
        wakeup = self.clock.call_later(delay_us, over.set)
        try:
            await over.wait()
        finally:
            wakeup.cancel()

    def _refuse_all(self, error: Exception) -> None:
        self._commands.refuse_all(error)
        self._room.look()
        self.waiters.fail(error)

    def _activity_done(self, instance_id: str, done: ActivityDone) -> None:
        self._deliver(Delivery(instance_id, done))

    # --- inbox -------------------------------------------------------------------------------------------------------

    def _arrived(self) -> None:
        if self.partition is not None and not self._polling and not self._closing:
            self._polling = True
            self._spawn(self._read_inbox(everything=False))

    def _poll_later(self) -> None:
        if not self._closing:
            self.clock.call_later(int(self.options.inbox_poll_s * 1_000_000), self._poll)

    def _poll(self) -> None:
        if not self._closing and self.failure is None:
            if not self._sweeping:  # else the store is slow: more reads would only make it slower
                self._sweeping = True
                self._spawn(self._sweep())
            self._poll_later()

    async def _sweep(self) -> None:
        try:
            # Where messages appear in order, what waits for its time is not read every second.
            await self._read_inbox(everything=not self.store.capabilities.inbox_in_order)
        finally:
            self._sweeping = False

    async def _read_inbox(self, *, everything: bool) -> None:
        self._polling = False  # a post that comes from here on asks again
        if self.partition is not None:
            await self._read_inbox_of(self.partition, everything=everything)

    async def _read_inbox_of(self, partition: Partition, *, everything: bool) -> None:
        try:
            await partition.read_inbox(everything=everything)
        except StoreUnavailableError as error:
            _log.warning("the inbox of %s could not be read, trying again: %s", self.store.url, error)
        except Exception as error:  # noqa: BLE001 - a store that cannot read cannot be served
            partition.fail(error, None)

    # --- partition objects come and go -------------------------------------------------------------------------------

    async def _load(self) -> None:
        if self._lease is None:
            raise HubClosedError(f"The host of {self.store.url} does not own it: start it first")
        share = Share(
            self.store,
            self.executor,
            self.pool,
            self.waiters,
            self.clock,
            self.random,
            self.options,
            self._company,
            self._suspicion,
        )
        partition = Partition(
            share,
            self._lease,
            condemned=self._strikes.condemned,
            cautious=self._strikes.cautious,
            lost=self._partition_lost,
        )
        try:
            await partition.load()
        except BaseException:
            partition.close()  # it may have gone half of the way
            raise
        self.partition, self._unloaded = partition, None
        for instance_id, done in self.pool.results():
            partition.deliver(Delivery(instance_id, done))
        for delivery in self._commands.unanswered():
            partition.deliver(delivery)  # it was under way when the partition object before was thrown away

    def reload_partition(self, why: str) -> None:
        """Throw the partition object away and load it anew from its rows, as after a broken invariant."""
        partition = self.partition
        if partition is not None:
            partition.close()
            self._partition_lost(InvariantError("I11", "-", why), None)

    def _partition_lost(self, error: Exception, culprit: str | None) -> None:
        """A partition object ended. Its rows are the truth: load it anew, or stop when that cannot help."""
        lost, self.partition = self.partition, None
        if self._closing:
            return
        if isinstance(error, (StoreFailedError, LeaseLostError, HubClosedError)):
            self._give_up(error)
            return
        progressed = lost is not None and lost.progressed
        strikes = self._strikes.count(error, culprit, progressed=progressed)
        if culprit is None and strikes > _RELOADS_MAX:
            self._give_up(error)
            return
        if isinstance(error, InvariantError):
            _log.error("the partition is reloaded: %s", error)
        self._spawn(self._reload(lost, strikes))

    async def _reload(self, lost: Partition | None, strikes: int) -> None:
        if lost is not None:
            await lost.landed()
        delay_us = int(self.options.commit_retry_s * 1_000_000)
        attempt = 0 if strikes <= 1 else 1
        while not self._closing:
            if attempt:
                await self._pause(delay_us)
                delay_us = min(2 * delay_us, RETRY_DELAY_MAX_US)
            attempt += 1
            try:
                await self._load()
            except StoreUnavailableError as error:
                if delay_us >= TROUBLE_DELAY_US:
                    self._unloaded = error
                _log.warning("%s cannot be loaded, trying again: %s", self.store.url, error)
            except Exception as error:  # noqa: BLE001 - nothing above this task could act on it
                self._give_up(error)
                return
            else:
                return

    def _give_up(self, error: Exception) -> None:
        _log.critical("the host of %s stops: %s", self.store.url, error)
        self.failure = error
        self._refuse_all(error)
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
