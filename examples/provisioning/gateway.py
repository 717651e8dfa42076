"""The radio gateway through which devices are reached: a TCP server on a free port. It logs each try, and so is the witness.

A request is a line with a serial number and an address. The answer is ``ok``, or nothing when the device does not answer.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

SLEEPY_TRIES = 2
"""How often a sleepy device has to be called before it answers."""


def is_sleepy(serial: str) -> bool:
    """One device in fifty sleeps most of the time."""
    return int(serial.split("-")[1]) % 50 == 7


class Gateway:
    """What it knows of the devices.

    Args:
        folder: For `gateway.log`, which it goes on with; and with `offline.txt`, the devices that do not answer at all.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "offline.txt"
        self._offline = set(file.read_text().split()) if file.exists() else set[str]()
        log = folder / "gateway.log"
        log.touch()
        self._tries = Counter(line.split()[0] for line in log.read_text().splitlines())
        self._log = log.open("a", buffering=1)  # whole lines, also when the process is killed

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        line = await reader.readline()
        if line:
            serial = line.decode().split()[0]
            self._tries[serial] += 1
            sleeps = is_sleepy(serial) and self._tries[serial] <= SLEEPY_TRIES
            answers = serial not in self._offline and not sleeps
            self._log.write(f"{serial} {'ok' if answers else '-'}\n")
            if answers:
                writer.write(b"ok\n")
        writer.close()

    def close(self) -> None:
        """Close the log."""
        self._log.close()


@asynccontextmanager
async def open_gateway(folder: Path) -> AsyncGenerator[str]:
    """The address of a gateway, as HOST:PORT, that serves for as long as the block runs."""
    gateway = Gateway(folder)
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0, backlog=1_000)
    try:
        async with server:
            host, port = server.sockets[0].getsockname()
            yield f"{host}:{port}"
    finally:
        gateway.close()
