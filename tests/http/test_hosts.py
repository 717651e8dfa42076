"""Names of hosts and origins that are none, or not ours: refused, and held off like any other failure."""

import asyncio
from pathlib import Path

import pytest

from durably.http_api.links import BASE
from durably.http_api.v1.operation import V1
from tests.http.scene import flows, serving


@pytest.mark.parametrize("allowed", ["", "*"])
def test_a_host_or_an_origin_that_is_no_name_is_refused(tmp_path: Path, allowed: str) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path, allowed_hosts=allowed) as scene:
            for base in (BASE, V1):
                for method in ("GET", "POST"):
                    path = f"{base}/instances/a/terminate" if method == "POST" else f"{base}/instances"
                    answer = await scene.http.request(method, path, headers={"host": "["})
                    assert answer.status_code == 421, answer.text
                for origin in ("http://[", "http://]"):
                    answer = await scene.http.post(
                        f"{base}/instances/a/terminate", headers={"origin": origin}
                    )
                    assert answer.status_code == 403, answer.text

    asyncio.run(whole())


@pytest.mark.parametrize("headers", [{"host": "evil.test"}, {"origin": "https://evil.test"}])
def test_pages_of_other_sites_are_held_off_and_fill_no_disk(tmp_path: Path, headers: dict[str, str]) -> None:
    async def whole() -> None:
        async with serving(flows(), tmp_path, max_failures_per_minute=5) as scene:
            path = f"{BASE}/instances/a/terminate"
            statuses = [(await scene.http.post(path, headers=headers)).status_code for _ in range(20)]
            assert statuses.count(429) >= 13
            log = (tmp_path / "orders.db.audit").read_text().splitlines()
            assert len(log) == 20 - statuses.count(429)

    asyncio.run(whole())
