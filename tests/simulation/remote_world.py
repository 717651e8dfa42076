"""A simulated fleet whose code runs in workers: the orchestrator executor of the published Python SDK, on virtual time.

Each host has workers of its own, which die with it. By seed they are slow, vanish with what they have, answer twice, answer
late, and give work back. What a worker is told as past must be what somebody was told and has answered before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from durabletask import task
from durabletask.serialization import JsonDataConverter
from durabletask.worker import _OrchestrationExecutor, _Registry

from durably import App
from durably.clock import Random
from durably.engine.executor import Executor
from durably.engine.host import Host
from durably.errors import InvariantError, OperationError, UsageError
from durably.executors.native import NativeExecutor, NativeOptions
from durably.executors.remote.broker import Worker
from durably.executors.remote.executor import RemoteExecutor
from durably.executors.remote.filters import Filters
from durably.executors.remote.wire import pb
from durably.executors.router import RouterExecutor
from durably.testing.fleet_simulation import HOSTS_MAX, OPTIONS, PARTITIONS_MAX, FleetWorld
from durably.testing.sim_checks import Checks
from durably.testing.sim_fleet import Fleet
from durably.testing.sim_fleet_checks import FleetRuns
from durably.testing.sim_fleet_faults import LEASE_S
from durably.testing.sim_loop import SimLoop, SimRandom
from durably.testing.sim_machine import MachineLoop
from durably.testing.sim_scene import Report, Scene
from durably.testing.sim_shared_hub import SharedHub

_WORKERS = 2
Steps = Generator[Any, Any, Any]


def chain(ctx: task.OrchestrationContext, size: int) -> Steps:
    total = 0
    for number in range(size):
        total = yield ctx.call_activity("add", input=[total, number])
    return total


def fan_out(ctx: task.OrchestrationContext, size: int) -> Steps:
    results = yield task.when_all([ctx.call_activity("add", input=[number, 1]) for number in range(size)])
    return sum(results)


def family(ctx: task.OrchestrationContext, size: int) -> Steps:
    results = yield task.when_all([ctx.call_sub_orchestrator("chain", input=size) for _ in range(2)])
    return results


def rounds(ctx: task.OrchestrationContext, size: int) -> Steps:
    yield ctx.create_timer(timedelta(milliseconds=300))
    yield ctx.call_activity("add", input=[size, 0])
    if size > 1:
        ctx.continue_as_new(size - 1, save_events=True)
        return None
    found: list[Any] = []
    for name in ("a", "b"):
        event = yield ctx.wait_for_external_event(name)
        found.append(event)
    return found


def tries(ctx: task.OrchestrationContext, size: int) -> Steps:
    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=100), max_number_of_attempts=size)
    try:
        yield ctx.call_activity("fail", input=size, retry_policy=policy)
    except task.TaskFailedError as error:
        return error.details.message


EXPECTED: dict[str, Callable[[int], Any]] = {
    "chain": lambda size: sum(range(size)),
    "fan_out": lambda size: sum(range(1, size + 1)),
    "family": lambda size: [sum(range(size))] * 2,
    "rounds": lambda size: ["for a", "for b"],
    "tries": lambda size: f"no {size}",
}


class Told:
    """What workers have been told, by execution: what comes later has to begin with some of it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._seen: dict[tuple[str, int], list[list[bytes]]] = {}

    def check(self, request: pb.OrchestratorRequest) -> None:
        past = [event.SerializeToString(deterministic=True) for event in request.pastEvents]
        new = [event.SerializeToString(deterministic=True) for event in request.newEvents]
        answers = sum(event.HasField("orchestratorStarted") for event in request.pastEvents)
        execution = request.executionId.value
        if answers:
            before = self._seen.get((execution, answers - 1), [])
            if not any(past[: len(seen)] == seen for seen in before):
                text = f"a worker is told another past than it was told before, after {answers} answers"
                self._scene.give_up(InvariantError("I10", request.instanceId, text))
        self._seen.setdefault((execution, answers), []).append([*past, *new])


