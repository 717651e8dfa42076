"""The mounted applications of a host that serves them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from starlette.types import ASGIApp

from durably.http_api.auditing import Auditor
from durably.http_api.incoming import Incoming
from durably.http_api.mounts.lifespan import Lifespan
from durably.http_api.mounts.mount import Mount, Mounts, is_reserved
from durably.http_api.mounts.passing import Limits, Passing


class LiveApp(NamedTuple):
    """A mounted application that is served."""

    mount: Mount
    app: ASGIApp
    lifespan: Lifespan


class MountedApps:
    """Applications that are served.

    Args:
        mounts: Which ones.
        stop_s: How long each one may take to stop.
        time_limit_s: How long it may take until an answer begins; 0 for no limit.
    """

    def __init__(self, mounts: Mounts, stop_s: float, time_limit_s: float) -> None:
        self._mounts = mounts
        self._stop_s = stop_s
        self._time_limit_s = time_limit_s
        self._live: list[LiveApp] = []
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Start all of them.

        Raises:
            OperationError: One says that it cannot start; those before it are stopped again.
        """
        for mount in self._mounts:
            app = self._asgi(mount)
            lifespan = Lifespan(app, mount.path)
            self._stack.push_async_callback(lifespan.stop, self._stop_s)
            if not mount.threads:  # WSGI knows no such thing
                try:
                    await lifespan.start()
                except BaseException:
                    await self.close()
                    raise
            self._live.append(LiveApp(mount, app, lifespan))

    async def close(self) -> None:
        """Stop all of them. Idempotent."""
        self._live = []
        await self._stack.aclose()

    def find(self, path: str) -> LiveApp | None:
        """The application of a decoded path, which is what it will see, or None. What is the host's own stays its own."""
        if not self._live or is_reserved(path):
            return None
        return next((one for one in self._live if one.mount.takes(path)), None)

    def answer(
        self, live: LiveApp, request: Incoming, more: dict[str, Any], body_bytes_max: int, audit: Auditor
    ) -> Passing:
        """The answer of an application. See `Passing`, and raises as that."""
        scope = {"state": dict(live.lifespan.state), **more}
        limits = Limits(body_bytes_max, self._time_limit_s, f"The application at '{live.mount.path}'")
        return Passing(live.app, request, live.mount.path, scope, limits=limits, audit=audit)

    def _asgi(self, mount: Mount) -> ASGIApp:
        if not mount.threads:
            app: Any = mount.app
            return app
        from durably.http_api.mounts.wsgi import WsgiApp  # an extra

        wsgi = WsgiApp(mount.app, mount.threads)
        self._stack.callback(wsgi.close)
        return wsgi
