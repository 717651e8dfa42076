"""The retry policy of a call, as users write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from durably.core.retry import RetrySpec
from durably.errors import FailureDetails, UsageError
from durably.program.durations import microseconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed activity or sub-orchestration is tried again.

    Delays are durable: a restart during one does not begin it anew. A failure that is a `NonRetryableError` is never
    tried again. Times are `timedelta` or seconds.

    Attributes:
        first_retry_interval: Delay before the second attempt.
        max_number_of_attempts: Attempts in all, the first one included; 1 means no retry.
        backoff_coefficient: Each delay is this many times the one before; 1 or more.
        max_retry_interval: No delay is longer, or None.
        retry_timeout: No attempt starts later than this after the call, on the orchestration clock, or None.
        jitter: Each delay is shortened by a random part of up to this share of itself, 0 to 1.
        handle: Asked about each failed attempt that would be tried again: False ends it with that failure. Runs as part
            of the orchestrator and must be deterministic. If it raises, the answer is False.

    Raises:
        UsageError: A value is out of its range.
    """

    first_retry_interval: timedelta | float
    max_number_of_attempts: int
    backoff_coefficient: float = 1.0
    max_retry_interval: timedelta | float | None = None
    retry_timeout: timedelta | float | None = None
    jitter: float = 0.0
    handle: Callable[[FailureDetails], bool] | None = None

    def __post_init__(self) -> None:
        attempts = self.max_number_of_attempts
        if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
            raise UsageError(
                f"max_number_of_attempts is {attempts!r}: expected 1 or more, since the first attempt counts; 1 means no retry"
            )
        if not self.backoff_coefficient >= 1:  # also not-a-number
            raise UsageError(
                f"backoff_coefficient is {self.backoff_coefficient!r}: expected 1 (a constant delay) or more"
            )
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"jitter is {self.jitter!r}: expected a share of the delay, 0 to 1")
        if self.handle is not None and not callable(self.handle):
            raise UsageError(
                f"handle is {self.handle!r}: expected a function of FailureDetails that returns a bool"
            )
        self.spec()

    def spec(self) -> RetrySpec:
        """The part of the policy that is stored with the call."""
        return RetrySpec(
            first_us=microseconds(self.first_retry_interval, "first_retry_interval"),
            max_attempts=self.max_number_of_attempts,
            backoff=float(self.backoff_coefficient),
            max_interval_us=_optional(self.max_retry_interval, "max_retry_interval"),
            timeout_us=_optional(self.retry_timeout, "retry_timeout"),
            jitter=float(self.jitter),
            has_predicate=self.handle is not None,
        )


def _optional(value: timedelta | float | None, what: str) -> int | None:
    return None if value is None else microseconds(value, what)
