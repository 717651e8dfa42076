"""Examples as their readers run them: one command in a process of its own, which a test may kill with -9."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 50.0


class Example:
    """`python -m examples.NAME --dir FOLDER`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self._command = [sys.executable, "-m", f"examples.{name}", "--dir", str(folder)]

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run it to its end; what it printed."""
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    @contextmanager
    def started(self, *arguments: str) -> Generator[subprocess.Popen[str]]:
        """A process that runs, and is gone at the end of the block."""
        process = subprocess.Popen(
            [*self._command, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def kill_at(self, words: str, *arguments: str) -> list[str]:
        """Run it until it prints a line with these words, and `kill -9` it then; the lines until then."""
        with self.started(*arguments) as process:
            lines = lines_until(words, process)
            assert process.poll() is None
        assert process.returncode == -9
        return lines

    def kill_when(self, condition: Callable[[], bool], *arguments: str) -> None:
        """Run it until something is true of its files, and `kill -9` it then."""
        deadline = time.monotonic() + PATIENCE_S
        with self.started(*arguments) as process:
            while not condition():
                assert process.poll() is None, process.stdout.read() if process.stdout else ""
                assert time.monotonic() < deadline
                time.sleep(0.005)
        assert process.returncode == -9

    def query(self, database: str, sql: str) -> list[Any]:
        """Read rows of a database of the example; none while it has not been made."""
        path = self.folder / database
        if not path.exists():
            return []
        with closing(sqlite3.connect(path, timeout=30)) as db:
            try:
                return db.execute(sql).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                return []


def lines_until(words: str, process: subprocess.Popen[str]) -> list[str]:
    """What a process prints, up to and with a line that has these words."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if words in line:
            return lines
    raise AssertionError(f"ended without '{words}': {lines}")
