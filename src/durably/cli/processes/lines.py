"""What workers print, as the control process prints it: whole lines, each with the number of its worker."""

from __future__ import annotations

import asyncio
import os
from typing import Final

import msgspec

from durably.cli.processes.printer import Printer

_CHUNK: Final = 65_536

_CHUNKS_LEFT_MAX: Final = 16
"""More than a pipe holds."""

_LINE_MAX: Final = 65_536
"""A longer line is printed in parts."""


def marked(line: bytes, number: int) -> bytes:
    """A line with the number of its worker. A JSON object gets one field more, and stays one."""
    if line.startswith(b"{") and line.endswith(b"}"):
        try:
            is_object = bool(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
        except (msgspec.DecodeError, RecursionError):
            is_object = False
        if is_object:
            return b'{"process":%d,%b' % (number, line[1:])
    return b"[%d] %b" % (number, line)


class Lines:
    """Prints what comes out of a pipe. While the printer is full, it stays there, and the worker waits as the printer does.

    Args:
        source: The pipe; closed by `close`.
        printer: Where lines go.
        number: Of the worker.
    """

    def __init__(self, source: int, printer: Printer, number: int) -> None:
        os.set_blocking(source, False)
        self._source = source
        self._printer = printer
        self._number = number
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(source, self._heed)

    def close(self) -> None:
        """Print what is left, and stop: at some point, since what the worker has started may go on writing. Idempotent.

        Also when the printer is full: a pipe holds little, and nobody would come back for it.
        """
        for _ in range(_CHUNKS_LEFT_MAX):
            if self._source < 0 or not self._read():
                break
        if self._source >= 0:
            self._end()

    def _heed(self) -> None:
        """There is something, for which there may be no room."""
        if self._printer.is_full:
            self._loop.remove_reader(self._source)
            self._printer.when_room(self._go_on)
        else:
            self._read()

    def _go_on(self) -> None:
        if self._source >= 0:  # it may have been closed meanwhile
            self._loop.add_reader(self._source, self._heed)

    def _read(self) -> bool:
        """Print what is there; False: nothing for now, or nothing any more."""
        try:
            data = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_MAX:
            lines.append(self._rest)
            self._rest = b""
        self._print(lines)
        return True

    def _end(self) -> None:
        self._loop.remove_reader(self._source)
        os.close(self._source)
        self._source = -1
        if self._rest:
            self._print([self._rest])
            self._rest = b""

    def _print(self, lines: list[bytes]) -> None:
        """All at once: what a worker wrote in one piece stays together."""
        self._printer.put(b"".join(marked(line, self._number) + b"\n" if line else b"\n" for line in lines))
