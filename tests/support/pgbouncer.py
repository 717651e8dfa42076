"""A private PgBouncer before a private PostgreSQL server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

from tests.support.postgres import PostgresServer, as_nobody, own_folder
from tests.support.servers import PATIENCE_S, free_port, is_open, program

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user=durably
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
server_login_retry = 0.1
{more}
"""


class PgBouncer:
    """Listens on `port`; a context manager.

    Args:
        folder: For its settings and its log.
        server: The server behind it.
        mode: When a client gets another server connection: after each ``transaction``, or ``session``.
        size: Server connections.
        more: Lines of settings.
    """

    def __init__(
        self,
        folder: Path,
        server: PostgresServer,
        *,
        mode: str = "transaction",
        size: int = 3,
        more: str = "",
    ) -> None:
        self.port = free_port()
        self._folder = folder = own_folder(folder)
        self._process: subprocess.Popen[bytes] | None = None
        text = _SETTINGS.format(server=server.port, port=self.port, mode=mode, size=size, more=more)
        (folder / "pgbouncer.ini").write_text(text)

    def url(self, hub: str) -> str:
        """The URL of a hub behind it."""
        return f"postgresql://durably@127.0.0.1:{self.port}/postgres?hub={hub}"

    def __enter__(self) -> Self:
        command = [program("pgbouncer", "pgbouncer"), "pgbouncer.ini"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **as_nobody()
            )
        for _ in range(int(PATIENCE_S / 0.02)):
            if is_open(self.port):
                return self
            try:
                self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            break
        self.__exit__()
        raise AssertionError(f"pgbouncer does not start:\n{(self._folder / 'log').read_text()}")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
