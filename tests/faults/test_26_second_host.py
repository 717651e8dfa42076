"""Scenario 26: a second host on the same file, as real processes of `durably run`."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durably.cli.output import Exit
from tests.faults.children import line_of, program

APP = """
from durably import App
app = App()

@app.orchestrator
async def nothing(ctx):
    return None
"""


@contextmanager
def host(folder: Path) -> Iterator[subprocess.Popen[str]]:
    (folder / "flows.py").write_text(APP)
    with program("durably", "run", "flows.py", "--hub", "sqlite:///hub.db", cwd=folder) as process:
        yield process


def serves(process: subprocess.Popen[str]) -> bool:
    """True once it has said so; False when it ended instead."""
    while line := line_of(process):
        if line.startswith("Ready"):
            return True
    return False


@pytest.mark.slow_once
def test_the_second_host_exits_and_names_the_first_which_goes_on(tmp_path: Path) -> None:
    with host(tmp_path) as first:
        assert serves(first)
        with host(tmp_path) as second:
            assert not serves(second)
            assert second.wait(60) == Exit.CONFLICT
            assert second.stderr is not None
            said = second.stderr.read()
        for words in ("hub.db", f"pid {first.pid} on {os.uname().nodename}", "since", "stop that host first"):
            assert words in said, said
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == Exit.OK


@pytest.mark.slow_once
def test_the_lock_of_a_host_that_died_is_taken_over(tmp_path: Path) -> None:
    with host(tmp_path) as first:
        assert serves(first)
        first.kill()
        first.wait()
        assert str(first.pid) in (tmp_path / "hub.db.lock").read_text()
    with host(tmp_path) as second:
        assert serves(second)
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == Exit.OK


@pytest.mark.slow_once
def test_a_host_that_is_only_frozen_keeps_its_hub(tmp_path: Path) -> None:
    """No lease runs out on a single file: who sleeps for an hour still owns it."""
    with host(tmp_path) as first:
        assert serves(first)
        first.send_signal(signal.SIGSTOP)
        with host(tmp_path) as second:
            assert not serves(second)
            assert second.wait(60) == Exit.CONFLICT
        first.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == Exit.OK
