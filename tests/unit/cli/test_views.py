"""Lines as text for a log."""

from durably.cli.rows import rows_of
from durably.cli.steps import Step, Tree
from durably.cli.views import changes, line
from tests.unit.cli.trees import T0, at, example


def test_a_log_has_a_line_for_each_step_that_has_come_further():
    before, after = example(), example(100)
    assert changes(before, after) == []
    assert len(changes([], after)) == len(after)

    tree = Tree("order-7", "order", started=T0, steps=[Step(0, "activity", "reserve", at(0))])
    before = rows_of(tree, at(1))
    tree.steps[0].state, tree.steps[0].ended = "done", at(2)
    assert changes(before, rows_of(tree, at(9))) == ["done      reserve  2.0 s"]


def test_the_next_execution_is_told_anew():
    tree = Tree("order-7", "order", started=T0, steps=[Step(0, "activity", "reserve", at(0))])
    before = rows_of(tree, at(1))
    tree.ordinal = 1
    assert changes(before, rows_of(tree, at(9))) == [
        "running   order  order-7  execution 2",
        "running   reserve",
    ]


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