class SimWorker:
    """One worker process after the other, at one host."""

    def __init__(self, scene: Scene, machine: MachineLoop, executor: RemoteExecutor, told: Told) -> None:
        self._scene = scene
        self._machine = machine
        self._executor = executor
        self._told = told
        self._registry = _Registry()
        for orchestrator in (chain, fan_out, family, rounds, tries):
            self._registry.add_orchestrator(orchestrator)
        self._log = logging.getLogger("durably.simulated-worker")
        self._log.disabled = True

    def come(self) -> None:
        """Connect."""
        chance = self._scene.chance
        limits: Any = {} if chance.random() < 0.5 else {"orchestrator": 1, "activity": 2}
        worker: list[Worker] = []
        worker.append(Worker(lambda item: self._got(worker[0], item), limits, Filters()))
        self._executor.broker.connect(worker[0])

    def _got(self, worker: Worker, item: bytes) -> None:
        chance = self._scene.chance
        storm, lot = self._scene.storm, chance.random()
        delay = chance.choice((0.0, 0.001, 0.01, 0.2))
        if storm and lot < 0.05:
            self._machine.call_later(delay, self._vanish, worker)
            if lot < 0.02:
                return  # with what it had; else it hands that in after it has gone
            delay += 0.3
        elif storm and lot < 0.08:
            self._machine.call_later(delay, self._give_back, item)
            return
        self._machine.call_later(delay, self._answer, item)
        if storm and lot > 0.95:
            self._machine.call_later(delay + chance.choice((0.0, 0.1)), self._answer, item)

    def _vanish(self, worker: Worker) -> None:
        self._scene.report.faults["worker"] += 1
        self._executor.broker.leave(worker)
        self._machine.call_later(self._scene.chance.uniform(0, 0.5), self.come)

    def _give_back(self, item: bytes) -> None:
        work = pb.WorkItem.FromString(item)
        kind: Any = "orchestrator" if work.HasField("orchestratorRequest") else "activity"
        self._scene.report.faults["abandoned"] += 1
        self._executor.broker.give_back(kind, work.completionToken)

    def _answer(self, item: bytes) -> None:
        work = pb.WorkItem.FromString(item)
        if work.HasField("orchestratorRequest"):
            request = work.orchestratorRequest
            self._told.check(request)
            answer = self._decide(request, work.completionToken)
            self._executor.orchestrated(answer)
        else:
            self._executor.performed(_performed(work.activityRequest, work.completionToken))

    def _decide(self, request: pb.OrchestratorRequest, token: str) -> pb.OrchestratorResponse:
        code = _OrchestrationExecutor(self._registry, self._log, JsonDataConverter())
        result = code.execute(request.instanceId, request.pastEvents, request.newEvents)
        answer = pb.OrchestratorResponse(
            instanceId=request.instanceId, actions=result.actions, completionToken=token
        )
        parts = list(answer.actions)
        if len(parts) < 2 or self._scene.chance.random() < 0.8:
            return answer
        first = pb.OrchestratorResponse(
            instanceId=request.instanceId, actions=parts[:1], completionToken=token, isPartial=True
        )
        first.chunkIndex.value = 0
        self._executor.orchestrated(first)
        del answer.actions[0]
        answer.chunkIndex.value = 1
        return answer


def _performed(request: pb.ActivityRequest, token: str) -> pb.ActivityResponse:
    answer = pb.ActivityResponse(
        instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId, completionToken=token
    )
    if request.name == "add":
        one, other = JsonDataConverter().deserialize(request.input.value, list)
        answer.result.value = str(one + other)
    else:
        answer.failureDetails.errorType = "ValueError"
        answer.failureDetails.errorMessage = f"no {request.input.value}"
    return answer


