"""The policy as users write it, and the say of its predicate. The engine runs the retries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durably.core.events import AttemptFailed, AttemptStarted, RetryDeclined, TaskScheduled
from durably.core.retry import RetrySpec
from durably.errors import FailureDetails, UsageError
from durably.program.context import OrchestrationContext
from durably.program.retry_policy import RetryPolicy
from tests.unit.program.harness import Play, failure

S = 1_000_000


def test_a_policy_becomes_what_is_stored() -> None:
    policy = RetryPolicy(
        first_retry_interval=timedelta(seconds=5),
        max_number_of_attempts=3,
        backoff_coefficient=2,
        max_retry_interval=timedelta(minutes=1),
        retry_timeout=3600,
        jitter=0.5,
        handle=lambda failure: True,
    )
    assert policy.spec() == RetrySpec(5 * S, 3, 2.0, 60 * S, 3600 * S, 0.5, has_predicate=True)
    assert RetryPolicy(0.25, 1).spec() == RetrySpec(250_000, 1)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"max_number_of_attempts": 0}, "max_number_of_attempts is 0: expected 1 or more"),
        ({"max_number_of_attempts": 2.5}, "max_number_of_attempts"),
        ({"max_number_of_attempts": True}, "max_number_of_attempts"),
        ({"first_retry_interval": timedelta(seconds=-1)}, "first_retry_interval"),
        ({"first_retry_interval": "5"}, "first_retry_interval"),
        ({"backoff_coefficient": 0.5}, "backoff_coefficient"),
        ({"backoff_coefficient": float("nan")}, "backoff_coefficient"),
        ({"max_retry_interval": -1}, "max_retry_interval"),
        ({"retry_timeout": -1}, "retry_timeout"),
        ({"jitter": 1.5}, "jitter"),
        ({"handle": 5}, "handle"),
    ],
)
def test_4_3_4_a_policy_out_of_range_is_refused(changed: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        RetryPolicy(**{"first_retry_interval": 1, "max_number_of_attempts": 3, **changed})


def test_4_3_6_the_time_limit_is_stored_with_the_call_not_measured_by_a_clock() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("a", retry=RetryPolicy(1, 3, retry_timeout=10))

    play = Play(program)
    assert play.made == [TaskScheduled(0, "a", None, RetrySpec(S, 3, timeout_us=10 * S))]
    assert play.send(AttemptFailed(0, 1, failure(), play.now + S)) == []
    assert play.send(AttemptStarted(0, 2)) == []


def test_4_3_7_the_predicate_decides_per_failure() -> None:
    asked: list[str] = []

    def handle(details: FailureDetails) -> bool:
        asked.append(details.type)
        return details.is_caused_by(OSError)

    async def program(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.call_activity("a", retry=RetryPolicy(1, 5, handle=handle))
        except Exception as error:  # noqa: BLE001
            return str(error)

    play = Play(program, shadow=False)
    timeout = FailureDetails("TimeoutError", "slow", bases=("builtins.TimeoutError", "builtins.OSError"))
    assert play.send(AttemptFailed(0, 1, timeout, play.now)) == []
    assert play.send(AttemptStarted(0, 2)) == []
    made = play.send(AttemptFailed(0, 2, failure("KeyError", "missing"), play.now))
    assert made[0] == RetryDeclined(0)
    assert play.result == "Task 'a' (#0) failed: KeyError: missing"
    assert asked == ["TimeoutError", "KeyError"]
    assert play.open == []
    play.replayed().close()


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_4_3_7_an_error_in_the_predicate_does_not_replace_the_failure(error: type[BaseException]) -> None:
    def handle(details: FailureDetails) -> bool:
        raise error("in the predicate")

    async def program(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.call_sub_orchestrator("child", retry=RetryPolicy(1, 5, handle=handle))
        except Exception as raised:  # noqa: BLE001
            return str(raised)

    play = Play(program)
    assert play.send(AttemptFailed(0, 1, failure("KeyError", "original"), play.now))[0] == RetryDeclined(0)
    assert play.result == "Task 'child' (#0) failed: KeyError: original"


def test_a_failed_attempt_of_a_task_that_was_given_up_asks_nobody() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        ctx.call_activity("a", retry=RetryPolicy(1, 5, handle=lambda _: 1 // 0 == 0)).cancel()
        await ctx.create_timer(5)

    play = Play(program)
    assert play.send(AttemptFailed(0, 1, failure(), play.now)) == []
