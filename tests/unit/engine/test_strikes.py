"""Who is to blame for the end of a partition object, and what follows from it."""

from __future__ import annotations

import pytest

from durably.engine.strikes import Strikes
from durably.errors import InvariantError, StoreRefusedError

BROKEN = InvariantError("I1", "i", "a gap")
REFUSED = StoreRefusedError("too big")


def test_an_instance_is_condemned_at_the_limit_and_counts_anew_after_that() -> None:
    strikes = Strikes(3)
    assert [strikes.count(BROKEN, "i", progressed=False) for _ in range(2)] == [1, 2]
    assert not strikes.condemned
    assert strikes.count(BROKEN, "i", progressed=False) == 3
    assert "3 times" in strikes.condemned.pop("i")
    assert strikes.count(BROKEN, "i", progressed=False) == 1
    assert not strikes.condemned


@pytest.mark.parametrize("progressed", [True, False])
def test_ends_without_a_culprit_are_counted_until_something_is_committed(*, progressed: bool) -> None:
    strikes = Strikes(1)
    strikes.count(BROKEN, None, progressed=False)
    assert strikes.count(BROKEN, None, progressed=progressed) == (1 if progressed else 2)
    assert not strikes.condemned


def test_data_that_the_store_refuses_is_looked_for_and_condemned_at_once() -> None:
    strikes = Strikes(3)
    strikes.count(REFUSED, None, progressed=False)
    assert strikes.cautious
    strikes.count(REFUSED, "i", progressed=False)
    assert not strikes.cautious
    assert "too big" in strikes.condemned["i"]
    assert list(strikes.counts) == [None]
