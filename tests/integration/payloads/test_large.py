"""Large payloads of instances lie outside of their rows, and go when their instances go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durably import (
    App,
    AppHost,
    Client,
    EncryptionKeys,
    EngineOptions,
    NonRetryableError,
    OrchestrationContext,
)
from tests.support.payloads import payloads_aside
from tests.support.waiting import eventually, has_event

KEYS = EncryptionKeys({"k1": bytes(range(32))})
LARGE = "x" * 200_000

app = App()


@app.activity
def grow(size: int) -> str:
    return "y" * size


@app.orchestrator
async def large(ctx: OrchestrationContext, text: str) -> str:
    ctx.set_custom_status(text[:2_000])
    return text + await ctx.call_activity(grow, len(text))


@app.orchestrator
async def shrinks(ctx: OrchestrationContext, text: str) -> int:
    if text:
        ctx.set_custom_status(text[:2_000])
        await ctx.wait_for_external_event("Go")
        ctx.continue_as_new(text[: len(text) // 1_000])
    ctx.set_custom_status(len(text))
    return len(text)


@app.orchestrator
async def fails(ctx: OrchestrationContext, text: str) -> str:
    await ctx.wait_for_external_event("Go")
    if not mended:
        raise NonRetryableError(text)
    return text


mended: list[bool] = []


@pytest.fixture(params=["plain", "encrypted"])
def options(request: pytest.FixtureRequest) -> EngineOptions:
    keys = KEYS if request.param == "encrypted" else None
    return EngineOptions(encryption_keys=keys, compress_above=0, payload_inline_max=1_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


def host(path: Path, options: EngineOptions) -> AppHost:
    return app.host(f"sqlite:///{path}", options=options)


async def test_purge_takes_them_along(path: Path, options: EngineOptions) -> None:
    async with host(path, options) as served:
        client = served.client
        for name in ("a", "b"):
            handle = await client.start(large, LARGE, instance_id=name)
            assert len(await handle.result(timeout=20)) == 2 * len(LARGE)
        assert payloads_aside(path) == 6
        status = await client.get_status("a")
        assert status is not None
        assert (status.input, status.custom_status) == (LARGE, LARGE[:2_000])
        assert (await client.purge_instances(instance_id_prefix="a")).done == 1
        assert payloads_aside(path) == 3
        await client.start(large, "", instance_id="b")
        await client.wait_for_completion("b", timeout=20)
        assert payloads_aside(path) == 0, "the start took the place of the finished instance"


async def test_continuing_as_new_drops_those_of_the_execution_before(
    path: Path, options: EngineOptions
) -> None:
    async with host(path, options) as served:
        await served.client.start(shrinks, LARGE, instance_id="s")
        await has_event(served, "s", "EventAwaited")
        assert payloads_aside(path) == 2
    async with host(path, options) as served:
        await served.client.raise_event("s", "Go", None)
        await has_event(served, "s", "EventAwaited")
        await eventually(lambda: payloads_aside(path) == 0)
        await served.client.terminate("s", LARGE)
        assert payloads_aside(path) == 2, "the reason, as output and as failure"


async def test_a_rewind_drops_the_failure(path: Path, options: EngineOptions) -> None:
    mended.clear()
    async with host(path, options) as served:
        handle = await served.client.start(fails, LARGE, instance_id="f")
        await served.client.raise_event("f", "Go", None)
        status = await served.client.wait_for_completion("f", timeout=20)
        assert status.failure is not None
        assert status.failure.message == LARGE
        assert payloads_aside(path) == 2
        mended.append(True)
        await served.client.rewind("f")
        assert await handle.result(timeout=20) == LARGE
        assert payloads_aside(path) == 2, "input and output; the failure is gone"


async def test_lists_and_states_without_payloads(path: Path, options: EngineOptions) -> None:
    async with host(path, options) as served:
        await (await served.client.start(large, LARGE, instance_id="a")).result(timeout=20)
        async with Client(f"sqlite:///{path}", encryption_keys=options.encryption_keys) as outside:
            for client in (served.client, outside):
                (listed,) = (await client.query_instances(fetch_payloads=False)).instances
                single = await client.get_status("a", fetch_payloads=False)
                assert listed == single
                assert (listed.input, listed.output, listed.custom_status) == (None, None, LARGE[:2_000])
                (whole,) = (await client.query_instances()).instances
                assert (whole.input, len(whole.output)) == (LARGE, 2 * len(LARGE))


async def test_a_start_that_waits_is_shown_without_its_input(path: Path, options: EngineOptions) -> None:
    async with Client(f"sqlite:///{path}", encryption_keys=options.encryption_keys) as client:
        await client.start("large", LARGE, instance_id="a")
        without, whole = await asyncio.gather(
            client.get_status("a", fetch_payloads=False), client.get_status("a")
        )
        assert without is not None
        assert whole is not None
        assert (without.input, whole.input) == (None, LARGE)
