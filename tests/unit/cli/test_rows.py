"""A tree as lines, for a terminal and for a log."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.cli.rows import Row, fit, rows_of
from durably.cli.steps import OPEN, State, Step, Tree
from durably.core.spans import span

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def root(*steps: Step) -> Tree:
    return Tree("order-7", "main", started=T0, steps=list(steps))


def step(seq: int = 0, name: str = "charge", state: State = "running", **more: object) -> Step:
    return Step(seq, "activity", name, at(1), state, **more)  # type: ignore[arg-type]


def note(one: Step, seconds: float = 10) -> str:
    return rows_of(root(one), at(seconds))[1].note


def test_the_first_line_is_the_instance():
    tree = Tree("order-7", "main", started=T0, ordinal=2, custom_status='"busy"')
    (row,) = rows_of(tree, at(3))
    assert (row.label, row.word, row.seconds, row.guides) == ("main  order-7", "running", 3.0, ())
    assert row.note == 'execution 3 · custom status "busy"'


def test_an_instance_that_has_not_begun_has_taken_no_time():
    (row,) = rows_of(Tree("x", "main", state="waiting", status="Pending"), T0)
    assert (row.word, row.seconds) == ("pending", None)


def test_time_runs_until_a_step_ends():
    running, done = rows_of(root(step(0), step(1, state="done", ended=at(4))), at(10))[1:]
    assert (running.seconds, done.seconds) == (9.0, 3.0)


def test_time_never_runs_backwards():
    assert rows_of(root(step()), at(0))[1].seconds == 0.0


def test_notes_say_what_a_step_waits_for():
    assert note(Step(0, "timer", "", at(1), "waiting", due=at(14))) == "due in 4.0 s"
    assert note(Step(0, "event", "Go", at(1), "waiting")) == "waiting"
    assert note(Step(0, "event", "Go", at(1), "waiting", due=at(3610))) == "waiting, gives up in 1 h"
    assert note(step(state="retrying", attempt=3, due=at(12))) == "attempt 3 in 2.0 s"
    assert note(step(state="retrying", attempt=3, due=at(2))) == "attempt 3 in 0 ms"
    assert note(step(attempt=2)) == "attempt 2"
    assert note(step()) == ""
    assert note(Step(0, "event", "Go", at(1), "done", at(2), timed_out=True)) == "timed out"


def test_children_are_nested_and_guides_say_where_branches_end():
    grandchild = Tree("c2", "inner", steps=[step(name="deep")])
    child = Tree("c1", "child", steps=[Step(0, "child", "inner", at(1), child=grandchild), step(1, "last")])
    rows = rows_of(root(Step(0, "child", "child", at(1), child=child), step(1, "end")), at(2))
    assert [(row.guides, row.label, row.where) for row in rows[1:]] == [
        ((False,), "child", ()),
        ((False, False), "inner", ("child",)),
        ((False, False, True), "deep", ("child", "inner")),
        ((False, True), "last", ("child",)),
        ((True,), "end", ()),
    ]
    assert len({row.key for row in rows}) == len(rows)


def test_a_child_that_cannot_go_on_says_so():
    child = Tree("c1", "child", state="waiting", status="Blocked", custom_status="1")
    assert note(Step(0, "child", "child", at(1), child=child)) == "blocked · custom status 1"


def many(done: int, failed: int = 0, total: int = 1000) -> Row:
    steps = [step(seq, "resize", "done", ended=at(5)) for seq in range(done)]
    steps += [step(done + seq, "resize", "failed", ended=at(6), failure="E: x") for seq in range(failed)]
    steps += [step(done + failed + seq, "resize") for seq in range(total - done - failed)]
    return rows_of(root(*steps), at(10))[1]


def test_many_calls_are_one_line_with_a_bar():
    row = many(400, 3)
    assert (row.label, row.bar, row.note, row.failure) == (
        "resize ×1,000",
        (403, 3, 1000),
        "3 failed",
        "E: x",
    )
    assert (row.state, row.seconds) == ("running", 9.0)
    assert (many(1000).state, many(997, 3).state) == ("done", "failed")


def test_a_log_has_ten_lines_for_any_fan_out_and_few_for_any_loop():
    assert len({many(done).stage for done in range(0, 1001, 50)} | {many(1000).stage}) == 11

    def loop(count: int) -> Row:
        steps = [step(seq, "poll", "done", ended=at(1)) for seq in range(count)]
        return rows_of(root(*steps, step(count, "poll")), at(2))[1]

    assert loop(20).bar is None
    assert (
        len({loop(count).stage for count in (11, 30, 60, 90, 110, 300, 501, 600, 1100, 1500)}) == 7
    )  # 10, 20, 50, …, 1,000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.31, "310 ms"),
        (0.9999, "1.0 s"),
        (4.23, "4.2 s"),
        (9.96, "9 s"),
        (45.9, "45 s"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (7_801, "2 h 10 min"),
        (86_400 * 3 + 4 * 3600 + 59, "3 d 4 h"),
        (86_400 * 3 + 59, "3 d"),
    ],
)
def test_spans(seconds: float, text: str):
    assert span(seconds) == text


# --- when room is short ------------------------------------------------------------------------------------------------

rows = st.lists(st.sampled_from(["done", "failed", "running", "waiting", "canceled"]), max_size=40).map(
    lambda states: rows_of(root(*(step(seq, f"s{seq}", state) for seq, state in enumerate(states))), at(1))
)


@given(rows, st.integers(2, 50))
def test_it_always_fits_and_no_line_is_lost_from_the_count(rows: list[Row], limit: int):
    fitted = fit(rows, limit)
    assert len(fitted) <= max(limit, 2)
    assert fitted[0] is rows[0]
    gaps = [row for row in fitted if row.key[:1] == ("…",)]
    counted = sum(int(row.label.split()[1]) for row in gaps)
    assert len(fitted) - len(gaps) + counted == len(rows)
    if len(rows) <= limit:
        assert fitted == rows


@given(rows, st.integers(2, 50))
def test_nothing_open_is_left_out_while_something_ended_is_shown(rows: list[Row], limit: int):
    fitted = fit(rows, limit)
    hidden_open = sum(row.state in OPEN for row in rows) - sum(row.state in OPEN for row in fitted)
    ended = [row for row in fitted[1:] if row.state not in OPEN and row.key[:1] != ("…",)]
    assert not (hidden_open and ended)


def test_what_ended_first_gives_way_first():
    tree = root(*(step(seq, f"s{seq}", "done") for seq in range(9)), step(9, "s9"))
    assert [row.label for row in fit(rows_of(tree, at(1)), 5)] == [
        "main  order-7",
        "… 7 more lines",
        "s7",
        "s8",
        "s9",
    ]
