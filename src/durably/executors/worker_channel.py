"""What a host and its worker processes say to each other, and the pair of sockets that carries it.

A frame is a kind, a head (JSON) and a body: the payload as it is, never decoded on its way. There is no pickle.
"""

from __future__ import annotations

import os
import socket
import struct
import weakref
from typing import Any, Final, NamedTuple

import msgspec

from durably.errors import FailureDetails, PayloadError
from durably.program.addresses import Address

HELLO: Final = 1
"""Host to worker, first of all; the head is `Hello`."""
CALL: Final = 2
"""Host to worker: perform this; the head is `Attempt`, the body its input."""
READY: Final = 3
"""Worker to host: it has started."""
BEGUN: Final = 4
"""Worker to host: from now on code of users runs. A worker that dies before that has done nothing of the call."""
DONE: Final = 5
"""Worker to host; the head is `Outcome`, the body the result."""
BEAT: Final = 6
"""Worker to host, between `BEGUN` and `DONE`, any number of times; the body is what the activity says of itself, as JSON."""

BODY_MAX: Final = 1 << 30
"""Bytes of a payload: far more than a history should hold, and no more than a host can take for a moment."""

_PREFIX: Final = struct.Struct("!BIQ")
_NOSIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
_JOINED_MAX: Final = 1 << 16
"""Bodies up to this size go out together with their head: copying them costs less than a second call."""


class Hello(msgspec.Struct):
    """How the host runs.

    Attributes:
        argv: Its ``sys.argv``, as bytes: arguments need not be text.
        host_pid: Its process.
        grace_s: Time for the code of users to end once nobody wants its result.
    """

    argv: list[bytes]
    host_pid: int
    grace_s: float


class Attempt(msgspec.Struct):
    """One attempt of an activity; what is not named here is as in `ActivityContext`.

    Attributes:
        name: The activity.
        function: Where it is.
        converter: Where the converter of its app is; None for the default one.
        has_input: False when there is no payload; the body is empty then.
    """

    name: str
    function: Address
    converter: Address | None
    instance_id: str
    task_id: int
    attempt: int
    delivery: int
    idempotency_key: str
    tags: dict[str, str] | None
    has_input: bool


class Outcome(msgspec.Struct):
    """How an attempt ended.

    Attributes:
        has_result: True when the body is the result.
        failure: Why it failed, or None.
        leaving: The worker ends now: somebody has asked it to.
    """

    has_result: bool = False
    failure: FailureDetails | None = None
    leaving: bool = False


class Frame(NamedTuple):
    """What was received."""

    kind: int
    head: bytes
    body: bytes


class ChannelClosedError(Exception):
    """The other side has closed, or has died."""


class Channel:
    """One end of the pair. Closed in forked children, so that only the process that owns an end keeps it open."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        _channels.add(self)

    def send(self, kind: int, head: msgspec.Struct | None = None, body: bytes = b"") -> None:
        """Send a frame; blocks until the other side takes it.

        Raises:
            PayloadError: The body is larger than `BODY_MAX`; nothing was sent.
            ChannelClosedError: The other side has closed.
        """
        if len(body) > BODY_MAX:
            raise PayloadError(
                f"The payload has {len(body)} bytes: expected {BODY_MAX} at most; pass a reference to the data instead"
            )
        text = b"" if head is None else msgspec.json.encode(head)
        start = _PREFIX.pack(kind, len(text), len(body)) + text
        try:
            if len(body) <= _JOINED_MAX:
                self._socket.sendall(start + body, _NOSIGNAL)
            else:
                self._socket.sendall(start, _NOSIGNAL)
                self._socket.sendall(body, _NOSIGNAL)
        except OSError as error:
            raise ChannelClosedError from error

    def receive(self) -> Frame:
        """The next frame; blocks until there is one.

        Raises:
            ChannelClosedError: The other side has closed, or has sent what is no frame.
        """
        kind, head, body = _PREFIX.unpack(self._exactly(_PREFIX.size))
        if head > BODY_MAX or body > BODY_MAX:  # somebody else has written to the socket
            raise ChannelClosedError
        return Frame(kind, self._exactly(head), self._exactly(body))

    def is_closed(self) -> bool:
        """True when the other side has closed, and all that it had sent has been received. Does not block."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def hang_up(self) -> None:
        """End it for both sides: whoever sends or receives is told. Any thread may do so. Idempotent."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is closed
            pass

    def close(self) -> None:
        """Let go of this end. Idempotent."""
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        if size == 0:
            return b""
        received = bytearray(size)
        view = memoryview(received)
        done = 0
        while done < size:
            try:
                count = self._socket.recv_into(view[done:])
            except OSError as error:
                raise ChannelClosedError from error
            if count == 0:
                raise ChannelClosedError
            done += count
        return bytes(received)


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child must not keep a channel open whose owner dies."""
    for channel in list(_channels):
        channel.close()


os.register_at_fork(after_in_child=_after_fork)


def decode(head: bytes, type_: Any) -> Any:
    """The head of a frame.

    Raises:
        ChannelClosedError: It is none: somebody else has written to the socket.
    """
    try:
        return msgspec.json.decode(head, type=type_)
    except msgspec.DecodeError as error:
        raise ChannelClosedError from error
