"""What is parked can be seen, keeps what belongs to it, and is redriven or discarded."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from durably import (
    ActivityContext,
    App,
    AppHost,
    EngineOptions,
    InstanceNotFoundError,
    InstanceStateError,
    OrchestrationContext,
    ParkedItem,
    RetryPolicy,
    TaskFailedError,
    UsageError,
)
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import RaiseEvent, StartInstance
from durably.core.verdicts import decode_verdict
from durably.engine.residents import Resident
from durably.storage.api import StoredInstance
from durably.storage.memory import MemoryHub
from durably.testing.store_scene import instance_row
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.waiting import all_within, eventually, has_event, is_quiet, reaches

QUICK = EngineOptions(commit_retry_s=0.0001)
RUBBISH = b"\xc1 rubbish"


class Program:
    """An app with an activity that never ends, until it is cured; the test lets the process die meanwhile."""

    def __init__(self) -> None:
        self.cured = False
        self.deliveries: list[int] = []
        self.started = asyncio.Event()
        self.runs: Counter[str] = Counter()
        self.app = App()
        self._activities()
        self._orchestrators()

    def _activities(self) -> None:
        @self.app.activity
        async def hangs(x: str, ctx: ActivityContext) -> str:
            self.deliveries.append(ctx.delivery)
            self.started.set()
            if not self.cured:
                await asyncio.Event().wait()
            return f"{x} {ctx.attempt}"

        @self.app.activity
        async def quick(x: str) -> str:
            self.runs[x] += 1
            return x

        del hangs, quick

    def _orchestrators(self) -> None:
        @self.app.orchestrator
        async def calls(ctx: OrchestrationContext) -> Any:
            return await ctx.call_activity("hangs", "done", retry=RetryPolicy(0.001, 3))

        @self.app.orchestrator
        async def both(ctx: OrchestrationContext) -> Any:
            first = ctx.call_activity("hangs", "done")
            event = await ctx.wait_for_external_event("go")
            return [await ctx.call_activity("quick", event), await first]

        @self.app.orchestrator
        async def catches(ctx: OrchestrationContext) -> str:
            try:
                return await ctx.call_activity("hangs", "done", retry=RetryPolicy(0.001, 3))
            except TaskFailedError as error:
                return error.details.type

        @self.app.orchestrator
        async def parent(ctx: OrchestrationContext) -> str:
            try:
                return await ctx.call_sub_orchestrator("calls", instance_id="child")
            except TaskFailedError as error:
                return error.details.type

        @self.app.orchestrator
        async def waits(ctx: OrchestrationContext) -> Any:
            return await ctx.wait_for_external_event("go")

        del calls, both, catches, parent, waits


@pytest.fixture
def program() -> Program:
    return Program()


def data(hub: Deployment) -> MemoryHub:
    assert isinstance(hub.hub, MemoryHubOfTest)
    return hub.hub.hub


async def parked(host: AppHost, **filters: Any) -> list[ParkedItem]:
    return (await host.client.query_parked(**filters)).items


async def park(hub: Deployment, program: Program, host: AppHost) -> AppHost:
    """Let the process die while the activity runs, until that is enough."""
    for _ in range(5):
        await program.started.wait()
        program.started.clear()
        host = await hub.recover(host, program.app, options=QUICK)
    await eventually(lambda: parked(host), "something parked")
    return host


async def start(hub: Deployment, name: str = "calls", instance_id: str = "i") -> tuple[Program, AppHost]:
    program = Program()
    host = await hub.start(program.app, options=QUICK)
    await host.client.start(name, instance_id=instance_id)
    return program, await park(hub, program, host)


# --- instances -------------------------------------------------------------------------------------------------------


async def test_an_attempt_that_was_there_at_five_deaths_is_parked_with_cause_and_payload(
    hub: Deployment,
) -> None:
    program, host = await start(hub)
    assert program.deliveries == [1, 2, 3, 4, 5]
    (item,) = await parked(host)
    assert (item.kind, item.id, item.instance_id, item.deliveries) == ("instance", "i", "i", 5)
    assert item.payload == "done"
    assert "attempt 1 of its activity 'hangs' (#0)" in item.cause
    status = await host.client.get_status("i")
    assert status is not None
    assert status.blocked == item.cause
    events = [entry for entry in await host.client.get_history("i") if "Interrupted" in entry.event_type]
    assert [entry.event_type for entry in events] == ["TaskAttemptInterrupted"] * 4
    assert [entry.details["deliveries"] for entry in events] == [2, 3, 4, 5]
    assert events[-1].timestamp == item.since


async def test_a_parked_attempt_stays_parked_over_restarts(hub: Deployment) -> None:
    program, host = await start(hub)
    for restart in (hub.restart, hub.recover):
        host = await restart(host, program.app, options=QUICK)
        await is_quiet(host)
        assert len(await parked(host)) == 1
    assert len(program.deliveries) == 5


async def test_a_parked_instance_keeps_its_messages_and_goes_on_after_a_redrive(hub: Deployment) -> None:
    program, host = await start(hub, "both")
    await host.client.raise_event("i", "go", "event")
    await is_quiet(host)
    assert len(data(hub).inbox) == 1
    host = await hub.recover(host, program.app, options=QUICK)
    program.cured = True
    await all_within(host.client.redrive("i"))
    assert (await reaches(host, "i", "Completed")).output == ["event", "done 1"]
    assert program.deliveries[-1] == 1
    assert not data(hub).inbox
    assert await parked(host) == []


async def test_a_redrive_counts_anew(hub: Deployment) -> None:
    program, host = await start(hub)
    program.deliveries.clear()
    program.started.clear()
    await all_within(host.client.redrive("i"))
    host = await park(hub, program, host)
    assert program.deliveries == [1, 2, 3, 4, 5]


async def test_a_discarded_call_fails_without_a_retry_and_the_orchestration_goes_on(hub: Deployment) -> None:
    program, host = await start(hub, "catches")
    await all_within(host.client.discard("i"))
    assert (await reaches(host, "i", "Completed")).output == "WorkDiscardedError"
    assert len(program.deliveries) == 5
    assert await parked(host) == []


async def test_a_rewind_after_a_discard_counts_anew(hub: Deployment) -> None:
    program, host = await start(hub)
    await all_within(host.client.discard("i"))
    await reaches(host, "i", "Failed")
    program.cured = True
    await all_within(host.client.rewind("i"))
    assert (await reaches(host, "i", "Completed")).output == "done 1"
    assert program.deliveries == [1, 2, 3, 4, 5, 1]
    assert not [entry for entry in await host.client.get_history("i") if "Interrupted" in entry.event_type]


async def test_a_parked_child_that_is_terminated_tells_its_parent(hub: Deployment) -> None:
    _, host = await start(hub, "parent")
    await all_within(host.client.terminate("child", "enough"))
    assert (await reaches(host, "i", "Completed")).output == "Terminated"
    assert not data(hub).timers


async def test_what_is_in_flight_when_a_host_stops_in_order_is_not_counted(hub: Deployment) -> None:
    program = Program()
    host = await hub.start(program.app, options=QUICK)
    await host.client.start("calls", instance_id="i")
    for _ in range(7):
        await program.started.wait()
        program.started.clear()
        await hub.crash(host) if len(program.deliveries) == 1 else await stop_now(hub, host)
        host = await hub.start(program.app, options=QUICK)
    await program.started.wait()
    assert await parked(host) == []
    assert program.deliveries == [1, *[2] * 7]


async def test_whoever_is_cut_off_while_the_host_stops_is_not_counted(hub: Deployment) -> None:
    """People press Ctrl-C twice, and init systems lose their patience."""
    program = Program()
    host = await hub.start(program.app, options=QUICK)
    await host.client.start("calls", instance_id="i")
    await program.started.wait()
    program.started.clear()
    host = await hub.recover(host, program.app, options=QUICK)
    for _ in range(7):
        await program.started.wait()
        program.started.clear()
        stopping = asyncio.create_task(host.stop(100))
        await asyncio.sleep(0)
        await hub.crash(host)
        await asyncio.gather(stopping, return_exceptions=True)
        host = await hub.start(program.app, options=QUICK)
    await program.started.wait()
    assert await parked(host) == []
    assert set(program.deliveries) == {1, 2}


async def stop_now(hub: Deployment, host: AppHost) -> None:
    hub._live.remove(host)
    await host.stop(0)


async def test_what_ends_well_is_forgotten(hub: Deployment) -> None:
    program = Program()
    host = await hub.start(program.app, options=QUICK)
    await host.client.start("calls", instance_id="i")
    for _ in range(4):
        await program.started.wait()
        program.started.clear()
        host = await hub.recover(host, program.app, options=QUICK)
    await program.started.wait()
    program.cured = True
    host = await hub.recover(host, program.app, options=EngineOptions(max_deliveries=6))
    assert (await reaches(host, "i", "Completed")).output == "done 1"
    assert program.deliveries == [1, 2, 3, 4, 5, 6]


async def test_only_what_is_parked_is_redriven_or_discarded(hub: Deployment, program: Program) -> None:
    host = await hub.start(program.app)
    await host.client.start("waits", instance_id="i")
    for verb in (host.client.redrive, host.client.discard):
        with pytest.raises(InstanceStateError, match="expected a parked instance"):
            await verb("i")
        with pytest.raises(InstanceNotFoundError):
            await verb("nobody")
    assert await host.client.redrive_all() == await host.client.discard_all() == 0


# --- messages --------------------------------------------------------------------------------------------------------


async def post(host: AppHost, *rows: InboxRow) -> None:
    await host.engine.store.post(rows)


async def test_a_message_that_cannot_be_read_is_set_aside_and_its_sender_is_told(
    hub: Deployment, program: Program
) -> None:
    host = await hub.start(program.app)
    await host.client.start("waits", instance_id="i")
    await post(host, InboxRow("m1", "i", 5, RUBBISH), InboxRow("~m2", "nobody", 6, RUBBISH))
    await eventually(lambda: len(data(hub).parked) == 2)
    assert not data(hub).inbox
    first, second = await parked(host)
    assert (first.kind, first.id, first.instance_id, first.payload) == ("message", "m1", "i", RUBBISH)
    assert (second.id, second.instance_id) == ("~m2", "nobody")
    (verdict,) = await host.engine.store.verdicts(["m1"])
    assert verdict is not None
    assert "set aside" in str(decode_verdict(verdict))
    await post(host, InboxRow("m1", "i", 5, RUBBISH))  # a repeat
    await host.client.raise_event("i", "go", 1)
    assert (await reaches(host, "i", "Completed")).output == 1
    assert len(await parked(host)) == 2


async def test_rubbish_among_the_messages_of_a_scheduled_start_harms_nobody(
    hub: Deployment, program: Program, clock: ManualClock
) -> None:
    host = await hub.start(program.app, clock=clock)
    await host.client.start("waits", instance_id="i", start_at=60)
    await hub.crash(host)
    data(hub).post([InboxRow("m", "i", 0, RUBBISH)])
    data(hub).inbox = dict(sorted(data(hub).inbox.items()))  # the rubbish comes first
    host = await hub.start(program.app, clock=clock)
    clock.advance(61)
    await has_event(host, "i", "ExecutionStarted")
    assert [item.id for item in await parked(host)] == ["m"]


async def test_rubbish_before_a_scheduled_start_does_not_hide_it() -> None:
    """It may be read with the instance before the commit that sets it aside."""
    start = StartInstance("waits", None, "e", start_at=60)
    rows = [InboxRow("m", "i", 0, RUBBISH, 1), InboxRow("s", "i", 0, encode_body(start), 2)]
    row = instance_row("i", status="Pending", start_at=60)
    resident = Resident.of(StoredInstance(row, [], rows))
    assert resident.pending == start


async def test_a_scheduled_start_that_nobody_can_read_parks_its_instance_until_somebody_can(
    hub: Deployment, program: Program, clock: ManualClock
) -> None:
    """A host of the version before took over."""
    host = await hub.start(program.app, clock=clock)
    await host.client.start("waits", instance_id="i", start_at=60)
    await hub.crash(host)
    ((message_id, row),) = data(hub).inbox.items()
    data(hub).inbox[message_id] = row._replace(body=RUBBISH)
    host = await hub.start(program.app, clock=clock)
    await host.client.raise_event("i", "go", 7)
    clock.advance(61)
    await eventually(lambda: len(data(hub).parked) == 1)
    await eventually(lambda: data(hub).instances["i"][1].parked)
    assert "the message that starts it" in str(data(hub).instances["i"][1].parked)
    data(hub).parked[message_id] = data(hub).parked[message_id]._replace(body=row.body)
    await all_within(host.client.redrive(message_id))
    assert (await reaches(host, "i", "Completed")).output == 7
    assert await parked(host) == []
    assert not data(hub).inbox


async def test_a_parked_message_goes_back_to_the_inbox_or_is_deleted(
    hub: Deployment, program: Program
) -> None:
    host = await hub.start(program.app)
    await host.client.start("waits", instance_id="i")
    await post(host, InboxRow("m", "i", 5, RUBBISH), InboxRow("n", "nobody", 5, RUBBISH))
    await eventually(lambda: len(data(hub).parked) == 2)
    row = data(hub).parked["m"]
    data(hub).parked["m"] = row._replace(
        body=encode_body(RaiseEvent("go", b"7"))
    )  # a version that can read it
    assert await host.client.redrive_all(instance_id_prefix="i") == 1
    assert (await reaches(host, "i", "Completed")).output == 7
    assert await host.client.redrive_all() == 1
    await eventually(lambda: len(data(hub).parked) == 1)
    await all_within(host.client.discard("n"))
    assert await parked(host) == []
    assert not data(hub).inbox


# --- lists -----------------------------------------------------------------------------------------------------------


async def test_what_is_parked_is_listed_page_by_page_and_by_filter(hub: Deployment) -> None:
    program, host = await start(hub, instance_id="bad-1")
    await post(host, *(InboxRow(f"m{n}", f"{n % 2}-x", n, RUBBISH) for n in range(7)))
    await eventually(lambda: len(data(hub).parked) == 7)
    pages: list[list[str]] = []
    token: str | None = None
    while True:
        page = await host.client.query_parked(page_size=3, continuation_token=token)
        pages.append([item.id for item in page.items])
        token = page.continuation_token
        if token is None:
            break
    assert pages == [["bad-1", "m0", "m1"], ["m2", "m3", "m4"], ["m5", "m6"]]
    assert [item.id for item in await parked(host, kind="instance")] == ["bad-1"]
    assert len(await parked(host, kind="message")) == 7
    assert [item.id for item in await parked(host, instance_id_prefix="1-")] == ["m1", "m3", "m5"]
    assert [item.id for item in await parked(host, instance_id_prefix="b")] == ["bad-1"]
    assert await host.client.discard_all(kind="message", instance_id_prefix="0") == 4
    assert len(await parked(host)) == 4
    del program


async def test_bad_filters_are_refused(hub: Deployment, program: Program) -> None:
    host = await hub.start(program.app)
    for filters, text in (
        ({"kind": "activity"}, "expected one of instance, message"),
        ({"page_size": 0}, "expected 1 to"),
        ({"continuation_token": "rubbish"}, "expected the token of the page before"),
    ):
        with pytest.raises(UsageError, match=text):
            await host.client.query_parked(**filters)  # type: ignore[arg-type]
