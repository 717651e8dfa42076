"""What a worker is told and what its answers mean, live and when the history is told again; with messages made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.clock import SystemRandom
from durably.core.events import (
    Action,
    ContinuedAsNew,
    CustomStatusSet,
    EntityCalled,
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionStarted,
    HistoryEvent,
    LockReleased,
    LockRequested,
    TaskScheduled,
    TimerCreated,
)
from durably.core.instance import InstanceState
from durably.core.messages import (
    ActivityDone,
    Cancel,
    EntityDone,
    EntityLocked,
    MessageBody,
    RaiseEvent,
    TimerDue,
    WorkerAnswered,
)
from durably.core.orchestration import Commit
from durably.errors import DurablyError
from durably.executors.remote.answers import OF_INSTANCE
from durably.executors.remote.executor import RemoteExecutor
from durably.executors.remote.run import Asked, RemoteRun
from durably.executors.remote.wire import pb

FAR = 2**62


def started(**more: Any) -> ExecutionStarted:
    given = {
        "name": "flow",
        "input": b"1",
        "execution_id": "e1",
        "ordinal": 0,
        "created_at": 5,
        "python": "3",
    }
    return ExecutionStarted(instance_id="i", remote=True, **{**given, **more})


def task(number: int, **more: Any) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=number, scheduleTask=pb.ScheduleTaskAction(name="work", **more))


def timer(number: int, seconds: int, nanos: int = 0) -> pb.OrchestratorAction:
    action = pb.OrchestratorAction(id=number)
    action.createTimer.fireAt.seconds, action.createTimer.fireAt.nanos = seconds, nanos
    return action


def end(status: int = pb.ORCHESTRATION_STATUS_COMPLETED, **more: Any) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(
        id=99,
        completeOrchestration=pb.CompleteOrchestrationAction(
            orchestrationStatus=status,  # pyright: ignore[reportArgumentType]
            **more,
        ),
    )


def entity(number: int, **message: Any) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=number, sendEntityMessage=pb.SendEntityMessageAction(**message))


def lock(number: int, name: str, *entities: str) -> pb.OrchestratorAction:
    request = pb.EntityLockRequestedEvent(criticalSectionId=name, lockSet=entities)
    return entity(number, entityLockRequested=request)


def unlock(number: int, name: str) -> pb.OrchestratorAction:
    return entity(number, entityUnlockSent=pb.EntityUnlockSentEvent(criticalSectionId=name))


def call(number: int, target: str, request_id: str = "r") -> pb.OrchestratorAction:
    event = pb.EntityOperationCalledEvent(requestId=request_id, operation="add")
    event.targetInstanceId.value = target
    return entity(number, entityOperationCalled=event)


class Live:
    """An instance as the engine has it: its state, its history, and a run to which everything is told."""

    def __init__(self, event: ExecutionStarted | None = None) -> None:
        self.event = event or started()
        self.state = InstanceState("i")
        self.history: list[HistoryEvent] = []
        self.run = RemoteRun(self.event, lambda run: None, lambda run: None)
        self.now = 10
        self._do(lambda commit: commit.begin(self.event))

    def receive(self, body: MessageBody) -> None:
        """A message that is not of a worker."""
        self._do(lambda commit: commit.receive(body))

    def answer(self, asked: Asked, *actions: pb.OrchestratorAction, **more: Any) -> WorkerAnswered | None:
        """A worker answers what it was asked; returns what the engine records."""
        return self.take(self.run.read(asked, pb.OrchestratorResponse(actions=actions, **more)))

    def take(self, body: WorkerAnswered) -> WorkerAnswered | None:
        """The message with the answer arrives."""
        commit = self._turn()
        found = self.run.answered(body)
        if found is not None:
            assert commit.receive(found) is not None
            for action in found.actions:
                commit.decide(action)
        self._record(commit)
        return found

    def actions(self, *actions: pb.OrchestratorAction, **more: Any) -> tuple[Action, ...]:
        """What a worker decides on all that has arrived."""
        found = self.answer(self.run.request()[0], *actions, **more)
        assert found is not None
        return found.actions

    def check(self) -> None:
        """State and run agree, and the run is the same when its history is told again, in whatever process."""
        again = RemoteExecutor(SystemRandom()).replay(self.history)
        assert bytes(again._past) == bytes(self.run._past)
        assert again._waiting == self.run._waiting
        assert again._open == self.run._open
        assert again._section == self.run._section
        assert (again.answers, again._seen) == (self.run.answers, self.run._seen)
        assert again.has_work == self.run.has_work
        assert self.state.untaken == len(self.run._waiting)
        assert self.state.answers == self.run.answers

    def _turn(self) -> Commit:
        self.now += 1
        commit = Commit(self.state)
        commit.turn(self.now)
        return commit

    def _do(self, what: Callable[[Commit], Any]) -> None:
        commit = self._turn()
        event = what(commit)
        if event is not None:
            assert self.run.advance(event, self.state.now) == ()
        self._record(commit)

    def _record(self, commit: Commit) -> None:
        self.history += commit.events  # pyright: ignore[reportArgumentType]


def refused(*actions: pb.OrchestratorAction) -> str:
    live = Live()
    with pytest.raises(DurablyError) as caught:
        live.actions(*actions)
    return str(caught.value)


def events_of(live: Live) -> list[str]:
    request = pb.OrchestratorRequest.FromString(live.run.request()[1])
    return [event.WhichOneof("eventType") or "" for event in (*request.pastEvents, *request.newEvents)]


# --- answers -------------------------------------------------------------------------------------------------------------


def test_an_event_that_comes_behind_the_answer_but_before_its_turn_moves_on_too() -> None:
    live = Live()
    asked, _ = live.run.request()
    live.receive(RaiseEvent("seen before the answer", b"1"))
    carried = pb.HistoryEvent(eventId=-1)
    carried.eventRaised.name = "kept"
    action = end(pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW, carryoverEvents=[carried])
    body = live.run.read(asked, pb.OrchestratorResponse(actions=[action]))
    live.receive(RaiseEvent("on its way", b"2"))
    found = live.take(body)
    assert found is not None
    assert found.actions == (
        ContinuedAsNew(
            None,
            carried=(
                EventRaised("kept", None),
                EventRaised("seen before the answer", b"1"),
                EventRaised("on its way", b"2"),
            ),
        ),
    )
    live.check()


def test_what_has_ended_asks_no_worker_although_something_has_arrived_meanwhile() -> None:
    live = Live()
    asked, _ = live.run.request()
    live.receive(RaiseEvent("late", None))
    live.answer(asked, end())
    assert not live.run.has_work
    live.check()


def test_a_second_answer_and_one_to_something_else_do_not_count() -> None:
    live = Live()
    asked, _ = live.run.request()
    body = live.run.read(asked, pb.OrchestratorResponse(actions=[task(1)]))
    assert live.take(body) is not None
    assert live.take(body) is None
    asked, _ = live.run.request()
    assert live.answer(asked._replace(taken=1)) is None
    live.check()


def test_arrivals_in_another_order_than_the_worker_has_seen_make_its_answer_void() -> None:
    """What was not durable when a worker was asked may come again differently."""
    seen, now = Live(), Live()
    for live, names in ((seen, "ab"), (now, "ba")):
        for name in names:
            live.receive(RaiseEvent(name, None))
    asked, _ = seen.run.request()
    body = seen.run.read(asked, pb.OrchestratorResponse(actions=[task(1)]))
    assert now.take(body) is None
    assert seen.take(body) is not None
    now.check()


def test_an_answer_that_came_to_nothing_leaves_no_trace() -> None:
    live = Live()
    asked, _ = live.run.request()
    live.run.read(asked, pb.OrchestratorResponse(actions=[task(1)]))  # it is lost on its way
    [action] = live.actions(task(1))
    assert isinstance(action, TaskScheduled)
    assert action.seq == 1
    live.check()


def test_numbers_that_repeat_get_one_of_their_own_and_the_worker_sees_its_own() -> None:
    live = Live()
    first, second, third = live.actions(task(1), task(1), task(-3))
    assert [first.seq, second.seq, third.seq] == [1, 2, 3]  # type: ignore[union-attr]
    live.receive(ActivityDone("e1", 2, 1, b"7"))
    request = pb.OrchestratorRequest.FromString(live.run.request()[1])
    assert [event.eventId for event in request.pastEvents][2:] == [1, 1, -3]
    assert request.newEvents[1].taskCompleted.taskScheduledId == 1
    live.check()


def test_an_activity_has_the_version_of_its_caller_for_filters() -> None:
    live = Live(started(version="3.0.0"))
    [action] = live.actions(task(1))
    assert isinstance(action, TaskScheduled)
    assert action.detail is not None
    assert pb.ScheduleTaskAction.FromString(action.detail).tags[OF_INSTANCE] == "3.0.0"
    request = pb.OrchestratorRequest.FromString(live.run.request()[1])
    assert not request.pastEvents[2].taskScheduled.HasField("version")
    live.check()


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected"),
    [(0, 0, 0), (-5, 0, 0), (1, 999, 1_000_000), (FAR, 0, 253_402_300_799_999_999)],
)
def test_timers_at_odd_instants(seconds: int, nanos: int, expected: int) -> None:
    live = Live()
    assert live.actions(timer(1, seconds, nanos)) == (TimerCreated(1, expected),)
    live.check()


def test_a_timer_without_an_instant_fires_at_once() -> None:
    action = pb.OrchestratorAction(id=1)
    action.createTimer.SetInParent()
    assert Live().actions(action) == (TimerCreated(1, 0),)


def test_a_custom_status_need_not_be_json() -> None:
    live = Live()
    status = pb.OrchestratorResponse(actions=[])
    status.customStatus.value = "\0{"
    found = live.take(live.run.read(live.run.request()[0], status))
    assert found is not None
    assert found.actions == (CustomStatusSet(b"\0{"),)
    live.check()


def test_the_same_custom_status_once_more_is_no_decision() -> None:
    live = Live()
    for expected in ((CustomStatusSet(b""),), ()):
        live.receive(RaiseEvent("e", None))
        status = pb.OrchestratorResponse()
        status.customStatus.value = ""
        found = live.take(live.run.read(live.run.request()[0], status))
        assert found is not None
        assert found.actions == expected


@pytest.mark.parametrize(
    "action",
    [
        pb.OrchestratorAction(id=1),
        pb.OrchestratorAction(id=1, terminateOrchestration=pb.TerminateOrchestrationAction(instanceId="x")),
        entity(1),
        call(1, ""),
        call(1, "account"),
        call(1, "@account"),
        call(1, "@@key"),
        lock(1, "s"),
        lock(1, "s", "i"),
        pb.OrchestratorAction(id=1, sendEvent=pb.SendEventAction(name="e")),
        pb.OrchestratorAction(
            id=1,
            sendEvent=pb.SendEventAction(
                instance=pb.OrchestrationInstance(instanceId="@account@key"), name="e"
            ),
        ),
        pb.OrchestratorAction(
            id=1, createSubOrchestration=pb.CreateSubOrchestrationAction(instanceId="a/b", name="c")
        ),
        pb.OrchestratorAction(
            id=1, createSubOrchestration=pb.CreateSubOrchestrationAction(name="c", tags={"durably:own": ""})
        ),
    ],
)
def test_what_nobody_can_carry_out_is_refused_as_a_whole(action: pb.OrchestratorAction) -> None:
    assert refused(task(7), action)


# --- critical sections -----------------------------------------------------------------------------------------------


def test_locks_are_taken_in_one_order_and_each_entity_once() -> None:
    live = Live()
    expected = LockRequested(1, ("@account@1", "@account@2"))
    assert live.actions(lock(1, "s", "@Account@2", "@account@1", "@account@2")) == (expected,)
    live.check()


def test_a_lock_within_a_lock_would_never_be_released() -> None:
    live = Live()
    live.actions(lock(1, "s", "@a@1"))
    asked, _ = live.run.request()
    with pytest.raises(DurablyError, match="none while it has others"):
        live.answer(asked, lock(2, "t", "@a@2"))


def test_one_release_counts_and_only_of_the_block_that_there_is() -> None:
    live = Live()
    live.actions(lock(1, "s", "@a@1", "@a@2"))
    live.receive(EntityLocked("e1", 1, "@a@1"))
    live.check()
    live.receive(EntityLocked("e1", 1, "@a@2"))
    live.check()
    actions = live.actions(unlock(2, "s"), unlock(3, "s"), lock(4, "t", "@a@1"), unlock(5, "s"))
    assert actions == (LockReleased(1), LockRequested(4, ("@a@1",)))
    live.check()
    live.receive(EntityLocked("e1", 4, "@a@1"))
    assert live.actions(unlock(6, "t")) == (LockReleased(4),)
    live.check()


def test_a_lock_that_is_given_up_in_the_same_answer_is_not_had() -> None:
    live = Live()
    live.actions(lock(1, "s", "@a@1"), unlock(2, "s"))
    live.check()
    live.receive(RaiseEvent("e", None))
    assert live.actions(lock(3, "t", "@a@1")) == (LockRequested(3, ("@a@1",)),)
    live.check()


# --- replays ---------------------------------------------------------------------------------------------------------


def test_tags_are_told_in_the_same_order_always() -> None:
    tags = {f"t{number}": "x" for number in range(40)}
    live = Live(started(tags=tags))
    live.actions(task(1, tags=dict(reversed(tags.items()))))
    live.check()


def test_what_the_code_does_not_see_is_not_counted() -> None:
    live = Live()
    live.actions(call(1, "@a@1"), task(2))
    live.receive(Cancel("no"))
    live.receive(EntityDone("e1", 1, b"1", None))
    live.receive(EntityDone("e1", 1, b"1", None))  # twice
    live.receive(EntityDone("e0", 1, b"1", None))  # of another execution
    live.receive(ActivityDone("e0", 2, 1, b"1"))
    live.check()
    assert live.state.untaken == 1
    assert events_of(live)[-2:] == ["orchestratorStarted", "entityOperationCompleted"]


step = st.one_of(
    st.tuples(st.just("event"), st.integers(0, 3)),
    st.tuples(st.just("finish"), st.integers(0, 50)),
    st.tuples(st.just("stray"), st.integers(0, 9)),
    st.just(("ask", 0)),
    st.tuples(st.just("answer"), st.lists(st.integers(0, 7), max_size=5)),
)


def _action(kind: int, number: int, live: Live) -> pb.OrchestratorAction:
    section = live.run._section
    match kind:
        case 0:
            return task(number % 7, tags={"a": "b", "c": "d"})
        case 1:
            return timer(number, number, 500)
        case 2:
            return call(number, "@a@1", f"r{number}")
        case 3:
            return (
                lock(number, f"s{number}", "@a@2", "@a@1") if section is None else unlock(number, section[1])
            )
        case 4:
            return pb.OrchestratorAction(
                id=number,
                sendEvent=pb.SendEventAction(name="e", instance=pb.OrchestrationInstance(instanceId="j")),
            )
        case 5:
            return pb.OrchestratorAction(
                id=number, createSubOrchestration=pb.CreateSubOrchestrationAction(name="c", version=None)
            )
        case 6:
            return unlock(number, "of nobody")
        case _:
            return task(number)


def _finish(live: Live, which: int) -> None:
    """Complete one of the open actions."""
    numbers = sorted(live.state.open)
    if not numbers:
        return
    opened = live.state.open[numbers[which % len(numbers)]]
    match opened:
        case TaskScheduled():
            live.receive(ActivityDone("e1", opened.seq, 1, b"1"))
        case TimerCreated():
            live.receive(TimerDue(0, opened.seq, 0))
        case EntityCalled():
            live.receive(EntityDone("e1", opened.seq, b"2", None))
        case LockRequested():
            section = live.state.section
            if section is not None and not section.complete:
                live.receive(EntityLocked("e1", opened.seq, section.entities[section.granted]))
        case _:
            pass


@settings(max_examples=300, deadline=None)
@given(st.lists(step, max_size=40), st.booleans())
def test_a_replay_tells_what_the_live_run_told(steps: list[tuple[str, Any]], ends: bool) -> None:
    live = Live()
    asked, _ = live.run.request()
    number = 0
    for what, detail in steps:
        match what:
            case "event":
                live.receive(RaiseEvent(f"e{detail}", None if detail else b"{}"))
            case "finish":
                _finish(live, detail)
            case "stray":
                live.receive(ActivityDone("e0", detail, 1, b"1"))
                live.receive(EntityDone("e1", detail + 1000, b"1", None))
            case "ask":
                asked, _ = live.run.request()
            case _:
                actions: list[pb.OrchestratorAction] = []
                for kind in detail:
                    number += 1
                    actions.append(_action(kind, number, live))
                if sum(action.sendEntityMessage.HasField("entityLockRequested") for action in actions) < 2:
                    live.answer(asked, *actions)
                if live.run.answers == asked.number:
                    asked, _ = live.run.request()
        live.check()
    if ends:
        found = live.actions(end())
        assert found == (ExecutionCompleted(None),)
        live.check()


def test_an_event_goes_to_whom_it_is_for() -> None:
    action = pb.OrchestratorAction(
        id=3, sendEvent=pb.SendEventAction(name="e", instance=pb.OrchestrationInstance(instanceId="j"))
    )
    assert Live().actions(action) == (EventSent(3, "j", "e", None),)
