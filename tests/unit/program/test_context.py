"""The context: identity, time, chance, log, calls and what they record."""

from __future__ import annotations

import asyncio
import logging
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from durably.core.events import (
    ActionCanceled,
    ChildScheduled,
    CustomStatusSet,
    EventSent,
    ParentRef,
    StartSent,
    TaskScheduled,
    TimerCreated,
)
from durably.core.retry import RetrySpec
from durably.program.context import OrchestrationContext
from durably.program.registry import Registry
from durably.program.retry_policy import RetryPolicy
from tests.unit.program.harness import T0, Play, failure, kinds

S = 1_000_000


async def noop(ctx: OrchestrationContext) -> None: ...


# --- identity, time, chance ------------------------------------------------------------------------------------------


def test_the_context_knows_its_instance() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        ctx.tags["mine"] = "changed"  # a copy
        return [ctx.instance_id, ctx.execution_id, ctx.name, ctx.version, ctx.parent_instance_id, ctx.tags]

    play = Play(
        program,
        instance_id="i",
        parent=ParentRef("p", "e", 0),
        tags={"a": "b"},
        version="1.2",
        execution_id="e7",
    )
    assert play.result == ["i", "e7", "program", "1.2", "p", {"a": "b", "mine": "changed"}]
    assert play.started.tags == {"a": "b"}


def test_4_1_2_is_replaying_is_false_exactly_once_for_each_piece_of_code() -> None:
    seen: list[tuple[str, bool]] = []

    async def program(ctx: OrchestrationContext) -> None:
        seen.append(("begin", ctx.is_replaying))
        await ctx.call_activity("a")
        seen.append(("middle", ctx.is_replaying))
        await ctx.call_activity("b")
        seen.append(("end", ctx.is_replaying))

    play = Play(program, shadow=False)
    play.complete(0)
    run = play.replayed()
    from durably.core.events import TaskCompleted

    run.advance(TaskCompleted(1, None), play.now)
    assert seen == [
        ("begin", False),
        ("middle", False),
        ("begin", True),
        ("middle", True),
        ("end", False),
    ]


def test_4_1_3_current_utc_datetime_is_constant_within_a_turn_and_aware() -> None:
    async def program(ctx: OrchestrationContext) -> list[str]:
        first = ctx.current_utc_datetime
        await asyncio.sleep(0)
        assert ctx.current_utc_datetime == first
        assert first.tzinfo is UTC
        await ctx.create_timer(1)
        return [first.isoformat(), ctx.current_utc_datetime.isoformat()]

    play = Play(program)
    play.fire(0)
    assert play.result == ["2023-11-14T22:13:20+00:00", "2023-11-14T22:13:21+00:00"]


def test_4_1_4_uuids_and_chance_repeat_on_replay_and_differ_between_executions() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        await ctx.call_activity("a")
        return [str(ctx.new_uuid()), str(ctx.new_uuid()), ctx.random.random(), ctx.random.randrange(10**9)]

    def result(**identity: Any) -> tuple[Any, ...]:
        play = Play(program, **identity)
        play.complete(0)
        assert uuid.UUID(play.result[0]).version == 5
        return tuple(play.result)

    results = {result(), result(), result(instance_id="other"), result(execution_id="another execution")}
    assert len(results) == 3
    assert len({one for row in results for one in row}) == 12


def test_4_1_12_the_logger_writes_each_line_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def program(ctx: OrchestrationContext) -> None:
        ctx.logger.info("begin %s", 1, extra={"order": 5})
        await ctx.call_activity("a")
        ctx.logger.warning("middle")
        ctx.logger.debug("too fine")
        await ctx.call_activity("b")

    play = Play(program, shadow=False)
    play.complete(0)
    play.replayed().close()
    assert [record.getMessage() for record in caplog.records] == ["begin 1", "middle"]
    first: Any = caplog.records[0]
    assert (first.instance_id, first.orchestrator, first.order) == ("play", "program", 5)
    assert first.filename == "test_context.py"


# --- activities ------------------------------------------------------------------------------------------------------


def test_an_activity_is_called_by_itself_by_its_name_or_by_another_name() -> None:
    async def square(x: int) -> int:
        return x * x

    async def stranger(x: int) -> int:
        return x

    registry = Registry()
    registry.add_activity(square, name="Square")

    async def program(ctx: OrchestrationContext) -> None:
        ctx.call_activity(square, 2)
        ctx.call_activity("Square", 3)
        ctx.call_activity(stranger)
        ctx.call_activity("unknown", None, tags={"a": "b"}, timeout=timedelta(minutes=1))

    assert Play(program, registry=registry).made[:-1] == [
        TaskScheduled(0, "Square", b"2"),
        TaskScheduled(1, "Square", b"3"),
        TaskScheduled(2, "stranger", None),
        TaskScheduled(3, "unknown", None, None, 60 * S, {"a": "b"}),
    ]


