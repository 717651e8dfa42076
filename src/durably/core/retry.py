"""Retry policy arithmetic: the attempt, the times and the seed come in as parameters."""

from __future__ import annotations

import hashlib

import msgspec

DELAY_MAX_US = 100 * 365 * 86_400 * 1_000_000
"""A delay beyond a century is a mistake in the policy; capped so that the arithmetic cannot overflow."""


class RetrySpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a retry policy that is stored with the call. Times in microseconds.

    Attributes:
        first_us: Delay before the second attempt.
        max_attempts: Attempts in all, the first one included; 1 means no retry.
        backoff: Each delay is this many times the one before.
        max_interval_us: No delay is longer than this, or None.
        timeout_us: No retry starts later than this after the first attempt was scheduled, or None.
        jitter: A delay is shortened by a random part of up to this share of itself, 0 to 1.
        has_predicate: User code has a say in each failure; see `RetryDeclined`.
    """

    first_us: int
    max_attempts: int
    backoff: float = 1.0
    max_interval_us: int | None = None
    timeout_us: int | None = None
    jitter: float = 0.0
    has_predicate: bool = False


def retry_at(
    spec: RetrySpec, attempt: int, scheduled_at: int, now: int, seed: str, *, at_least_us: int = 0
) -> int | None:
    """When the next attempt is due, or None when there is none.

    Args:
        spec: The policy.
        attempt: The number of the attempt that failed; the first is 1.
        scheduled_at: When the call was first scheduled, on the orchestration clock.
        now: The orchestration time of the failure. Both times are recorded, so a replay on a later day agrees.
        seed: Seeds the jitter, so that the delay is a function of the call and the attempt.
        at_least_us: No retry is due sooner than this after the failure, whatever the intervals of the policy.
    """
    if attempt >= spec.max_attempts:
        return None
    due = now + max(delay_us(spec, attempt, seed), min(at_least_us, DELAY_MAX_US))
    if spec.timeout_us is not None and due - scheduled_at > spec.timeout_us:
        return None
    return due


def delay_us(spec: RetrySpec, attempt: int, seed: str) -> int:
    """``first × backoff^(attempt−1)``, capped by the interval limit, then shortened by the jitter."""
    try:
        delay = spec.first_us * spec.backoff ** (attempt - 1)
    except OverflowError:
        delay = DELAY_MAX_US
    delay = min(
        delay, spec.max_interval_us if spec.max_interval_us is not None else DELAY_MAX_US, DELAY_MAX_US
    )
    if spec.jitter:
        draw = (
            int.from_bytes(hashlib.blake2b(f"{seed}:{attempt}".encode(), digest_size=8).digest(), "big")
            / 2**64
        )
        delay *= 1.0 - spec.jitter * draw
    return int(delay)
