"""Host: opens a hub, owns its partition, keeps what must outlive a partition object, and decides after failures."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Coroutine
from typing import Any

from durably.clock import Clock, Random, SystemClock, SystemRandom
from durably.core.messages import ActivityDone, MessageBody
from durably.engine.activities import ActivityPool
from durably.engine.executor import Executor
from durably.engine.options import EngineOptions
from durably.engine.partition import Partition, Share
from durably.engine.residents import Delivery
from durably.engine.waiters import Waiters
from durably.errors import (
    HubClosedError,
    InvariantError,
    LeaseLostError,
    StoreFailedError,
    StoreRefusedError,
    StoreUnavailableError,
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
        self.executor = executor
        self.options = options or EngineOptions.from_environment()
        self.clock: Clock = clock or SystemClock()
        self.random: Random = random or SystemRandom()
        self.waiters = Waiters()
        self.partition: Partition | None = None
        self.failure: Exception | None = None
        """Why the host stopped by itself, or None."""
        self.pool = ActivityPool(
            executor,
            self.clock,
            self.options.max_concurrent_activities,
            self._activity_done,
            unknown_wait=self.options.unknown_functions == "wait",
        )
        self._lease: Lease | None = None
        self._commands: dict[asyncio.Future[None], Delivery] = {}
        self._slots: asyncio.Event = asyncio.Event()
        self._strikes: dict[str | None, int] = {}
        self._condemned: dict[str, str] = {}
        self._cautious = False
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._polling = False

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the hub, become its owner, and go on with what is in flight.

        Raises:
            HubLockedError: Another live host serves it.
            OperationError: The store cannot be opened; see `Store.open`.
        """
        self._failed = asyncio.get_running_loop().create_future()
        await self.store.open(create=True)
        try:
            self._lease = await self.store.acquire(0, f"pid {os.getpid()} on {platform.node()}")
            await self._load()
        except BaseException:
            await self.store.close()
            raise
        self.store.on_arrival(self._arrived)
        self._poll_later()

    async def stop(self, drain_timeout_s: float | None = None) -> None:
        """Take nothing new, let running activities end (up to the drain time-out), commit, let go. Idempotent.

        What is still running then is cancelled without a result, and runs again when the hub is served next.
        """
        if self._closing:
            return
        self._closing = True
        timeout_s = self.options.drain_timeout_s if drain_timeout_s is None else drain_timeout_s
        await self.pool.stop(timeout_s if self.failure is None else 0)
        partition = self.partition
        if partition is not None:
            if self.failure is None:
                await self._bounded(partition.becomes_quiet(), max(timeout_s, 1.0))
            partition.close()
            await self._bounded(partition.landed(), max(timeout_s, 1.0))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refuse_all(
            self.failure or HubClosedError(f"The host of {self.store.url} stopped; start one and ask again")
        )
        if self._lease is not None and self.failure is None:
            await self.store.release(self._lease)
        await self.executor.close()
        await self.store.close()

    def abandon(self) -> None:
        """Drop everything at once, as a crash would: nothing is committed, nobody is answered. For simulations."""
        self._closing = True
        self.pool.abandon()
        if self.partition is not None:
            self.partition.close()
            self.partition = None
        for task in self._tasks:
            task.cancel()

    async def failed(self) -> None:
        """Return when the host has stopped by itself; `failure` says why. Never returns for one that goes on."""
        if self._failed is not None:
            await asyncio.shield(self._failed)

    async def _bounded(self, waiting: Coroutine[Any, Any, None], timeout_s: float) -> None:
        """Wait, but not for ever, by the engine's own clock."""
        task = asyncio.get_running_loop().create_task(waiting)
        wakeup = self.clock.call_at(self.clock.now() + int(timeout_s * 1_000_000), lambda: _cancel(task))
        await asyncio.gather(task, return_exceptions=True)
        wakeup.cancel()

    # --- commands ----------------------------------------------------------------------------------------------------

    async def submit(self, target: str, body: MessageBody) -> None:
        """Send a message to an instance and return when what it did is durable.

        Raises:
            HubClosedError: The host is stopping.
            UsageError: The instance refuses it; see the operations.
        """
        while len(self._commands) >= self.options.max_commands and not self._closing:
            self._slots.clear()
            await self._slots.wait()
        if self._closing or self.failure is not None:
            raise self.failure or HubClosedError(f"The host of {self.store.url} is stopping; ask another one")
        reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        delivery = self._commands[reply] = Delivery(target, body, reply)
        if self.partition is not None:
            self.partition.deliver(delivery)
        try:
            await reply
        finally:
            del self._commands[reply]
            self._slots.set()

    @property
    def has_room(self) -> bool:
        """True when another start may come: fewer activities are open than the host may hold."""
        return len(self.pool) <= self.options.max_open_activities or self._closing

    async def wait_for_room(self) -> None:
        """Return when the host has room for another start."""
        while not self.has_room:
            await self._pause(5_000)

    async def _pause(self, delay_us: int) -> None:
        """Sleep by the engine's own clock."""
        over = asyncio.Event()
        wakeup = self.clock.call_at(self.clock.now() + delay_us, over.set)
        try:
            await over.wait()
        finally:
            wakeup.cancel()

    def _refuse_all(self, error: Exception) -> None:
        for reply in list(self._commands):
            if not reply.done():
                reply.set_exception(error)
        self._slots.set()
        self.waiters.fail(error)

    def _activity_done(self, instance_id: str, done: ActivityDone) -> None:
        if self.partition is not None:
            self.partition.activity_done(instance_id, done)

    # --- inbox -------------------------------------------------------------------------------------------------------

    def _arrived(self) -> None:
        if self.partition is not None and not self._polling and not self._closing:
            self._polling = True
            self._spawn(self._read_inbox(everything=False))

    def _poll_later(self) -> None:
        if not self._closing:
            at = self.clock.now() + int(self.options.inbox_poll_s * 1_000_000)
            self.clock.call_at(at, self._poll)

    def _poll(self) -> None:
        if not self._closing and self.failure is None:
            self._spawn(self._read_inbox(everything=True))
            self._poll_later()

    async def _read_inbox(self, *, everything: bool) -> None:
        self._polling = False  # a post that comes from here on asks again
        partition = self.partition
        if partition is None:
            return
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
            self.store, self.executor, self.pool, self.waiters, self.clock, self.random, self.options
        )
        partition = Partition(
            share,
            self._lease,
            condemned=self._condemned,
            cautious=self._cautious,
            lost=self._partition_lost,
        )
        await partition.load()
        self.partition = partition
        for instance_id, done in self.pool.results():
            partition.activity_done(instance_id, done)
        for reply, delivery in list(self._commands.items()):
            if not reply.done():  # it was under way when the partition object before was thrown away
                partition.deliver(Delivery(delivery.target, delivery.body, reply))

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
        if lost is not None and lost.progressed:
            self._strikes.pop(None, None)
        self._strikes[culprit] = self._strikes.get(culprit, 0) + 1
        strikes = self._strikes[culprit]
        if isinstance(error, StoreRefusedError):
            if culprit is None:
                self._cautious = True
            else:
                self._cautious = False
                self._condemned[culprit] = f"Parked: the store refuses its data: {error}"
        elif culprit is not None and strikes >= self.options.invariant_strikes:
            self._condemned[culprit] = f"Parked after it broke an invariant {strikes} times: {error}"
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
                delay_us = min(2 * delay_us, 60_000_000)
            attempt += 1
            try:
                await self._load()
            except StoreUnavailableError as error:
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
