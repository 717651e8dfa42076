"""docs/entities.md says what is true: its code runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from durably.storage.memory import MemoryHub, MemoryStore

PAGE = Path(__file__).parents[2] / "docs" / "entities.md"


def test_accounts_are_paid_into_looked_at_and_migrated() -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(code, names)

    async def main() -> list[Any]:
        hub = MemoryHub()
        async with names["app"].host(MemoryStore(hub)) as host:
            seen: list[Any] = [await names["tour"](host.client)]
            for euros in (30, 30):
                handle = await host.client.start("transfer", euros)
                seen.append(await handle.result(timeout=20))
            seen.append(await host.client.call_entity("@visits@ann", "visits", timeout=20))
            for _ in range(98):
                await host.client.signal_entity("@visits@ann", "visit")
            (found,) = (await host.client.query_instances(name="congratulate")).instances
            done = await host.client.wait_for_completion(found.instance_id, timeout=20)
            seen.append(done.output)
        async with names["later"].host(MemoryStore(hub)) as host:
            seen.append(await host.client.call_entity("@account@ann", "deposit", 1, timeout=20))
        return seen

    assert asyncio.run(main()) == [
        (40, 40, ["@account@ann"]),
        30,
        0,
        2,
        "100 visits of ann",
        1600,
    ]
