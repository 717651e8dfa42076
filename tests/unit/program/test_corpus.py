"""Programs of many shapes, live and replayed after each event."""

from __future__ import annotations

import pytest

from tests.unit.program.corpus import CORPUS
from tests.unit.program.harness import Play


@pytest.mark.parametrize("name", CORPUS)
def test_a_replay_decides_as_the_live_run_did_after_every_event(name: str) -> None:
    fn, input, script = CORPUS[name]
    play = Play(fn, input)
    script(play)
    assert play.outcome is not None