class RemoteClients:
    """Starts instances, raises their events, and wants them to end as foretold."""

    def __init__(self, scene: Scene, fleet: Fleet) -> None:
        self._scene = scene
        self._fleet = fleet
        self._wanted: dict[str, Any] = {}

    @property
    def is_at_rest(self) -> bool:
        return True

    def committed(self) -> None:
        pass

    async def live(self, name: str) -> None:
        chance, count = self._scene.chance, 0
        while self._scene.storm:
            count += 1
            program = chance.choice(list(EXPECTED))
            size = chance.randint(1, 4)
            instance_id = f"{program}-{name}-{count}"
            await self._insist("start", program, size, instance_id=instance_id, on_existing="attach")
            self._wanted[instance_id] = EXPECTED[program](size)
            self._scene.report.instances += 1
            if chance.random() < 0.2:
                await self._insist("suspend", instance_id)
                await asyncio.sleep(chance.uniform(0, 0.5))
                await self._insist("resume", instance_id)
            if program == "rounds":
                for event in chance.sample(("a", "b"), 2):
                    await self._insist("raise_event", instance_id, event, f"for {event}")
            await asyncio.sleep(chance.uniform(0.02, 0.3))

    async def _insist(self, call: str, *args: Any, **named: Any) -> None:
        """Until it is answered; whatever is repeated does nothing more."""
        while True:
            door = self._fleet.door
            if door is not None:
                with suppress(OperationError, TimeoutError):
                    try:
                        asked = self._fleet.begin(getattr(door.client, call)(*args, **named))
                        await asyncio.wait_for(asked, 5)
                    except UsageError:
                        if call == "start":
                            raise
                    return
            await asyncio.sleep(self._scene.chance.uniform(0.02, 0.3))

    def judge(self, _: App) -> None:
        """All that was acknowledged has ended as foretold."""
        for instance_id, wanted in self._wanted.items():
            row = self._scene.hub.get_instance(instance_id)
            assert row is not None, f"{instance_id} was lost"
            assert row.status == "Completed", f"{instance_id} is {row.status}"
            found = JsonDataConverter().deserialize((row.output or b"null").decode())
            assert found == wanted, f"{instance_id} ended with {found!r}, and not with {wanted!r}"


class RemoteWorld(FleetWorld):
    """One seed."""

    def __init__(self, seed: int, loop: SimLoop) -> None:
        scene = self._scene = Scene(seed, loop)
        partitions = scene.chance.randint(1, PARTITIONS_MAX)
        hub = self._hub = SharedHub(partitions, scene.clock, int(LEASE_S * 1_000_000))
        scene.hub = hub
        self._runs = FleetRuns(scene, hub)
        self._app = App()
        native = NativeExecutor(self._app.registry, self._app.converter, NativeOptions(slow_turn_s=0))
        judge = RouterExecutor(native, RemoteExecutor(SimRandom(scene.chance)))
        self._checks = Checks(scene, self._app, judge)
        told = Told(scene)
        fleet = Fleet(scene, hub, self._app, OPTIONS, self._committed, dress=partial(_dressed, scene, told))
        self._fleet = self._runs.fleet = fleet
        fleet.wanted = scene.chance.randint(1, HOSTS_MAX)
        self._clients = RemoteClients(scene, fleet)  # pyright: ignore[reportAttributeAccessIssue]


def _dressed(  # noqa: PLR0917 - the first two are bound
    scene: Scene,
    told: Told,
    machine: MachineLoop,
    executor: Executor,
    random: Random,
    make: Callable[[Executor], Host],
) -> Host:
    remote = RemoteExecutor(random)
    host = make(RouterExecutor(executor, remote))
    remote.connect(host.submit)
    for _ in range(_WORKERS):
        machine.call_soon(SimWorker(scene, machine, remote, told).come)
    return host


def simulate_workers(seed: int) -> Report:
    """Run one seed from beginning to end; the same seed is the same world."""
    log = logging.getLogger("durably")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # what goes wrong is meant to
    loop = SimLoop()
    worlds: list[RemoteWorld] = []

    async def live() -> Report:
        worlds.append(RemoteWorld(seed, loop))
        return await worlds[0].run()

    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(live())
    except Exception as error:
        last = worlds[0].scene.trace.last() if worlds else ""
        raise AssertionError(f"seed {seed} of the worlds with workers: {error!r}\n{last}") from error
    finally:
        log.setLevel(level)
