"""What a slow client gets: a time for the head of a request, for its body, and for taking the answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from starlette.types import Message, Receive, Scope
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from durably.http_api.joining import JoiningTransport
from durably.http_api.refusals import Refusal

HEAD_BYTES_MAX: Final = 64 * 1024

_AHEAD_BYTES_MAX: Final = 1024 * 1024
"""Of requests that a client sends before it has the answer to the one before."""

_FAREWELL_S: Final = 1.0
"""A client that is turned away while it sends may go on for so long: hung up on at once, it would lose the answer."""

WHOLE: Final = "durably.whole"
"""In the scope of a request that came with its body, as most do: nobody has to watch the time."""

_BYTES_FOR_A_SECOND: Final = 1_024
"""A body that comes slower than this uses its time up."""


def within(scope: Scope, receive: Receive, body_timeout_s: float) -> Receive:
    """Let a body take so long, and a second more for each KiB that has come.

    Once it is there, whoever goes on to receive waits for the client to leave, for as long as it takes.
    """
    if WHOLE in scope:
        return receive
    ends = time.monotonic() + body_timeout_s
    whole = False

    async def patient() -> Message:
        nonlocal ends, whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout(ends - time.monotonic()):
                message = await receive()
        except TimeoutError:
            raise Refusal(
                408,
                f"The body comes too slowly: expected it within {body_timeout_s:g} s, or a KiB a second",
                "RequestTimeout",
                {"Connection": "close"},
            ) from None
        whole = not message.get("more_body", False)
        ends += len(message.get("body", b"")) / _BYTES_FOR_A_SECOND
        return message

    return patient


class PatientProtocol(AutoHTTPProtocol):
    """Hangs up on clients that do not get to the end of a head, or do not take their answer.

    Attributes:
        head_timeout_s: From the connection, or the first byte of a later request, to the end of its head.
        answer_timeout_s: For taking so much of an answer that there is room for more.
    """

    head_timeout_s: float
    answer_timeout_s: float
    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._turned_away = False
        self._once = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = JoiningTransport(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._answer_moves()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._turned_away:
            return
        waited = self._waits_for_head
        ahead = not waited and not self.cycle.more_body
        super().data_received(data)
        if self._once and not self._waits_for_head:
            self.cycle.keep_alive = False
        if self.cycle is not None and not self.cycle.more_body:
            self.cycle.scope[WHOLE] = True  # too late only for one that came in pieces
        if waited and not self._waits_for_head:
            self._head_came()
        elif waited or ahead:
            if waited and self._head_timer is None:
                self._expect_head()
            self._unread += len(data)
            if self._unread > (HEAD_BYTES_MAX if waited else _AHEAD_BYTES_MAX):
                self._turn_away(b"431 Request Header Fields Too Large")

    def answer_once(self) -> None:
        """The next answer, or the one that is under way, is the last one on this connection, and says so."""
        self._once = True
        if not self._waits_for_head:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._answer_timer is None:
            self._answer_timer = self.loop.call_later(self.answer_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._answer_moves()
        super().resume_writing()

    @property
    def _waits_for_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._turn_away, b"408 Request Timeout")

    def _head_came(self) -> None:
        self._unread = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _answer_moves(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _turn_away(self, status: bytes) -> None:
        if self._turned_away or self.transport.is_closing():
            return
        self._turned_away = True
        self.transport.write(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(_FAREWELL_S, self.transport.abort)
        else:  # TLS has no half-closed connections
            self.transport.close()


def patient_protocol(head_timeout_s: float, answer_timeout_s: float) -> type[PatientProtocol]:
    """The protocol with its times: the server makes its objects itself."""
    times = {"head_timeout_s": head_timeout_s, "answer_timeout_s": answer_timeout_s}
    return type("PatientProtocol", (PatientProtocol,), times)
