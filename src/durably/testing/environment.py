"""A whole hub for a test: the real engine on virtual time, with canned activities and arranged faults."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Coroutine
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, cast

from durably.app import App
from durably.client import Client, Handle
from durably.engine.options import EngineOptions
from durably.errors import HubClosedError, NonDeterminismError, UsageError
from durably.management import Management
from durably.program.durations import microseconds
from durably.testing.arrangements import Arrangements
from durably.testing.clock import START, VirtualClock
from durably.testing.gateway import Gateway
from durably.testing.history import History
from durably.testing.life import HubAtUrl, HubInMemory, Life
from durably.testing.pace import Pace, StuckError
from durably.testing.sim_loop import SimRandom
from durably.testing.stage import Plot
from durably.testing.stubs import Function

_YEAR_S = 365 * 86_400.0
_HOUSEKEEPING_S = 40_000 * _YEAR_S
"""All timers are in memory, and nothing is polled: what the clock can jump to is what users asked for."""

_STUCK_SHOWN = 5


class DurableEnvironment(Arrangements):
    """A hub and its host for one test, to be used with ``async with``.

    Time is virtual. While the test waits for an instance, and nothing runs, the clock jumps to the next timer: thirty
    days take a millisecond. It stands still otherwise, so nothing comes due between two lines of a test. Only the clock of
    the hub is virtual: what an activity itself sleeps is real.

    Every turn is replayed and compared. Code that is not deterministic fails whoever waits with `NonDeterminismError`.

    Args:
        app: Whose functions run.
        hub: ``"memory://"``, or a SQLite file such as ``"sqlite:///test.db"``.
        seed: Decides ids, and what chance decides of the faults. The same seed is the same run.
        start: Where time begins (naive means UTC).
        auto_skip: False: time moves by `advance` only.
        check_replay: False: turns are not replayed; orchestrators that note something elsewhere do it once.
        stuck_after_s: Real seconds without any sign of life after which a wait that nothing will end is given up.
        options: Limits of the engine; the defaults, whatever the environment variables say.

    Raises:
        UsageError: The URL names no hub.
    """

    def __init__(
        self,
        app: App,
        *,
        hub: str = "memory://",
        seed: int = 0,
        start: datetime = START,
        auto_skip: bool = True,
        check_replay: bool = True,
        stuck_after_s: float = 1.0,
        options: EngineOptions | None = None,
    ) -> None:
        self.deaths = 0
        """How often the host has died so far."""
        super().__init__(app, Plot(seed, check_replay=check_replay))
        self._hub = HubInMemory() if hub == "memory://" else HubAtUrl(hub)
        self._chance = random.Random(seed)  # noqa: S311 - the point is that it repeats
        self._clock = VirtualClock(start)
        self._options = _arranged(options)
        self._pace = Pace(self._clock, self._is_idle, self._is_stuck, stuck_after_s)
        self._gateway = Gateway(self._alive, self._pace, SimRandom(self._chance), auto_skip=auto_skip)
        self._life: Life | None = None
        self._succession: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._mismatch: NonDeterminismError | None = None
        self._client: Client | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._life is not None or self._failure is not None:
            raise UsageError("The environment was opened before; make another one")
        self._life = await self._born()
        if self._life.is_dying:
            self.dies(self._life)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pace.close()
        life = await self._alive()
        self._failure = HubClosedError("The environment was left; expected all that uses it within its block")
        await life.stop()
        if kind is None and self._mismatch is not None and not self._gateway.told:
            raise self._mismatch

    async def _born(self) -> Life:
        life = Life(
            self._app,
            self._hub,
            self,
            options=self._options,
            clock=self._clock,
            chance=self._chance,
            plot=self._plot,
        )
        await life.start()
        return life

    async def _alive(self) -> Life:
        while self._succession is not None:
            await asyncio.shield(self._succession)
        if self._failure is not None:
            raise self._failure
        if self._life is None:
            raise UsageError(
                "The environment is not open; use it with: async with DurableEnvironment(app) as env"
            )
        return self._life

    async def restart(self, app: App | None = None) -> None:
        """Stop the host in order and start another one, as a deployment does. Callers who wait go on waiting.

        Args:
            app: The functions from now on; those of before by default.
        """
        life = await self._alive()

        async def deployment() -> None:
            await life.stop()
            self._app, self._client = app or self._app, None

        self._succeed(deployment())
        await self._alive()

    async def kill(self) -> None:
        """Let the host die now, and start the next one. Callers who wait go on waiting."""
        (await self._alive()).dies()
        await self._alive()

    def _succeed(self, end: Coroutine[Any, Any, None]) -> None:
        self._succession = asyncio.get_running_loop().create_task(self._follow(end))

    async def _follow(self, end: Coroutine[Any, Any, None]) -> None:
        """The end of a life, and the next one; and again as long as those die while they are born."""
        try:
            await end
            self._gateway.lost()
            self._life = await self._born()
            while self._life.is_dying:
                await self._death(self._life)
                self._gateway.lost()
                self._life = await self._born()
        except Exception as error:  # noqa: BLE001 - for whoever asks next
            self._failure = error
            self._gateway.fail(error)
        finally:
            self._succession = None

    async def _death(self, life: Life) -> None:
        await life.die()
        self.deaths += 1

    # --- what a life tells (see `durably.testing.life.Surroundings`) --------------------------------------------------

    def dies(self, life: Life) -> None:
        """See `Surroundings.dies`."""
        if self._succession is None and life is self._life:
            self._succeed(self._death(life))

    def mismatch(self, error: NonDeterminismError) -> None:
        """See `Surroundings.mismatch`."""
        if self._mismatch is None:
            self._mismatch = error
            self._gateway.fail(error)

    # --- orchestrations ----------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """A client of the hub. It outlives the hosts: calls that a death interrupts are made again, exactly once each."""
        if self._client is None:
            management = cast("Management", self._gateway)
            random_ids = SimRandom(self._chance)
            self._client = Client.of(
                management, self._app.registry, self._app.converter, self._clock, random_ids
            )
        return self._client

    async def start(self, fn: Function, input: Any = None, **options: Any) -> Handle[Any]:
        """Start an orchestration; see `durably.Client.start`."""
        return await self.client.start(fn, input, **options)

    async def run(
        self, fn: Function, input: Any = None, *, timeout: timedelta | float | None = None, **options: Any
    ) -> Any:
        """Start an orchestration and wait for its result.

        Args:
            fn: The orchestrator, or its name.
            input: Its input.
            timeout: How long to wait, in virtual time; for ever by default.
            options: See `durably.Client.start`.

        Raises:
            OrchestrationFailedError: It failed, was cancelled or terminated.
            TimeoutError: It has not ended in time.
            StuckError: It waits for something that nothing will bring about.
            NonDeterminismError: It does not replay.
        """
        handle = await self.client.start(fn, input, **options)
        return await handle.result(timeout)

    async def history(self, instance_id: str) -> History:
        """The history of an instance, to be saved and replayed with later code.

        Raises:
            InstanceNotFoundError: No such instance.
        """
        management = cast("Management", self._gateway)
        return History(await management.history(instance_id))

    # --- time --------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """Virtual time (aware, UTC)."""
        return self._clock.moment

    async def advance(self, delta: timedelta | float) -> None:
        """Let time pass (timedelta or seconds); return when all that came due has been dealt with.

        What comes due on the way comes due in order, each at its own instant.
        """
        until = self._clock.now() + microseconds(delta, "delta")
        over = asyncio.Event()
        self._clock.call_at(until, over.set)
        with self._pace.waiting(until):
            await over.wait()
        await self._pace.becomes_idle()

    async def settle(self) -> None:
        """Return when the hub has nothing to do before the clock moves: everybody waits for a timer, or for an event."""
        await self._pace.becomes_idle()

    def _is_idle(self) -> bool:
        life = self._life
        return self._succession is None and life is not None and life.is_idle and not self._gateway.commands

    async def _is_stuck(self) -> None:
        """Tell those who wait that they do so in vain, and what for."""
        try:
            error: Exception = StuckError(await self._standstill())
        except Exception as trouble:  # noqa: BLE001 - they must learn of it in any case
            error = trouble
        self._gateway.fail(error, for_good=False)

    async def _standstill(self) -> str:
        client = self.client
        page = await client.query_instances(
            runtime_status=["Pending", "Running", "Suspended"], page_size=_STUCK_SHOWN
        )
        lines = [
            f"  {one.instance_id} ({one.name}): {await client.why(one.instance_id)}" for one in page.instances
        ]
        if page.continuation_token is not None:
            lines.append("  …")
        head = (
            "Nothing will happen any more: no activity runs and no timer is set; expected an event, a timer or a result. "
            "Raise the event, or let the orchestrator wait with a timeout"
        )
        return "\n".join([head, *lines])


def _arranged(options: EngineOptions | None) -> EngineOptions:
    """Limits for tests: deaths are arranged, so that nobody is suspected of them."""
    if options is None:
        options = EngineOptions(slow_turn_s=0, max_deliveries=1_000_000)
    return dataclasses.replace(
        options, timer_horizon_s=_HOUSEKEEPING_S, inbox_poll_s=_HOUSEKEEPING_S / 2, stall_limit_s=0.0
    )
