"""Retry arithmetic: a table of delays, caps, jitter and the end of patience."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.core.retry import DELAY_MAX_US, RetrySpec, delay_us, retry_at

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("spec", "delays"),
    [
        (RetrySpec(SECOND, 9), [1, 1, 1, 1]),
        (RetrySpec(SECOND, 9, backoff=2.0), [1, 2, 4, 8]),
        (RetrySpec(SECOND, 9, backoff=1.5), [1, 1.5, 2.25, 3.375]),
        (RetrySpec(SECOND, 9, backoff=2.0, max_interval_us=3 * SECOND), [1, 2, 3, 3]),
        (RetrySpec(5 * SECOND, 9, max_interval_us=SECOND), [1, 1, 1, 1]),
        (RetrySpec(0, 9, backoff=10.0), [0, 0, 0, 0]),
    ],
)
def test_delays_follow_the_table(spec: RetrySpec, delays: list[float]) -> None:
    assert [delay_us(spec, attempt, "seed") / SECOND for attempt in (1, 2, 3, 4)] == delays


def test_a_delay_that_would_overflow_is_a_century() -> None:
    assert delay_us(RetrySpec(SECOND, 10_000, backoff=10.0), 5_000, "seed") == DELAY_MAX_US


def test_a_delay_that_would_overflow_keeps_its_own_cap() -> None:
    spec = RetrySpec(SECOND, 10_000, backoff=10.0, max_interval_us=60 * SECOND)
    assert delay_us(spec, 5_000, "seed") == 60 * SECOND


@settings(max_examples=50)
@given(st.floats(0, 1), st.integers(1, 50), st.text(max_size=20))
def test_jitter_shortens_by_no_more_than_its_share(jitter: float, attempt: int, seed: str) -> None:
    spec = RetrySpec(10 * SECOND, 99, jitter=jitter)
    assert 10 * SECOND * (1 - jitter) - 1 <= delay_us(spec, attempt, seed) <= 10 * SECOND


def test_jitter_is_a_function_of_call_and_attempt() -> None:
    spec = RetrySpec(10 * SECOND, 99, jitter=0.5)
    assert delay_us(spec, 1, "e:1") == delay_us(spec, 1, "e:1")
    assert len({delay_us(spec, attempt, f"e:{seq}") for attempt in range(1, 6) for seq in range(5)}) == 25


def test_jitter_spreads_over_its_whole_range() -> None:
    spec = RetrySpec(1_000, 99, jitter=1.0)
    delays = [delay_us(spec, 1, str(n)) for n in range(1_000)]
    assert min(delays) < 50
    assert max(delays) > 950
    assert 450 < sum(delays) / 1_000 < 550


def test_the_jitter_of_a_seed_never_changes() -> None:
    """Not with the machine, the Python version or the hash seed."""
    assert delay_us(RetrySpec(10 * SECOND, 9, jitter=0.5), 2, "0123:4") == 9_200_100


def test_attempts_are_counted_from_the_first() -> None:
    spec = RetrySpec(SECOND, 3)
    assert [retry_at(spec, attempt, 0, 0, "s") for attempt in (1, 2, 3, 4)] == [SECOND, SECOND, None, None]
    assert retry_at(RetrySpec(SECOND, 1), 1, 0, 0, "s") is None


def test_a_delay_counts_from_the_failure() -> None:
    assert retry_at(RetrySpec(SECOND, 3), 1, 5, 700, "s") == SECOND + 700


def test_no_attempt_comes_sooner_than_it_is_wanted() -> None:
    spec = RetrySpec(SECOND, 3, max_interval_us=2 * SECOND, timeout_us=60 * SECOND)
    assert retry_at(spec, 1, 0, 7, "s", at_least_us=30 * SECOND) == 7 + 30 * SECOND
    assert retry_at(spec, 1, 0, 7, "s", at_least_us=SECOND // 2) == 7 + SECOND
    assert retry_at(spec, 1, 0, 7, "s", at_least_us=61 * SECOND) is None
    assert retry_at(RetrySpec(SECOND, 3), 1, 0, 0, "s", at_least_us=10**18) == DELAY_MAX_US


@pytest.mark.parametrize(("failed_at", "due"), [(8, 10), (9, 11), (9.000001, None), (60, None)])
def test_no_attempt_starts_later_than_the_timeout_after_the_call(failed_at: float, due: float | None) -> None:
    spec = RetrySpec(2 * SECOND, 99, timeout_us=10 * SECOND)
    found = retry_at(spec, 1, SECOND, int(failed_at * SECOND), "s")
    assert found == (None if due is None else due * SECOND)