def test_a_result_has_the_declared_type_unless_told_otherwise() -> None:
    async def when() -> datetime: ...

    async def program(ctx: OrchestrationContext) -> list[str]:
        seen = [
            await ctx.call_activity(when),
            await ctx.call_activity("when"),
            await ctx.call_activity(when, returns=str),
            await ctx.call_activity("unknown", returns=set[int]),
            await ctx.call_activity("unknown"),
        ]
        return [type(one).__name__ for one in seen]

    play = Play(program, activities=[when])
    for seq, value in enumerate(["2026-01-01T00:00:00Z"] * 3 + [[1]] * 2):
        play.complete(seq, value)
    assert play.result == ["datetime", "datetime", "str", "set", "list"]


def test_a_result_that_does_not_fit_fails_the_call() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity("a", returns=int)
        except TypeError as error:
            return str(error)
        return "fine"

    play = Play(program)
    play.complete(0, "text")
    assert play.result.startswith("Result of 'a' (#0): ")


def test_a_call_that_cannot_be_made_uses_no_number() -> None:
    class Odd:
        pass

    async def program(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []
        for call in (
            lambda: ctx.call_activity("a", Odd()),
            lambda: ctx.call_activity("a", timeout=0),
            lambda: ctx.call_activity("a", timeout=True),
            lambda: ctx.call_activity("a", retry=3),  # type: ignore[arg-type]
            lambda: ctx.call_activity("a", tags={"a": 1}),  # type: ignore[dict-item]
            lambda: ctx.call_sub_orchestrator("a", tags={"a": "\ud800"}),
            lambda: ctx.start_orchestration("a", version="\ud800"),
            lambda: ctx.call_activity(lambda: 1),
            lambda: ctx.call_activity([]),  # type: ignore[arg-type]
            lambda: ctx.call_sub_orchestrator("a", Odd()),
            lambda: ctx.call_sub_orchestrator("a", instance_id="a/b"),
            lambda: ctx.start_orchestration("a", instance_id="@a"),
            lambda: ctx.send_event("a?", "b"),
            lambda: ctx.send_event("a", ""),
            lambda: ctx.send_event("a", "b", Odd()),
            lambda: ctx.wait_for_external_event(""),
            lambda: ctx.wait_for_external_event("a", timeout=-1),
            lambda: ctx.create_timer("tomorrow"),  # type: ignore[arg-type]
            lambda: ctx.create_timer(float("nan")),
            lambda: ctx.when_any([]),
            lambda: ctx.map("a", [1], max_in_flight=0),
            lambda: ctx.set_custom_status(Odd()),
            lambda: ctx.continue_as_new(Odd()),
        ):
            try:
                call()
            except Exception as error:  # noqa: BLE001
                seen.append(type(error).__name__)
        ctx.call_activity("a")
        return seen

    play = Play(program)
    assert play.made[0] == TaskScheduled(0, "a", None)
    assert play.result == [
        "PayloadError",
        "UsageError",
        "UsageError",
        "UsageError",
        "InvalidTextError",
        "InvalidTextError",
        "InvalidTextError",
        "RegistrationError",
        "RegistrationError",
        "PayloadError",
        "InvalidIdError",
        "InvalidIdError",
        "InvalidIdError",
        "UsageError",
        "PayloadError",
        "UsageError",
        "UsageError",
        "UsageError",
        "UsageError",
        "UsageError",
        "UsageError",
        "PayloadError",
        "PayloadError",
    ]


# --- children --------------------------------------------------------------------------------------------------------


def test_4_6_1_a_child_has_an_id_made_of_parent_execution_and_number() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        ctx.create_timer(1)
        ctx.call_sub_orchestrator(noop, 5, version="2", tags={"a": "b"}, retry=RetryPolicy(1, 3))
        ctx.call_sub_orchestrator("child", instance_id="mine")

    assert Play(program, ordinal=3).made[1:3] == [
        ChildScheduled(1, "noop", "play:3:0001", b"5", "2", RetrySpec(S, 3), {"a": "b"}),
        ChildScheduled(2, "child", "mine", None),
    ]


def test_4_6_2_a_child_may_not_take_the_id_of_its_parent_or_grandparent() -> None:
    async def program(ctx: OrchestrationContext, instance_id: str) -> None:
        ctx.call_sub_orchestrator("child", instance_id=instance_id)

    for instance_id in ("play", "parent"):
        assert Play(program, instance_id, parent=ParentRef("parent", "e", 0)).failed.type == "InvalidIdError"


def test_an_id_of_a_child_that_would_be_too_long_is_refused() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        ctx.call_sub_orchestrator("child")

    assert "nest less deeply" in Play(program, instance_id="x" * 250).failed.message


def test_4_6_3_the_failure_of_a_child_reaches_the_parent() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_sub_orchestrator("child")
        except Exception as error:  # noqa: BLE001
            return str(error)
        return "fine"

    play = Play(program)
    play.fail(0)
    assert play.result == "Task 'child' (#0) failed: ValueError: no"


def test_a_child_has_the_result_type_of_its_version() -> None:
    async def old(ctx: OrchestrationContext) -> list[int]: ...
    async def new(ctx: OrchestrationContext) -> set[int]: ...

    registry = Registry()
    registry.add_orchestrator(old, name="child", version="1")
    registry.add_orchestrator(new, name="child", version="2")

    async def program(ctx: OrchestrationContext) -> list[str]:
        return [
            type(await ctx.call_sub_orchestrator("child", version=version)).__name__
            for version in ("1", "2", None)
        ]

    play = Play(program, registry=registry)
    for seq in range(3):
        play.complete(seq, [1])
    assert play.result == ["list", "set", "set"]


def test_an_orchestration_that_is_only_started_is_a_finished_call() -> None:
    async def program(ctx: OrchestrationContext) -> list[str]:
        first = ctx.start_orchestration(noop, {"a": 1}, tags={"t": "1"}, version="1")
        assert first.done()
        delayed = ctx.start_orchestration("x", start_at=timedelta(hours=1), instance_id="x")
        at = ctx.start_orchestration("x", start_at=datetime(2030, 1, 1))  # noqa: DTZ001 - naive means UTC
        return [await first, await delayed, await at]

    play = Play(program)
    assert play.made[:-1] == [
        StartSent(0, "noop", "play:0:0000", b'{"a":1}', "1", {"t": "1"}),
        StartSent(1, "x", "x", None, None, None, T0 + 3600 * S),
        StartSent(2, "x", "play:0:0002", None, None, None, 1_893_456_000 * S),
    ]
    assert play.result == ["play:0:0000", "x", "play:0:0002"]


def test_an_event_is_sent_when_the_call_is_made() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        ctx.send_event("friend", "Hello", [1])
        assert await ctx.send_event("friend", "Hello") is None

    assert Play(program).made[:-1] == [
        EventSent(0, "friend", "Hello", b"[1]"),
        EventSent(1, "friend", "Hello", None),
    ]


# --- timers ----------------------------------------------------------------------------------------------------------


def test_4_4_2_due_times_in_any_zone_are_instants() -> None:
    zone = timezone(timedelta(hours=-5))
    instant = datetime(2030, 1, 1, 12, tzinfo=UTC)

    async def program(ctx: OrchestrationContext) -> None:
        ctx.create_timer(instant)
        ctx.create_timer(instant.astimezone(zone))
        ctx.create_timer(instant.replace(tzinfo=None))
        ctx.create_timer(timedelta(days=3, microseconds=1))
        ctx.create_timer(2.5)
        ctx.create_timer(-5)
        ctx.create_timer(datetime(2001, 1, 1, tzinfo=UTC))

    at = 1_893_499_200 * S
    assert [one.fire_at for one in Play(program).made if isinstance(one, TimerCreated)] == [
        at,
        at,
        at,
        T0 + 3 * 86_400 * S + 1,
        T0 + 2_500_000,
        T0 - 5 * S,
        978_307_200 * S,
    ]


def test_a_timer_that_is_cancelled_says_so_once() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        timer = ctx.create_timer(5)
        assert timer.cancel()
        assert not timer.cancel()

    assert Play(program).made[:-1] == [TimerCreated(0, T0 + 5 * S), ActionCanceled(0)]


# --- status ----------------------------------------------------------------------------------------------------------


def test_the_custom_status_is_recorded_when_it_is_set() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status({"step": 1})
        await ctx.call_activity("a")
        ctx.set_custom_status(None)

    play = Play(program)
    assert play.made == [CustomStatusSet(b'{"step":1}'), TaskScheduled(0, "a", None)]
    assert play.complete(0)[0] == CustomStatusSet(None)


def test_4_9_6_a_custom_status_above_16_kib_is_refused_in_the_orchestrator() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        ctx.set_custom_status("x" * (16 * 1024 - 2))
        try:
            ctx.set_custom_status("x" * (16 * 1024 - 1))
        except TypeError as error:
            return str(error)
        return "fine"

    play = Play(program)
    assert kinds(play.made) == ["CustomStatusSet", "ExecutionCompleted"]
    assert "16384 at most" in play.result


# --- a failure in detail ---------------------------------------------------------------------------------------------


def test_4_3_11_a_failure_is_matched_by_base_class() -> None:
    from durably.core.events import TaskFailed
    from durably.errors import FailureDetails, TaskFailedError

    async def program(ctx: OrchestrationContext) -> list[Any]:
        try:
            await ctx.call_activity("a")
        except TaskFailedError as error:
            details = error.details
            return [
                details.is_caused_by(OSError),
                details.is_caused_by("ValueError"),
                details.is_caused_by(KeyError),
                details.stack_trace,
                error.task_name,
                error.task_id,
            ]
        return []

    play = Play(program)
    details = FailureDetails(
        "FileNotFoundError",
        "gone",
        "trace",
        failure(),
        ("builtins.FileNotFoundError", "builtins.OSError", "builtins.Exception"),
    )
    play.send(TaskFailed(0, details))
    assert play.result == [True, True, False, "trace", "a", 0]


def test_a_timeout_of_a_task_is_a_timeout_error() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity("a", timeout=5)
        except TimeoutError as error:
            return type(error).__name__
        return "fine"

    play = Play(program)
    play.fail(0, "TaskTimeoutError")
    assert play.result == "TaskTimeoutError"
