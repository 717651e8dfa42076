"""``durably exec`` on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

from tests.integration.cli.programs import PATIENCE_S, Folder

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Terminal:
    """A program whose stderr is a terminal."""

    def __init__(self, process: subprocess.Popen[str], screen: int) -> None:
        self.process = process
        self.seen = ""
        self._screen = screen

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


@contextlib.contextmanager
def terminal(folder: Folder, *arguments: str, **environment: str) -> Iterator[Terminal]:
    screen, stderr = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "durably", *arguments],
        cwd=folder.path,
        env=folder.environment
        | {"TERM": "xterm", "LINES": "30", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
        | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    os.close(stderr)
    with process:
        try:
            yield Terminal(process, screen)
        finally:
            process.kill()
            os.close(screen)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


STEPS = ("exec", "shop.py", "steps", "--id", "s1", "-i", '["a", "b"]')


def test_a_tree_that_moves_and_stays(folder: Folder):
    with terminal(folder, *STEPS, HOLD="b") as shown:
        shown.read_until("└─ ⠋ work")
        folder.write("release", "")
        picture = shown.read_until(None)
        assert shown.process.wait(PATIENCE_S) == 0
        assert shown.process.stdout is not None
        assert shown.process.stdout.read() == '[\n  "A",\n  "B"\n]\n'
    last = plain(picture[picture.rindex("steps  s1") :])
    assert 'completed · custom status {"total":2}' in last
    assert "├─ ✓ work" in last
    assert "└─ ✓ work" in last
    assert "working on b" in plain(picture)
    assert "\x1b[32m" in picture  # green
    assert picture.rindex(SHOW_CURSOR) > picture.rindex(HIDE_CURSOR)


def test_ctrl_c_gives_the_cursor_back_and_a_drain_ends_after_its_time(folder: Folder):
    with terminal(folder, *STEPS, HOLD="a", DURABLY_DRAIN_TIMEOUT_S="0.6", NO_COLOR="1") as shown:
        shown.read_until("─ ⠋ work")
        shown.process.send_signal(signal.SIGINT)
        picture = shown.read_until(None)
        assert shown.process.wait(PATIENCE_S) == 130
    assert picture.rindex(SHOW_CURSOR) > picture.rindex(HIDE_CURSOR)
    assert "exec shop.py steps --id s1\r\n" in picture
    assert "Stopping: waiting up to 0.6 s for 1 activity" in picture
    assert "\x1b[3" not in picture  # no colour


def test_no_color(folder: Folder):
    with terminal(folder, *STEPS, "--no-color") as shown:
        picture = shown.read_until(None)
        assert shown.process.wait(PATIENCE_S) == 0
    assert "\x1b[3" not in picture
    assert "✓ work" in picture
