"""The life of a mounted application: told when the host begins to serve it, and when it has ended to."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.types import ASGIApp, Message

from durably.errors import OperationError

_log = logging.getLogger("durably.http")


class Lifespan:
    """The lifespan protocol of ASGI, for one application. One that does not know it is served nevertheless.

    Attributes:
        state: What it has put there at its start; each request has a copy in its scope.

    Args:
        app: The application.
        where: Its path, for people.
    """

    def __init__(self, app: ASGIApp, where: str) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._where = where
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._started = asyncio.Event()
        self._failure: str | None = None
        self._living: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when it is ready.

        Raises:
            OperationError: It says that it cannot start.
        """
        self._told.put_nowait({"type": "lifespan.startup"})
        self._living = asyncio.create_task(self._live(), name=f"durably-mounted-{self._where}")
        await self._started.wait()
        if self._failure is not None:
            self._living.cancel()
            await asyncio.wait({self._living})
            raise OperationError(f"The application at '{self._where}' cannot start: {self._failure}")

    async def stop(self, patience_s: float) -> None:
        """Tell it that it is over, and wait for it as long as there is patience. Idempotent, never raises."""
        living, self._living = self._living, None
        if living is None or living.done():
            return
        self._told.put_nowait({"type": "lifespan.shutdown"})
        _, late = await asyncio.wait({living}, timeout=patience_s)
        if late:
            _log.warning("the application at '%s' does not stop within %g s", self._where, patience_s)
            living.cancel()
            await asyncio.wait({living})

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._told.get, self._hear)
        except Exception as error:  # noqa: BLE001 - whatever it is, of code that is not ours
            # One that does not know the protocol raises at the first message: that is how it says so.
            if self._started.is_set() and self._failure is None:
                _log.warning("the application at '%s' failed when it stopped", self._where, exc_info=error)
        finally:
            self._started.set()

    async def _hear(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.failed":
            said = message.get("message", "").strip()  # of Starlette: a traceback
            self._failure = said.rpartition("\n")[2] or "it does not say why"
        elif kind == "lifespan.shutdown.failed":
            _log.warning(
                "the application at '%s' failed when it stopped: %s", self._where, message.get("message")
            )
        self._started.set()
