"""`python -m bench`: run workloads and print one line per repetition."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.costs import bare, cpu
from bench.counters import w5
from bench.figures import Load, MeasurementError, Record
from bench.hub import VARIANTS
from bench.loops import LOOPS, run
from bench.machine import Meter, calibrate, calm
from bench.operating import filled, purge
from bench.queues import queue
from bench.recovery import recovering
from bench.testkit import kit
from bench.workloads import (
    SINGLE_LIMIT_S,
    HostedWorkload,
    Workload,
    hosted,
    w1,
    w2,
    w3,
    w4,
    w7,
    warm_chains,
    warm_events,
    warm_fan,
)
from durably import DurablyError

HOSTED: dict[str, tuple[HostedWorkload, HostedWorkload]] = {
    "W1": (w1, warm_chains),
    "W2": (w2, warm_fan),
    "W3": (w3, warm_chains),
    "W4": (w4, warm_events),
    "W7": (w7, warm_chains),
    "CPU": (cpu, warm_chains),
    "PURGE": (purge, warm_chains),
    "QUEUE": (queue, warm_chains),
}
DEFAULT_N = {
    "W1": 200,
    "W2": 1_000,
    "W3": 1_000,
    "W4": 50,
    "W5": 2_000,
    "W6": 1_000,
    "W7": 1_000,
    "W8": 100_000,
    "CPU": 5_000,
    "BARE": 1_000,
    "QUERY": 1_000_000,
    "PURGE": 100_000,
    "QUEUE": 10_000,
    "KIT": 2_000,
}
DEFAULT_C = {"CPU": 100, "PURGE": 100, "QUEUE": 100, "W5": 100}
_KILLED = ("W6", "W8")

TOUR = (
    ("W1", 200, 1),
    ("W1", 5000, 100),
    ("W2", 1000, 1),
    ("W3", 5000, 100),
    ("W4", 100, 1),
    ("W5", 20000, 100),
    ("W6", 1000, 1),
    ("W7", 1000, 1),
    ("BARE", 1000, 1),
    ("CPU", 5000, 100),
)
"""What is run when no workload is named: workload, n, c."""

_KNOWN = {"peer", "variant", "version", "workload", "n", "c", "rep", "python", "ok", "procs"}
"""Keys of a line that people know already, or need not know."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure and how; see `--help`."""

    workload: str
    n: int
    c: int
    keys: int
    hub: str
    reps: int
    cap: float
    dir: Path
    max_spin_ms: float
    max_fsync_ms: float
    no_warmup: bool
    loop: str
    json: bool


def arguments() -> argparse.ArgumentParser:
    """The options; they have the names that the harness of the peers gives them, too."""
    parser = argparse.ArgumentParser("python -m bench", description="Measure durably; see bench/README.md.")
    add = parser.add_argument
    add("--workload", choices=list(DEFAULT_N), help="default: a tour of all of them")
    add("--n", type=int, help="instances, activities or steps")
    add("--c", type=int, help="in flight at once (default: 1; CPU, PURGE, QUEUE and W5: 100)")
    add("--keys", type=int, default=10, help="W5: counters (default: %(default)s)")
    add("--hub", "--variant", choices=VARIANTS, default="sqlite")
    add("--reps", type=int, default=3, help="repetitions (default: %(default)s)")
    add("--cap", type=float, default=40, metavar="S", help="start nothing more after S seconds")
    add("--dir", "--work", type=Path, help="where hubs are made (default: a temporary directory)")
    add("--max-spin-ms", type=float, default=65, help="wait up to 9 s while the CPU is slower")
    add("--max-fsync-ms", type=float, default=0.6, help="wait up to 9 s while the disk is slower")
    add("--no-warmup", action="store_true")
    add("--loop", choices=LOOPS, default="uvloop")
    add("--json", action="store_true", help="print JSON lines")
    return parser


def prepare(settings: Settings) -> AbstractAsyncContextManager[Workload]:
    """Set a workload up; W6, W8 and KIT bring their own engine, BARE and QUERY none."""
    if settings.workload in _KILLED:
        return recovering(settings.dir, settings.loop)
    if settings.workload == "QUERY":
        return filled(settings.hub, settings.dir)
    if settings.workload == "BARE":
        return bare(settings.hub, settings.dir)
    if settings.workload == "KIT":
        return kit(settings.hub, settings.dir)
    if settings.workload == "W5":
        workload, warm_up = w5(settings.keys), warm_chains
    else:
        workload, warm_up = HOSTED[settings.workload]
    return hosted(settings.hub, settings.dir, workload, None if settings.no_warmup else warm_up, settings.c)


async def measure(settings: Settings) -> bool:
    """Run the repetitions of one workload and print their lines; False when one of them failed."""
    about = {
        "peer": "durably",
        "variant": settings.hub,
        "version": version("durably"),
        "workload": settings.workload,
        "n": settings.n,
        "c": settings.c,
    }
    async with prepare(settings) as workload:
        for rep in range(settings.reps):
            before = await calm(settings.dir, settings.max_spin_ms, settings.max_fsync_ms)
            load = Load(settings.n, settings.c, f"{settings.workload}-{time.time_ns()}", settings.cap)
            meter = Meter()
            try:
                with meter:
                    async with asyncio.timeout(2 * max(SINGLE_LIMIT_S, settings.cap)):
                        result: Record = {**await workload(load), "ok": True}
            except (MeasurementError, DurablyError, TimeoutError) as error:
                result = {"ok": False, "error": f"{type(error).__name__} {error}"}
            line = {**about, "rep": rep, "python": platform.python_version(), **result, **meter.report()}
            show({**line, "calib": before, "calib_after": calibrate(settings.dir)}, as_json=settings.json)
            if not result["ok"]:
                return False
    return True


def show(line: Record, *, as_json: bool) -> None:
    """Print a line for programs, or the figures of it for people."""
    if as_json:
        print(json.dumps(line), flush=True)
        return
    shown = {key: value for key, value in line.items() if key not in _KNOWN and not isinstance(value, dict)}
    figures = "  ".join(f"{key} {value}" for key, value in shown.items())
    print(f"{line['workload']:4} {line['variant']:6} n={line['n']} c={line['c']}  {figures}", flush=True)


@contextmanager
def workplace(given: Path | None) -> Generator[Path]:
    """A fresh directory for hubs, in the given one; it is removed afterwards."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="durably-bench-", dir=given) as made:
        yield Path(made).resolve()


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line says; 0 when all repetitions are good."""
    parser = arguments()
    options = vars(parser.parse_args(argv))
    named, n, c, parent = (options.pop(name) for name in ("workload", "n", "c", "dir"))
    tour = (
        [(named, n, c)] if named else [step for step in TOUR if options["hub"] != "memory" or step[0] != "W6"]
    )
    if named in _KILLED and options["hub"] == "memory":
        parser.error(f"{named} kills the process of the hub, and a hub in memory ends with it: --hub sqlite")
    good = True
    for workload, size, flight in tour:
        with workplace(parent) as directory:
            settings = Settings(
                workload=workload,
                n=n or size or DEFAULT_N[workload],
                c=c or flight or DEFAULT_C.get(workload, 1),
                dir=directory,
                **options,
            )
            try:
                good = run(measure(settings), settings.loop) and good
            except (MeasurementError, DurablyError) as error:
                print(f"{workload} cannot be measured: {error}", file=sys.stderr)
                good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
