"""docs/queues.md says what is true: its code runs."""

import asyncio
import re
from pathlib import Path
from typing import Any

from durably import App

PAGE = Path(__file__).parents[2] / "docs" / "queues.md"


def test_orders_come_in_by_the_queue(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(code, names)
    app: App = names["app"]

    async def main() -> Any:
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}") as host:
            seen = await names["send"](host.client)
            await host.client.wait_for_completion("queue:orders:order-7", timeout=30)
            return seen, await host.client.handle("orders:order-7").result(timeout=30)

    (count, bodies), result = asyncio.run(main())
    assert count in (0, 1)  # it may be done already
    assert bodies in ([], [{"item": "tea"}])
    assert result == "shipped tea"
