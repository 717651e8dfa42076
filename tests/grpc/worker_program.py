"""A worker with the published Python SDK of Durable Task, in a process of its own.

python worker_program.py ADDRESS:PORT [EFFECTS [own]]

It notes each activity that it has run as a line of EFFECTS. With "own" it takes no functions but those that it has: workers
of other languages may be there.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

from durabletask import entities, task
from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker

EFFECTS = sys.argv[2] if len(sys.argv) > 2 else os.devnull

Steps = Generator[Any, Any, Any]


def note(text: str) -> None:
    with Path(EFFECTS).open("a") as effects:
        effects.write(text + "\n")


def increase(ctx: task.ActivityContext, number: int) -> int:
    note(f"increase {ctx.orchestration_id} {number}")
    return number + 1


def fail(ctx: task.ActivityContext, text: str) -> None:
    note(f"fail {ctx.orchestration_id}")
    raise ValueError(text)


def flaky(ctx: task.ActivityContext, fails: int) -> str:
    note(f"flaky {ctx.orchestration_id}")
    tries = Path(EFFECTS).read_text().count(f"flaky {ctx.orchestration_id}\n")
    if tries <= fails:
        raise ValueError(f"try {tries}")
    return f"try {tries}"


def echo(_: task.ActivityContext, data: Any) -> Any:
    return data


def chain(ctx: task.OrchestrationContext, number: int) -> Steps:
    for _ in range(5):
        number = yield ctx.call_activity(increase, input=number)
    return number


def fan_out(ctx: task.OrchestrationContext, width: int) -> Steps:
    results = yield task.when_all([ctx.call_activity(increase, input=number) for number in range(width)])
    return sum(results)


def first(ctx: task.OrchestrationContext, _: Any) -> Steps:
    late = ctx.create_timer(timedelta(hours=1))
    soon = ctx.create_timer(timedelta(milliseconds=20))
    winner = yield task.when_any([late, soon])
    return "soon" if winner is soon else "late"


def wait(ctx: task.OrchestrationContext, names: list[str]) -> Steps:
    found: list[Any] = []
    for name in names:
        ctx.set_custom_status({"waits": name})
        found.append((yield ctx.wait_for_external_event(name)))
    return found


def parent(ctx: task.OrchestrationContext, number: int) -> Steps:
    one = yield ctx.call_sub_orchestrator(chain, input=number)
    other = yield ctx.call_sub_orchestrator(chain, input=one, instance_id=f"{ctx.instance_id}-child")
    return other


def failing(ctx: task.OrchestrationContext, text: str) -> Steps:
    yield ctx.call_activity(fail, input=text)


def failing_parent(ctx: task.OrchestrationContext, text: str) -> Steps:
    yield ctx.call_sub_orchestrator(failing, input=text)


def retrying(ctx: task.OrchestrationContext, tries: int) -> Steps:
    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=20), max_number_of_attempts=tries)
    try:
        yield ctx.call_activity(fail, input="again", retry_policy=policy)
    except task.TaskFailedError as error:
        return str(error)


def counting(ctx: task.OrchestrationContext, rounds: int) -> Steps:
    ids = ctx.new_uuid()
    yield ctx.call_activity(increase, input=rounds)
    if rounds > 1:
        ctx.continue_as_new(rounds - 1, save_events=True)
        return None
    event = yield ctx.wait_for_external_event("last")
    return [event, len(str(ids))]


def collecting(ctx: task.OrchestrationContext, found: list[int]) -> Steps:
    event = yield ctx.wait_for_external_event("number")
    if event is None:
        return found
    ctx.continue_as_new([*found, event], save_events=True)
    return None


class Account(entities.DurableEntity):
    def deposit(self, amount: int) -> int:
        self.set_state(self.get_state(int, 0) + amount)
        return self.get_state(int, 0)

    def refuse(self, _: Any) -> None:
        self.set_state(-1)
        raise ValueError("not you")


def banking(ctx: task.OrchestrationContext, key: str) -> Steps:
    one, other = entities.EntityInstanceId("Account", key), entities.EntityInstanceId("Account", f"{key}2")
    ctx.signal_entity(one, "deposit", input=1)
    with (yield ctx.lock_entities([one, other])):
        before = yield ctx.call_entity(one, "deposit", input=10)
        after = yield ctx.call_entity(other, "deposit", input=20)
    try:
        yield ctx.call_entity(one, "refuse")
    except task.TaskFailedError as error:
        return [before, after, error.details.message]
    return []


def mixed(ctx: task.OrchestrationContext, text: str) -> Steps:
    """Calls what the host itself has."""
    shouted = yield ctx.call_activity("upper", input=text)
    child = yield ctx.call_sub_orchestrator("native_child", input=shouted)
    return child


def there_and_back(ctx: task.OrchestrationContext, rounds: int) -> Steps:
    """Calls what a worker in JavaScript has; its child calls this one again, one less each time."""
    if rounds == 0:
        return []
    number = yield ctx.call_activity("js_increase", input=rounds)
    total = yield ctx.call_entity(entities.EntityInstanceId("js_Account", ctx.instance_id), "deposit", rounds)
    rest = yield ctx.call_sub_orchestrator("js_there_and_back", input=rounds - 1)
    failure = ""
    try:
        yield ctx.call_activity("js_fail", input="no ink")
    except task.TaskFailedError as error:
        failure = f"{error.details.error_type}: {error.details.message}"
    return [["python", number, total, failure], *rest]


def rewindable(ctx: task.OrchestrationContext, fails: int) -> Steps:
    before = yield ctx.call_activity(increase, input=1)
    child = yield ctx.call_sub_orchestrator(flaky_child, input=fails)
    after = yield ctx.call_activity(increase, input=before)
    return [child, after]


def flaky_child(ctx: task.OrchestrationContext, fails: int) -> Steps:
    yield ctx.call_activity(increase, input=10)
    return (yield ctx.call_activity(flaky, input=fails))


def three_steps(ctx: task.OrchestrationContext, number: int) -> Steps:
    number = yield ctx.call_activity(increase, input=number)
    yield ctx.create_timer(timedelta(milliseconds=10))
    return (yield ctx.call_sub_orchestrator(chain, input=number))


def long_input(ctx: task.OrchestrationContext, data: str) -> Steps:
    back = yield ctx.call_activity(echo, input=data)
    return len(back)


def main() -> None:
    logging.disable(logging.CRITICAL)
    options = ConcurrencyOptions(maximum_thread_pool_workers=8)
    worker = TaskHubGrpcWorker(host_address=sys.argv[1], concurrency_options=options)
    for orchestrator in (
        chain,
        fan_out,
        first,
        wait,
        parent,
        failing,
        failing_parent,
        retrying,
        counting,
        collecting,
        banking,
        mixed,
        there_and_back,
        three_steps,
        rewindable,
        flaky_child,
        long_input,
    ):
        worker.add_orchestrator(orchestrator)
    for activity in (increase, fail, flaky, echo):
        worker.add_activity(activity)
    worker.add_entity(Account)
    if sys.argv[3:] == ["own"]:
        worker.use_work_item_filters()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    worker.start()
    print("ready", flush=True)
    over.wait()
    worker.stop()


if __name__ == "__main__":
    main()
