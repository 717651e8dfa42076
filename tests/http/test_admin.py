"""What a host tells about its functions, and whom."""

import asyncio
from pathlib import Path

from tests.http.scene import flows, serving


def test_functions_are_listed_for_who_may_read(tmp_path: Path) -> None:
    app = flows()

    @app.route("orders/{number}", methods=["POST", "PUT"], auth_level="admin")
    async def place(number: str) -> str:
        return number

    async def run() -> None:
        async with serving(app, tmp_path) as scene:
            assert (await scene.http.get("/admin/functions")).status_code == 401
            host_key = scene.keys.renew("host", "default", None)
            refused = await scene.http.get("/admin/functions", headers={"x-functions-key": host_key})
            assert refused.status_code == 403
            for key in (scene.key, scene.master):
                answer = await scene.http.get("/admin/functions", headers={"x-functions-key": key})
                assert answer.status_code == 200
                found = {one["name"]: one for one in answer.json()}
                trigger = found["place"]["config"]["bindings"][0]
                assert trigger == {
                    "type": "httpTrigger",
                    "direction": "in",
                    "name": "req",
                    "route": "orders/{number}",
                    "methods": ["POST", "PUT"],
                    "authLevel": "admin",
                }
                assert found["place"]["invoke_url_template"] == f"{scene.url}/api/orders/{{number}}"
                kinds = {name: one["config"]["bindings"][0]["type"] for name, one in found.items()}
                assert kinds["shout"] == "orchestrationTrigger"
                assert kinds["upper"] == "activityTrigger"
                assert kinds["counter"] == "entityTrigger"

    asyncio.run(run())
