"""docs/http-api.md says what is true: its functions answer as it says."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx

from durably import App
from durably.http_api.durable.routes import durable_routes
from durably.http_api.links import BASE
from durably.http_api.options import HttpOptions
from durably.http_api.served import Served
from durably.http_api.v1.routes import v1_operations
from durably.http_api.v1.streams import Streams
from tests.http.scene import serving

PAGE = Path(__file__).parents[2] / "docs" / "http-api.md"


def test_the_functions_of_the_page_answer(tmp_path: Path) -> None:
    space: dict[str, Any] = {"__name__": "page"}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), space)
    app: App = space["app"]

    async def whole() -> None:
        async with serving(app, tmp_path) as scene:
            placed = await scene.http.post("/api/orders/o1", json={"item": "tea", "count": 2})
            assert placed.status_code == 202
            waited = await scene.http.post("/api/orders/o2/now", json={"item": "tea"})
            assert (waited.status_code, waited.json()) == (200, "1 tea")
            assert (await scene.http.post("/api/orders/o3", json={"count": 2})).status_code == 400
            assert (await scene.http.get("/api/health")).text == "well"
            key = {"x-functions-key": scene.keys.renew("function", "test", "shop")}
            assert (await scene.http.post("/shop/orders/o7", json={"item": "tea"})).status_code == 401
            there = await scene.http.post("/shop/orders/o7", json={"item": "tea"}, headers=key)
            assert (there.status_code, there.json()["id"]) == (202, "o7")
            assert (await scene.http.get(there.json()["statusQueryGetUri"])).status_code in {200, 202}
            for name in ("o1", "o2", "o7"):
                await scene.host.client.wait_for_completion(name, 30)
            headers = {"x-functions-key": scene.master}
            async with httpx.AsyncClient(base_url=f"{scene.url}/api/v1/", headers=headers, timeout=30) as api:
                events = await space["look_after"](api)
            assert (events[0], events[-1]) == ("event: execution", "event: end")
            assert await space["from_afar"](scene.url, scene.master) == "3 tea"
            assert {"event: history", "event: status"} <= set(events)

    asyncio.run(whole())


def test_the_page_names_each_setting_and_route_as_it_is() -> None:
    text = PAGE.read_text("utf-8")
    options = {f"DURABLY_HTTP_{name.upper()}" for name in HttpOptions.__dataclass_fields__}
    assert set(re.findall(r"DURABLY_HTTP_[A-Z_]+", text)) <= options
    assert f"`{BASE}`" in text
    for operation in v1_operations(Served(None, None, None, "hub"), Streams(1)):  # type: ignore[arg-type]
        verb = re.sub(r"/\{\w+\}$", "", operation.path).rpartition("/")[2]
        assert verb in text, verb
    for route in durable_routes(Served(None, None, None, "hub"), BASE):  # type: ignore[arg-type]
        verb = route.path.rpartition("/")[2].strip("[]{}")
        assert verb in text or verb in {
            "instanceId",
            "functionName",
            "eventName",
            "name",
            "key",
            "makeprimary",
        }, verb
