"""Runs attempts of the queue that all hosts of a hub share: claims them, and has them run.

What is claimed and does not run yet is kept from others, so little is claimed in advance: half of a bunch, which takes some
40 to 200 ms, and what has not begun for longer goes back. So hosts that are as fast as each other get the same share of a
large fan-out, whatever its activities do.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from durably.clock import Clock, Wakeup
from durably.core.messages import ActivityDone, AttemptLost
from durably.core.shared_tasks import SharedCall, call_in
from durably.engine.activities import ActivityPool
from durably.engine.company import Company
from durably.engine.executor import ActivityCall, Executor
from durably.engine.finisher import Finisher, Held
from durably.engine.options import EngineOptions
from durably.engine.routes import Routes
from durably.engine.spread import Room
from durably.errors import DurablyError, StoreUnavailableError
from durably.storage.shared_tasks import Claim, SharedTasks

_log = logging.getLogger("durably.engine")

T = TypeVar("T")

_BUNCH = 16
"""At first: of the shortest activities it takes as long as the way to the store."""

_SHORT_US = 40_000
_LONG_US = 200_000
"""A bunch that began within the first time is followed by a larger one, one that took the second by a smaller one."""

_STALE_US = 1_000_000
"""A claim that has not begun for so long is given back, if others are there."""

_SHARE = 8
_LEFT_MAX = 4
_DEATHS_MAX = 100
"""As in `company`: with each death an interrupted attempt is claimed in a company an eighth as large, in the end alone."""


class Claimer:
    """The claims of one host.

    Args:
        tasks: The queue.
        pool: Runs attempts.
        executor: Says which activities there are.
        clock: Time.
        options: Limits.
        room: Says whether the host takes part.
        company: Says whether suspects run here.
        poll_us: How long to wait before looking for what nobody has told of.
        routes: Hands results over to partitions of this host.
        spawn: Runs something to its end, or to that of the host.
    """

    def __init__(
        self,
        tasks: SharedTasks,
        pool: ActivityPool,
        executor: Executor,
        clock: Clock,
        options: EngineOptions,
        *,
        room: Room,
        company: Company,
        routes: Routes,
        poll_us: Callable[[], int],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._tasks = tasks
        self._pool = pool
        self._executor = executor
        self._clock = clock
        self._options = options
        self._room = room
        self._company = company
        self._poll_us = poll_us
        self._spawn = spawn
        self._held: dict[str, Held] = {}
        self._waiting = 0
        """Claims whose code does not run yet."""
        self._bunch = _BUNCH
        self._claimed_at = 0
        self._more = True
        """There may be something to claim."""
        self._full = False
        """There was as much as was asked for: how long it takes to begin says whether to ask for more."""
        self._short: set[str] = set()
        """Activities with a limit, of which there may be more than there was room for."""
        self._unreadable: set[str] = set()
        """Activities whose calls nobody can read here, as far as was seen since the last poll."""
        self._turn = 0
        self._due = asyncio.Event()
        self._check = False
        self._in_doubt = False
        """The store object may have claims that are not among those held here."""
        self._finisher = Finisher(
            tasks, routes, clock, options, spawn=spawn, stored=self._forget, given_up=self._give_back
        )
        self._polling: Wakeup | None = None
        self._closed = False

    # --- when to look ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take part."""
        self._tasks.on_change(offered=self._offered, withdrawn=self._withdrawn)
        self._spawn(self._work())
        self._poll()

    def look(self) -> None:
        """There may be a place."""
        if self._closed:
            return
        if self._short and not self._more:
            self._more = any(self._room_for(name, 1) > 0 for name in self._short)
        if self._more and self._wanted() > 0:
            self._due.set()

    def _offered(self) -> None:
        self._more = True
        self.look()

    def _withdrawn(self) -> None:
        if self._held:
            self._check = True
            self._due.set()

    def _poll(self) -> None:
        """A notice may be lost, and claims of others run out without one."""
        if not self._closed:
            self._more = self._check = True
            self._unreadable.clear()
            self._due.set()
            self._polling = self._clock.call_later(self._poll_us(), self._poll)

    def _wanted(self) -> int:
        """How many attempts should be claimed now."""
        if self._room.leaves or self._waiting > self._bunch // 2 or self._finisher.backlog > self._pool.limit:
            return 0
        return min(self._bunch - self._waiting, self._pool.limit - self._room.held)

    # --- claiming ----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._closed:
            await self._due.wait()
            self._due.clear()
            try:
                await self._round()
            except StoreUnavailableError as error:
                _log.warning("activities of other hosts cannot be claimed, trying again: %s", error)
            except DurablyError as error:  # the host ends with its store
                _log.warning("activities of other hosts cannot be claimed: %s", error)
            except Exception:  # noqa: BLE001 - a task that nobody awaits must not end unseen
                _log.exception("claiming activities failed inside the engine, trying again")

    async def _round(self) -> None:
        if self._check:
            self._check = False
            await self._drop_unknown()
            await self._drop_lost()
            await self._give_back_stale()
            await self._claim_interrupted()
        while self._more and not self._closed and (wanted := self._wanted()) > 0:
            self._adapt()
            names = self._names(wanted)
            allowed = min(wanted, sum(names.values()))
            self._more = False  # whoever offers something from here on says so
            claims = await self._claimed(self._tasks.claim(names, wanted)) if names else []
            if self._closed:
                await self._asked(self._tasks.give_back(claims))
                return
            self._full = 0 < len(claims) == allowed
            self._more = self._more or self._full
            taken = Counter(claim.row.name for claim in claims)
            self._short.update(name for name, room in names.items() if room < wanted and taken[name] == room)
            self._claimed_at = self._clock.now()
            await self._return([claim for claim in claims if not self._take(claim)])
            await asyncio.sleep(0)  # what began runs its first step before it is asked how long that took

    def _names(self, wanted: int) -> dict[str, int]:
        """How many attempts of which activities there is room for; another one comes first each time."""
        known = self._executor.names("activity")
        self._turn = (self._turn + 1) % max(1, len(known))
        found: dict[str, int] = {}
        self._short.clear()
        for name in (*known[self._turn :], *known[: self._turn]):
            if name in self._unreadable:
                continue
            room = self._room_for(name, wanted)
            if room > 0:
                found[name] = room
            else:
                self._short.add(name)
        return found

    def _room_for(self, name: str, wanted: int) -> int:
        limit = self._executor.concurrency(name)
        if limit is None and not self._executor.on_loop(name):
            limit = self._options.activity_threads + self._bunch // 2
        return wanted if limit is None else min(wanted, limit - self._pool.unfinished(name))

    def _adapt(self) -> None:
        """Ask for more, or less, than the last time; the clock starts again when the answer is there."""
        took = self._clock.now() - self._claimed_at
        if not self._full:
            return
        if 0 <= took < _SHORT_US:
            self._bunch = min(2 * self._bunch, self._pool.limit)
        elif took > _LONG_US:
            self._bunch = max(self._bunch // 2, 1)

    async def _claim_interrupted(self) -> None:
        """Try again what hosts have died of, or beside: one company after the other."""
        if self._room.leaves or self._closed or any(held.suspect for held in self._held.values()):
            return
        free = self._pool.limit - self._room.held
        names = [name for name in self._executor.names("activity") if name not in self._unreadable]
        if free <= 0 or not names or not self._company.is_empty:
            return
        most = self._options.max_deliveries
        unreadable: list[Claim] = []
        for claim in await self._claimed(self._tasks.claim_interrupted(names, _rooms(most, free))):
            deaths = claim.delivery - 1
            if not (self._take(claim, suspect=True) if deaths < most else self._give_up(claim, deaths)):
                unreadable.append(claim)
        if unreadable:
            await self._return(unreadable)
            self._check = True  # those of other activities may be behind them
            self._due.set()

    async def _return(self, unreadable: list[Claim]) -> None:
        """Others may be able to read them. It counts no delivery: nobody has died of them."""
        if unreadable:
            await self._asked(self._tasks.give_back(unreadable))

    def _give_up(self, claim: Claim, deaths: int) -> bool:
        call = self._call_in(claim)
        if call is None:
            return False
        held = self._held[claim.row.task_id] = Held(claim, call, self._clock.now(), begun=True)
        self._finish(held, AttemptLost(call.execution_id, call.seq, call.attempt, deaths))
        return True

    def _take(self, claim: Claim, *, suspect: bool = False) -> bool:
        """Run an attempt as soon as there is a place; False: nobody can read it here."""
        call, row = self._call_in(claim), claim.row
        if call is None:
            return False
        before = self._held.get(row.task_id)
        if before is not None:
            self._forget(before)  # the claim was lost without a word
        held = self._held[row.task_id] = Held(claim, call, self._clock.now(), suspect=suspect)
        self._waiting += 1
        attempt = ActivityCall(
            row.instance_id,
            call.execution_id,
            call.seq,
            call.attempt,
            call.deliveries + claim.delivery,
            row.name,
            call.input,
            call.tags,
            call.detail,
        )
        held.key = self._pool.start_claimed(
            row.task_id, attempt, began=lambda: self._began(held), done=lambda done: self._finish(held, done)
        )
        return True

    def _call_in(self, claim: Claim) -> SharedCall | None:
        """None: nobody can read it here. Until the next poll nothing more of its activity is claimed."""
        try:
            return call_in(claim.row)
        except (msgspec.MsgspecError, UnicodeError) as error:
            if claim.row.name not in self._unreadable:
                _log.error(
                    "activity '%s' of instance '%s' cannot be read by this host (%s): expected a version of durably and "
                    "encryption keys that are those of the host that offered it",
                    claim.row.name,
                    claim.row.instance_id,
                    error,
                )
            self._unreadable.add(claim.row.name)
            return None

    def _began(self, held: Held) -> None:
        if not held.begun:
            held.begun = True
            self._waiting -= 1
            self.look()

    async def _asked(self, question: Awaitable[T]) -> T:
        """The answer of the store. Without one, nobody knows what is claimed."""
        try:
            return await question
        except BaseException:
            self._in_doubt = True
            raise

    async def _claimed(self, question: Awaitable[list[Claim]]) -> list[Claim]:
        """What was claimed; nothing when the answer was on its way for longer than a claim lasts: others run it by now."""
        asked = self._clock.now()
        claims = await self._asked(question)
        if self._clock.now() - asked <= self._options.lease_s * 1_000_000:
            return claims
        self._in_doubt = self._check = True
        self._due.set()
        return []

    async def _drop_unknown(self) -> None:
        """Let others have what nobody here knows of: the answer to a claim was lost, or giving it back failed.

        Otherwise the store object would renew it for ever. Only this coroutine claims, so nothing new is on its way.
        """
        if not self._in_doubt:
            return
        self._in_doubt = False
        known = [held.claim for held in self._held.values()]
        unknown = await self._asked(self._tasks.keep_only(known))
        if unknown:
            _log.warning("%d activities had been claimed by this host in vain, and were given back", unknown)

    async def _drop_lost(self) -> None:
        """Stop what was withdrawn, or is somebody else's by now."""
        finished = set(map(id, self._finisher.waiting))
        claims = [held.claim for held in self._held.values() if id(held) not in finished]
        for claim in await self._tasks.lost(claims) if claims else ():
            held = self._held.get(claim.row.task_id)
            if held is not None and held.claim is claim:
                self._forget(held)
                self._pool.abort(*held.key)

    async def _give_back_stale(self) -> None:
        """Places turned out to be fewer than they seemed, as where activities wait for processes: others may have some."""
        if self._room.others and self._waiting > 1:
            before = self._clock.now() - _STALE_US
            stale = [held for held in self._held.values() if not held.begun and held.at < before]
            if stale:
                self._bunch = 1
                await self._give_back(stale)

    def _forget(self, held: Held) -> None:
        self._began(held)
        if self._held.get(held.claim.row.task_id) is held:
            del self._held[held.claim.row.task_id]
        if held.suspect:  # the next company may come
            self._check = True
            self._due.set()

    # --- finishing ---------------------------------------------------------------------------------------------------

    def _finish(self, held: Held, result: ActivityDone | AttemptLost) -> None:
        self._began(held)
        self._finisher.take(held, result)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Claim nothing more, and let others have what has not begun."""
        self._closed = True
        if self._polling is not None:
            self._polling.cancel()
        self._due.set()
        await self._give_back([held for held in self._held.values() if not held.begun])

    async def close(self) -> None:
        """After the pool has stopped: store what has ended, and let others have the rest."""
        self._closed = True
        await self._finisher.idle()
        await self._give_back(list(self._held.values()))

    async def _give_back(self, helds: list[Held]) -> None:
        for held in helds:
            self._pool.abort(*held.key)
            self._forget(held)
        if helds:
            try:
                await self._asked(self._tasks.give_back([held.claim for held in helds]))
            except DurablyError as error:  # they run out
                _log.warning("activities that were claimed could not be given back: %s", error)

    def abandon(self) -> None:
        """Drop everything at once, as a crash would."""
        self._closed = True
        if self._polling is not None:
            self._polling.cancel()


def _rooms(most: int, free: int) -> list[int]:
    """How many interrupted attempts may run at once, by how often they were; behind that, those that are given up.

    Where more deaths are allowed than anybody counts, all of them are in large company.
    """
    if most > _DEATHS_MAX:
        return [min(free, _SHARE**_LEFT_MAX)]
    return [*(min(free, _SHARE ** min(most - 1 - deaths, _LEFT_MAX)) for deaths in range(1, most)), free]
