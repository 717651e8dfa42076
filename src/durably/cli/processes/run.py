"""The control process: holds the port and the workers, and has no code of users in it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from durably.cli.output import Exit
from durably.cli.processes.child import Child, Lifeline, Plan
from durably.cli.processes.count import Count
from durably.cli.processes.post import Ready
from durably.cli.processes.printer import printers
from durably.cli.processes.scaling import Scaling, scale_down_s
from durably.cli.processes.team import Team
from durably.cli.processes.voice import complain, say, tell, through
from durably.engine.options import EngineOptions
from durably.errors import OperationError, UsageError

if TYPE_CHECKING:
    from durably.cli.run import Face
    from durably.config.settings import Settings

_START_S: Final = 120.0
"""A worker that is not ready by then hangs."""

_STOP_S: Final = 30.0
"""So long a worker may take to end behind its drain time-out and that of its requests."""

_ECHO_S: Final = 0.25
"""A signal that comes so soon after the first was not sent by a person who has lost patience."""


def can_share(hub: str, count: Count, settings: Mapping[str, str]) -> bool:
    """Whether several processes are to serve the hub; one alone needs nobody above it where it cannot.

    Raises:
        UsageError: They cannot.
    """
    from durably.config.names import filled
    from durably.storage.open import open_store, shown_url

    store = open_store(filled(hub, "The URL of the hub", settings))
    if store.capabilities.shared:
        return True
    if count == (1, 1):
        return False
    raise UsageError(
        f"--processes {count}: hub {shown_url(hub)} is served by one process at a time. Several need a hub on PostgreSQL: "
        "postgresql://host/database?hub=name (durably hub copy moves this one there)"
    )


def run_processes(
    arguments: tuple[str, ...], hub: str, count: Count, face: Face | None, settings: Settings
) -> int:
    """Serve with several processes until somebody stops it; return the exit code.

    Raises:
        OperationError: The port is taken.
    """
    from durably.config.names import filled

    hub = filled(hub, "The URL of the hub", settings)
    listening = None if face is None else _listen(face, settings)
    drain_s = EngineOptions.from_environment(settings).drain_timeout_s
    stop_s = drain_s + _STOP_S + (0 if face is None else _requests_s(settings))
    plan = Plan(arguments, hub, listening, _START_S, stop_s)
    try:
        return asyncio.run(_Control(plan, count, scale_down_s(settings)).run())
    finally:
        if listening is not None:
            listening.close()


def _listen(face: Face, settings: Settings) -> socket.socket:
    try:
        from durably.http_api.options import HttpOptions
        from durably.http_api.server import listen
    except ImportError as error:
        raise OperationError(
            f"HTTP needs the extra 'server' ({error}): pip install 'durably[server]', or say --no-http"
        ) from None
    return listen(
        HttpOptions.from_environment(settings, bind=face.bind, port=face.port, insecure=face.insecure)
    )


def _requests_s(settings: Settings) -> float:
    from durably.http_api.options import HttpOptions

    return HttpOptions.from_environment(settings).max_wait_s


class _Control:
    """Signals in, workers out."""

    def __init__(self, plan: Plan, count: Count, calm_s: float) -> None:
        self._calm_s = calm_s
        self._plan = plan
        self._count = count
        self._lifeline = Lifeline()
        self._printers = printers()
        self._asked_at: float | None = None
        # With nohup a terminal that is closed stops nobody: SIGHUP has but its other meaning.
        self._had_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _has_terminal()
        self.team = Team(self._start, max(count.least, 1), self._announce)

    async def run(self) -> int:
        """Until it is over, and said so."""
        with through(*self._printers):
            try:
                return await self._run()
            finally:
                await asyncio.gather(*(one.close() for one in self._printers))

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        scaling = Scaling(self.team, self._plan, self._count, self._calm_s)
        scales = None if self._count.is_fixed else asyncio.create_task(self._scale(scaling))
        try:
            await self.team.work()
            if scales is not None:
                scales.cancel()
                scaling.close()
            if (
                self._plan.listening is not None
            ):  # or connections wait in vain when the last worker has let go of it
                self._plan.listening.close()
            relief = [asyncio.create_task(one.relieve()) for one in self._printers]
            await self.team.drain()
            for one in relief:
                one.cancel()
        finally:
            if scales is not None:
                scales.cancel()
                await asyncio.gather(scales, return_exceptions=True)
            self.team.kill()
            self._lifeline.close()
        if self.team.failure is not None:
            complain(self.team.failure)
            return self.team.code
        say("Stopped")
        return Exit.OK

    async def _scale(self, scaling: Scaling) -> None:
        try:
            await scaling.work()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody would scale any more
            self.team.fail(f"The load of the hub cannot be told: {error}")

    def _start(self, number: int) -> Awaitable[Child]:
        return Child.start(number, self._plan, self._lifeline, self._printers)

    def _announce(self, ready: Ready) -> None:
        for line in ready.lines:
            tell(line)
        tell(f"  processes      {self._count}, controlled by pid {os.getpid()}")
        tell("Ready; Ctrl-C stops, SIGHUP replaces one process after the other")

    def _stop(self) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            self.team.leave()
        elif now - self._asked_at > _ECHO_S:
            self.team.kill()
            os._exit(Exit.INTERRUPTED)

    def _hang_up(self) -> None:
        """Whoever closes a terminal does not want a new set of processes behind it."""
        if self._had_terminal and not _has_terminal():
            self._stop()
        elif self._asked_at is None:
            self.team.reload()


def _has_terminal() -> bool:
    with suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
        return True
    return False
