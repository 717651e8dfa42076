"""Result lines to Markdown: medians with their range, and how many times as fast ours is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.contenders import BARE, OURS, YARDSTICK
from bench.figures import Record


class Column(NamedTuple):
    """A figure of a table."""

    title: str
    key: str


class Kind(NamedTuple):
    """How the lines of a workload are shown.

    Attributes:
        title: What it is.
        columns: The first one is what ratios are of.
        more_is_better: Of the first column.
    """

    title: str
    columns: tuple[Column, ...]
    more_is_better: bool


_P50, _P99 = Column("p50 ms", "p50_ms"), Column("p99 ms", "p99_ms")
_ACTIVITIES, _INSTANCES = Column("activities/s", "act_per_s"), Column("instances/s", "inst_per_s")

ALONE = Kind(
    "chain of 5, one at a time", (_P50, _P99, Column("ms/step p50", "step_p50_ms")), more_is_better=False
)
KINDS = {
    "W1": Kind("chain of 5", (_ACTIVITIES, _INSTANCES, _P50, _P99), more_is_better=True),
    "W2": Kind("fan-out and fan-in", (Column("wall s", "wall_s"), _ACTIVITIES), more_is_better=False),
    "W3": Kind("hello", (_INSTANCES, _P50, _P99), more_is_better=True),
    "W4": Kind("event raised to instance done", (_P50, _P99), more_is_better=False),
    "W5": Kind(
        "one-way signals to counter entities",
        (Column("signals/s", "signals_per_s"), Column("sent after s", "send_s"), _P50, _P99),
        more_is_better=True,
    ),
    "W6": Kind(
        "recovery after kill -9",
        (
            Column("all done s", "wall_s"),
            Column("engine up s", "up_s"),
            Column("all raised s", "raised_s"),
            Column("lost", "lost"),
            Column("doubled", "doubled"),
        ),
        more_is_better=False,
    ),
    "W8": Kind(
        "many instances wait, kill -9, all are raised",
        (
            Column("raise to done s", "raise_to_done_s"),
            Column("engine up s", "up_s"),
            Column("RSS MB waiting", "waiting_rss_mb"),
            Column("lost", "lost"),
            Column("doubled", "doubled"),
        ),
        more_is_better=False,
    ),
    "QUERY": Kind(
        "first page of 15 filters",
        (Column("slowest ms", "first_page_max_ms"), Column("p50 ms", "first_page_p50_ms")),
        more_is_better=False,
    ),
    "PURGE": Kind(
        "purge beside W1",
        (
            Column("activities/s meanwhile", "act_per_s_meanwhile"),
            Column("before", "act_per_s_before"),
            Column("after", "act_per_s_after"),
            Column("lost share", "lost_share"),
            Column("purged/s", "purged_per_s"),
        ),
        more_is_better=True,
    ),
    "W7": Kind(
        "one long orchestration",
        (
            Column("ms/step", "ms_per_step"),
            Column("p50", "step_p50_ms"),
            Column("p50 of the first 1,000", "first_step_p50_ms"),
            Column("p50 of the last 1,000", "last_step_p50_ms"),
        ),
        more_is_better=False,
    ),
    "CPU": Kind(
        "CPU per step and instance",
        (Column("µs/step", "us_per_step"), Column("µs/instance", "us_per_instance")),
        more_is_better=False,
    ),
}


def render(records: Sequence[Record]) -> str:
    """All tables, under a heading that says what they were measured on."""
    parts = [f"{machine()}\n"]
    parts += [
        table(case, [line for line in records if line["case"] == case])
        for case in _unique(records, "case")
        if _workload(case) in KINDS  # BARE is no contest: it stands beside W7
    ]
    return "\n".join(parts)


def machine() -> str:
    """This machine, in a line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text("utf-8").splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    system = f"{platform.system()} {platform.release()}"
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs ({model}), {system}. Figures are median (min–max)."


