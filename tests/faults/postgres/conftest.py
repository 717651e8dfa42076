"""Private servers, and what each test has to say in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.faults.postgres.places import Places
from tests.support.postgres import PostgresServer

Report = Callable[..., None]

_hubs = count()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """For faults of connections and statements: nobody kills it."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def hub_name() -> str:
    return f"hub_{next(_hubs)}"


@pytest.fixture
def places(shared_server: PostgresServer, tmp_path: Path, hub_name: str) -> Places:
    return Places(shared_server, tmp_path, hub_name)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def report(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Report:
    """Prints the counts of a test, in one line."""

    def say(**counts: object) -> None:
        text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items())
        with capsys.disabled():
            print(f"\n{request.node.name}: {text}")

    return say
