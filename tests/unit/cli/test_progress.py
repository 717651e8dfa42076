"""Lines as a picture for a terminal, and as text for a log."""

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console

from durably.cli.progress import ASCII, UNICODE, Glyphs, changes, line, render
from durably.cli.rows import Row, rows_of
from durably.cli.steps import Step, Tree

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def example(now: float = 60) -> list[Row]:
    child = Tree("order-7:0:0002", "ship", started=at(3), steps=[Step(0, "activity", "label", at(3))])
    tree = Tree("order-7", "order", started=T0, custom_status='"busy"')
    tree.steps = [
        Step(0, "activity", "reserve", at(0), "done", at(0.12)),
        Step(
            1, "activity", "charge", at(1), "retrying", attempt=3, due=at(64), failure="Declined: no\nfunds"
        ),
        Step(2, "child", "ship", at(3), child=child),
        *(Step(10 + seq, "activity", "resize", at(5), "done", at(6)) for seq in range(50)),
        *(Step(60 + seq, "activity", "resize", at(5), "failed", at(6), failure="E: x") for seq in range(10)),
        *(Step(70 + seq, "activity", "resize", at(5)) for seq in range(60)),
        Step(500, "event", "Go", at(48), "waiting"),
        Step(501, "event", "Stop", at(48), "canceled", at(50)),
    ]
    return rows_of(tree, at(now))


def drawn(
    rows: list[Row], glyphs: Glyphs = UNICODE, *, width: int = 100, seconds: float | None = None
) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(render(rows, seconds, glyphs))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_the_picture():
    assert (
        drawn(example())
        == """\
● order  order-7   1 min  running · custom status "busy"
├─ ✓ reserve      120 ms
├─ ↻ charge         59 s  attempt 3 in 4.0 s · Declined: no funds
├─ ● ship           57 s
│  └─ ● label       57 s
├─ ● resize ×120    55 s  ━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 60/120 · 10 failed · E: x
├─ ◌ event Go       12 s  waiting
└─ − event Stop    2.0 s  canceled"""
    )


def test_the_picture_for_terminals_that_know_ascii_only():
    text = drawn(example(), ASCII)
    assert text.replace("×", "x").replace("·", ".").isascii()
    assert "|- ~ charge" in text
    assert "|  `- * label" in text
    assert "############------------ 60/120" in text


def test_what_runs_spins():
    frames = {drawn(example(), seconds=tenth / 10)[0] for tenth in range(10)}
    assert frames == set(UNICODE.frames)


def test_a_line_never_breaks():
    assert len(drawn(example(), width=40).splitlines()) == 8
    assert all(len(line) <= 40 for line in drawn(example(), width=40).splitlines())


def test_labels_are_text_not_markup():
    row = rows_of(Tree("[bold]x[/bold]", "main"), T0)[0]
    assert "[bold]x[/bold]" in drawn([row])


def test_a_log_has_a_line_for_each_step_that_has_come_further():
    before, after = example(), example(100)
    assert changes(before, after) == []
    assert len(changes([], after)) == len(after)

    tree = Tree("order-7", "order", started=T0, steps=[Step(0, "activity", "reserve", at(0))])
    before = rows_of(tree, at(1))
    tree.steps[0].state, tree.steps[0].ended = "done", at(2)
    assert changes(before, rows_of(tree, at(9))) == ["done      reserve  2.0 s"]


def test_the_end_of_the_instance_is_the_last_line_of_a_log():
    tree = Tree("order-7", "order", "failed", "Failed", started=T0, ended=at(3), failure="E: a\nb")
    tree.steps = [Step(0, "activity", "reserve", at(0), "failed", at(3), failure="E: a\nb")]
    assert changes([], rows_of(tree, at(9))) == [
        "failed    reserve  3.0 s, E: a b",
        "failed    order  order-7  3.0 s, E: a b",
    ]


def test_lines_of_a_log_name_what_the_tree_would_show():
    assert [line(row) for row in example()] == [
        'running   order  order-7  custom status "busy"',
        "done      reserve  120 ms",
        "retrying  charge  attempt 3 in 4.0 s, Declined: no funds",
        "running   ship",
        "running   ship > label",
        "running   resize ×120  60 of 120 done, 10 failed, E: x",
        "waiting   event Go",
        "canceled  event Stop  2.0 s",
    ]
