"""Runs coroutine tests, and gives them a hub on each store that the statement holds on."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

from durably.storage.memory import MemoryStore
from durably.storage.open import open_store
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment, FileHub, MemoryHubOfTest

SQLITE = not isinstance(open_store("sqlite:///never-opened.db"), MemoryStore)
"""False as long as this build has no SQLite provider."""

OUTSIDE = pytest.param("outside", marks=pytest.mark.slow_once)
"""A SQLite hub whose clients are those of another process."""

STORES = ["memory", "sqlite", OUTSIDE] if SQLITE else ["memory"]

TEST_S = 120
"""No statement takes that long; what hangs is named by the traceback of the time-out."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(_run(pyfuncitem.obj, arguments))
    return True


async def _run(test: Any, arguments: dict[str, Any]) -> None:
    silent: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: silent.append(context))
    deployments = [value for value in arguments.values() if isinstance(value, Deployment)]
    try:
        async with asyncio.timeout(TEST_S):
            await test(**arguments)
    finally:
        for deployment in deployments:
            await deployment.close()
    assert not silent, f"something failed with nobody to see it: {silent}"


@pytest.fixture(params=STORES)
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """A hub on each store."""
    if request.param == "memory":
        return Deployment(MemoryHubOfTest())
    return Deployment(FileHub(tmp_path / "hub.db"), outside=request.param == "outside")


@pytest.fixture
def memory() -> Deployment:
    """A hub in memory, for what no store has a part in."""
    return Deployment(MemoryHubOfTest())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
