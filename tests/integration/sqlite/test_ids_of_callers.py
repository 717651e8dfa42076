"""What user code takes for an id, from a request for instance: half a character is refused, and the host goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durably import App, Client, InvalidTextError, OrchestrationContext

HALF = "\ud800"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.terminate(HALF),
        lambda client: client.raise_event(HALF, "go"),
        lambda client: client.suspend(HALF),
        lambda client: client.purge(HALF),
    ],
)
def test_half_a_character_in_an_id_ends_no_host(
    tmp_path: Path, ask: Callable[[Client], Awaitable[Any]]
) -> None:
    app = App()

    @app.orchestrator
    async def nothing(ctx: OrchestrationContext, data: Any = None) -> str:
        return "done"

    async def whole() -> None:
        async with app.host(f"sqlite:///{tmp_path}/hub.db") as host:
            with pytest.raises(InvalidTextError, match="half a surrogate pair"):
                await ask(host.client)
            assert await (await host.client.start("nothing")).result(timeout=30) == "done"
            assert host.failure is None

    asyncio.run(whole())
