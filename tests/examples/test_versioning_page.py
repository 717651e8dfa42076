"""docs/versioning.md says what is true: its code is deployed, version after version, under waiting instances."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from durably import App
from durably.storage.memory import MemoryHub, MemoryStore

PAGE = Path(__file__).parents[2] / "docs" / "versioning.md"
FLOW, PATCHED, CLEAN, VERSIONS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def app_of(*code: str) -> App:
    """The app that the pieces of a program make; a later piece stands for an edit of the first."""
    names: dict[str, Any] = {}
    first, *edits = code
    if edits:
        first = first[: first.index("@app.orchestrator")]
    for piece in (first, *edits):
        exec(piece, names)
    return names["app"]


def test_a_patch_leaves_instances_alone_that_came_past_it() -> None:
    async def main() -> list[list[str]]:
        hub = MemoryHub()
        async with app_of(FLOW).host(MemoryStore(hub)) as host:
            await host.client.start("process_order", 1, instance_id="old")
        async with app_of(FLOW, PATCHED).host(MemoryStore(hub)) as host:
            await host.client.start("process_order", 2, instance_id="new")
            await host.client.raise_event("old", "approved")
            await host.client.wait_for_completion("old", timeout=20)
        async with app_of(FLOW, CLEAN).host(MemoryStore(hub)) as host:
            await host.client.raise_event("new", "approved")
            await host.client.wait_for_completion("new", timeout=20)
            return [
                [
                    str(entry.name)
                    for entry in await host.client.get_history(name)
                    if entry.event_type == "TaskScheduled"
                ]
                for name in ("old", "new")
            ]

    assert asyncio.run(main()) == [["charge"], ["check_fraud", "charge"]]


def test_versions_stand_side_by_side() -> None:
    async def main() -> list[tuple[str, str | None]]:
        only_first = VERSIONS[: VERSIONS.index('@app.orchestrator(name="onboard", version="2.0")')]
        hub = MemoryHub()
        async with app_of(only_first).host(MemoryStore(hub)) as host:
            await host.client.start("onboard", "ann", instance_id="old")
        async with app_of(VERSIONS).host(MemoryStore(hub)) as host:
            await host.client.start("onboard", "bob", instance_id="new")
            await host.client.raise_event("old", "signed")
            await host.client.raise_event("new", "confirmed")
            done = [await host.client.wait_for_completion(name, timeout=20) for name in ("old", "new")]
            return [(status.output, status.version) for status in done]

    assert asyncio.run(main()) == [("ann: papers", "1.0"), ("bob: online", "2.0")]
