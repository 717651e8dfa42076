"""Kills the worker, again and again, and keeps what its clients were told."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

from tests.faults.evidence import Evidence

ROOT = Path(__file__).parents[3]

PATIENCE_S = 60.0
"""A worker that reports nothing for so long hangs."""

COLD_EVERY = 20
"""Every so many lives begin with a new interpreter."""


class Worker:
    """The program that lives and dies as one process after the other."""

    def __init__(self, hub: Path, side: Path, stderr: Path) -> None:
        with stderr.open("ab") as errors:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.kill.worker", str(hub), str(side)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._pid: int | None = None
        self._reports: SimpleQueue[tuple[float, list[str]]] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            self._reports.put((time.monotonic(), line.rstrip("\n").split(" ", 2)))

    def order(self, orders: dict[str, Any]) -> None:
        """Begin a life."""
        assert self._program.stdin is not None
        self._program.stdin.write(json.dumps(orders) + "\n")
        self._program.stdin.flush()
        _, words = self._next()
        assert words[0] == "born", words
        self._pid = int(words[1])

    def report(self) -> tuple[float, list[str]]:
        """When, and its words. The last ones of a life are `died` and how."""
        at, words = self._next()
        if words[0] == "died":
            self._pid = None
        return at, words

    def _next(self) -> tuple[float, list[str]]:
        try:
            return self._reports.get(timeout=PATIENCE_S)
        except Empty:
            raise AssertionError(f"the worker has reported nothing for {PATIENCE_S:g} s") from None

    def kill(self) -> None:
        if self._pid is not None:  # it has not been waited for, so the number is still its own
            os.kill(self._pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """End the program, and the life that is left."""
        self.kill()
        for pipe in (self._program.stdin, self._program.stdout):
            assert pipe is not None
            if pipe is self._program.stdout:
                self._program.wait()
                self._reader.join()
            pipe.close()


class Hammer:
    """Lives and deaths of the worker on one hub.

    Attributes:
        evidence: What its clients were told.
        restart_s: From the start of a new interpreter until it serves.
        recovery_s: The part of that which is the hub's: until a process that has been imported serves.
        killed_while: How many kills hit a worker that had not begun to serve, or one that did.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.evidence = Evidence.in_folder(folder)
        self.stderr = folder / "stderr.txt"
        self.restart_s: list[float] = []
        self.recovery_s: list[float] = []
        self.killed_while: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._worker: Worker | None = None

    @property
    def kills(self) -> int:
        """So far; the number of the life that follows is the same."""
        return self.evidence.deaths

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.dismiss()

    def strike(self) -> None:
        """One life: kill -9, 0 to 60 ms after one of its first reports."""
        began = time.monotonic()
        cold = self.kills % COLD_EVERY == 0
        worker = self._begin(go_on=True, cold=cold)
        wanted = 8 if cold else self._chance.choice((0, 1, 1, 2, 3, 5, 8, 20, 50))
        serving = False
        for _ in range(wanted):
            at, words = self._hear(worker)
            assert words[0] != "died", f"the worker died by itself: {self.stderr.read_text()}"
            if words[0] == "serving":
                serving = True
                (self.restart_s if cold else self.recovery_s).append(at - began)
        time.sleep(self._chance.uniform(0, 0.06))
        worker.kill()
        self.evidence.note("death", 1)
        while (words := self._hear(worker)[1])[0] != "died":
            serving = serving or words[0] == "serving"
        assert words == ["died", "-9"], f"it ended with {words[1]}: {self.stderr.read_text()}"
        self.killed_while["serving" if serving else "recovering"] += 1

    def finish(self) -> int:
        """The last life: start nothing new, and let everything end. Returns the exit code."""
        worker = self._begin(go_on=False, cold=False)
        while (words := self._hear(worker)[1])[0] != "died":
            pass
        return int(words[1])

    def _begin(self, *, go_on: bool, cold: bool) -> Worker:
        if cold and self._worker is not None:
            self._worker.dismiss()
            self._worker = None
        if self._worker is None:
            self._worker = Worker(self.evidence.hub, self.evidence.side, self.stderr)
        orders = {
            "life": self.kills,
            "go_on": go_on,
            "next": max(self.evidence.starting, default=-1) + 1,
            "doubtful": sorted(self.evidence.starting - self.evidence.started),
            "options": {
                "max_resident_instances": self._chance.choice((4, 20_000)),
                "turns_per_batch": self._chance.choice((1, 16)),
                "timer_horizon_s": self._chance.choice((0.02, 600.0)),
            },
        }
        self._worker.order(orders)
        return self._worker

    def _hear(self, worker: Worker) -> tuple[float, list[str]]:
        at, words = worker.report()
        evidence = self.evidence
        match words:
            case ["starting", number]:
                evidence.note("starting", int(number))
                evidence.calls["in doubt"] += 1
            case ["started", number]:
                evidence.note("started", int(number))
                self._answered()
            case ["raising", token]:
                evidence.note("raising", token)
                evidence.calls["in doubt"] += 1
            case ["raised", token]:
                evidence.note("raised", token)
                self._answered()
            case ["result", number, text]:
                evidence.note("result", [int(number), json.loads(text)])
            case _:
                pass
        return at, words

    def _answered(self) -> None:
        self.evidence.calls["in doubt"] -= 1
        self.evidence.calls["answered"] += 1

    def told(self) -> str:
        """The figures of this run, for people."""
        return (
            f"{self.kills} kills ({self.killed_while['recovering']} during recovery), "
            f"{len(self.evidence.started)} starts acknowledged; restart to serving: {_spread(self.restart_s)} with a new "
            f"interpreter, {_spread(self.recovery_s)} without its imports"
        )


def _spread(seconds: list[float]) -> str:
    return f"p50 {statistics.median(seconds):.3f} s, max {max(seconds):.3f} s"
