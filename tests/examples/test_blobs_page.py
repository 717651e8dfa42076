"""docs/blobs.md says what is true: its code runs."""

import asyncio
import re
from pathlib import Path
from typing import Any

from durably import App
from tests.support.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "blobs.md"


def test_orders_come_in_as_files(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(code, names)
    app: App = names["app"]

    async def main() -> Any:
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}") as host:
            seen = await names["bring"](host)

            async def loaded() -> Any:
                page = await host.client.query_instances(name="load", runtime_status=["Completed"])
                return page.instances

            (one,) = await eventually(loaded)
            return seen, one.instance_id.rpartition(":")[0], one.output

    seen, instance_id, output = asyncio.run(main())
    assert seen == (["acme/orders.csv"], b"tea")
    assert (instance_id, output) == ("incoming:acme-orders.csv", "2 lines loaded")
    assert (tmp_path / "blobs" / "incoming" / "acme" / "orders.csv").read_text() == "tea\ncups\n"
