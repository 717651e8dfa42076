"""One private server for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from durably.storage.postgres.store import PostgresStore
from tests.support.postgres import PostgresServer

_hubs = count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def hub(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., PostgresStore]:
    """Makes stores on one hub that is this test's own."""
    monkeypatch.setenv("DURABLY_STATE_DIR", str(tmp_path))
    url = server.url(f"hub_{next(_hubs)}")
    return lambda **options: PostgresStore(url, **options)
