"""Lines as a picture for a terminal."""

import io

from rich.console import Console

from durably.cli.progress import ASCII, UNICODE, Glyphs, render
from durably.cli.rows import Row, rows_of
from durably.cli.steps import Tree
from tests.unit.cli.trees import T0, example


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
    assert text.isascii()
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
