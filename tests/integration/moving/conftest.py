"""One private PostgreSQL server for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer

_hubs = count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def postgres_url(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], str]:
    """URLs of hubs that do not exist."""
    monkeypatch.setenv("DURABLY_STATE_DIR", str(tmp_path))
    return lambda: server.url(f"moved_{next(_hubs)}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Callable[[], str]:
    """URLs of hubs that do not exist."""
    return lambda: f"sqlite:///{tmp_path / f'moved{next(_hubs)}.db'}"
