"""Runs coroutine tests on a loop of their own, and gives them a hub in memory."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from tests.support.clock import ManualClock
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.stores import FaultyStore

TEST_S = 120
"""None takes that long; what hangs is named by the traceback of the time-out."""


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
    try:
        async with asyncio.timeout(TEST_S):
            await test(**arguments)
    finally:
        for value in arguments.values():
            if isinstance(value, Deployment):
                await value.close()
    assert not silent, f"something failed with nobody to see it: {silent}"


@pytest.fixture
def hub() -> Deployment:
    """A hub in memory."""
    return Deployment(MemoryHubOfTest())


@pytest.fixture
def store(hub: Deployment) -> FaultyStore:
    """A store on that hub, which fails or waits when told."""
    assert isinstance(hub.hub, MemoryHubOfTest)
    return FaultyStore(hub.hub.hub)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
