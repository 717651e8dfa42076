"""Scenario 11: a commit is held up, its partition gets another owner, and results come for what that commit schedules."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest

from durably import App, AppHost, Client, EngineOptions, OrchestrationContext
from durably.core.shared_tasks import result_id
from tests.faults.postgres.conftest import Report
from tests.support.postgres import PostgresServer
from tests.support.tcp_proxy import Fault, Statement, TcpProxy, no_fault
from tests.support.waiting import eventually

LEASE_S = 1.0
BOUND_S = 3 * (2 * LEASE_S + 5)
"""The bound of the scenario is two leases and five seconds; machines under test are busy: three times that fails."""

INSTANCES, ROUNDS, WIDTH = 8, 3, 4

OPTIONS = EngineOptions(
    max_concurrent_activities=1, share_above=1, inbox_poll_s=0.005, lease_s=LEASE_S, partitions=2
)
"""A host keeps two activities for itself, and offers all others to whoever is there."""

Runs = Counter[tuple[str, str]]
"""By host and activity: how often it ran."""


def build(name: str, runs: Runs) -> App:
    app = App()

    @app.activity
    async def note(key: str) -> int:
        runs[name, key] += 1
        await asyncio.sleep(0.002)
        return 1

    @app.orchestrator
    async def fan(ctx: OrchestrationContext) -> int:
        done = 0
        for number in range(ROUNDS):
            calls = (ctx.call_activity(note, f"{ctx.instance_id}.{number}.{n}") for n in range(WIDTH))
            done += sum(await asyncio.gather(*calls))
        return done

    del fan
    return app


class Late:
    """Does something to the k-th commit that offers activities.

    Attributes:
        stalled: That has happened.
        values: Of that commit.
    """

    def __init__(self, fault: Fault, k: int) -> None:
        self.stalled = asyncio.Event()
        self.values = b""
        self._fault = fault
        self._left = k
        self._loop = asyncio.get_running_loop()

    def __call__(self, statement: Statement) -> Fault:
        if "commit_offered" not in statement.text:
            return Fault.NONE
        self._left -= 1
        if self._left:
            return Fault.NONE
        self.values = statement.values
        self._loop.call_soon_threadsafe(self.stalled.set)
        return self._fault

    def offers(self, attempt: bytes) -> bool:
        """Whether it offers this attempt. Messages that it consumes have ids that end in one, too."""
        return len(attempt).to_bytes(4) + attempt in self.values


class Outside:
    """What is in the tables of the hub."""

    def __init__(self, server: PostgresServer, hub: str) -> None:
        self._server = server
        self._hub = hub

    async def _value(self, text: str) -> Any:
        return await self._server.execute(text.replace("{s}", f'"{self._hub}"'))

    async def epoch(self, partition: int) -> int:
        """It grows with each change of the owner."""
        return int(await self._value(f"SELECT epoch FROM {{s}}.partitions WHERE id = {partition}"))

    async def results(self, partition: int, epoch: int) -> list[bytes]:
        """The attempts of which the results have come and wait for the owner; none in another epoch."""
        found = await self._value(
            "SELECT array_agg(i.message_id) FROM {s}.inbox i JOIN {s}.partitions p ON p.id = i.partition"
            f" WHERE p.id = {partition} AND p.epoch = {epoch}"
        )
        begin = result_id("").encode()
        return [one.removeprefix(begin) for one in found or () if one.startswith(begin)]

    async def is_idle(self) -> bool:
        """No attempt in the queue, no message."""
        text = "SELECT (SELECT count(*) FROM {s}.tasks) + (SELECT count(*) FROM {s}.inbox)"
        return int(await self._value(text)) == 0


@pytest.mark.slow_once
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("fault", [Fault.STALL, Fault.STALL_REPLY])
def test_a_result_that_is_there_before_its_commit_is_never_lost(
    shared_server: PostgresServer, hub_name: str, fault: Fault, k: int, report: Report
) -> None:
    asyncio.run(late(shared_server, hub_name, fault, [k], report))


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", [Fault.STALL, Fault.STALL_REPLY])
def test_the_same_for_many_commits(
    shared_server: PostgresServer, hub_name: str, fault: Fault, report: Report
) -> None:
    asyncio.run(late(shared_server, hub_name, fault, [1 + n % 3 for n in range(30)], report))


async def late(
    server: PostgresServer, hub: str, fault: Fault, commits: Iterable[int], report: Report
) -> None:
    runs, outside = Runs(), Outside(server, hub)
    took: list[float] = []
    early = 0
    with TcpProxy(server.port) as proxy:
        async with (
            build("fast", runs).host(server.url(hub), options=OPTIONS) as fast,
            build("slow", runs).host(proxy.url(hub), options=OPTIONS) as slow,
            Client(server.url(hub)) as client,
        ):
            world = World(fast, slow, client, proxy, outside, runs)
            for number, k in enumerate(commits):
                names = [f"fan-{number}-{n}" for n in range(INSTANCES)]
                seconds, results = await world.one_commit(Late(fault, k), names)
                took.append(seconds)
                early += results
                assert (results > 0) is (fault is Fault.STALL_REPLY), (
                    "where it is carried out, and only there"
                )
            await world.fair()  # the one that was held up serves again, and what it had in hand does no harm
            again = [await slow.client.start("fan", instance_id=f"again-{n}") for n in range(INSTANCES)]
            assert [await handle.result(timeout=60) for handle in again] == [ROUNDS * WIDTH] * INSTANCES
            await eventually(outside.is_idle, "an empty queue and empty inboxes")
    keys = Counter(key for _, key in runs.elements())
    twice = sum(count > 1 for count in keys.values())
    report(
        commits=len(took), early_results=early, runs=keys.total(), twice=twice, longest_s=round(max(took), 2)
    )
    assert len(keys) == (len(took) + 1) * INSTANCES * ROUNDS * WIDTH
    assert max(runs.values()) == 1, "a host ran something again although its result was there"
    assert max(took) <= BOUND_S


class World(NamedTuple):
    """Two hosts, of which one may be held up, and who looks on."""

    fast: AppHost
    slow: AppHost
    client: Client
    proxy: TcpProxy
    outside: Outside
    runs: Runs

    async def fair(self) -> None:
        """Return when each host has a partition: it knows of the other one then."""
        hosts = self.fast.engine, self.slow.engine
        await eventually(lambda: [len(host.partitions) for host in hosts] == [1, 1], "equal shares")

    async def one_commit(self, rule: Late, names: list[str]) -> tuple[float, int]:
        """Returns the time from the fault to the last result, and how many results came before the owner changed."""
        await self.fair()
        slow, outside = self.slow, self.outside
        partition = next(slow.engine.store.partition_of(name) for name in names if slow.engine.serves(name))
        epoch = await outside.epoch(partition)
        self.proxy.rule = rule
        begun = (slow.client.start("fan", instance_id=name, on_existing="attach") for name in names)
        starts = asyncio.gather(*begun, return_exceptions=True)
        async with asyncio.timeout(60):
            await rule.stalled.wait()
        began = asyncio.get_running_loop().time()
        early = 0
        while await outside.epoch(partition) == epoch:
            results = await outside.results(partition, epoch)
            early = max(early, sum(rule.offers(attempt) for attempt in results))
            await asyncio.sleep(0.01)
        for name in names:  # who is not known to have been accepted is started again
            await self.client.start("fan", instance_id=name, on_existing="attach")
        outputs = [await self.client.handle(name).result(timeout=60) for name in names]
        took = asyncio.get_running_loop().time() - began
        assert outputs == [ROUNDS * WIDTH] * len(names)
        before = self.runs.copy()
        self.proxy.rule = no_fault
        self.proxy.flow()
        await starts
        await self.fair()
        # It may have been held up in a claim, too: of one attempt, that somebody else has run when the answer comes.
        late = self.runs - before
        assert late.total() <= OPTIONS.max_concurrent_activities, (
            f"it ran although its result was there: {late}"
        )
        assert all(host == "slow" for host, _ in late)
        for name in names:
            history = await self.client.get_history(name)
            assert sum(event.event_type == "TaskCompleted" for event in history) == ROUNDS * WIDTH
        return took, early
