"""Outputs of HTTP functions: there before the answer is, and not when the function raised."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import pytest
from starlette.exceptions import HTTPException

from durably import App, BlobOutput, Out, QueueOutput, RegistrationError
from tests.http.scene import serving


def shop() -> App:
    app = App()

    @app.route("orders/{number}", methods=["POST"], auth_level="anonymous")
    def place(
        number: str,
        order: dict[str, Any],
        out: Annotated[Out[dict[str, Any]], QueueOutput("orders")],
        receipt: Annotated[Out[str], BlobOutput("receipts/{Number}.txt")],
    ) -> str:
        out.add(order)
        out.add(order)
        receipt.set(f"order {number}")
        if order.get("item") == "nothing":
            raise HTTPException(409, "there is no such thing")
        return "taken"

    return app


def test_the_answer_comes_behind_the_outputs(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(shop(), tmp_path) as scene:
            queue, receipts = scene.host.client.queue("orders"), scene.host.blobs("receipts")
            for asked in (1, 2):  # each request is one of its own
                answer = await scene.http.post("/api/orders/7", json={"item": "tea"})
                assert (answer.status_code, answer.text) == (200, "taken")
                assert await queue.count() == 2 * asked
            assert await receipts.read("7.txt") == b"order 7"

            refused = await scene.http.post("/api/orders/8", json={"item": "nothing"})
            assert refused.status_code == 409
            assert await queue.count() == 4
            assert [one.name async for one in receipts.list()] == ["7.txt"]

            outside = await scene.http.post("/api/orders/..%2F..%2Fup", json={"item": "tea"})
            assert outside.status_code == 400, outside.text
            assert outside.json()["ExceptionType"] == "InvalidTextError"
            assert await queue.count() == 4

    asyncio.run(main())
    assert not list(tmp_path.glob("up*"))


def test_a_store_that_refuses_is_told_as_503(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "blobs").write_text("a file is where the folder should be")
        async with serving(shop(), tmp_path) as scene:
            answer = await scene.http.post("/api/orders/7", json={"item": "tea"})
            assert (answer.status_code, answer.json()["ExceptionType"]) == (503, "BrokerError")

    asyncio.run(main())


def test_a_name_that_is_not_in_the_route_is_found_out_at_the_start(tmp_path: Path) -> None:
    app = App()

    @app.route("orders/{number}")
    def place(number: str, receipt: Annotated[Out[str], BlobOutput("receipts/{nmber}")]) -> None: ...

    async def main() -> None:
        async with serving(app, tmp_path):
            pass

    with pytest.raises(
        RegistrationError, match=r"HTTP function 'place', output 'receipt', has \{nmber\}.*\{number\}"
    ):
        asyncio.run(main())
