"""docs/http.md says what is true: its example runs against a service that takes its time."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.web import Asked, Said, Web

PAGE = Path(__file__).parents[2] / "docs" / "http.md"


@pytest.mark.parametrize(
    ("statuses", "result"),
    [
        ([202, 202, 200], "https://reports.test/2026-10.pdf"),
        ([404], "status 404"),
    ],
)
def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, statuses: list[int], result: str) -> None:
    space: dict[str, Any] = {"__name__": "page"}
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0], space)
    left = list(statuses)

    def answer(asked: Asked) -> Said:
        body = json.dumps({"url": "https://reports.test/2026-10.pdf"}).encode()
        return Said(left.pop(0), {"location": "/reports/1", "retry-after": "0"}, body)

    async def main() -> None:
        async with Web(answer) as web:
            monkeypatch.setenv("REPORTS_URL", web.url(""))
            monkeypatch.setenv("REPORTS_TOKEN", "tok")
            monkeypatch.setenv("DURABLY_HTTP_ALLOW_NETWORKS", "127.0.0.1")
            async with space["app"].host("memory://") as host:
                handle = await host.client.start("report", "2026-10")
                assert await handle.result(timeout=30) == result
            first = web.requests[0]
            assert (first.method, first.path, first.body) == ("POST", "/reports", b'{"month":"2026-10"}')
            assert {one.headers["authorization"] for one in web.requests} == {"Bearer tok"}
            assert len(web.requests) == len(statuses)

    asyncio.run(main())
