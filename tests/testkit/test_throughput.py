"""How many orchestrations a test may run: printed, for people. `python -m bench --workload KIT` measures it."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import pytest

from tests.testkit.programs import app, simple

COUNT = 2_000
AT_ONCE = 100


@pytest.mark.slow_once
async def test_thousands_of_simple_orchestrations(durable_env: Any) -> None:
    async with durable_env(app) as env:
        began = perf_counter()
        for first in range(0, COUNT, AT_ONCE):
            numbers = range(first, first + AT_ONCE)
            results = await asyncio.gather(*(env.run(simple, number) for number in numbers))
            assert results == [2 * number for number in numbers]
        print(f"\n{COUNT / (perf_counter() - began):,.0f} simple orchestrations/s, each turn replayed")
