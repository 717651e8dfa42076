"""The list of steps: what those who add one can get wrong."""

from __future__ import annotations

import re
from itertools import pairwise

from durably.storage.postgres.migrations import RELEASED, STEPS, VERSION, index, statements


def test_steps_are_numbered_without_gaps() -> None:
    assert [step.number for step in STEPS] == list(range(1, len(STEPS) + 1))


def test_versions_follow_each_other_and_pre_comes_before_post() -> None:
    order = [(step.version, step.phase == "post") for step in STEPS]
    assert order == sorted(order)
    assert order[0] == (1, False)
    assert all(after.version - before.version in {0, 1} for before, after in pairwise(STEPS))
    assert VERSION - RELEASED in {0, 1}


def test_only_steps_without_a_transaction_build_concurrently() -> None:
    for step in STEPS:
        concurrent = [bool(re.search(r"\bCONCURRENTLY\b", text)) for text in step.statements]
        assert all(concurrent) if step.concurrently else not any(concurrent), step


def test_a_script_is_taken_apart_at_the_ends_of_statements() -> None:
    assert statements("CREATE TABLE a (\n  b int -- c; d\n);\n\nDROP TABLE a;\n") == (
        "CREATE TABLE a (\n  b int -- c; d\n)",
        "DROP TABLE a",
    )


def test_an_index_that_was_cut_off_is_built_again() -> None:
    assert index("of_name", "instances (name)", unique=True) == (
        "DROP INDEX CONCURRENTLY IF EXISTS {s}.of_name",
        "CREATE UNIQUE INDEX CONCURRENTLY of_name ON {s}.instances (name)",
    )
