"""Sagas on a hub: over crashes, after a cancel, and after a terminate. Not in FEATURES, so named by what they say."""

from __future__ import annotations

from typing import Any

import pytest

from durably import App, AppHost, EngineOptions, InstanceStatus, OrchestrationContext
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet, reaches


class World:
    """What activities have done, and which of them fail or wait."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken: set[str] = set()

    def app(self) -> App:
        app = App()

        @app.activity
        async def act(what: str) -> str:
            if what in self.broken:
                raise ValueError(f"{what} is broken")
            self.done.append(what)
            return what

        @app.activity
        async def revert(what: str) -> None:
            if f"revert {what}" in self.broken:
                raise ValueError(f"{what} stays")
            self.done.append(f"revert {what}")

        @app.orchestrator
        async def order(ctx: OrchestrationContext, last: str) -> str:
            async with ctx.saga() as saga:
                for what in ("a", "b"):
                    await saga.step(act, what, undo=revert)
                await ctx.wait_for_external_event("go")
                await saga.step(act, last, undo=revert)
            return "done"

        @app.orchestrator
        async def slow(ctx: OrchestrationContext) -> None:
            async with ctx.saga() as saga:
                await saga.step(act, "a", undo="patient")
                await saga.step(act, "b", undo=revert)
                await saga.step(act, "c", undo="patient")
                raise ValueError("no")

        return app

    @property
    def undone(self) -> list[str]:
        return [what for what in self.done if what.startswith("revert")]


@pytest.fixture
def world() -> World:
    return World()


async def waiting(host: AppHost, instance_id: str = "i", *, last: str = "c") -> None:
    await host.client.start("order", last, instance_id=instance_id)
    await has_event(host, instance_id, "EventAwaited")


async def ended(host: AppHost, instance_id: str) -> InstanceStatus:
    """The status of an instance once it has ended; also of one whose start is on its way."""

    async def look() -> InstanceStatus | None:
        status = await host.client.get_status(instance_id)
        return status if status is not None and status.runtime_status.is_terminal else None

    return await eventually(look, f"the end of {instance_id}")


async def test_a_failed_saga_undoes_its_steps_also_those_of_before_a_crash(
    hub: Deployment, world: World
) -> None:
    world.broken.add("c")
    host = await hub.start(world.app())
    await waiting(host)
    host = await hub.recover(host, world.app())
    await host.client.raise_event("i", "go")
    done = await host.client.wait_for_completion("i")
    assert world.done == ["a", "b", "revert b", "revert a"]
    assert done.failure is not None
    assert (done.runtime_status, done.failure.type) == ("Failed", "TaskFailedError")
    assert "c is broken" in done.failure.message
    assert done.compensating is False


async def test_a_cancelled_saga_undoes_its_steps(hub: Deployment, world: World) -> None:
    async with hub.host(world.app()) as host:
        await waiting(host)
        await host.client.cancel("i", "enough")
        done = await host.client.wait_for_completion("i")
    assert (done.runtime_status, world.undone) == ("Canceled", ["revert b", "revert a"])


async def test_an_undo_that_fails_is_named_and_the_others_run(hub: Deployment, world: World) -> None:
    world.broken |= {"c", "revert b"}
    async with hub.host(world.app()) as host:
        await waiting(host)
        await host.client.raise_event("i", "go")
        done = await host.client.wait_for_completion("i")
        assert world.undone == ["revert a"]
        assert done.failure is not None
        assert "c is broken; undo 'revert' failed: " in done.failure.message
        assert "b stays" in done.failure.message


async def test_after_a_terminate_a_child_undoes_what_was_recorded(hub: Deployment, world: World) -> None:
    host = await hub.start(world.app())
    await waiting(host)
    host = await hub.recover(host, world.app())
    await host.client.terminate("i", "by hand")
    done = await eventually(lambda: host.client.get_status("i:undo"), "the child")
    host = await hub.recover(host, world.app())
    done = await ended(host, "i:undo")
    assert (done.runtime_status, done.output, done.parent_instance_id) == ("Completed", ["revert"] * 2, "i")
    assert world.undone[-2:] == ["revert b", "revert a"]
    assert (await reaches(host, "i", "Terminated")).compensating is False


async def test_the_child_can_be_waited_for_as_soon_as_the_terminate_returns(
    hub: Deployment, world: World
) -> None:
    """Its start is durable by then, and waits in the inbox for a moment: that is no reason to say it is not there."""
    async with hub.host(world.app()) as host:
        for number in range(30):
            await waiting(host, f"i{number}")
            await host.client.terminate(f"i{number}")
            done = await host.client.wait_for_completion(f"i{number}:undo")
            assert done.output == ["revert"] * 2


async def test_a_child_that_undoes_names_what_failed(hub: Deployment, world: World) -> None:
    world.broken.add("revert b")
    async with hub.host(world.app()) as host:
        await waiting(host)
        await host.client.terminate("i")
        await eventually(lambda: host.client.get_status("i:undo"), "the child")
        done = await ended(host, "i:undo")
        assert done.failure is not None
        assert done.failure.type == "UndoFailedError"
        assert done.failure.message.startswith("1 of 2 undos failed; undo 'revert' failed: ")
        assert world.undone == ["revert a"]


async def test_a_terminate_without_compensation_leaves_everything(hub: Deployment, world: World) -> None:
    async with hub.host(world.app()) as host:
        await waiting(host)
        await host.client.terminate("i", compensate=False)
        await is_quiet(host)
        assert await host.client.get_status("i:undo") is None
        assert world.undone == []


async def test_a_saga_that_is_over_leaves_nothing_to_undo(hub: Deployment, world: World) -> None:
    app = world.app()

    @app.orchestrator
    async def goes_on(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as saga:
            await saga.step("act", "a", undo="revert")
        await ctx.wait_for_external_event("never")

    async with hub.host(app) as host:
        await host.client.start("goes_on", instance_id="i")
        await has_event(host, "i", "EventAwaited")
        await host.client.terminate("i")
        await is_quiet(host)
        assert await host.client.get_status("i:undo") is None


async def test_the_status_shows_that_an_instance_compensates_and_a_terminate_then_undoes_the_rest(
    hub: Deployment, world: World
) -> None:
    app = world.app()
    options = EngineOptions(unknown_functions="wait")  # nobody has `patient` yet
    host = await hub.start(app, options=options)
    await host.client.start("slow", instance_id="i")

    async def compensates() -> Any:
        status = await host.client.get_status("i")
        return status if status is not None and status.compensating else None

    status = await eventually(compensates, "the compensation")
    assert (status.runtime_status, status.failure.type) == ("Running", "ValueError")
    assert "to undo the steps of a saga that failed: ValueError: no" in await host.client.why("i")
    host = await hub.recover(host, app, options=options)
    assert (await compensates()) is not None
    await host.client.terminate("i")
    host = await hub.recover(host, app, options=options)
    status = await eventually(lambda: host.client.get_status("i:undo"), "the child")
    app.activity(name="patient")(lambda what: world.done.append(f"revert {what}"))
    host = await hub.recover(host, app, options=options)
    done = await ended(host, "i:undo")
    assert (done.runtime_status, world.undone) == ("Completed", ["revert c", "revert b", "revert a"])


async def test_what_undoes_is_undone_itself_when_it_is_terminated(hub: Deployment, world: World) -> None:
    app = world.app()
    options = EngineOptions(unknown_functions="wait", default_version="2.0", version_match_strategy="strict")
    async with hub.host(app, options=options) as host:
        await host.client.start("slow", instance_id="i", version="")
        await has_event(host, "i", "CompensationStarted")
        await host.client.terminate("i")
        await reaches(host, "i:undo", "Running")
        await has_event(host, "i:undo", "CompensationStarted")
        await host.client.terminate("i:undo")
        await reaches(host, "i:undo:undo", "Running")
        await has_event(host, "i:undo:undo", "CompensationStarted")
        await host.client.terminate("i:undo:undo", compensate=False)
        await is_quiet(host)
        assert await host.client.get_status("i:undo:undo:undo") is None
    assert world.undone == []
