"""A simulated world in which instances never rest: they go on from one execution to the next until they are replaced."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.app import App
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import StartInstance
from durably.errors import InvariantError
from durably.program.context import OrchestrationContext
from durably.testing.sim_clients import Clients
from durably.testing.sim_doors import Doors
from durably.testing.sim_scene import Scene


class Wheels(Clients):
    """Clients who replace what never rests: by a start, by orders and a start, or by a restart.

    A wheel carries the number of its life from execution to execution. Whatever was under way of the life before, and
    whatever crashes: from the answer to a start on, it is that life or a later one that turns. In the end a catcher takes
    its place, and gets the event that was sent to it, not the one that was sent to the wheel.
    """

    programs = (("chain", 3),)

    def __init__(self, scene: Scene, doors: Doors) -> None:
        super().__init__(scene, doors)
        self._lives: dict[str, int] = {}
        self._caught: set[str] = set()

    async def live(self, name: str) -> None:
        """Be one client, as long as the storm lasts."""
        count = 0
        while self._scene.storm:
            count += 1
            await self._turn(f"wheel-{name}-{count}")

    def committed(self) -> None:
        """No wheel has gone back to a life that was replaced."""
        for instance_id, life in self._lives.items():
            found = self._scene.hub.instances.get(instance_id)
            data = None if found is None else found[1].input
            if data is not None and f'"life":{life}'.encode() not in data:
                what = f"its life {life} was replaced by one with the input {data!r}"
                self._scene.give_up(InvariantError("C12", instance_id, what))

    async def _turn(self, instance_id: str) -> None:
        chance = self._scene.chance
        for life in range(1, chance.randrange(3, 5)):
            if life > 1 and chance.random() < 0.4:
                await self._insist(lambda door: door.client.terminate(instance_id, "ordered"))
                if chance.random() < 0.5:
                    await self._insist(lambda door: door.client.restart(instance_id, reason="again"))
            self._lives.pop(instance_id, None)
            given = {"life": life}
            await self._insist(
                lambda door, given=given: door.client.start(
                    "wheel", given, instance_id=instance_id, on_existing="replace"
                )
            )
            self._lives[instance_id] = life
            await asyncio.sleep(chance.uniform(0.0, 0.8))
        self._scene.report.instances += 1
        del self._lives[instance_id]
        await self._catch(instance_id)

    async def _catch(self, instance_id: str) -> None:
        """Send something to the wheel, replace it, and send something to what is there then."""
        start = StartInstance("catcher", None, f"{instance_id}-caught", on_existing="replace")
        order = InboxRow(f"{instance_id}/start", instance_id, self._scene.clock.now(), encode_body(start))
        await self._insist(lambda door: door.store.post([self._event_row(instance_id, 0), order]))
        while self._name(instance_id) != "catcher":
            await asyncio.sleep(0.1)
            await self._boot_if_quiet()
        await self._insist(lambda door: door.store.post([self._event_row(instance_id, 1)]))
        self._caught.add(instance_id)

    def _name(self, instance_id: str) -> str | None:
        found = self._scene.hub.instances.get(instance_id)
        return None if found is None else found[1].name

    def judge(self, app: App) -> None:
        """Each catcher has caught what was sent to it.

        Raises:
            AssertionError: It has not.
        """
        super().judge(app)
        for instance_id in self._caught:
            row = self._scene.hub.instances[instance_id][1]
            assert (row.status, row.output) == ("Completed", b"1"), (
                f"seed {self._scene.report.seed}: {instance_id} is {row.status} with {row.output}, expected what was sent "
                "after its start"
            )


def build_wheels(app: App) -> App:
    """Add what never rests, and what waits for one event."""

    @app.orchestrator
    async def wheel(ctx: OrchestrationContext, state: dict[str, Any]) -> None:
        ctx.continue_as_new(state)

    @app.orchestrator
    async def catcher(ctx: OrchestrationContext) -> int:
        return await ctx.wait_for_external_event("item", int)

    del wheel, catcher
    return app
