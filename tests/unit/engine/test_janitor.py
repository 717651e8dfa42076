"""How much of the time retention takes."""

from __future__ import annotations

import pytest

from durably.core.messages import MessageBody
from durably.engine.janitor import REST, REST_MAX_US, REST_MIN_US, Janitor
from durably.storage.memory import MemoryStore
from tests.support.clock import ManualClock

HOUR_US = 3_600_000_000
PAGE_US = 10_000


async def _never(target: str, body: MessageBody) -> None:
    raise NotImplementedError


async def _no_pause(delay_us: int) -> None:
    raise NotImplementedError


def _everything(instance_id: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("took_us", "overdue_us", "rest_us"),
    [
        (PAGE_US, 0, REST * PAGE_US),
        (PAGE_US, (HOUR_US + 60_000_000) // 2, REST * PAGE_US // 2),
        (PAGE_US, 2 * HOUR_US, REST_MIN_US),  # it cannot keep up: no rest but for the others to have a turn
        (0, 0, REST_MIN_US),
        (8 * HOUR_US, 0, REST_MAX_US),  # the clock jumped: the machine was asleep
    ],
)
async def test_it_rests_less_the_more_is_overdue(
    clock: ManualClock, took_us: int, overdue_us: int, rest_us: int
) -> None:
    janitor = Janitor(MemoryStore(), _never, _no_pause, clock, HOUR_US, serves=_everything)
    assert janitor._rest_us(took_us, overdue_us) == rest_us
