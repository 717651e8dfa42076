"""What orchestrator code may not do is refused while a turn runs, and only then, and only there."""

from __future__ import annotations

import asyncio
import gc
import linecache
import logging
import logging.handlers
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from durably.errors import NonDeterministicCall
from durably.program.context import OrchestrationContext
from durably.program.run import ProgramOptions
from tests.unit.program.harness import Play

FORBIDDEN: dict[str, Callable[[], Any]] = {
    "open": Path(__file__).read_text,
    "write": lambda: Path("never-written").write_text("x"),
    "os.open": lambda: os.open(__file__, os.O_RDONLY),
    "listdir": lambda: os.listdir("."),  # noqa: PTH208 - it is what is tested
    "scandir": lambda: list(os.scandir(".")),
    "mkdir": lambda: Path("never-made").mkdir(),
    "remove": lambda: Path("never-there").unlink(),
    "sleep": lambda: time.sleep(0.001),
    "socket": socket.socket,
    "connect": lambda: socket.create_connection(("localhost", 9)),
    "resolve": lambda: socket.getaddrinfo("localhost", 9),
    "gethostname": socket.gethostname,
    "url": lambda: urllib.request.urlopen("http://localhost:9"),
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""], check=False),
    "system": lambda: os.system("true"),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "fork": os.fork,
    "kill": lambda: os.kill(os.getpid(), 0),
    "thread": lambda: threading.Thread(target=int).start(),
    "pool": lambda: ThreadPoolExecutor(1).submit(int),
    "sqlite": lambda: sqlite3.connect(":memory:"),
    "environment": lambda: os.environ.__setitem__("DURABLY_TEST", "1"),
}


async def does(ctx: OrchestrationContext, name: str) -> str:
    try:
        FORBIDDEN[name]()
    except NonDeterministicCall as error:
        return str(error)
    return "done"


@pytest.mark.parametrize("name", FORBIDDEN)
def test_4_1_15_what_a_replay_could_not_repeat_is_caught(name: str) -> None:
    text = Play(does, name).result
    assert text.startswith("Orchestrator of instance 'play' tried to ")
    assert "a replay could not repeat it; " in text


def test_the_cure_is_named() -> None:
    assert Play(does, "open").result.endswith("call it in an activity: await ctx.call_activity(...)")
    assert "await asyncio.sleep(...)" in Play(does, "sleep").result


def test_the_guard_can_be_switched_off() -> None:
    assert Play(does, "listdir", options=ProgramOptions(guards=False)).result == "done"


def test_the_guard_also_watches_a_plain_function_and_a_predicate_of_types() -> None:
    def plain(ctx: OrchestrationContext) -> None:
        Path(__file__).read_text()

    assert Play(plain).failed.type == "NonDeterministicCall"


def test_nothing_is_refused_between_turns_and_after_them() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("a")

    play = Play(program)
    assert Path(__file__).read_text()
    play.complete(0)
    assert Path(__file__).read_text()


def test_other_threads_are_left_alone_during_a_turn() -> None:
    begin, done = threading.Event(), threading.Event()
    read: list[int] = []

    def work() -> None:
        begin.wait()
        read.append(len(Path(__file__).read_text()))
        time.sleep(0.001)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()

    async def program(ctx: OrchestrationContext) -> bool:
        begin.set()
        return done.wait(10)

    assert Play(program, shadow=False).result is True
    thread.join()
    assert read


def test_a_first_import_within_a_turn_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_in_a_turn.py").write_text("value = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    async def program(ctx: OrchestrationContext) -> int:
        import imported_in_a_turn  # type: ignore[import-not-found]

        value: int = imported_in_a_turn.value
        return value

    assert Play(program).result == 5


def test_loggers_that_open_files_work(tmp_path: Path) -> None:
    logger = logging.getLogger("test_loggers_that_open_files")
    handler = logging.handlers.RotatingFileHandler(tmp_path / "log", maxBytes=40, backupCount=2, delay=True)
    logger.addHandler(handler)

    async def program(ctx: OrchestrationContext) -> None:
        for i in range(5):
            logger.error("line %d of a log that rolls over", i)

    try:
        Play(program, shadow=False)
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert "line 4" in (tmp_path / "log").read_text()


def test_finalizers_of_others_that_run_in_a_turn_work(tmp_path: Path) -> None:
    class Holder:
        def __init__(self) -> None:
            self.me = self
            self.path = tmp_path / "held"
            self.path.touch()

        def __del__(self) -> None:
            self.path.unlink()

    Holder()

    async def program(ctx: OrchestrationContext) -> None:
        gc.collect()

    folder = tempfile.TemporaryDirectory(dir=tmp_path)
    ring: list[Any] = [folder]
    ring.append(ring)
    inner = Path(folder.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del folder, ring
        Play(program, shadow=False)
    assert not (tmp_path / "held").exists()
    assert not inner.exists()


def test_tracebacks_warnings_and_time_zones_work() -> None:
    async def program(ctx: OrchestrationContext) -> list[bool]:
        try:
            raise ValueError("no")
        except ValueError:
            text = traceback.format_exc()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn("careful", stacklevel=1)
        zone = ZoneInfo.no_cache("Europe/Berlin")
        return [
            "raise ValueError" in text,
            len(caught) == 1,
            ctx.current_utc_datetime.astimezone(zone).hour == 23,
        ]

    linecache.clearcache()
    assert Play(program).result == [True, True, True]


def test_a_host_program_that_was_imported_is_no_excuse(tmp_path: Path) -> None:
    """The stack below the turn may hold frames of the import machinery: they do not count."""
    (tmp_path / "host_program.py").write_text(
        "from tests.unit.program.harness import Play\n"
        "from tests.unit.program.test_guards import does\n"
        "result = Play(does, 'open').result\n"
    )
    root = Path(__file__).parents[3]
    paths = os.pathsep.join(str(path) for path in (root / "src", root, tmp_path))
    output = subprocess.run(
        [sys.executable, "-c", "import host_program; print(host_program.result)"],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "tried to open files" in output


def test_a_turn_on_a_host_loop_is_guarded_as_well() -> None:
    async def main() -> str:
        text: str = Play(does, "socket").result
        return text

    assert "use the network" in asyncio.run(main())
