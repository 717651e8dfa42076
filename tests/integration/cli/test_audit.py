"""``durably audit``, and what a host that is killed leaves of its audit log."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from durably.http_api.links import BASE
from durably.security.audit_chain import verify
from tests.integration.cli.programs import Folder, Run
from tests.integration.cli.test_run_http import HTTP, WEB, announced, url_of


@pytest.mark.slow_once
def test_every_change_that_was_answered_is_recorded_when_the_host_is_killed(folder: Folder, run: Run) -> None:
    folder.write("web.py", WEB)
    answered: list[str] = []

    async def start_until_killed(url: str, key: str, kill: int) -> None:
        async with httpx.AsyncClient(base_url=url, headers={"x-functions-key": key}) as http:

            async def start(number: int) -> None:
                answer = await http.post(f"{BASE}/orchestrators/order/o{number}", json=[])
                assert answer.status_code == 202
                answered.append(f"o{number}")
                if len(answered) == kill:
                    process.kill()

            await asyncio.gather(*(start(number) for number in range(200)), return_exceptions=True)

    with folder.started("run", "web.py", **HTTP) as process:
        url = url_of(announced(process))
        key = run("keys", "renew", "system").out.strip()
        asyncio.run(start_until_killed(url, key, 60))
        process.wait()
    assert 60 <= len(answered) < 200
    listed = [json.loads(line) for line in run("audit", "list", "-o", "json").out.splitlines()]
    assert set(answered) <= {one.get("made") for one in listed}
    assert [one["action"] for one in listed].count("keys renew") == 1
    assert run("audit", "verify").code == 0

    with folder.started("run", "web.py", **HTTP) as process:
        answer = httpx.delete(f"{url_of(announced(process))}{BASE}/instances/%1B[2Jo1?reason=a%0Ab")
        assert answer.status_code == 401
    text = run("audit", "list", "--last", "1").out
    assert text.count("\n") == 1
    assert "401  anonymous  from 127.0.0.1  DELETE" in text
    assert "instanceId=\\x1b[2Jo1" in text
    assert "reason: a\\nb" in text
    verdict = run("audit", "verify")
    (log,) = Path(folder.path).glob("*.audit")
    assert (verdict.code, verdict.out.strip()) == (0, str(verify(log).head))
    assert verify(log).head.n == len(listed) + 1


def test_a_hub_without_a_file_has_no_log(run: Run) -> None:
    refused = run("audit", "list", "--hub", "memory://")
    assert refused.code == 2
    assert "DURABLY_HTTP_AUDIT_FILE" in refused.err
    empty = run("audit", "verify")
    assert (empty.code, "no records" in empty.err) == (0, True)
    assert run("audit", "verify", "--head", "1:x").code == 2
