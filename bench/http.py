"""`python -m bench.http`: starts and status reads over HTTP, with wrk as the load, each end in a process of its own.

The hub is SQLite and durable, keys are asked for, and the audit log is written. One line for each load and repetition.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.figures import MeasurementError, Record
from bench.loops import LOOPS
from bench.machine import calibrate, cpu_s
from bench.programs import ChainJob, order
from durably.http_api.links import BASE

_ROOT = Path(__file__).parents[1]
_PATIENCE_S = 30

START, STATUS = "start", "status"

_JOB: ChainJob = {"data": order(), "steps": 1, "stamped": False}

_SCRIPT = """
wrk.method, wrk.body = "{method}", [==[{body}]==]
wrk.headers["x-functions-key"], wrk.headers["content-type"] = "{key}", "application/json"
function done(summary, latency, requests)
    local wrong = summary.errors
    print(string.format(
        '{{"done": %d, "wall_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, "refused": %d, "lost": %d}}',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max, wrong.status,
        wrong.connect + wrong.read + wrong.write + wrong.timeout))
end
"""
"""wrk writes a report for people; this adds a line for us."""


class Target(NamedTuple):
    """A host under load."""

    process: subprocess.Popen[str]
    directory: Path
    url: str
    key: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line says; 0 when every request was answered well."""
    options = _arguments().parse_args(argv)
    wrk = shutil.which("wrk")
    if wrk is None:
        print("wrk is missing: expected the program on the PATH (apt-get install wrk)", file=sys.stderr)
        return 1
    good = True
    with (
        tempfile.TemporaryDirectory(prefix="durably-bench-", dir=options.dir) as made,
        hosted(Path(made), options.loop) as target,
    ):
        for rep in range(-1, options.reps):  # the first one warms up
            for load in (START, STATUS):
                seconds = options.seconds if rep >= 0 else 1
                line = measure(wrk, target, load, options.c, seconds)
                if rep >= 0:
                    show(
                        {"workload": f"HTTP {load}", "c": options.c, "rep": rep, **line}, as_json=options.json
                    )
                good = good and line["ok"]
    return 0 if good else 1


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.http", description="Measure the HTTP face of a host.")
    add = parser.add_argument
    add("--c", type=int, default=50, help="connections (default: %(default)s)")
    add("--seconds", type=int, default=5, help="of each load (default: %(default)s)")
    add("--reps", type=int, default=3, help="repetitions (default: %(default)s)")
    add("--dir", type=Path, help="where the hub is made (default: a temporary directory)")
    add("--loop", choices=LOOPS, default="uvloop")
    add("--json", action="store_true", help="print JSON lines")
    return parser


@contextmanager
def hosted(directory: Path, loop: str) -> Generator[Target]:
    """A host that serves a fresh hub."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "bench.http_process", str(directory), loop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    with process:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise MeasurementError("the host did not come up")
        try:
            yield Target(process, directory, **json.loads(line))
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def measure(wrk: str, target: Target, load: str, c: int, seconds: int) -> Record:
    """Put a load on a host, and say what came of it and what it cost the host in CPU."""
    body = json.dumps(_JOB)
    if load == START:
        method, url = "POST", f"{target.url}{BASE}/orchestrators/chain"
    else:
        method, url = "GET", f"{target.url}{BASE}/instances/{_ended(target, body)}"
    script = target.directory / "load.lua"
    script.write_text(_SCRIPT.format(method=method, body=body if load == START else "", key=target.key))
    calib, spent = calibrate(target.directory), cpu_s(target.process.pid)
    command = [wrk, "-t", "1", "-c", str(c), "-d", f"{seconds}s", "-s", str(script), url]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603
    spent = cpu_s(target.process.pid) - spent
    said: dict[str, Any] = json.loads(output.splitlines()[-1])
    wrong = said["refused"] + said["lost"]
    return {
        "ok": not wrong and said["done"] > 0,
        "done": said["done"],
        "wrong": wrong,
        "req_per_s": round(said["done"] / said["wall_us"] * 1e6),
        "p50_ms": round(said["p50_us"] / 1000, 2),
        "p99_ms": round(said["p99_us"] / 1000, 2),
        "max_ms": round(said["max_us"] / 1000, 2),
        "cpu_us": round(spent / max(1, said["done"]) * 1e6, 1),
        "calib": calib,
    }


def _ended(target: Target, body: str) -> str:
    """The id of an instance that has ended: its start waits for that."""
    name = "bench-ended"
    request = urllib.request.Request(  # noqa: S310 - our own host
        f"{target.url}{BASE}/orchestrators/chain/{name}?timeout={_PATIENCE_S}",
        body.encode(),
        {"x-functions-key": target.key},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        answer.read()
    return name


def show(line: Record, *, as_json: bool) -> None:
    """Print a line for programs, or the figures of it for people."""
    if as_json:
        print(json.dumps(line), flush=True)
        return
    figures = "  ".join(
        f"{key} {value}" for key, value in line.items() if key not in {"workload", "ok", "rep", "calib"}
    )
    print(f"{line['workload']:11} {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
