"""docs/bindings.md says what is true: its code runs."""

import asyncio
import re
from pathlib import Path
from typing import Any

from durably import App
from tests.http.scene import serving, until

PAGE = Path(__file__).parents[2] / "docs" / "bindings.md"


def test_an_order_becomes_parcels_and_a_slip(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)
    app: App = names["app"]

    async def main() -> None:
        await names["test_each_item_is_a_parcel"]()
        async with serving(app, tmp_path) as scene:
            client = scene.host.client
            answer = await scene.http.post("/api/orders", json={"number": "7", "items": ["tea", "cups"]})
            assert answer.text == "2 things"
            await until(client.queue("orders").count, 0)
            assert {one.body for one in await client.queue("parcels").peek()} == {"tea", "cups"}
            assert await scene.host.blobs("slips").read("7.txt") == b"tea\ncups"

    asyncio.run(main())
