"""A tree with steps of all kinds."""

from datetime import UTC, datetime, timedelta

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
