"""``durably run --processes``: one control process, workers that come and go, and nothing that is refused or lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from durably import Client, RuntimeStatus
from tests.integration.postgres.controlled import PROGRAM, Controlled, gone, until
from tests.support.postgres import PostgresServer

LOUD = """
@app.activity
def shout(path: str) -> None:
    with open(path, "w") as progress:
        for number in range(5_000):
            print("x" * 1_000, number)
            print(number, file=progress, flush=True)

@app.route("mutter")
async def mutter(request) -> str:
    print("on the loop, which waits, too")
    return "said"

@app.orchestrator
async def loud(ctx: OrchestrationContext, path: str) -> None:
    await ctx.call_activity(shout, path)
"""

pytestmark = pytest.mark.slow_once


@pytest.fixture
def controlled(server: PostgresServer, tmp_path: Path) -> Controlled:
    return Controlled(tmp_path, server.url(f"procs_{os.urandom(4).hex()}"))


class Load(threading.Thread):
    """Asks again and again, by new connections and by one that is kept, and starts instances."""

    def __init__(self, controlled: Controlled) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{controlled.port}"
        self.hub = controlled.hub
        self.over = threading.Event()
        self.wrong: list[str] = []
        self.revisions: list[str] = []
        self.started: list[str] = []

    def run(self) -> None:
        with httpx.Client(timeout=30) as kept:
            while not self.over.is_set():
                number = len(self.started)
                try:
                    for answer in (
                        httpx.get(f"{self.url}/api/who", timeout=30),
                        kept.get(f"{self.url}/api/who"),
                        kept.post(
                            f"{self.url}/api/v1/instances",
                            json={"instanceId": f"i{number}", "name": "chain", "input": 0},
                        ),
                    ):
                        if answer.status_code >= 300:
                            self.wrong.append(f"{answer.status_code} {answer.text}")
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))
                    continue
                self.started.append(f"i{number}")
                self.revisions.append(kept.get(f"{self.url}/api/who").text.split()[0])

    async def outcome(self) -> list[int]:
        """Wait for all that was started; what is not three steps further is lost or doubled."""
        async with Client(self.hub) as client:
            rows = [await client.wait_for_completion(one, timeout=60) for one in self.started]
        assert {row.runtime_status for row in rows} == {RuntimeStatus.Completed}
        return [row.output for row in rows]


def test_a_rolling_restart_under_load_refuses_nothing_and_loses_nothing(controlled: Controlled) -> None:
    with controlled.run("2") as control:
        controlled.wait_for("is ready (pid", 2)
        before = controlled.ready()
        assert controlled.said.count("Serving postgresql://") == 1
        load = Load(controlled)
        load.start()
        try:
            until(lambda: len(load.started) > 5, "nothing is served")
            controlled.write("raise RuntimeError('half saved')")
            control.send_signal(signal.SIGHUP)
            controlled.wait_for("The processes that are left go on with the code that they have")
            controlled.write(PROGRAM.replace("REVISION = 1", "REVISION = 2"))
            control.send_signal(signal.SIGHUP)
            controlled.wait_for("All processes are replaced")
            seen = len(load.started)
            until(lambda: len(load.started) > seen + 5, "nothing is served any more")
        finally:
            load.over.set()
            load.join(60)
        assert load.wrong == []
        assert load.revisions[0] == "1"
        assert load.revisions[-1] == "2"
        assert all(gone(pid) for pid in before.values())
        assert set(asyncio.run(load.outcome())) == {3}

        # One that is killed is replaced, and what it did is done by another one.
        os.kill(controlled.ready()[5], signal.SIGKILL)
        controlled.wait_for("Process 5 was killed by signal 9: another one takes its place")
        controlled.wait_for("Process 6 is ready")

        # Text has the number of its process, and JSON is still JSON.
        async def talk() -> None:
            async with Client(controlled.hub) as client:
                await (await client.start("talk", "hello")).result(timeout=60)

        asyncio.run(talk())
        controlled.wait_for('"text": "hello"')
        lines = controlled.said.splitlines()
        assert {"[4] hello", "[6] hello"} & set(lines)
        (line,) = [line for line in lines if '"text": "hello"' in line]
        assert json.loads(line)["process"] in {4, 6}

        # Without control there is no reason to go on.
        control.kill()
        control.wait(30)
        until(
            lambda: all(gone(pid) for pid in controlled.ready().values()),
            "workers outlive the control process",
        )
        assert controlled.said.count("The control process is gone: stopping") == 2
        assert controlled.said.splitlines()[-2:] == ["Stopped", "Stopped"]


def test_what_dies_at_start_again_and_again_ends_all(controlled: Controlled) -> None:
    controlled.write("import os\nos._exit(3)")
    began = time.monotonic()
    with controlled.run("2", "--no-http") as control:
        assert control.wait(60) == 3
    assert time.monotonic() - began > 3.75, "the pauses between five starts"
    assert (
        "Process 5 ended with exit code 3 before it was ready, the 5th in a row, and no other one serves: it said above why"
        in controlled.said
    )


def test_an_app_that_is_not_there_is_told_once(controlled: Controlled) -> None:
    (controlled.folder / "app.py").unlink()
    with controlled.run("2", "--no-http") as control:
        assert control.wait(60) == 2
    assert controlled.said.count("app.py") == 1


def test_without_work_there_is_no_process_until_a_message_a_timer_or_a_request_comes(
    controlled: Controlled,
) -> None:
    async def started() -> None:
        async with Client(controlled.hub) as client:
            await client.start("later", 8, instance_id="t")

    async def ended() -> RuntimeStatus:
        async with Client(controlled.hub) as client:
            return (await client.wait_for_completion("t", timeout=60)).runtime_status

    with controlled.run("0:2", DURABLY_SCALE_DOWN_S="1") as control:
        controlled.wait_for("Process 1 is ready")
        controlled.wait_for("Process 1 has stopped")
        asyncio.run(started())
        controlled.wait_for("Process 2 is ready")  # it sees the message, and sleeps
        controlled.wait_for("Process 2 has stopped")
        assert asyncio.run(ended()) == RuntimeStatus.Completed
        assert "Process 3 is ready" in controlled.said
        controlled.wait_for("Process 3 has stopped")
        answer = controlled.ask("api/who")
        controlled.wait_for("Process 4 is ready")
        assert answer.split() == ["1", str(controlled.ready()[4])]
        control.send_signal(signal.SIGTERM)
        assert control.wait(30) == 0


def test_when_nobody_reads_what_is_printed_the_control_process_goes_on(controlled: Controlled) -> None:
    controlled.write(PROGRAM + LOUD)
    progress = controlled.folder / "progress"
    reads, writes = os.pipe()

    def pid() -> int:
        try:
            return int(controlled.ask("api/who").split()[1])
        except OSError:  # nobody serves yet
            return 0

    async def start() -> None:
        async with Client(controlled.hub) as client:
            await client.start("loud", str(progress))

    def stands_still() -> bool:
        size = progress.stat().st_size if progress.exists() else 0
        time.sleep(0.3)
        return 0 < size == progress.stat().st_size

    with controlled.run("1", into=writes, DURABLY_DRAIN_TIMEOUT_S="1") as control:
        os.close(writes)
        until(lambda: pid() > 0, "nobody serves")
        first = pid()
        asyncio.run(start())
        until(stands_still, "it prints on")
        assert int(progress.read_text().split()[-1]) < 2_000, "what pipes hold, and a mebibyte"
        os.kill(first, signal.SIGKILL)
        progress.unlink()
        until(lambda: pid() not in {0, first}, "the worker is not replaced")
        until(stands_still, "the other one does not print, or prints on")
        with socket.create_connection(("127.0.0.1", controlled.port)) as wire:
            wire.sendall(b"GET /api/mutter HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.2)
            control.send_signal(signal.SIGTERM)
            assert control.wait(10) == 0, "also who waits in a write on its loop stops"
    with os.fdopen(reads, "rb") as pipe:
        *lines, _ = pipe.read().split(b"\n")
    shouted = [line for line in lines if line.startswith(b"[1] x")]
    assert shouted == [b"[1] %b %d" % (b"x" * 1_000, number) for number in range(len(shouted))]
    assert len(shouted) > 50
    assert len(lines) - len(shouted) < 20, "nothing is cut"