def table(case: str, records: Sequence[Record]) -> str:
    """The table of a case."""
    name, n, c = case.split(":")
    workload, _, keys = name.partition("@")
    kind = ALONE if (workload, c) == ("W1", "1") else KINDS[workload]
    base = next((line["contender"] for line in records if line["contender"].startswith(OURS)), OURS)
    good = {name: _good(records, name) for name in _unique(records, "contender")}
    columns = [*(column.title for column in kind.columns), f"{base} is", "CPU s", "RSS MB"]
    over = f" over {int(keys):,} keys" if keys else ""
    out = [f"### {workload}: {kind.title}{over}, n = {int(n):,}, {c} in flight", ""]
    out.append(f"| engine | done | {' | '.join(columns)} |")
    out.append("|---" * (len(columns) + 2) + "|")
    for name, lines in good.items():
        if not lines:
            out.append(f"| {name} | failed |" + " |" * len(columns))
            continue
        main = kind.columns[0].key
        cells = [_range(lines, column.key) for column in kind.columns]
        cells.append("" if name == base else _times(_ratio(good[base], lines, main, kind)))
        cells += [
            _range(lines, "engine_cpu_s", "cpu_total_s"),
            _range(lines, "engine_rss_mb", "peak_rss_total_mb"),
        ]
        out.append(f"| {_label(name, lines)} | {_done(lines)} | {' | '.join(cells)} |")
    return "\n".join([*out, "", *_notes(records, good, base), ""])


def _notes(records: Sequence[Record], good: dict[str, list[Record]], base: str) -> Iterable[str]:
    """Budgets that a single ratio decides, the state of the machine, and what went wrong."""
    ours = good.get(base, [])
    for name, lines in good.items():
        if name.startswith(BARE) and (ratio := _quotient(ours, lines, "step_p50_ms")) is not None:
            yield f"- p50 of a step ÷ p50 of a bare commit: {ratio:.2f} (budget: at most 2)"
            paced = _values(lines, "paced_p50_ms")
            if paced:
                step = median(_values(ours, "step_p50_ms")) / median(paced)
                yield f"- the same ÷ that of one that comes 0.15 ms after the one before: {step:.2f} ({median(paced):.2f} ms)"
        if name == YARDSTICK and (ratio := _quotient(ours, lines, "act_per_s")) is not None:
            yield f"- activities/s ÷ those of the yardstick: {ratio:.2f}"
    readings = [line["calib"] for line in records if "calib" in line]
    if readings:
        spins = [reading["spin_ms"] for reading in readings]
        syncs = [reading["fsync_p50_ms"] for reading in readings]
        yield f"- machine meanwhile: CPU loop {min(spins):g}–{max(spins):g} ms, fsync {min(syncs):g}–{max(syncs):g} ms"
    for line in records:
        problem = line.get("problem") or line.get("error")
        if problem:
            yield f"- {line['contender']}, turn {line['turn']}: {problem}"


def _good(records: Sequence[Record], name: str) -> list[Record]:
    found = [line for line in records if line["contender"] == name and "problem" not in line]
    return [line for line in found if line.get("ok", True)]


def _workload(case: str) -> str:
    return case.split(":", maxsplit=1)[0].partition("@")[0]


def _unique(records: Sequence[Record], key: str) -> list[str]:
    return list(dict.fromkeys(line[key] for line in records))


def _values(lines: Sequence[Record], *keys: str) -> list[float]:
    """The first of the keys that a line has; figures by process are added up."""
    values: list[float] = []
    for line in lines:
        value: float | dict[str, float] | None = next((line[key] for key in keys if key in line), None)
        if value is not None:
            values.append(sum(value.values()) if isinstance(value, dict) else value)
    return values


def _quotient(ours: Sequence[Record], theirs: Sequence[Record], key: str) -> float | None:
    mine, other = _values(ours, key), _values(theirs, key)
    return median(mine) / median(other) if mine and other and median(other) else None


def _ratio(ours: Sequence[Record], theirs: Sequence[Record], key: str, kind: Kind) -> float | None:
    if kind.more_is_better:
        return _quotient(ours, theirs, key)
    return _quotient(theirs, ours, key)


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{_short(ratio)} times as fast"


def _range(lines: Sequence[Record], *keys: str) -> str:
    values = _values(lines, *keys)
    if not values:
        return "–"
    if min(values) == max(values):
        return _short(values[0])
    return f"{_short(median(values))} ({_short(min(values))}–{_short(max(values))})"


def _short(value: float) -> str:
    if value == int(value) and abs(value) < 100:
        return f"{value:.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _label(name: str, lines: Sequence[Record]) -> str:
    if name.startswith((OURS, BARE, YARDSTICK)):
        return name
    about = f"{lines[0].get('variant', '')} {lines[0].get('version', '')}".strip()
    return f"{name} ({about})" if about else name


def _done(lines: Sequence[Record]) -> str:
    wanted, done = lines[0].get("n", 0), [line.get("done", line.get("n", 0)) for line in lines]
    if lines[0].get("workload") in {"W2", "W7", "CPU"} or min(done) >= wanted:
        return f"{wanted:,} × {len(lines)}"
    return f"{min(done):,}–{max(done):,} of {wanted:,} × {len(lines)}"
