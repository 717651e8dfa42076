from __future__ import annotations

from typing import Any

import apsw
import pytest

from durably.storage.sqlite.statements import ManyKeys, ManyRows


class Recorder:
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.bound: list[Any] = []

    def __call__(self, text: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        self.sizes.append(text.count("?"))
        self.bound += values
        return [(value,) for value in values]


@pytest.mark.parametrize("count", [*range(1, 70), 127, 128, 129, 1_000])
def test_all_rows_are_bound_once_in_order_and_in_few_steps(count: int) -> None:
    recorder = Recorder()
    rows = [(number, -number) for number in range(count)]
    ManyRows("INSERT INTO t VALUES ", 2).run(recorder, rows)
    assert recorder.bound == [value for row in rows for value in row]
    assert len(recorder.sizes) <= count // 64 + 2
    keys = Recorder()
    assert ManyKeys("DELETE FROM t WHERE id").run(keys, range(count)) == [
        (number,) for number in range(count)
    ]


def test_the_number_of_texts_is_small_and_each_is_kept_prepared() -> None:
    texts: set[str] = set()
    wide = ManyRows("INSERT INTO t VALUES ", 19)
    for count in range(1, 300):
        wide.run(lambda text, values: texts.add(text), [(0,) * 19] * count)
    assert len(texts) == 19
    assert max(map(len, texts)) < 16_384  # APSW does not keep longer ones


def test_no_rows_are_no_statement() -> None:
    recorder = Recorder()
    ManyRows("INSERT INTO t VALUES ", 2).run(recorder, [])
    assert ManyKeys("DELETE FROM t WHERE id").run(recorder, []) == []
    assert recorder.sizes == []


def test_the_statements_mean_what_they_say() -> None:
    database = apsw.Connection(":memory:")
    database.execute("CREATE TABLE t (a, b)")
    rows = [(number, f"{number}") for number in range(100)]
    ManyRows("INSERT INTO t VALUES ", 2).run(database.execute, rows)
    assert database.execute("SELECT * FROM t ORDER BY a").fetchall() == rows
    assert len(ManyKeys("SELECT b FROM t WHERE a").run(database.execute, range(50, 150))) == 50
