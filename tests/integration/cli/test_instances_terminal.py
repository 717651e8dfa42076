"""``durably instances`` on a terminal: tables that fit, colours, bars, questions."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.integration.cli import scene
from tests.integration.cli.programs import PATIENCE_S, Folder

pytestmark = pytest.mark.slow_once


class Terminal:
    """A program that has a terminal for stdin, stdout and stderr."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self.seen = ""
        self._screen = screen

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def read_until(self, text: str | None) -> str:
        """What has been written up to a text, or to the end."""
        while text is None or text not in plain(self.seen):
            try:
                data = os.read(self._screen, 65_536)
            except OSError:  # the program has ended
                data = b""
            if not data:
                assert text is None, self.seen
                break
            self.seen += data.decode()
        return self.seen

    def end(self) -> tuple[int, str]:
        """The exit code, and all that was written."""
        seen = self.read_until(None)
        return self.process.wait(PATIENCE_S), seen


@contextlib.contextmanager
def terminal(folder: Folder, *arguments: str, columns: int = 100, **environment: str) -> Iterator[Terminal]:
    screen, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "durably", *arguments],
        cwd=folder.path,
        env=folder.environment
        | {"TERM": "xterm", "LINES": "30", "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"}
        | environment,
        stdin=end,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    with process:
        try:
            yield Terminal(process, screen)
        finally:
            process.kill()
            os.close(screen)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def shown(folder: Folder, *arguments: str, **options: object) -> str:
    with terminal(folder, *arguments, **options) as one:  # type: ignore[arg-type]
        return one.end()[1]


def test_a_table_fits_and_has_colours_only_where_they_are_wanted(folder: Folder):
    scene.build(folder.path, scene.one_of_each)
    wide = shown(folder, "instances", "list", columns=140)
    assert "UPDATED" in wide
    assert "\x1b[31mFailed\x1b[0m" in wide
    assert "No host serves the hub: what is Pending starts when the next one does" in wide
    narrow = plain(shown(folder, "instances", "list", columns=60))
    assert "UPDATED" not in narrow
    assert max(len(line) for line in narrow.splitlines()[:10]) <= 60
    tiny = plain(shown(folder, "instances", "list", columns=52))
    assert "parent-1…" in tiny
    assert max(len(line) for line in tiny.splitlines()[:10]) <= 52
    for plainly in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b[3" not in shown(folder, "instances", "list", **plainly)
    assert "\x1b[3" not in shown(folder, "instances", "list", "--no-color")
    history = plain(shown(folder, "instances", "history", "failed-1", "--payloads", columns=80))
    assert max(len(line) for line in history.splitlines()) <= 80
    doctor = plain(shown(folder, "doctor", columns=60))
    assert max(len(line) for line in doctor.splitlines()) <= 60


def test_a_question_a_bar_and_what_failed(folder: Folder):
    scene.build(folder.path, scene.many(150))
    listing = plain(shown(folder, "instances", "list"))
    assert "These are the first 100: there may be more, --all lists every one" in listing
    command = ("instances", "suspend", "--name", "approve")
    with terminal(folder, *command) as asked:
        asked.read_until("Suspend 150 instances? [y/N]: ")
        asked.type("n\n")
        code, seen = asked.end()
    assert (code, "Nothing was done" in seen) == (1, True)
    with terminal(folder, "instances", "terminate", "wait-000001", "nope", "wait-000002") as asked:
        asked.read_until("Terminate 3 instances? [y/N]: ")
        asked.type("y\n")
        code, seen = asked.end()
    assert code == 4
    assert "Error: nope: Instance 'nope' is not in this hub" in plain(seen)
    assert "2 instances terminated, 1 failed" in seen
    bar = plain(shown(folder, *command, "--yes"))
    assert "Suspend ━" in bar
    assert "/150" in bar
    assert "150 instances suspended" in bar
    quiet = shown(folder, *command, "--yes", "-q")
    assert "━" not in quiet
    one = shown(folder, "instances", "resume", "wait-000001")
    assert "?" not in plain(one)  # one needs no question
