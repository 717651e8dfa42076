"""Settings of a host over HTTP: how many functions run at once, and starts of what runs already."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durably import App, HttpOptions, UsageError
from tests.http.scene import asked, flows, serving


def test_functions_beyond_max_concurrent_requests_wait(tmp_path: Path) -> None:
    app = App()
    running: list[int] = []
    most: list[int] = []
    free = asyncio.Event()

    @app.route("work/{number:int}", auth_level="anonymous")
    async def work(number: int) -> str:
        running.append(number)
        most.append(len(running))
        await free.wait()
        running.remove(number)
        return str(number)

    async def main() -> None:
        async with serving(app, tmp_path, max_concurrent_requests=2) as scene:
            calls = [asyncio.create_task(scene.http.get(f"/api/work/{number}")) for number in range(5)]
            await asked(lambda: scene.call("GET", "/instances"), 200)  # management does not wait behind them
            while len(running) < 2:  # noqa: ASYNC110 - functions do not tell
                await asyncio.sleep(0.001)
            free.set()
            assert [(await call).text for call in calls] == ["0", "1", "2", "3", "4"]
            assert max(most) == 2

    asyncio.run(main())


def test_a_start_over_an_instance_that_runs_is_refused_or_replaces_it(tmp_path: Path) -> None:
    async def main(*, replace: bool) -> list[int]:
        folder = tmp_path / str(replace)
        folder.mkdir()
        async with serving(flows(), folder, replace_running=replace) as scene:
            answers = [await scene.call("POST", "/orchestrators/waits/i", json=number) for number in (1, 2)]
            status = await scene.call("GET", "/instances/i?showInput=true")
            return [*(answer.status_code for answer in answers), status.json()["input"]]

    assert asyncio.run(main(replace=False)) == [202, 409, 1]
    assert asyncio.run(main(replace=True)) == [202, 202, 2]


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(
        UsageError, match="max_concurrent_requests is -1: expected 1 or more, or 0 for no limit"
    ):
        HttpOptions(max_concurrent_requests=-1)
