"""Keeps the leases of a store object: from a thread of its own, so that a loop that is busy does not lose them.

The server's clock decides when a lease ends. What this thread believes is always less: a lease lasts from before the request
that renewed it was sent, by a clock that nobody sets. When that has passed, the lease counts as lost here, though the server
may still hold it; the other way round never.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from durably.storage.api import Lease
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.leases import Leases
from durably.storage.postgres.servers import Servers

HEARTBEAT_S: Final = 60.0
"""A host loop that gives no sign of life for so long is taken for dead, and its leases are not renewed any more."""

_BEAT_S: Final = 1.0
_AGAIN_S: Final = 0.5
"""After a renewal that failed; a fifteenth of the lease when that is less."""

_FIRST_PART: Final = 15
"""The first renewal comes after this part of a lease: the connection is made while there is time to spare."""

_ANSWER_MIN_S: Final = 0.1
"""An answer has so long at least."""


class _Kept:
    __slots__ = ("lease", "until")

    def __init__(self, lease: Lease, until: float) -> None:
        self.lease = lease
        self.until = until


class Keeper:
    """Renews what it was given, until it is taken away or lost.

    Args:
        servers: Where to. The thread has a connection of its own.
        leases: How they are renewed.
        lost: Called on the host loop with each lease that was lost, once.
        renew_claims: Renews what was claimed of the queue that all hosts share; False: nothing is.
        heartbeat_s: See `HEARTBEAT_S`.
    """

    def __init__(
        self,
        servers: Servers,
        leases: Leases,
        lost: Callable[[Lease], None],
        *,
        renew_claims: Callable[[Connection], Awaitable[bool]],
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._servers = servers
        self._leases = leases
        self._lost = lost
        self._renew_claims = renew_claims
        self._heartbeat_s = heartbeat_s
        self._claims = 0
        """How often something was claimed since nothing was claimed any more."""
        self._guard = threading.Lock()
        self._kept: dict[int, _Kept] = {}
        self._work: _Work | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of the host
        self._seen = 0.0  # when that loop was last known to turn
        self._beating: asyncio.TimerHandle | None = None

    # --- on the host loop --------------------------------------------------------------------------------------------

    def keep(self, lease: Lease, asked_at: float) -> None:
        """Renew this from now on.

        Args:
            lease: It; one of the same partition before is forgotten.
            asked_at: `time.monotonic()` before it was asked for.
        """
        self._loop = asyncio.get_running_loop()
        with self._guard:
            self._kept[lease.partition] = _Kept(lease, asked_at + self._leases.lease_s)
            self._begin()
        self._beat()

    def keep_claims(self) -> None:
        """Something was claimed of the queue that all hosts share."""
        self._loop = asyncio.get_running_loop()
        with self._guard:
            self._claims += 1
            self._begin()
        if self._beating is None:
            self._beat()

    def _begin(self) -> None:
        if self._work is None:
            self._work = _Work()
            threading.Thread(
                target=self._run, args=(self._work,), name="durably-postgres-leases", daemon=True
            ).start()

    def drop(self, lease: Lease) -> bool:
        """Renew this no more; False when it is not kept, because it was lost or dropped before."""
        with self._guard:
            kept = self._kept.get(lease.partition)
            if kept is None or kept.lease.epoch != lease.epoch:
                return False
            del self._kept[lease.partition]
            return True

    def lose(self, lease: Lease) -> None:
        """Somebody else has it, as was found out by other means."""
        if self.drop(lease):
            self._lost(lease)

    def renewed(self, lease: Lease, asked_at: float) -> None:
        """It was renewed; `asked_at` as of `keep`."""
        with self._guard:
            kept = self._kept.get(lease.partition)
            if kept is not None and kept.lease.epoch == lease.epoch:
                kept.until = max(kept.until, asked_at + self._leases.lease_s)

    def stop(self) -> None:
        """Keep nothing any more; the thread ends. Idempotent."""
        with self._guard:
            self._kept.clear()
            self._claims = 0
            work, self._work = self._work, None
        if work is not None:
            work.cancel()
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    def _beat(self) -> None:
        """A sign of life of the host loop, as long as there is something to keep."""
        self._seen = time.monotonic()
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        if self._loop is not None and (self._kept or self._claims):
            self._beating = self._loop.call_later(min(_BEAT_S, self._heartbeat_s / 4), self._beat)

    # --- on the thread -----------------------------------------------------------------------------------------------

    def _run(self, work: _Work) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._go(work))

    async def _go(self, work: _Work) -> None:
        work.begin()
        due = time.monotonic() + self._leases.lease_s / _FIRST_PART
        try:
            while self._goes_on(work):
                if time.monotonic() >= due:
                    began = time.monotonic()
                    done = await self._renew(work)
                    again_s = min(_AGAIN_S, self._leases.lease_s / 15)
                    due = began + self._leases.lease_s / 3 if done else time.monotonic() + again_s
                self._expire()
                await asyncio.sleep(max(0.0, self._next(due) - time.monotonic()))
        finally:
            work.hang_up()

    def _goes_on(self, work: _Work) -> bool:
        """False: there is nothing to keep. Then this thread ends, and `keep` begins another one."""
        with self._guard:
            gone = self._loop is None or self._loop.is_closed()
            if self._work is work and (self._kept or self._claims) and not gone:
                return True
            if self._work is work:
                self._work = None
            return False

    def _next(self, due: float) -> float:
        with self._guard:
            return min([due, *(kept.until for kept in self._kept.values())])

    async def _renew(self, work: _Work) -> bool:
        """Renew all, by one statement in the usual case; False: try again soon."""
        self._expire()
        with self._guard:
            kept, claims = list(self._kept.values()), self._claims
        if not (kept or claims):
            return True
        if time.monotonic() - self._seen > self._heartbeat_s:
            return False
        try:
            # A new connection, and its first statement, are ten answers: over a slow line more than a third of a lease, and
            # whoever hangs up before they are there begins anew each time, until the lease is over.
            async with self._patience(kept, parts=3 if work.is_warm else 1):
                connection = await work.connect(self._servers)
                asked_at = time.monotonic()
                renewed: set[int] = set()
                if kept:
                    renewed = await self._leases.renew_most(connection, [one.lease for one in kept])
                    work.is_warm = True
            for one in kept:
                if one.lease.partition in renewed:
                    self.renewed(one.lease, asked_at)
            kept_claims = not claims or await self._keep_claims(work, claims)
            for one in [one for one in kept if one.lease.partition not in renewed]:
                async with self._patience([one]):
                    connection = await work.connect(self._servers)
                    asked_at = time.monotonic()
                    if await self._leases.renew_one(connection, one.lease):
                        self.renewed(one.lease, asked_at)
                    else:
                        self._report(one.lease)
        except Exception:  # noqa: BLE001 - whatever it is, the server did not answer, and a lease may run out
            work.hang_up()
            return False
        return kept_claims

    async def _keep_claims(self, work: _Work, claims: int) -> bool:
        """Apart from the leases: one that has to be waited for, and may be in vain, costs no claim, nor the reverse."""
        try:
            async with self._patience(()):
                some = await self._renew_claims(await work.connect(self._servers))
        except Exception:  # noqa: BLE001 - as in `_renew`
            work.hang_up()
            return False
        with self._guard:
            if not some and self._claims == claims:
                self._claims = 0
        return True

    def _patience(self, kept: Sequence[_Kept], *, parts: int = 3) -> asyncio.Timeout:
        """As long as it is of use to wait for an answer, and not so long that the others suffer: this part of a lease."""
        left = min((one.until for one in kept), default=math.inf) - time.monotonic()
        return asyncio.timeout(max(min(left, self._leases.lease_s / parts), _ANSWER_MIN_S))

    def _expire(self) -> None:
        """Leases that nobody could renew in time are lost."""
        now = time.monotonic()
        with self._guard:
            over = [kept.lease for kept in self._kept.values() if kept.until <= now]
        for lease in over:
            self._report(lease)

    def _report(self, lease: Lease) -> None:
        loop = self._loop
        if self.drop(lease) and loop is not None:
            with suppress(RuntimeError):  # that loop is closed: nobody serves this partition any more
                loop.call_soon_threadsafe(self._lost, lease)


class _Work:
    """A thread's task and its connection.

    Attributes:
        is_warm: The connection has answered, and knows the statement for leases.
    """

    def __init__(self) -> None:
        self.is_warm = False
        self._guard = threading.Lock()
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Task[object]] | None = None
        self._cancelled = False
        self._connection: Connection | None = None

    def begin(self) -> None:
        """On the thread: what `cancel` cancels runs from here on."""
        task = asyncio.current_task()
        with self._guard:
            if task is not None:
                self._task = asyncio.get_running_loop(), task
            if self._cancelled:
                raise asyncio.CancelledError

    def cancel(self) -> None:
        """From another thread: end."""
        with self._guard:
            self._cancelled = True
            if self._task is not None:
                loop, task = self._task
                with suppress(RuntimeError):  # it has ended
                    loop.call_soon_threadsafe(task.cancel)

    async def connect(self, servers: Servers) -> Connection:
        """The connection of the thread."""
        if self._connection is None or self._connection.is_closed:
            self.is_warm = False
            self._connection = await servers.connect(name="durably leases", answer_s=None)
        return self._connection

    def hang_up(self) -> None:
        """Without a word: there may be no answer."""
        self.is_warm = False
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
