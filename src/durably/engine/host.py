"""Host: opens a hub, owns partitions of it, keeps what must outlive a partition object, and ends."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

from durably.clock import Clock, Random, SystemClock, SystemRandom
from durably.core.events import Payload
from durably.core.ids import check_text
from durably.core.messages import ActivityDone, MessageBody
from durably.engine.activities import ActivityPool
from durably.engine.balance import Balance
from durably.engine.claimer import Claimer
from durably.engine.commands import Commands
from durably.engine.company import Company
from durably.engine.executor import Executor, FunctionKind
from durably.engine.gate import Gate
from durably.engine.hub_clock import HubClock
from durably.engine.janitor import Janitor
from durably.engine.options import EngineOptions
from durably.engine.ownership import Means, Ownership, moved
from durably.engine.partition import Partition
from durably.engine.residents import Delivery
from durably.engine.spread import Room
from durably.engine.waiters import Waiters
from durably.errors import HubClosedError, OperationError, StoreUnavailableError, UsageError
from durably.storage.api import HostReport, Lease, Store, Survey

_log = logging.getLogger("durably.engine")

_CALM: Final = 256
"""So many messages may wait for a turn on a host that has time for more."""

_HEARING: Final = 5
"""A host that is told of arrivals looks for what it was not told of so many times less often: it costs the server."""

_KINDS: Final[tuple[FunctionKind, ...]] = ("activity", "entity", "orchestrator")

_VERSION = version("durably")
"""Looked up once: it is told with every look at the other hosts, and looking it up reads files."""


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
        self.options = _resolved(options or EngineOptions.from_environment(), store)
        self.clock: Clock = _clock_for(store, clock or SystemClock())
        self.random: Random = random or SystemRandom()
        self.waiters = Waiters()
        self.failure: Exception | None = None
        """Why the host stopped by itself, or None."""
        company = Company(self.options.max_deliveries)
        self.pool = ActivityPool(
            executor,
            self.clock,
            self.options.max_concurrent_activities,
            self._activity_done,
            company=company,
            unknown_wait=self.options.unknown_functions == "wait",
            time_limit_s=self.options.function_timeout_s,
        )
        self._room = Gate(lambda: self.has_room)
        self.pool.freed = self._freed
        self._company = company
        self._keeps: Room | None = None
        self._claimer: Claimer | None = None
        self._commands = Commands(self.options.max_commands, self._deliver, lambda: self._refuses)
        self._name = f"pid {os.getpid()} on {platform.node()}"
        self._own = Ownership(self._means(company), executor, self._name)
        self._balance: Balance | None = None
        self._started = False
        self._closing = False
        self._stopped: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None

    def _means(self, company: Company) -> Means:
        return Means(
            store=self.store,
            pool=self.pool,
            commands=self._commands,
            waiters=self.waiters,
            clock=self.clock,
            random=self.random,
            options=self.options,
            company=company,
            closing=lambda: self._closing,
            spawn=self._spawn,
            pause=self._pause,
            bounded=self._bounded,
            gave_up=self._give_up,
            moved=self._look_around,
        )

    @property
    def name(self) -> str:
        """For people, and as others see it."""
        return self._name

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the hub, become an owner, and go on with what is in flight.

        Where hosts share a hub it owns its part of it, as far as that is free; others let go of the rest soon.

        Raises:
            HubLockedError: Another live host serves it, and hosts cannot share it.
            OperationError: The store cannot be opened; see `Store.open`.
            UsageError: It was started before.
        """
        if self._closing or self._started:
            raise UsageError(f"The host of {self.store.url} was started before; make another one")
        self._started = True
        self._failed = asyncio.get_running_loop().create_future()
        await self.store.open(create=True)
        try:
            await self._become_owner()
        except BaseException:
            self.abandon()
            await self._close()
            raise
        self.store.on_arrival(self._arrived)
        self._poll_later()
        if self.options.keep_finished_s:
            keep_us = int(self.options.keep_finished_s * 1_000_000)
            janitor = Janitor(self.store, self.submit, self._pause, self.clock, keep_us, serves=self.serves)
            self._spawn(janitor.work())

    async def _become_owner(self) -> None:
        if not self.store.capabilities.shared:
            await self._own.take(0)
            with suppress(OperationError):  # whoever asks who is there does without
                await self.store.survey(self._report())
            return
        self._keeps = self._room_for_others()
        routes = self._own.share(self._keeps)
        self.store.on_lease_lost(self._lease_lost)
        balance = self._balance = Balance(
            self.store,
            owned=lambda: [one.number for one in self._own.holdings.values() if not one.leaving],
            take=self._own.take,
            give=lambda number: self._own.give(number, self.options.drain_timeout_s),
            report=self._report,
            seen=self._seen,
            clock=self.clock,
            heard=self.clock.heard if isinstance(self.clock, HubClock) else None,
            lease_s=self.options.lease_s,
            spawn=self._spawn,
        )
        await balance.begin()
        self._spawn(balance.work())
        if self._keeps is not None and self.store.tasks is not None:
            self._claimer = Claimer(
                self.store.tasks,
                self.pool,
                self.executor,
                self.clock,
                self.options,
                room=self._keeps,
                company=self._company,
                routes=routes,
                poll_us=self._poll_us,
                spawn=self._spawn,
            )
            self._claimer.begin()

    def _room_for_others(self) -> Room | None:
        if self.store.tasks is None:
            return None
        return Room(self.executor, self.pool, self.options)

    def _seen(self, survey: Survey) -> None:
        if self._keeps is not None:
            self._keeps.seen(survey)

    def _report(self) -> HostReport:
        waiting, since = self.pool.waiting()
        return HostReport(
            self._name,
            _VERSION,
            tuple(f"{kind}:{name}" for kind in _KINDS for name in self.executor.names(kind)),
            draining=self._closing,
            backlog=waiting,
            oldest_us=None if since is None else max(0, self.clock.now() - since),
            running=self.pool.running,
            places=self.options.max_concurrent_activities,
        )

    def _lease_lost(self, lease: Lease) -> None:
        if not self._closing:
            self._own.lease_lost(lease)

    def _look_around(self) -> None:
        if self._balance is not None and not self._closing:
            self._balance.look()

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
        self._own.forgive()
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
        if self._claimer is not None and self.failure is None:
            await self._claimer.leave()
        if self._balance is not None:
            self._balance.close()
            if (
                self.failure is None
            ):  # each partition goes as soon as nothing of it runs, and others have to take it
                with suppress(OperationError):
                    await self.store.survey(self._report())
                await _all([self._own.give(number, timeout_s) for number in self._own.numbers])
        await self.pool.stop(timeout_s if self.failure is None else 0)
        if self._claimer is not None:
            await self._bounded(self._claimer.close(), max(timeout_s, 1.0))
        if self.failure is None:
            quiet = [partition.becomes_quiet() for partition in self._own.partitions]
            await self._bounded(_all(quiet), max(timeout_s, 1.0))

    async def _let_go(self, timeout_s: float) -> None:
        partitions = self._own.partitions
        for partition in partitions:
            partition.close()
        await self._bounded(_all([partition.landed() for partition in partitions]), timeout_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refuse_all(
            self.failure or HubClosedError(f"The host of {self.store.url} stopped; start one and ask again")
        )
        try:
            if self.failure is None:
                await _all([self.store.release(one.lease) for one in self._own.holdings.values()])
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
        if self._claimer is not None:
            self._claimer.abandon()
        self.pool.abandon()
        self._own.abandon()
        for task in self._tasks:
            task.cancel()

    @property
    def trouble(self) -> StoreUnavailableError | None:
        """Why nothing can be made durable for now, or None when the host is ready.

        What was sent before waits and is not lost, reads go on, and new messages are refused, until the store takes
        something again.
        """
        return self._own.trouble

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
            NotServedHereError: Its partition is another host's.
            UsageError: The instance refuses it; see the operations.
            InvalidTextError: No store can hold the id.
        """
        check_text(target, "id")  # here, since a commit with it would fail for all, and end the host
        holding = self._own.holding_of(target)
        trouble = None if holding is None else holding.trouble
        if trouble is not None:
            raise StoreUnavailableError(str(trouble))
        await self._commands.wait_for_place()
        if self._refuses:
            raise self.failure or HubClosedError(f"The host of {self.store.url} is stopping; ask another one")
        if not self.serves(target):
            raise moved(target, in_doubt=False)
        return await self._commands.send(target, body)

    @property
    def _refuses(self) -> bool:
        return self._closing or self.failure is not None

    def _deliver(self, delivery: Delivery) -> None:
        holding = self._own.holding_of(delivery.target)
        if holding is not None:
            holding.deliver(delivery)

    @property
    def has_room(self) -> bool:
        """True when another start may come: fewer activities are open than the host may hold."""
        held = len(self.pool) + (0 if self._keeps is None else self._keeps.offered)
        room = held <= self.options.max_open_activities
        return room or self._closing or self.failure is not None

    @property
    def is_calm(self) -> bool:
        """True while no activity waits for a place, and few messages for a turn: more may come here than elsewhere."""
        waiting = sum(partition.waiting for partition in self.partitions)
        return len(self.pool) <= self.options.max_concurrent_activities and waiting <= _CALM

    async def wait_for_room(self) -> None:
        """Return when the host has room for another start."""
        await self._room.passed()

    def _freed(self) -> None:
        self._room.look()
        if self._claimer is not None:
            self._claimer.look()

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

    # --- partitions --------------------------------------------------------------------------------------------------

    def serves(self, instance_id: str) -> bool:
        """True when the partition of the instance is one of this host."""
        return self._own.holding_of(instance_id) is not None

    def partition_for(self, instance_id: str) -> Partition | None:
        """The object that has the instance in memory, or would have; None when that is elsewhere, or just being loaded."""
        holding = self._own.holding_of(instance_id)
        return None if holding is None else holding.partition

    @property
    def partitions(self) -> list[Partition]:
        """The partition objects in memory."""
        return self._own.partitions

    @property
    def epochs(self) -> dict[int, int]:
        """The partitions that it believes to own, and since which epoch."""
        return {number: holding.lease.epoch for number, holding in self._own.holdings.items()}

    @property
    def partition(self) -> Partition | None:
        """The partition object of a hub that has one partition."""
        holding = self._own.holdings.get(0)
        return None if holding is None else holding.partition

    def reload_partition(self, why: str, number: int = 0) -> None:
        """Throw a partition object away and load it anew from its rows, as after a broken invariant."""
        holding = self._own.holdings.get(number)
        if holding is not None:
            holding.reload(why)

    def _arrived(self) -> None:
        if not self._closing:
            for holding in self._own.holdings.values():
                holding.arrived()
            if self._balance is not None:
                self._balance.stir()

    def _poll_us(self) -> int:
        rarely = self.store.capabilities.shared and self.store.listening
        return int(self.options.inbox_poll_s * (_HEARING if rarely else 1) * 1_000_000)

    def _poll_later(self) -> None:
        if not self._closing:
            self.clock.call_later(self._poll_us(), self._poll)

    def _poll(self) -> None:
        if not self._closing and self.failure is None:
            for holding in self._own.holdings.values():
                holding.poll()
            self._poll_later()

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


def _clock_for(store: Store, clock: Clock) -> Clock:
    """Hosts that share a hub go by its time; a clock of a test is left alone."""
    return HubClock() if store.capabilities.shared and isinstance(clock, SystemClock) else clock


def _resolved(options: EngineOptions, store: Store) -> EngineOptions:
    if options.unknown_functions != "auto":
        return options
    return replace(options, unknown_functions="wait" if store.capabilities.shared else "fail")


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


async def _all(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all at once."""
    await asyncio.gather(*works)
