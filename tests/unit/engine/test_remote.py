"""Instances whose code runs in workers, within the engine: who is asked again, and which answers count."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from durably import App, AppHost, EngineOptions, OrchestrationContext
from durably.clock import SystemRandom
from durably.core.events import TraceContext
from durably.core.messages import StartInstance
from durably.executors.remote.broker import Worker
from durably.executors.remote.executor import RemoteExecutor
from durably.executors.remote.filters import Filters
from durably.executors.remote.wire import failure_message, failure_of, pb
from durably.storage.api import Store
from tests.support.hubs import Deployment
from tests.support.stores import FaultyStore
from tests.support.waiting import eventually, is_quiet, reaches

Actions = Sequence[pb.OrchestratorAction]
Code = Callable[[pb.OrchestratorRequest], Actions]


def task(number: int, name: str = "work", input: str = "") -> pb.OrchestratorAction:
    action = pb.OrchestratorAction(id=number, scheduleTask=pb.ScheduleTaskAction(name=name))
    if input:
        action.scheduleTask.input.value = input
    return action


def child(number: int, name: str, instance_id: str) -> pb.OrchestratorAction:
    action = pb.CreateSubOrchestrationAction(name=name, instanceId=instance_id)
    return pb.OrchestratorAction(id=number, createSubOrchestration=action)


def end(result: str = "1", status: int = pb.ORCHESTRATION_STATUS_COMPLETED) -> pb.OrchestratorAction:
    done = pb.CompleteOrchestrationAction(orchestrationStatus=status)  # pyright: ignore[reportArgumentType]
    done.result.value = result
    return pb.OrchestratorAction(id=99, completeOrchestration=done)


def names(request: pb.OrchestratorRequest) -> list[str]:
    """The external events that the code has seen, in order."""
    events = (*request.pastEvents, *request.newEvents)
    return [event.eventRaised.name for event in events if event.HasField("eventRaised")]


def until_stop(request: pb.OrchestratorRequest) -> Actions:
    """Ends with the names of all events, once one is 'stop'."""
    seen = names(request)
    return [end('"' + " ".join(seen) + '"')] if "stop" in seen else []


class Hand(Worker):
    """A worker that answers at once, or when told."""

    def __init__(self, executor: RemoteExecutor, code: Code, *, waits: bool = False) -> None:
        super().__init__(self._got, {"activity": 0, "entity": 0}, Filters())
        self.executor = executor
        self.code = code
        self.waits = waits
        self.items: list[pb.WorkItem] = []
        executor.broker.connect(self)

    def _got(self, data: bytes) -> None:
        item = pb.WorkItem.FromString(data)
        self.items.append(item)
        if not self.waits:
            self.answer(item)

    def answer(self, item: pb.WorkItem) -> asyncio.Future[None]:
        """Run the code on what was asked; done when the answer is durable, or when nobody wants it."""
        request = item.orchestratorRequest
        response = pb.OrchestratorResponse(
            instanceId=request.instanceId, actions=self.code(request), completionToken=item.completionToken
        )
        taken = self.executor.orchestrated(response)
        if taken is not None:
            return taken
        dropped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        dropped.set_result(None)
        return dropped

    async def got(self, count: int) -> pb.WorkItem:
        """The last piece of work once there are so many."""
        await eventually(lambda: len(self.items) >= count, f"{count} pieces of work")
        return self.items[-1]


async def serve(
    hub: Deployment, app: App, store: Store | None = None, **options: Any
) -> tuple[AppHost, RemoteExecutor]:
    workers = RemoteExecutor(SystemRandom())
    limits = EngineOptions(**options) if options else None
    host = AppHost(app, store or hub.hub.store(), limits, None, None, workers=workers)
    await host.start()
    hub._live.append(host)
    return host, workers


async def result_of(host: AppHost, instance_id: str) -> Any:
    found = await host.client.wait_for_completion(instance_id)
    assert found.runtime_status == "Completed", found
    return found.output


# --- who is asked again ----------------------------------------------------------------------------------------------


async def test_one_that_was_suspended_unasked_is_asked_when_it_goes_on_after_a_restart(
    hub: Deployment,
) -> None:
    app = App()
    host, _ = await serve(hub, app)
    await host.client.start("flow", instance_id="i")
    await host.client.suspend("i")
    await hub.crash(host)
    host, workers = await serve(hub, app)
    Hand(workers, lambda request: [end("7")])
    await host.client.resume("i")
    assert await result_of(host, "i") == 7


async def test_an_answer_to_a_suspended_instance_is_kept_and_counts_once(hub: Deployment) -> None:
    app = App()

    @app.activity
    async def work() -> int:
        return 1

    def code(request: pb.OrchestratorRequest) -> Actions:
        return [end("8")] if len(request.pastEvents) else [task(1)]

    host, workers = await serve(hub, app)
    hand = Hand(workers, code, waits=True)
    await host.client.start("flow", instance_id="i")
    item = await hand.got(1)
    await host.client.suspend("i")
    await hand.answer(item)
    await hub.crash(host)
    host, workers = await serve(hub, app)
    hand = Hand(workers, code)
    await is_quiet(host)
    assert not hand.items
    await host.client.resume("i")
    assert await result_of(host, "i") == 8
    await is_quiet(host)
    assert len(hand.items) == 1
    assert not workers.broker._entries


async def test_turns_that_are_out_when_a_host_dies_are_asked_again_by_the_next(hub: Deployment) -> None:
    host, workers = await serve(hub, App())
    hand = Hand(workers, until_stop, waits=True)
    await host.client.start("flow", instance_id="i")
    await host.client.raise_event("i", "stop")
    await hand.got(1)
    await hub.crash(host)
    host, workers = await serve(hub, App())
    Hand(workers, until_stop)
    assert await result_of(host, "i") == "stop"


async def test_many_instances_in_little_memory_lose_nothing(hub: Deployment) -> None:
    host, workers = await serve(hub, App(), max_resident_instances=1, partitions=2)
    hand = Hand(workers, until_stop)
    for number in range(10):
        await host.client.start("flow", instance_id=f"i{number}")
    await eventually(lambda: len(hand.items) >= 10)
    hand.waits = True
    for number in range(10):
        await host.client.raise_event(f"i{number}", "a")
    await eventually(lambda: len(hand.items) >= 20)
    for number in range(10):
        await host.client.raise_event(f"i{number}", "stop")
    hand.waits = False
    for item in hand.items[10:20]:
        await hand.answer(item)
    for number in range(10):
        assert await result_of(host, f"i{number}") == "a stop"
    await is_quiet(host)
    assert not workers.broker._entries
    assert not workers.broker._last
    assert not workers._turns
    assert not hand.busy["orchestrator"]


async def test_what_was_seen_and_not_durable_when_a_partition_is_loaded_anew(
    hub: Deployment, store: FaultyStore
) -> None:
    """The worker has seen an event whose commit fails; its answer must not be taken for one to what the history says."""
    host, workers = await serve(hub, App(), store)
    hand = Hand(workers, until_stop, waits=True)
    await host.client.start("flow", instance_id="i")
    await hand.answer(await hand.got(1))
    store.hold = asyncio.Event()
    raised = [asyncio.ensure_future(host.client.raise_event("i", name)) for name in ("a", "b", "stop")]
    item = await hand.got(2)
    answer = hand.answer(item)
    await asyncio.sleep(0.01)
    failures = [ConnectionError("gone")]

    def fails(call: str) -> None:
        if call == "commit" and failures:
            raise failures.pop()

    store.after = fails
    store.hold.set()
    store.hold = None
    hand.waits = False
    await asyncio.gather(*raised, answer)
    for late in hand.items[2:]:
        hand.answer(late)
    assert await result_of(host, "i") == "a b stop"


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_no_event_is_lost_between_an_answer_and_the_next_execution(
    hub: Deployment, store: FaultyStore
) -> None:
    def code(request: pb.OrchestratorRequest) -> Actions:
        first = next(event for event in request.newEvents if event.HasField("executionStarted"))
        if first.executionStarted.input.value == '"again"':
            return until_stop(request)
        return [end('"again"', pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)]

    def both(request: pb.OrchestratorRequest) -> Actions:
        return until_stop(request) if request.pastEvents else code(request)

    host, workers = await serve(hub, App(), store)
    hand = Hand(workers, both, waits=True)
    await host.client.start("flow", instance_id="i", input=1)
    item = await hand.got(1)
    events = [asyncio.ensure_future(host.client.raise_event("i", name)) for name in ("a", "b")]
    answer = hand.answer(item)  # behind them in the same batch
    events.append(asyncio.ensure_future(host.client.raise_event("i", "stop")))
    hand.waits = False
    await asyncio.gather(answer, *events)
    assert await result_of(host, "i") == "a b stop"
    await is_quiet(host)
    assert not workers.broker._entries


async def test_an_instance_that_is_terminated_or_replaced_hears_of_no_answer(hub: Deployment) -> None:
    host, workers = await serve(hub, App())
    hand = Hand(workers, lambda request: [end()], waits=True)
    await host.client.start("flow", instance_id="i")
    item = await hand.got(1)
    await host.client.terminate("i", reason="enough")
    await hand.answer(item)
    assert (await reaches(host, "i", "Terminated")).output == "enough"
    await host.client.start("flow", instance_id="i", on_existing="replace")
    second = await hand.got(2)
    await hand.answer(item)
    await is_quiet(host)
    await reaches(host, "i", "Running")
    await hand.answer(second)
    assert await result_of(host, "i") == 1
    assert not workers.broker._entries


@pytest.mark.parametrize(
    "action",
    [
        pb.OrchestratorAction(id=1, sendEntityMessage=pb.SendEntityMessageAction()),
        pb.OrchestratorAction(id=1),
        pb.OrchestratorAction(id=1, createTimer=pb.CreateTimerAction(fireAt={"seconds": 2**62})),  # type: ignore[arg-type]
        pb.OrchestratorAction(
            id=1,
            sendEntityMessage=pb.SendEntityMessageAction(
                entityOperationCalled=pb.EntityOperationCalledEvent(
                    operation="x", targetInstanceId={"value": "i"}
                )  # type: ignore[arg-type]
            ),
        ),
    ],
)
async def test_a_malformed_answer_ends_its_instance_and_nothing_else(
    hub: Deployment, action: pb.OrchestratorAction
) -> None:
    host, workers = await serve(hub, App())
    Hand(workers, lambda request: [action, end()] if request.instanceId == "bad" else [end()])
    for instance_id in ("bad", "good"):
        await host.client.start("flow", instance_id=instance_id)
    assert await result_of(host, "good") == 1
    found = await host.client.wait_for_completion("bad")
    assert found.runtime_status in {"Failed", "Completed"}
    assert host.engine.failure is None


async def test_an_answer_whose_reading_fails_is_not_waited_for_in_vain(
    hub: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("never thought of")

    host, workers = await serve(hub, App())
    monkeypatch.setattr("durably.executors.remote.run.Translation.read", fails)
    Hand(workers, lambda request: [end()])
    await host.client.start("flow", instance_id="i")
    found = await host.client.wait_for_completion("i")
    assert found.runtime_status == "Failed"
    assert "never thought of" in str(found.failure)


async def test_parts_of_an_answer_count_together_and_none_may_be_missing(hub: Deployment) -> None:
    app = App()
    done: list[int] = []

    @app.activity
    async def work() -> None:
        done.append(1)

    def part(
        item: pb.WorkItem, place: int, *actions: pb.OrchestratorAction, partial: bool
    ) -> pb.OrchestratorResponse:
        response = pb.OrchestratorResponse(
            instanceId="i", actions=actions, completionToken=item.completionToken, isPartial=partial
        )
        response.chunkIndex.value = place
        return response

    host, workers = await serve(hub, app)
    hand = Hand(workers, lambda request: [], waits=True)
    await host.client.start("flow", instance_id="i")
    item = await hand.got(1)
    workers.orchestrated(part(item, 0, task(1), partial=True))
    workers.orchestrated(part(item, 2, end(), partial=False))
    item = await hand.got(2)  # it is asked once more
    assert await reaches(host, "i", "Running")
    workers.orchestrated(part(item, 0, task(1), partial=True))
    workers.orchestrated(part(item, 0, task(1), partial=True))
    workers.orchestrated(part(item, 1, task(2), partial=True))
    workers.orchestrated(part(item, 2, end(), partial=False))
    assert await result_of(host, "i") == 1
    await eventually(lambda: len(done) == 2)


@pytest.mark.parametrize("target", ["i", "@a", "", "@@b"])
async def test_an_entity_that_signals_none_fails_its_operation_and_nobody_else(
    hub: Deployment, target: str
) -> None:
    """A signal to an instance would reload its partition for ever."""
    host, workers = await serve(hub, App())
    done: list[str] = []

    def got(data: bytes) -> None:
        item = pb.WorkItem.FromString(data)
        result = pb.EntityBatchResult(completionToken=item.completionToken)
        if item.entityRequestV2.operationRequests[0].entityOperationSignaled.operation == "signal":
            signal = pb.SendSignalAction(instanceId=target, name="x")
            result.actions.append(pb.OperationAction(sendSignal=signal))
        result.entityState.value = "1"
        result.results.append(pb.OperationResult(success=pb.OperationResultSuccess()))
        done.append(item.completionToken)
        workers.operated(result)

    Hand(workers, until_stop)
    await host.client.start("flow", instance_id="i")
    workers.broker.connect(Worker(got, {"orchestrator": 0}, Filters({("entity", "e"): frozenset()})))
    await host.client.signal_entity("@e@1", "signal")
    await host.client.signal_entity("@e@1", "other")
    await eventually(lambda: len(done) == 2)
    await host.client.raise_event("i", "stop")
    assert await result_of(host, "i") == "stop"


# --- rewinds, and hosts without workers ------------------------------------------------------------------------------


async def test_code_that_failed_by_itself_is_asked_again_for_what_it_saw_last(hub: Deployment) -> None:
    outcomes = [[end("2")], [end(status=pb.ORCHESTRATION_STATUS_FAILED)]]
    host, workers = await serve(hub, App())
    hand = Hand(workers, lambda request: outcomes.pop())
    await host.client.start("flow", instance_id="i")
    assert (await host.client.wait_for_completion("i")).runtime_status == "Failed"
    await host.client.rewind("i", reason="try again")
    assert await result_of(host, "i") == 2
    await hand.got(2)


@pytest.mark.parametrize("crash", [False, True])
async def test_failures_that_were_awaited_together_are_rewound_together(hub: Deployment, crash: bool) -> None:
    """As with whenAll of JavaScript, which waits for all: each failure is seen in a turn of its own."""
    app, runs, gates = App(), Counter[int](), [asyncio.Event() for _ in range(3)]

    @app.activity
    async def work(number: int) -> int:
        runs[number] += 1
        await gates[number].wait()
        if runs[number] == 1 and number:
            raise ValueError(f"{number} has no paper")
        return number

    def code(request: pb.OrchestratorRequest) -> Actions:
        events = [*request.pastEvents, *request.newEvents]
        if not request.pastEvents:
            return [task(number, "work", str(number)) for number in range(3)]
        failed = sum(event.HasField("taskFailed") for event in events)
        if failed + sum(event.HasField("taskCompleted") for event in events) < 3:
            return []
        return [end(status=pb.ORCHESTRATION_STATUS_FAILED)] if failed else [end("3")]

    host, workers = await serve(hub, app)
    hand = Hand(workers, code)
    await host.client.start("flow", instance_id="i")
    for turn, gate in enumerate(gates, 2):
        gate.set()
        await hand.got(turn)
    assert (await host.client.wait_for_completion("i")).runtime_status == "Failed"
    if crash:
        await hub.crash(host)
        host, workers = await serve(hub, app)
        Hand(workers, code)
    await host.client.rewind("i", reason="there is paper")
    assert await result_of(host, "i") == 3
    assert runs == {0: 1, 1: 2, 2: 2}


async def test_a_child_in_a_worker_is_rewound_with_its_caller(hub: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> Any:
        return await ctx.call_sub_orchestrator("flow", instance_id="c")

    outcomes = [[end("2")], [end(status=pb.ORCHESTRATION_STATUS_FAILED)]]
    host, workers = await serve(hub, app)
    Hand(workers, lambda request: outcomes.pop())
    await host.client.start(parent, instance_id="p")
    assert (await host.client.wait_for_completion("p")).runtime_status == "Failed"
    await host.client.rewind("p", reason="try again")
    assert await result_of(host, "p") == 2


async def test_a_host_that_stops_waits_for_operations_that_a_worker_has_and_for_no_others(
    hub: Deployment,
) -> None:
    host, workers = await serve(hub, App(), drain_timeout_s=1_000)
    items: list[pb.WorkItem] = []
    worker = Worker(
        lambda data: items.append(pb.WorkItem.FromString(data)), {}, Filters({("entity", "e"): frozenset()})
    )
    workers.broker.connect(worker)
    for entity in ("@strange@1", "@e@1"):
        await host.client.signal_entity(entity, "add")
    await eventually(lambda: len(items) == 1)
    stopping = asyncio.ensure_future(host.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    result = pb.EntityBatchResult(completionToken=items[0].completionToken)
    result.results.add().success.SetInParent()
    workers.operated(result)
    async with asyncio.timeout(10):
        await stopping


async def test_a_cancellation_ends_what_runs_in_a_worker(hub: Deployment) -> None:
    host, workers = await serve(hub, App())
    hand = Hand(workers, until_stop)
    await host.client.start("flow", instance_id="i")
    await hand.got(1)
    await host.client.cancel("i", "enough")
    assert (await host.client.wait_for_completion("i")).runtime_status == "Terminated"


async def test_many_deaths_of_the_host_are_no_fault_of_what_runs_elsewhere(hub: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity("far")

    for _ in range(8):
        host, workers = await serve(hub, app, max_deliveries=2)
        hand = Hand(workers, until_stop)
        hand.limits.clear()
        await host.client.start(calls, instance_id="i", on_existing="attach")
        await hand.got(1)
        await hub.crash(host)
    host, workers = await serve(hub, app, max_deliveries=2)
    hand = Hand(workers, until_stop, waits=True)
    hand.limits.clear()
    await hand.got(1)
    item = hand.items[0]
    done = pb.ActivityResponse(taskId=item.activityRequest.taskId, completionToken=item.completionToken)
    done.result.value = "7"
    workers.performed(done)
    assert await result_of(host, "i") == 7


async def test_a_host_that_serves_no_workers_leaves_their_histories_alone(hub: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> int:
        return 0

    host, workers = await serve(hub, App())
    hand = Hand(workers, until_stop)
    await host.client.start("flow", instance_id="i")
    await hand.got(1)
    await is_quiet(host)
    await hub.stop(host)
    host = await hub.start(app)
    await host.client.raise_event("i", "stop")
    found = await reaches(host, "i", "Running")
    assert found.blocked is not None
    await hub.stop(host)
    host, workers = await serve(hub, App())
    Hand(workers, until_stop)
    assert await result_of(host, "i") == "stop"


# --- what is handed through ------------------------------------------------------------------------------------------


async def test_the_trace_of_a_start_reaches_all_that_comes_of_it(hub: Deployment) -> None:
    """The parent continues as new and calls two children, one of them with a span of its own."""
    app, trace = App(), TraceContext(f"00-{'a' * 32}-{'b' * 16}-01", "vendor=1")

    @app.orchestrator
    async def native(ctx: OrchestrationContext) -> Any:
        return await ctx.call_sub_orchestrator("leaf", instance_id="grandchild")

    seen: dict[str, list[tuple[str, str]]] = {}

    def code(request: pb.OrchestratorRequest) -> Actions:
        events = [*request.pastEvents, *request.newEvents]
        started = next(event.executionStarted for event in events if event.HasField("executionStarted"))
        told = started.parentTraceContext
        if not request.pastEvents:
            seen.setdefault(request.instanceId, []).append((told.traceParent, told.traceState.value))
        if started.name == "leaf":
            return [end()]
        if started.input.value != "again":
            return [end("again", pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)]
        if sum(event.HasField("subOrchestrationInstanceCompleted") for event in events) == 2:
            return [end()]
        own = child(2, "leaf", "own")
        own.createSubOrchestration.parentTraceContext.traceParent = "00-own"
        return [] if request.pastEvents else [child(1, "native", "n"), own]

    host, workers = await serve(hub, app)
    Hand(workers, code)
    await host.management.start("i", StartInstance("flow", None, "x", trace=trace))
    assert await result_of(host, "i") == 1
    whole = (trace.parent, trace.state)
    assert seen == {"i": [whole, whole], "own": [("00-own", "")], "grandchild": [whole]}


def test_a_failure_keeps_what_a_worker_has_added_to_it() -> None:
    sent = pb.TaskFailureDetails(errorType="E", errorMessage="no")
    sent.properties["code"].number_value = 42
    sent.properties["what"].string_value = "paper"
    sent.properties["list"].list_value.values.add().null_value = 0  # pyright: ignore[reportAttributeAccessIssue]
    sent.innerFailure.errorType = "Inner"
    sent.innerFailure.properties["deep"].bool_value = True
    failure = failure_of(sent)
    assert failure.properties == '{"code": 42.0, "list": [null], "what": "paper"}'
    assert failure_message(failure) == sent
