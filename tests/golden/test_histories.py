"""Histories that were recorded under each supported Python replay under this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.core.events import ExecutionStarted
from tests.golden.record_histories import HISTORIES, load
from tests.unit.program.corpus import CORPUS
from tests.unit.program.harness import Play

RECORDED = sorted(HISTORIES.glob("*/*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_history_replays_from_every_point(path: Path) -> None:
    history = load(path)
    fn, input, _ = CORPUS[path.stem]
    started = next(event for event in history if isinstance(event, ExecutionStarted))
    play = Play(fn, input, instance_id=started.instance_id, shadow=False)
    play.started = started
    for end in range(2, len(history) + 1):
        if end == len(history) or type(history[end]).__name__ == "TurnStarted":
            play.replayed(history[:end]).close()


def test_every_shape_is_recorded_under_three_versions() -> None:
    assert {(path.parent.name, path.stem) for path in RECORDED} == {
        (python, name) for python in ("3.11", "3.12", "3.13") for name in CORPUS
    }
