"""Payloads of functions in other languages may be anything: they do not break the JSON of those who look at them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durably import App, OrchestrationContext
from durably.core.messages import StartInstance
from tests.http.scene import serving

PLACE = "local:v1:abc"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/api/v1/instances/raw", ("input",)),
        ("/runtime/webhooks/durabletask/instances/raw?showInput=true", ("input",)),
        ("/runtime/webhooks/durabletask/instances", (0, "input")),
        ("/api/v1/instances/raw/history", ("entries", 1, "input")),
    ],
)
def test_what_is_no_json_is_shown_as_text(tmp_path: Path, path: str, found: tuple[Any, ...]) -> None:
    async def test() -> None:
        app = App()

        @app.orchestrator
        async def strange(ctx: OrchestrationContext) -> None: ...

        async with serving(app, tmp_path) as scene:
            await scene.host.management.start("raw", StartInstance("strange", PLACE.encode(), "x"))
            await scene.host.management.wait("raw", 10)
            answer = await scene.http.get(path, headers={"x-functions-key": scene.master})
            assert answer.status_code == 200, answer.text
            place = answer.json()
            for step in found:
                place = place[step]
            assert place == PLACE

    asyncio.run(test())
