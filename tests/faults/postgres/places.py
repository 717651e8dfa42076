"""Folders of the fault tests whose hubs are on a server."""

from __future__ import annotations

from pathlib import Path

from tests.faults.evidence import ELSEWHERE
from tests.support.postgres import PostgresServer


class Places:
    """Makes folders, each with a hub of its own.

    Args:
        server: Where the hubs are.
        folder: Where the folders are.
        hub: Begins their names.
    """

    def __init__(self, server: PostgresServer, folder: Path, hub: str) -> None:
        self._server, self._folder, self._hub = server, folder, hub

    def __truediv__(self, name: str) -> Path:
        found = self._folder / name
        found.mkdir(parents=True)
        (found / ELSEWHERE).write_text(self._server.url(f"{self._hub}_{name}"))
        return found
