"""Uvicorn in the event loop of a host: signals are the business of the program around it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from types import TracebackType
from typing import Self

import uvicorn

from durably.errors import OperationError
from durably.http_api.application import HostApp
from durably.http_api.options import HttpOptions
from durably.http_api.patience import HEAD_BYTES_MAX, patient_protocol

_KEEP_ALIVE_S = 30
_BACKLOG = 1_024


class _Server(uvicorn.Server):
    """Leaves signals alone, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()
        self.leaving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    async def main_loop(self) -> None:
        """As the original, which learns a tenth of a second late that it is to stop."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks = (ticks + 1) % 864_000
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self.leaving.wait()

    def leave(self) -> None:
        """Stop, as soon as what is under way has ended."""
        self.should_exit = True
        self.leaving.set()


class HttpServer:
    """Serves an application until it is stopped.

    Attributes:
        url: Where it is; known once it is open.
    """

    def __init__(self, application: HostApp, options: HttpOptions) -> None:
        self._options = options
        self._application = application
        self._server = _Server(
            uvicorn.Config(
                application,
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                http=patient_protocol(options.head_timeout_s, options.answer_timeout_s),
                h11_max_incomplete_event_size=HEAD_BYTES_MAX,
                proxy_headers=bool(options.trusted_proxies),
                forwarded_allow_ips=options.trusted_proxies,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(options.max_wait_s)),
                backlog=_BACKLOG,
                ssl_certfile=options.tls_certificate or None,
                ssl_keyfile=options.tls_key or None,
            )
        )
        self._sockets: list[socket.socket] = []
        self._serving: asyncio.Task[None] | None = None
        self.url = ""

    async def start(self, listening: socket.socket | None = None) -> None:
        """Listen and serve.

        Args:
            listening: What `listen` returned, when somebody else holds the port; closed in the end.

        Raises:
            OperationError: The address is taken, or not one of this machine.
        """
        options = self._options
        listening = listen(options) if listening is None else listening
        self._sockets = [listening]
        port: int = listening.getsockname()[1]
        scheme = "https" if options.tls_certificate else "http"
        host = f"[{options.bind}]" if ":" in options.bind else options.bind
        self.url = f"{scheme}://{host}:{port}"
        self._serving = asyncio.create_task(self._server.serve(self._sockets), name="durably-http")
        listens = asyncio.ensure_future(self._server.listens.wait())
        await asyncio.wait({listens, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        listens.cancel()
        if self._serving.done():
            await self._serving

    @property
    def routes(self) -> list[str]:
        """A line for each HTTP function: methods, URL, level, name."""
        return [
            f"{line.methods:8} {self.url}{line.path}  ({line.level}, {line.name})"
            for line in self._application.listing
        ]

    async def stop(self) -> None:
        """Take no more connections, and let requests that are under way end, within their time. Idempotent."""
        if self._serving is None:
            return
        self._application.leave()
        self._server.leave()
        serving, self._serving = self._serving, None
        await serving
        for one in self._sockets:
            one.close()
        await self._application.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def listen(options: HttpOptions) -> socket.socket:
    """A socket that listens where the options say.

    Raises:
        OperationError: The address is taken, or not one of this machine.
    """
    try:
        return _listen(options.bind, options.port)
    except OSError as error:
        raise OperationError(
            f"Cannot listen on {options.bind} port {options.port}: {error.strerror or error}. Stop what listens there, or "
            "choose another port with --port"
        ) from None


def _listen(bind: str, port: int) -> socket.socket:
    """A listening socket.

    Its protocol is named, as `socket.create_server` does not: asyncio sets TCP_NODELAY only where it is, and without that
    each answer of two packets waits 40 ms for the client's acknowledgement.
    """
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((bind, port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)  # noqa: FBT003
    except BaseException:
        listening.close()
        raise
    return listening
