"""Scenario 7: a function file that raises at import, on real `durably run` processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durably import App, OrchestrationContext
from durably.cli.output import Exit
from durably.errors import HubNotFoundError
from durably.storage.open import open_store
from tests.faults.checker import check_file
from tests.faults.children import line_of, program
from tests.faults.clients import options_of
from tests.faults.evidence import Evidence
from tests.support.waiting import eventually

SHOP = """
from durably import App
app = App()

@app.activity
async def pack(x: int) -> int:
    return x + 1

@app.orchestrator
async def order(ctx, x):
    x = await ctx.call_activity("pack", x)
    return x
"""
BILLING = """
from durably import App
app = App()

@app.activity
async def pay(x: int) -> int:
    return 2 * x

@app.orchestrator
async def invoice(ctx, x):
    return await ctx.call_activity("pay", await ctx.call_activity("pack", x))
"""
BROKEN = "raise RuntimeError('no such setting: BILLING_KEY')\n"


@contextmanager
def host(evidence: Evidence, *apps: str) -> Generator[subprocess.Popen[str]]:
    with program("durably", "run", *apps, "--hub", evidence.url, cwd=evidence.hub.parent) as process:
        yield process


def announced(process: subprocess.Popen[str]) -> str:
    lines: list[str] = []
    while line := line_of(process):
        lines.append(line)
        if line.startswith("Ready"):
            break
    return "\n".join(lines)


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == Exit.OK
    return said


def both() -> App:
    """Both files as one app, of which nothing is ever run: it starts the work and looks at it."""
    app = App()

    @app.activity
    async def pack(x: int) -> int:
        await asyncio.sleep(3_600)
        return x

    @app.orchestrator
    async def order(ctx: OrchestrationContext, x: int) -> object:
        return await ctx.call_activity("pack", x)

    @app.orchestrator
    async def invoice(ctx: OrchestrationContext, x: int) -> object:
        return await ctx.call_activity("pay", await ctx.call_activity("pack", x))

    return app


async def begin(evidence: Evidence) -> None:
    options = options_of(evidence, drain_timeout_s=0.01)  # the activities are still running then
    async with both().host(evidence.url, options=options) as first:
        for name in ("order", "invoice"):
            await first.client.start(name, 20, instance_id=name)
            await first.client.start(name, 20, instance_id=f"{name}-later", start_at=0.5)


async def look(evidence: Evidence, **expected: str) -> None:
    """Wait until the hub, which another process serves, shows the statuses; what has not ended is blocked."""
    store = open_store(evidence.url)
    await store.open(create=False)
    try:
        for name, status in expected.items():

            async def shows(name: str = name, status: str = status) -> bool:
                row = await store.get_instance(name.replace("_", "-"))
                assert row is not None
                return row.status == status and (status == "Completed" or row.blocked is not None)

            await eventually(shows, f"{name} to be {status}")
    finally:
        await store.close()


@pytest.mark.slow_once
def test_the_others_are_served_and_the_work_of_a_broken_file_waits(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "billing.py").write_text(BROKEN)
    asyncio.run(begin(evidence))
    with host(evidence, "shop.py", "billing.py") as process:
        said = announced(process)
        assert "orchestrators  order" in said
        assert "degraded       1 app could not be loaded" in said
        asyncio.run(look(evidence, order="Completed", order_later="Completed"))
        asyncio.run(look(evidence, invoice="Running", invoice_later="Pending"))
        errors = stop(process)
    for words in (
        "'billing.py' could not be imported",
        "no such setting: BILLING_KEY",
        'billing.py", line 1',
    ):
        assert words in errors
    (tmp_path / "billing.py").write_text(BILLING)  # somebody mends it
    with host(evidence, "shop.py", "billing.py") as process:
        assert "degraded" not in announced(process)
        asyncio.run(look(evidence, invoice="Completed", invoice_later="Completed"))
        stop(process)
    check_file(evidence)


@pytest.mark.slow_once
def test_with_nothing_to_serve_it_says_what_is_wrong_and_touches_no_hub(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    (tmp_path / "billing.py").write_text(BROKEN)
    with host(evidence, "billing.py") as process:
        assert announced(process) == ""
        _, said = process.communicate(timeout=60)
        assert process.returncode == Exit.USAGE
    assert "no such setting: BILLING_KEY" in said
    with pytest.raises(HubNotFoundError):
        asyncio.run(open_store(evidence.url).open(create=False))
