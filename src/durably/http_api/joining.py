"""One packet for the head of an answer and its body: Uvicorn writes one after the other, and each write is a system call."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_BEGINS: Final = b"HTTP/1.1 "

_COPIED_BYTES_MAX: Final = 16 * 1024
"""To copy a longer body costs more than to have the kernel gather it."""


class JoiningTransport:
    """Keeps the head of an answer back until what follows it is written, or until the next step of the loop.

    Args:
        transport: Of the connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._soon = asyncio.get_running_loop().call_soon
        self._head = b""

    def write(self, data: Any) -> None:
        """See `asyncio.WriteTransport.write`."""
        if self._head:
            head, self._head = self._head, b""
            if len(data) > _COPIED_BYTES_MAX:
                self._transport.writelines((head, data))
            else:
                self._transport.write(b"".join((head, data)))
        elif data[: len(_BEGINS)] == _BEGINS:  # of what only looks like a head nothing is lost
            self._head = data
            self._soon(self._flush)  # the body of a stream may be long in coming
        else:
            self._transport.write(data)

    def write_eof(self) -> None:
        """See `asyncio.WriteTransport.write_eof`."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """See `asyncio.BaseTransport.close`."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport.is_closing`."""
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)
