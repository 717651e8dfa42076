"""docs/patterns.md says what is true: each of its programs runs, and has 25 lines at most."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import App, Client, HttpPolicy, OrchestrationFailedError
from durably.testing import DurableEnvironment
from tests.support.web import Asked, Said, Web

PAGE = Path(__file__).parents[2] / "docs" / "patterns.md"
PROGRAMS: dict[str, str] = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL))


class Program:
    """A program of the page, as a module that was imported."""

    def __init__(self, name: str) -> None:
        self.names: dict[str, Any] = {"__name__": name.removesuffix(".py")}
        exec(compile(PROGRAMS[name], name, "exec", dont_inherit=True), self.names)
        self.app: App = self.names["app"]

    def __getattr__(self, name: str) -> Any:
        return self.names[name]

    def live(self, story: Callable[[DurableEnvironment], Awaitable[Any]], **options: Any) -> Any:
        async def scenario() -> Any:
            async with DurableEnvironment(self.app, **options) as env:
                return await story(env)

        return asyncio.run(scenario())


def test_there_are_seven_programs_each_with_25_lines_at_most() -> None:
    assert len(PROGRAMS) == PAGE.read_text().count("```python") == 7
    assert {
        name: len(code.splitlines()) for name, code in PROGRAMS.items() if len(code.splitlines()) > 25
    } == {}


def test_chaining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("To be or not to be or to sleep or not")
    result = Program("chaining.py").live(lambda env: env.run("report", "text.txt"))
    assert result == "words.txt"
    assert Path("words.txt").read_text() == "to 3\nor 3\nbe 2\n"


@pytest.mark.slow_once
def test_chaining_by_the_command_of_the_page(tmp_path: Path) -> None:
    (command,) = re.findall(r"\$ (durably exec .*)", PAGE.read_text())
    (tmp_path / "chaining.py").write_text(PROGRAMS["chaining.py"])
    (tmp_path / "README.md").write_text("a b a")
    done = subprocess.run(
        command.replace("durably", f"{sys.executable} -m durably", 1),
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (0, '"words.txt"\n'), done.stderr
    assert (tmp_path / "words.txt").read_text() == "a 2\nb 1\n"


def test_fan_out(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for n in range(20):
        (tmp_path / "folder" / f"{n}").write_bytes(b"x" * n)
    assert Program("fan_out.py").live(lambda env: env.run("disk_usage", str(tmp_path))) == sum(range(20))


def test_async_http() -> None:
    """Both sides on one hub: the caller asks a real server, whose handlers are those of the page."""
    program = Program("async_http.py")
    program.app.include(app := App(http=HttpPolicy(allow_networks=("127.0.0.0/8",))))
    app.include(program.app)
    statuses: list[tuple[str, int]] = []

    async def main() -> tuple[str, int]:
        async with app.host("memory://") as host, Web() as web:

            async def answer(asked: Asked) -> Said:
                handler = program.post_cake if asked.method == "POST" else program.get_cake
                status, headers, body = await handler(host.client, asked.path.rpartition("/")[2])
                statuses.append((asked.method, status))
                return Said(status, headers, b"" if body is None else json.dumps(body).encode())

            web.answers = answer
            handle = await host.client.start("order", web.url("/cakes/lemon"))
            status, _, _ = await program.get_cake(host.client, "carrot")
            return await handle.result(timeout=20), status

    assert asyncio.run(main()) == ("lemon, ready", 404)
    assert (statuses[0], statuses[-1]) == (("POST", 202), ("GET", 200))
    assert set(statuses[1:-1]) == {("GET", 202)}


def test_monitor(tmp_path: Path) -> None:
    program = Program("monitor.py")
    file = tmp_path / "file"

    async def story(env: DurableEnvironment) -> tuple[str, int]:
        handle = await env.start("wait_for_file", program.Watch(str(file)), instance_id="watch")
        await env.advance(timedelta(days=1))
        file.touch()
        await env.advance(timedelta(minutes=5))
        return await handle.result(), len(await handle.history())

    result, events = program.live(story, auto_skip=False)
    assert result == f"there at look {24 * 12 + 2}"
    assert events < 15


@pytest.mark.parametrize(("answer", "result"), [(True, "approved"), (False, "rejected"), (None, "escalated")])
def test_human_interaction(answer: bool | None, result: str) -> None:
    program = Program("approval.py")

    async def story(env: DurableEnvironment) -> tuple[str, timedelta]:
        began = env.now
        handle = await env.start("approve", "a chair")
        if answer is not None:
            await handle.raise_event("Approval", answer)
        return await handle.result(), env.now - began

    waited = timedelta(days=3) if answer is None else timedelta()
    assert program.live(story) == (result, waited)
    reminder = ["nobody has decided on a chair"] if answer is None else []
    assert program.mails == ["please decide on a chair", *reminder]


def test_aggregator() -> None:
    program = Program("stations.py")

    async def story(env: DurableEnvironment) -> tuple[str, float]:
        client: Client = env.client
        readings = [("Oslo", float(n % 7)) for n in range(50)] + [("Rome", 20.0), ("Rome", 24.0)]
        await asyncio.gather(*(program.report(client, town, celsius) for town, celsius in readings))
        return await env.run("warmest", ["Oslo", "Rome"]), await client.call_entity("@station@Rome", "mean")

    assert program.live(story) == ("Rome", 22.0)


@pytest.mark.parametrize("city", ["Oslo", "Atlantis"])
def test_saga(city: str) -> None:
    program = Program("trip.py")
    booked = ["booked a flight", "booked a car"]
    if city == "Oslo":
        assert program.live(lambda env: env.run("trip", city)) == "off to Oslo"
        assert program.log == [*booked, "booked a hotel in Oslo"]
    else:
        with pytest.raises(OrchestrationFailedError, match="no such place"):
            program.live(lambda env: env.run("trip", city))
        assert program.log == [*booked, "canceled a car", "canceled a flight"]
