"""Who is compared, on what, and how a command line becomes result lines."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bench.figures import Record

_ROOT = Path(__file__).parents[1]

OURS = "durably"
BARE = "bare commit"
YARDSTICK = "yardstick"

DEFAULT_CASES = (
    "W1:200:1",
    "W1:5000:100:2000",
    "W2:1000:1",
    "W2:10000:1",
    "W3:5000:100:2000",
    "W4:100:1",
    "W5@1:20000:100:5000",
    "W5@10:20000:100:5000",
    "W5@1000:20000:100:5000",
    "W6:1000:1",
    "W7:1000:1",
    "CPU:5000:100",
)


class Case(NamedTuple):
    """One table: a workload and its size.

    Attributes:
        keys: Of W5: over how many entities.
        peer_n: The size for peers that take too long for `n`; the figures are rates, or of one instance.
    """

    workload: str
    n: int
    c: int
    peer_n: int
    keys: int = 10

    @classmethod
    def parse(cls, text: str) -> Case:
        """From ``WORKLOAD[@KEYS]:N:C[:PEER_N]``."""
        try:
            name, n, *rest = text.split(":")
            c, *peer = (int(number) for number in rest)
            workload, at, keys = name.partition("@")
            return cls(workload, int(n), c, peer[0] if peer else int(n), int(keys) if at else 10)
        except ValueError:
            raise ValueError(f"{text!r} is not a case: expected WORKLOAD[@KEYS]:N:C[:PEER_N]") from None

    @property
    def title(self) -> str:
        """What the cases of one table have in common."""
        name = f"{self.workload}@{self.keys}" if self.workload == "W5" else self.workload
        return f"{name}:{self.n}:{self.c}"


class Contender(NamedTuple):
    """An engine and the command that measures it.

    Attributes:
        name: In the tables.
        command: A command line (no shell) with ``{workload}``, ``{n}``, ``{c}``, ``{keys}``, ``{reps}`` to be filled in;
            prints JSON lines.
        cases: It takes part in cases that begin with one of these; in all of them when there are none.
        is_peer: It runs the size that a case has for peers.
    """

    name: str
    command: str
    cases: tuple[str, ...] = ()
    is_peer: bool = True

    @classmethod
    def parse(cls, text: str) -> Contender:
        """From ``NAME[@CASE,CASE…]=COMMAND``."""
        match = re.fullmatch(r"([^@=]+)(?:@([^=]+))?=(.+)", text)
        if match is None:
            raise ValueError(f"{text!r} is not a peer: expected NAME=COMMAND or NAME@CASE,CASE=COMMAND")
        name, cases, command = match.groups()
        return cls(name.strip(), command, tuple(cases.split(",")) if cases else ("W",))

    def joins(self, case: Case) -> bool:
        """True when it takes part."""
        return not self.cases or any(f"{case.title}:".startswith(begin) for begin in self.cases)

    def words(self, case: Case, reps: int) -> list[str]:
        """The command line for a case."""
        size = case.peer_n if self.is_peer else case.n
        values = {"workload": case.workload, "n": size, "c": case.c, "keys": case.keys, "reps": reps}
        line = self.command
        for name, value in values.items():
            line = line.replace(f"{{{name}}}", str(value))
        return shlex.split(line)


def own(hubs: list[str], python: str, options: str) -> list[Contender]:
    """Ourselves on each hub, and next to W7 the bare commit that it is held against."""
    command = f"{shlex.quote(python)} -m bench --json {options}"
    size = "--n {n} --c {c} --keys {keys} --reps {reps}"
    found: list[Contender] = []
    for hub in hubs:
        cases = ("W1", "W2", "W3", "W4", "W5", "W7", "CPU") if hub == "memory" else ()
        run = f"{command} --hub {hub} --workload {{workload}} {size}"
        found.append(Contender(f"{OURS} {hub}", run, cases, is_peer=False))
    bare = f"{command} --hub {hubs[0]} --workload BARE --n 1000 --reps {{reps}}"
    return [*found, Contender(f"{BARE} {hubs[0]}", bare, ("W7",), is_peer=False)]


def yardstick(path: Path) -> Contender:
    """The bare loop: W1 with 5,000 instances and 100 in flight, whatever it is told."""
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"
    return Contender(YARDSTICK, command, ("W1:5000:100:",), is_peer=False)


class Outcome(NamedTuple):
    """What one command printed, and what went wrong."""

    lines: list[Record]
    problem: str | None


def execute(words: list[str], limit_s: float, directory: Path | None) -> Outcome:
    """Run a command to its end or to the limit; it and its children form a group that is ended together."""
    environment = dict(os.environ) if directory is None else {**os.environ, "TMPDIR": str(directory)}
    try:
        process = subprocess.Popen(  # noqa: S603 - the user names the commands to run
            words,
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Outcome([], str(error))
    problem = None
    try:
        printed, complaints = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, complaints = process.communicate()
        problem = f"took longer than {limit_s:g} s"
    if problem is None and process.returncode != 0:
        last = complaints.strip().splitlines()[-1:] or [""]
        problem = f"exit {process.returncode} {last[0]}".strip()
    return Outcome([json.loads(line) for line in printed.splitlines() if line.startswith("{")], problem)
