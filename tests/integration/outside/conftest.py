"""Runs coroutine tests on a loop of their own."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

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
    async with asyncio.timeout(TEST_S):
        await test(**arguments)
    assert not silent, f"something failed with nobody to see it: {silent}"
