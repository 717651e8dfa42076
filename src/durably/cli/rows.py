"""A tree of steps as lines, for a terminal and for a log: what each says, and which are left out when room is short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from durably.cli.steps import OPEN, Group, State, Step, Tree
from durably.core.spans import span


class Bar(NamedTuple):
    """How far a group is."""

    done: int
    failed: int
    total: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    Attributes:
        key: Which step it shows, the same in the next reading.
        guides: For each level above: does the branch end there. Empty for the instance itself.
        state: Decides mark and colour.
        word: The state in words.
        label: What it shows.
        where: Labels of the sub-orchestrations that it is in.
        seconds: How long it took or has taken, or None for what takes no time.
        note: What else is to be said.
        failure: Type and message, or None.
        bar: How far a group is, or None.
        stage: What a log reports: a new line when it has changed.
    """

    key: tuple[object, ...]
    guides: tuple[bool, ...]
    state: State
    word: str
    label: str
    where: tuple[str, ...] = ()
    seconds: float | None = None
    note: str = ""
    failure: str | None = None
    bar: Bar | None = None
    stage: tuple[object, ...] = ()


def rows_of(tree: Tree, now: datetime) -> list[Row]:
    """All lines of a tree, the one of the instance first."""
    return [_row_of_tree(tree, now), *_rows_of_steps(tree, now, (tree.ordinal,), (), ())]


def _row_of_tree(tree: Tree, now: datetime) -> Row:
    notes: list[str] = []
    if tree.ordinal:
        notes.append(f"execution {tree.ordinal + 1}")
    if tree.custom_status is not None:
        notes.append(f"custom status {tree.custom_status}")
    return Row(
        key=(),
        guides=(),
        state=tree.state,
        word=tree.status.lower(),
        label=f"{tree.name}  {tree.instance_id}",
        seconds=_seconds(tree.started, tree.ended, now),
        note=" · ".join(notes),
        failure=tree.failure,
        stage=(tree.status, tree.ordinal, tree.custom_status),
    )


def _rows_of_steps(
    tree: Tree, now: datetime, key: tuple[object, ...], guides: tuple[bool, ...], where: tuple[str, ...]
) -> Iterator[Row]:
    shown = tree.shown()
    for step in shown:
        below = (*guides, step is shown[-1])
        if isinstance(step, Group):
            yield _row_of_group(step, now, (*key, step.kind, step.name), below, where)
            continue
        step_key = (*key, step.seq)
        yield _row_of_step(step, now, step_key, below, where)
        if step.child is not None:
            yield from _rows_of_steps(step.child, now, step_key, below, (*where, step.label))


def _row_of_step(
    step: Step, now: datetime, key: tuple[object, ...], guides: tuple[bool, ...], where: tuple[str, ...]
) -> Row:
    return Row(
        key=key,
        guides=guides,
        state=step.state,
        word=step.state,
        label=step.label,
        where=where,
        seconds=None if step.kind in ("sent", "started") else _seconds(step.started, step.ended, now),
        note=_note(step, now),
        failure=step.failure,
        stage=(step.state, step.attempt),
    )


def _note(step: Step, now: datetime) -> str:
    left = None if step.due is None else span(max(0.0, (step.due - now).total_seconds()))
    if step.state == "retrying":
        return f"attempt {step.attempt} in {left}"
    if step.state == "waiting" and step.kind == "timer":
        return f"due in {left}"
    if step.state == "waiting":
        return "waiting" if left is None else f"waiting, gives up in {left}"
    notes: list[str] = []
    if step.attempt > 1:
        notes.append(f"attempt {step.attempt}")
    if step.timed_out:
        notes.append("timed out")
    if step.child is not None and step.child.state == "waiting":
        notes.append(step.child.status.lower())
    if step.child is not None and step.child.custom_status is not None:
        notes.append(f"custom status {step.child.custom_status}")
    return " · ".join(notes)


def _row_of_group(
    group: Group, now: datetime, key: tuple[object, ...], guides: tuple[bool, ...], where: tuple[str, ...]
) -> Row:
    tally = group.tally
    notes = [
        f"{tally[state]:,} {word}"
        for state, word in (
            ("failed", "failed"),
            ("canceled", "canceled"),
            ("retrying", "to be tried again"),
        )
        if tally[state]
    ]
    ended = tally["done"] + tally["failed"] + tally["canceled"]
    return Row(
        key=key,
        guides=guides,
        state=group.state,
        word=group.state,
        label=f"{group.label} ×{group.total:,}",
        where=where,
        seconds=_seconds(group.started, group.ended, now),
        note=" · ".join(notes),
        failure=group.failure,
        bar=Bar(ended, tally["failed"], group.total) if group.concurrent else None,
        stage=(ended * 10 // group.total,) if group.concurrent else (_step_of_1_2_5(ended), bool(group.open)),
    )


def _seconds(started: datetime | None, ended: datetime | None, now: datetime) -> float | None:
    return None if started is None else max(0.0, ((ended or now) - started).total_seconds())


def _step_of_1_2_5(count: int) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, … that is not above: a loop of any length makes few lines in a log."""
    step = 0
    for power in range(len(str(count))):
        for first in (1, 2, 5):
            if first * 10**power <= count:
                step = first * 10**power
    return step


def fit(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most `limit` lines: what has ended gives way first, the earliest before the others, then what is open.

    Lines that are left out in a row are counted in one line in their place.
    """
    ranks = [_rank(row) for row in rows]
    order = [at for at in range(1, len(rows)) if ranks[at] == _DONE]
    order += [at for at in range(1, len(rows)) if ranks[at] == _FAILED]
    order += [at for at in range(len(rows) - 1, 0, -1) if ranks[at] == _OPEN]
    hidden: set[int] = set()
    shown = len(rows)
    for at in order:
        if shown <= limit:
            break
        hidden.add(at)
        shown -= (at - 1 in hidden) + (at + 1 in hidden)  # a gap is a line itself: opening one saves nothing
    return _without(rows, hidden)


_DONE, _FAILED, _OPEN = range(3)


def _rank(row: Row) -> int:
    if row.state in OPEN:
        return _OPEN
    return _FAILED if row.state == "failed" else _DONE


def _without(rows: Sequence[Row], hidden: set[int]) -> list[Row]:
    result: list[Row] = []
    gap: list[Row] = []
    for at, row in enumerate(rows):
        if at in hidden:
            gap.append(row)
            continue
        result += _gap_line(gap)
        gap = []
        result.append(row)
    return result + _gap_line(gap)


def _gap_line(gap: list[Row]) -> list[Row]:
    if not gap:
        return []
    label = f"… {len(gap):,} more line{'s' if len(gap) > 1 else ''}"
    return [Row(("…", *gap[0].key), gap[0].guides, "canceled", "", label, gap[0].where)]


def one_line(text: str) -> str:
    """Text of several lines in one."""
    return " ".join(text.split())
