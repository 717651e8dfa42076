"""Scenarios 9 and 38: memory runs out, and what is too large, too long or too deep."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from durably import App, OrchestrationContext, OrchestrationFailedError
from durably.errors import PayloadError
from tests.faults.checker import check, check_file
from tests.faults.children import child, line_of, program
from tests.faults.clients import jobs, live_through, options_of
from tests.faults.evidence import Evidence

CAP_MIB = 256
"""What a host with the work of these tests may take beyond what it needs to begin with."""


@pytest.mark.slow_once
def test_an_activity_for_which_there_is_no_memory_fails_and_the_others_go_on(tmp_path: Path) -> None:
    with child("starve", tmp_path) as process:
        assert line_of(process) == "MemoryError"
        assert line_of(process) == "all 8 ended"
        assert process.wait(60) == 0
    evidence = Evidence.of_journal(tmp_path)
    assert check(evidence, floor=1.0).completed == 8


@pytest.mark.slow_once
def test_a_process_that_dies_of_it_is_a_death_like_any_other(tmp_path: Path) -> None:
    with child("burst", tmp_path) as process:
        assert line_of(process) == "began"
        assert process.wait(60) != 0
    evidence = Evidence.of_journal(tmp_path)
    evidence.note("death", 1)
    assert asyncio.run(live_through(evidence, jobs(8, first=8)))
    assert check(evidence, floor=0.5).completed == 8


def huge_app() -> App:
    app = App()

    @app.activity
    async def waits() -> str:
        return await asyncio.get_running_loop().create_future()

    @app.activity
    async def answers() -> str:
        return "done"

    @app.orchestrator
    async def huge(ctx: OrchestrationContext) -> Any:
        result = ctx.call_activity("waits")
        await ctx.wait_for_external_event("end")
        return [
            len(await ctx.wait_for_external_event("item")),
            await ctx.call_activity("answers"),
            result.done(),
        ]

    return app


HUGE_MIB, ROOM_MIB = 128, 256


async def grow(evidence: Evidence) -> None:
    """An instance with an activity in flight and buffered events: in memory each of them is there several times."""
    options = options_of(evidence, drain_timeout_s=0.01)
    async with huge_app().host(evidence.url, options=options) as host:
        handle = await host.client.start("huge", instance_id="huge")
        for _ in range(HUGE_MIB // 8):
            await handle.raise_event("item", "x" * (8 << 20))


async def go_on(evidence: Evidence) -> Any:
    options = options_of(evidence, drain_timeout_s=0.01)
    async with huge_app().host(evidence.url, options=options) as host:
        await host.client.redrive("huge")
        await host.client.raise_event("huge", "end")
        return await host.client.handle("huge").result(timeout=60)


@pytest.mark.slow_once
def test_a_history_larger_than_memory_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    evidence = Evidence.of_journal(tmp_path)
    asyncio.run(grow(evidence))
    limits: dict[str, Any] = {"DURABLY_MAX_HISTORY_MIB": "32", "MALLOC_ARENA_MAX": "1"}
    for _ in range(2):  # it stays so
        with program("tests.faults.children", "overgrown", tmp_path, ROOM_MIB, **limits) as process:
            assert "DURABLY_MAX_HISTORY_MIB" in line_of(process), process.communicate()
            assert line_of(process) == "all 8 ended"
            assert process.wait(60) == 0
    assert asyncio.run(go_on(evidence)) == [8 << 20, "done", False]


@pytest.mark.slow_once
@pytest.mark.parametrize("what", ["payload", "fan", "long"])
def test_what_is_large_fits_under_a_cap(tmp_path: Path, what: str) -> None:
    with child("bulk", tmp_path, what, CAP_MIB, 1) as process:
        said = line_of(process)
        sys.stdout.write(f"{said}\n")
        assert said.startswith(f"{what}: done"), process.communicate()
        assert process.wait(60) == 0
    check_file(Evidence.in_folder(tmp_path))


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("what", ["fan", "long"])
def test_what_is_very_large_fits_under_a_cap(tmp_path: Path, what: str) -> None:
    with child("bulk", tmp_path, what, CAP_MIB, 10) as process:
        said = line_of(process)
        sys.stdout.write(f"{said}\n")
        assert said.startswith(f"{what}: done"), process.communicate()


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def test_what_is_too_deep_is_refused_where_it_comes_from(tmp_path: Path) -> None:
    app, evidence = App(), Evidence.in_folder(tmp_path)

    @app.activity
    async def dig(levels: int) -> Any:
        return deep(levels)

    @app.orchestrator
    async def digs(ctx: OrchestrationContext, levels: int) -> int:
        return len(json.dumps(await ctx.call_activity(dig, levels)))

    @app.orchestrator
    async def takes(ctx: OrchestrationContext, value: Any) -> str:
        return "taken"

    async def run() -> None:
        async with app.host(evidence.url, options=options_of(evidence)) as host:
            with pytest.raises(PayloadError):
                await host.client.start("takes", deep(10_000))
            handle = await host.client.start("digs", 10_000)
            with pytest.raises(OrchestrationFailedError, match="PayloadError"):
                await handle.result(timeout=60)
            waiting = await host.client.start("digs", 10)
            with pytest.raises(PayloadError):
                await waiting.raise_event("x", deep(10_000))
            assert await waiting.result(timeout=60) == 21
            assert host.engine.failure is None

    asyncio.run(run())


def test_a_loop_that_never_ends_fails_at_its_limit_with_the_cure(tmp_path: Path) -> None:
    app, evidence = App(), Evidence.in_folder(tmp_path)

    @app.activity
    async def step() -> None: ...

    @app.orchestrator
    async def endless(ctx: OrchestrationContext) -> None:
        while True:
            await ctx.call_activity(step)

    async def run() -> None:
        options = options_of(evidence, max_actions=300)
        async with app.host(evidence.url, options=options) as host:
            handle = await host.client.start("endless")
            with pytest.raises(OrchestrationFailedError, match=r"300.*continue_as_new"):
                await handle.result(timeout=60)

    asyncio.run(run())
