"""Uvicorn in the event loop of a host: signals are the business of the program around it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Generator
from types import TracebackType
from typing import Self, cast

import uvicorn

from durably.errors import OperationError
from durably.http_api.access import Door
from durably.http_api.application import HostApp
from durably.http_api.options import HttpOptions
from durably.http_api.patience import HEAD_BYTES_MAX, PatientProtocol, patient_protocol
from durably.http_api.tls import Tls

_KEEP_ALIVE_S = 30
_BACKLOG = 1_024
_LOOK_S = 0.002

_log = logging.getLogger("durably.http")


class _Server(uvicorn.Server):
    """Leaves signals alone, and says when it listens."""

    def __init__(self, config: uvicorn.Config, tls: Tls | None) -> None:
        super().__init__(config)
        self._tls = tls
        self.listens = asyncio.Event()
        self.leaving = asyncio.Event()
        self.linger_s = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is not None:
            self.config.ssl = self._tls.context
        await super().startup(sockets)
        self.listens.set()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._tls is not None and counter % 10 == 0:
            self._tls.refresh()
        return await super().on_tick(counter)

    async def main_loop(self) -> None:
        """As the original, which learns a tenth of a second late that it is to stop."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks = (ticks + 1) % 864_000
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self.leaving.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As the original, which sleeps a tenth of a second before it looks whether all have gone, and between two looks."""
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        state = self.server_state
        await self._linger()
        for connection in list(state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while state.connections or state.tasks:  # noqa: ASYNC110 - sets of uvicorn's, which tell nobody
                    await asyncio.sleep(_LOOK_S)
                for server in self.servers:
                    await server.wait_closed()
        except TimeoutError:
            _log.warning("%d requests took too long to end, and are cancelled", len(state.tasks))
            for task in state.tasks:
                task.cancel()

    async def _linger(self) -> None:
        """A connection that is hung up on while its request is on its way has been refused: each may send one more."""
        state = self.server_state
        for connection in list(state.connections):
            cast("PatientProtocol", connection).answer_once()
        ends = time.monotonic() + self.linger_s
        while state.connections and time.monotonic() < ends:  # noqa: ASYNC110 - as above
            await asyncio.sleep(_LOOK_S)

    def leave(self) -> None:
        """Stop, as soon as what is under way has ended."""
        self.should_exit = True
        self.leaving.set()


class HttpServer:
    """Serves an application until it is stopped.

    Attributes:
        url: Where it is; known once it is open.

    Raises:
        UsageError: A file for TLS cannot be used.
    """

    def __init__(self, application: HostApp, options: HttpOptions) -> None:
        self._options = options
        self._application = application
        tls = Tls.of(options.tls_certificate, options.tls_key, options.tls_passphrase)
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
            ),
            tls,
        )
        self._sockets: list[socket.socket] = []
        self._serving: asyncio.Task[None] | None = None
        self.url = ""

    async def start(self, listening: socket.socket | None = None, *, linger_s: float = 0.0) -> None:
        """Listen and serve.

        Args:
            listening: What `listen` returned, when somebody else holds the port; closed in the end.
            linger_s: So long clients that keep their connection may send one more request when it stops.

        Raises:
            OperationError: The address is taken, or not one of this machine, or what is mounted cannot start.
        """
        options = self._options
        listening = listen(options) if listening is None else listening
        try:
            await self._application.open()
        except BaseException:
            listening.close()
            raise
        self._sockets = [listening]
        self._server.linger_s = linger_s
        port: int = listening.getsockname()[1]
        scheme = "https" if options.tls_certificate else "http"
        host = f"[{options.bind}]" if ":" in options.bind else options.bind
        self.url = f"{scheme}://{host}:{port}"
        self._serving = asyncio.create_task(self._server.serve(self._sockets), name="durably-http")
        listens = asyncio.ensure_future(self._server.listens.wait())
        await asyncio.wait({listens, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        listens.cancel()
        if self._serving.done():
            await self.stop()

    @property
    def routes(self) -> list[str]:
        """A line for each HTTP function and mounted application: methods, URL, level, name."""
        return [
            f"{line.methods:8} {self.url}{line.path}  ({line.level}, {line.name})"
            for line in self._application.listing
        ]

    @property
    def door(self) -> Door:
        """Who is asked for a credential now. Raises as `Access.principal`."""
        return self._application.door

    @property
    def way_in(self) -> str:
        """How to get in, in a few words. Raises as `Access.principal`."""
        return self._application.way_in

    @property
    def failure(self) -> BaseException | None:
        """Why it has ended by itself, or None."""
        serving = self._serving
        if serving is None or not serving.done():
            return None
        if serving.cancelled():
            return OperationError("it was cancelled")
        return serving.exception() or OperationError("its server has ended")

    async def failed(self) -> None:
        """Return when it has ended by itself: `failure` says why. Never returns for one that goes on."""
        if self._serving is None:
            await asyncio.Event().wait()
        else:
            await asyncio.wait({self._serving})

    async def stop(self) -> None:
        """Take no more connections, and let requests that are under way end, within their time. Idempotent.

        What it has failed of is raised.
        """
        if self._serving is None:
            return
        self._application.leave()
        self._server.leave()
        serving, self._serving = self._serving, None
        try:
            await serving
        finally:
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
