"""`python -m bench.compare`: ours, the yardstick and the peers, side by side in time, as a Markdown table per workload."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.contenders import DEFAULT_CASES, Case, Contender, execute, own, yardstick
from bench.figures import Record
from bench.hub import VARIANTS
from bench.tables import render


def arguments() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser("python -m bench.compare", description="Compare; see bench/README.md.")
    add = parser.add_argument
    add("--case", dest="cases", action="append", type=Case.parse, metavar="WORKLOAD[@KEYS]:N:C[:PEER_N]")
    add(
        "--hub",
        dest="hubs",
        action="append",
        choices=VARIANTS,
        help="ours; the first one is held against the rest",
    )
    add("--yardstick", type=Path, metavar="FILE", help="program that prints the JSON line of the bare loop")
    add(
        "--peer",
        dest="peers",
        action="append",
        type=Contender.parse,
        default=[],
        metavar="NAME[@CASES]=COMMAND",
    )
    add("--rounds", type=int, default=3, help="turns that all take in a case (default: %(default)s)")
    add("--reps", type=int, default=1, help="repetitions in a turn (default: %(default)s)")
    add("--limit", type=float, default=300, metavar="S", help="end a command after S seconds")
    add("--python", default=sys.executable, help="interpreter for ours")
    add("--options", default="", help='more options for ours, for example "--max-spin-ms 200"')
    add("--dir", type=Path, help="TMPDIR of all commands: where hubs are made")
    add("--lines", type=Path, metavar="FILE", help="append the raw lines to a file")
    add("--from", dest="source", type=Path, metavar="FILE", help="measure nothing, read raw lines")
    add("--out", type=Path, metavar="FILE", help="write the tables to a file, not to stdout")
    return parser


def compare(
    contenders: Sequence[Contender],
    cases: Sequence[Case],
    *,
    rounds: int,
    reps: int,
    limit_s: float,
    directory: Path | None,
    keep: Path | None,
) -> list[Record]:
    """Case by case and, within one, turn by turn, so that a slow spell of the machine falls on everybody."""
    records: list[Record] = []
    for case in cases:
        for turn in range(rounds):
            for contender in contenders:
                if not contender.joins(case):
                    continue
                began = time.perf_counter()
                outcome = execute(contender.words(case, reps), limit_s, directory)
                mark = {"contender": contender.name, "case": case.title, "turn": turn}
                lines = [{**mark, **line} for line in outcome.lines]
                if outcome.problem is not None:
                    lines.append({**mark, "problem": outcome.problem})
                records += lines
                _keep(keep, lines)
                took = f"{time.perf_counter() - began:.0f} s"
                _tell(f"{case.title} turn {turn} {contender.name}: {took}", outcome.problem)
    return records


def _keep(path: Path | None, lines: list[Record]) -> None:
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def _tell(text: str, problem: str | None) -> None:
    print(time.strftime("%H:%M:%S"), text, problem or "", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, or read what was measured before, and write the tables."""
    given = arguments().parse_args(argv)
    if given.source is not None:
        with given.source.open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file if line.startswith("{")]
    else:
        contenders = own(given.hubs or ["sqlite"], given.python, given.options)
        if given.yardstick is not None:
            contenders.append(yardstick(given.yardstick.resolve()))
        directory: Path | None = None if given.dir is None else given.dir.resolve()
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        records = compare(
            [*contenders, *given.peers],
            given.cases or [Case.parse(text) for text in DEFAULT_CASES],
            rounds=given.rounds,
            reps=given.reps,
            limit_s=given.limit,
            directory=directory,
            keep=given.lines,
        )
    text = render(records)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0 if any(line.get("ok") for line in records) else 1


if __name__ == "__main__":
    sys.exit(main())
