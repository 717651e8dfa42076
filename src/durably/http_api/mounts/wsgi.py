"""WSGI applications as ASGI applications: each request in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from a2wsgi import WSGIMiddleware
from starlette.types import Message, Receive, Scope, Send


class WsgiApp:
    """A WSGI application, for the running loop.

    Its ``environ`` has ``durably.client``, and ``durably.run``, which waits for what the client is asked: the client belongs
    to the loop of the host, and the application is in a thread.

    Args:
        app: The application.
        threads: Requests that it is given at once.
    """

    def __init__(self, app: Callable[..., Any], threads: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._app = app
        self._middleware = WSGIMiddleware(self._enriched, workers=threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        whole = False

        async def entire() -> Message:
            nonlocal whole
            message = await receive()
            if message["type"] == "http.disconnect" and not whole:
                raise ConnectionError("The client left before its body was there")  # else: a shorter body
            whole = not message.get("more_body", False)
            return message

        if scope["type"] == "http":
            await self._middleware(scope, entire, send)  # pyright: ignore[reportArgumentType] - types of its own

    def close(self) -> None:
        """Let its threads go. Idempotent."""
        self._middleware.executor.shutdown(wait=False)

    def _enriched(self, environ: Any, start_response: Any) -> Any:
        environ["durably.client"] = environ["asgi.scope"]["durably.client"]
        environ["durably.run"] = self._run
        environ["wsgi.input_terminated"] = True  # it ends where the body does, also of one without a length
        return self._app(environ, start_response)

    def _run(self, work: Awaitable[Any], timeout: float | None = None) -> Any:
        async def done() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(timeout)
