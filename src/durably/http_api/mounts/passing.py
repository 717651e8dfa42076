"""A request that passes to a mounted application, within the limits of the host."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from durably.executors.time_limit import in_time
from durably.http_api.auditing import Auditor
from durably.http_api.incoming import Incoming
from durably.http_api.reading import too_large
from durably.http_api.refusals import Refusal, answer_of, refusal_of


class Limits(NamedTuple):
    """What a request may take.

    Attributes:
        body_bytes_max: A longer body is refused.
        time_s: Until its answer begins; 0 for no limit.
        what: Who is limited, as it begins a sentence.
    """

    body_bytes_max: int
    time_s: float
    what: str


class Passing:
    """The answer to a request which a mounted application gives; an ASGI application as any answer is.

    What the host refuses (a body that is too long or too slow) is an error to the application when it reads, and a refusal
    to the caller, whatever the application makes of it.

    Args:
        app: The application.
        request: The request.
        path: Of the application.
        more: What else its scope has.
        limits: Of the request.
        audit: Records what it changes before its answer is sent.

    Raises:
        Refusal: 413, the body is announced to be longer.
    """

    def __init__(
        self,
        app: ASGIApp,
        request: Incoming,
        path: str,
        more: dict[str, Any],
        *,
        limits: Limits,
        audit: Auditor,
    ) -> None:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limits.body_bytes_max:
            raise too_large(limits.body_bytes_max)
        root = f"{request.scope.get('root_path', '')}{path.rstrip('/')}"
        self._app = app
        self._request = request
        self._scope: Scope = {**request.scope, "root_path": root, **more}
        self._scope.pop("path_params", None)
        self._limits = limits
        self._audit = audit
        self._left = limits.body_bytes_max
        self._refusal: Refusal | None = None
        self._begun, self._ended = asyncio.Event(), False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it answer."""
        try:
            await self._pass(send)
            if not self._begun.is_set() and self._refusal is None:
                raise RuntimeError(f"{self._limits.what} has returned without an answer")
        except Exception as error:
            if self._begun.is_set() and not self._ended:
                raise  # the server hangs up: nobody shall take half an answer for a whole one
            if self._refusal is None:
                self._refusal = refusal_of(error)
        except BaseException:
            if not self._begun.is_set():
                self._audit.cut_off(self._request)
            raise
        if self._refusal is not None and not self._begun.is_set():
            self._request.refused = self._refusal.kind
            answer = await self._audit.recorded(self._request, answer_of(self._refusal))
            await answer(scope, receive, send)

    async def _pass(self, send: Send) -> None:
        """Call it. Once its answer has begun, it may take as long as whoever takes it."""

        async def sending(message: Message) -> None:
            if self._refusal is not None and not self._begun.is_set():
                return  # its words for an error that is ours
            if message["type"] == "http.response.start":
                message = await self._recorded(message)
                self._begun.set()
            self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        work = asyncio.ensure_future(self._app(self._scope, self._receive, sending))
        try:
            if self._limits.time_s:
                await in_time(self._under_way(work), self._limits.time_s, self._limits.what)
            await work
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})

    async def _under_way(self, work: asyncio.Future[None]) -> None:
        begun = asyncio.ensure_future(self._begun.wait())
        try:
            await asyncio.wait({begun, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            begun.cancel()

    async def _recorded(self, message: Message) -> Message:
        """The beginning of its answer, once the record is on the disk."""
        answer = Response(status_code=message["status"])
        answer.raw_headers = list(message.get("headers", ()))
        recorded = await self._audit.recorded(self._request, answer)
        if recorded is not answer:
            self._refusal = Refusal(503, "The audit log cannot be written: try again later", "OperationError")
            raise self._refusal
        return {**message, "headers": answer.raw_headers}

    async def _receive(self) -> Message:
        try:
            message = await self._request.receive()
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise too_large(self._limits.body_bytes_max)
        except Refusal as refusal:
            self._refusal = refusal
            raise
        return message
