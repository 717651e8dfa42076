"""docs/sagas.md says what is true: its code runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "sagas.md"


def test_the_saga_goes_all_the_way_or_all_the_way_back() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)

    async def main() -> list[str]:
        async with names["app"].host("memory://") as host:
            for city in ("Oslo", "Atlantis"):
                await host.client.start("order", city, instance_id=city)
            done = [await host.client.wait_for_completion(city, timeout=20) for city in ("Oslo", "Atlantis")]
            return [status.runtime_status.value for status in done]

    assert asyncio.run(main()) == ["Completed", "Failed"]
    assert names["stock"] == {"book": 7}
