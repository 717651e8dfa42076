"""Runs the tests on every Python found: DEFAULT_PYTHON in `.venv`, each other in its own `.venvs/<minor>`.

Usage: scripts/test_matrix.py DEFAULT_PYTHON JOBS [PYTEST_ARGUMENT ...]

Each run writes to a log of its own, so that runs side by side stay readable: the end of the log is printed when it passed,
all of it when it failed. Tests marked `slow_once` run on DEFAULT_PYTHON only, and take longer than all others. They are
three runs of their own: those that drive programs and servers (`default_only`), which mostly wait, in two halves, of which
`faults` is one; and the rest. Tests marked `default_only` run there as well; those marked `ends_only` are left out on
interpreters between the oldest one and DEFAULT_PYTHON. A choice of marks (`-m`) runs on all of them what it chooses. One
failure fails all; so does a run of nothing but runs without tests.
"""

import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent.parent
TAIL_LINES = 3
NO_TESTS = 5
"""Exit code of pytest when nothing is left of what was asked for: a file may hold tests of one kind only."""

PROGRAMS = "slow_once and default_only and not faults"
FAULTS = "slow_once and default_only and faults"
ONCE = "slow_once and not default_only"
DEFAULT = "not slow_once"
OLDEST = f"{DEFAULT} and not default_only"
BETWEEN = f"{OLDEST} and not ends_only"

_CALLED = {PROGRAMS: "programs", FAULTS: "faults", ONCE: "slow"}


@dataclass(frozen=True)
class Share:
    """Tests that one interpreter runs, one after the other.

    Attributes:
        minor: Of the interpreter, such as ``3.13``.
        python: Its path.
        marks: Which tests, as an expression of marks; "" for all.
        is_default: It is the interpreter that was chosen.
    """

    minor: str
    python: str
    marks: str
    is_default: bool

    @property
    def name(self) -> str:
        return f"{self.minor} {_CALLED[self.marks]}" if self.marks in _CALLED else self.minor


@dataclass(frozen=True)
class Run:
    """What became of a share."""

    share: Share
    exit_codes: list[int]
    seconds: float
    log: list[str]

    @property
    def passed(self) -> bool:
        return not any(code for code in self.exit_codes if code != NO_TESTS)

    @property
    def empty(self) -> bool:
        return NO_TESTS in self.exit_codes

    @property
    def summary(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        # The last line of pytest, without the ruler around it.
        last = self.log[-1].strip("= ") if self.log else "no output"
        return f"Python {self.share.name:13} {verdict} {self.seconds:6.1f} s   {last}"


def main() -> int:
    default, jobs, *pytest_arguments = sys.argv[1:]
    found = subprocess.run([ROOT / "scripts" / "pythons"], stdout=subprocess.PIPE, text=True, check=True)
    pythons = {minor_of(path): path for path in [*found.stdout.splitlines(), default]}
    print(f"Testing on Python {', '.join(pythons)} ({jobs} at a time)", flush=True)

    shares = shares_of(pythons, default, pytest_arguments)
    runs: list[Run] = []
    with ThreadPoolExecutor(int(jobs)) as pool:
        started = [pool.submit(test, share, pytest_arguments) for share in shares]
        for done in as_completed(started):
            run = done.result()
            runs.append(run)
            shown = run.log[-TAIL_LINES:] if run.passed else run.log
            print(f"\n--- Python {run.share.name} ---", *shown, sep="\n", flush=True)

    runs.sort(key=lambda run: shares.index(run.share))
    print("", *(run.summary for run in runs), sep="\n")
    return 0 if all(run.passed for run in runs) and not all(run.empty for run in runs) else 1


def shares_of(pythons: dict[str, str], default: str, pytest_arguments: list[str]) -> list[Share]:
    """All shares, those that are begun first in front: the slow tests are the one that is hardest to foresee."""

    def share(minor: str, marks: str) -> Share:
        return Share(minor, pythons[minor], marks, is_default=pythons[minor] == default)

    if any(argument.startswith("-m") for argument in pytest_arguments):
        return [share(minor, "") for minor in pythons]
    oldest = min(pythons, key=lambda minor: [int(part) for part in minor.split(".")])
    first = next(minor for minor, path in pythons.items() if path == default)
    others = [minor for minor in pythons if minor != first]
    return [
        share(first, PROGRAMS),
        share(first, FAULTS),
        share(first, DEFAULT),
        share(first, ONCE),
        *(share(minor, OLDEST if minor == oldest else BETWEEN) for minor in others),
    ]


def minor_of(python: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


_making: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def test(share: Share, arguments: list[str]) -> Run:
    # What the extra test lacks, the other interpreters show: the default one need not be set up twice.
    venv, extra = (ROOT / ".venv", "dev") if share.is_default else (ROOT / ".venvs" / share.minor, "test")
    log_path = ROOT / ".venvs" / f"{share.name.replace(' ', '-')}.log"
    log_path.parent.mkdir(exist_ok=True)
    selection = ["-m", share.marks] if share.marks else []
    start = time.monotonic()
    with log_path.open("wb") as log:
        with _making[share.minor]:  # two shares, one environment
            codes = [run([ROOT / "scripts" / "venv", share.python, venv, extra], log)]
            if not codes[
                0
            ]:  # else each program that a test starts compiles all of it, where bytecode is not kept
                codes.append(run([venv / "bin" / "python", "-m", "compileall", "-q", "src", "tests"], log))
        if not any(codes):
            codes.append(run([venv / "bin" / "python", "-m", "pytest", *selection, *arguments], log))
    lines = log_path.read_text(errors="replace").splitlines()
    return Run(share, codes, time.monotonic() - start, lines)


def run(command: list[Path | str], log: BinaryIO) -> int:
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
