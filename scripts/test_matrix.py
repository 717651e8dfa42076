"""Runs the tests on every Python found, each in its own virtual environment `.venvs/<minor>`.

Usage: scripts/test_matrix.py DEFAULT_PYTHON JOBS [PYTEST_ARGUMENT ...]

Each interpreter writes to a log of its own, so that runs side by side stay readable: the end of the log is printed when
it passed, all of it when it failed. Tests marked `slow_once` run on DEFAULT_PYTHON only. One failure fails all.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAIL_LINES = 3


@dataclass(frozen=True)
class Run:
    """What one interpreter had to say."""

    minor: str
    passed: bool
    seconds: float
    log: list[str]

    @property
    def summary(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        # The last line of pytest, without the ruler around it.
        last = self.log[-1].strip("= ") if self.log else "no output"
        return f"Python {self.minor:5} {verdict} {self.seconds:6.1f} s   {last}"


def main() -> int:
    default, jobs, *pytest_arguments = sys.argv[1:]
    found = subprocess.run([ROOT / "scripts" / "pythons"], stdout=subprocess.PIPE, text=True, check=True)
    pythons = {minor_of(path): path for path in [*found.stdout.splitlines(), default]}
    print(f"Testing on Python {', '.join(pythons)} ({jobs} at a time)", flush=True)

    runs: list[Run] = []
    with ThreadPoolExecutor(int(jobs)) as pool:
        started = [
            pool.submit(test, minor, path, is_default=path == default, arguments=pytest_arguments)
            # The default one takes as long as two others, so it begins.
            for minor, path in sorted(pythons.items(), key=lambda item: item[1] != default)
        ]
        for done in as_completed(started):
            run = done.result()
            runs.append(run)
            shown = run.log[-TAIL_LINES:] if run.passed else run.log
            print(f"\n--- Python {run.minor} ---", *shown, sep="\n", flush=True)

    runs.sort(key=lambda run: list(pythons).index(run.minor))
    print("", *(run.summary for run in runs), sep="\n")
    return 0 if all(run.passed for run in runs) else 1


def minor_of(python: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def test(minor: str, python: str, *, is_default: bool, arguments: list[str]) -> Run:
    venv = ROOT / ".venvs" / minor
    log_path = venv.with_name(f"{minor}.log")
    log_path.parent.mkdir(exist_ok=True)
    selection = [] if is_default else ["-m", "not slow_once"]
    commands = [
        [ROOT / "scripts" / "venv", python, venv, "test"],
        [venv / "bin" / "python", "-m", "pytest", *selection, *arguments],
    ]
    start = time.monotonic()
    with log_path.open("wb") as log:
        passed = all(
            subprocess.run(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
            ).returncode
            == 0
            for command in commands
        )
    lines = log_path.read_text(errors="replace").splitlines()
    return Run(minor, passed, time.monotonic() - start, lines)


if __name__ == "__main__":
    sys.exit(main())
