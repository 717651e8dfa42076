"""Every crash point of programs with entities: no lock is lost, no operation is done twice or not at all.

A lock is granted in one commit, and its owner hears of it in another one; so does an operation change its entity, and
its caller gets the answer. The host dies before, between and behind them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from durably.app import App, AppHost
from durably.codec.keys import EncryptionKeys
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import CallEntity
from durably.core.status import TERMINAL
from durably.errors import EntityOperationFailedError, InstanceStateError, OrchestrationFailedError
from durably.program.context import OrchestrationContext
from durably.program.entity_context import EntityContext
from durably.testing.sim_loop import SimLoop
from tests.simulation.crashing import KEYS, Scenario, play
from tests.support.shares import once_but
from tests.support.waiting import eventually

A, B, C = "@account@a", "@account@b", "@account@c"

WORK: dict[str, list[tuple[str, str, Any]]] = {
    "transfers": [
        ("x", "transfer", [A, B, 30]),
        ("y", "transfer", [B, A, 120]),
        ("z", "transfer", [B, A, 500]),
    ],
    "rounds": [("x", "again", 2), ("y", "transfer", [B, A, 1])],
    "talk": [("x", "talk", 3)],
    "later": [("x", "later", None)],
    "refused": [("x", "refused", None)],
    "spread": [("x", "spread", None)],
    "posted": [],
    "cut": [("x", "holds", None), ("y", "transfer", [B, A, 1])],
    "mended": [("x", "mended", None)],
    "mended in a block": [("x", "mended_in_a_block", None), ("y", "transfer", [B, A, 1])],
}
"""Instances with what they run and their input."""

POSTS = 4

BOOKS: dict[str, dict[str, list[str]]] = {
    "transfers": {"a": ["x -30", "y +120"], "b": ["x +30", "y -120"]},
    "rounds": {"a": ["x0 +0", "x1 -1", "x2 -2", "y +1"], "b": ["x0 +0", "x1 +1", "x2 +2", "y -1"]},
    "talk": {"a": [*["x tells +1"] * 3, "x0 +0", "x1 +1", "x2 +2"]},
    "later": {"a": ["x +1", "x later +2"]},
    "refused": {"a": ["x behind +1"]},
    "spread": {"a": ["x +1"], "c": ["x +1", "x once more +2"]},
    "posted": {"a": [f"post{n} +1" for n in range(POSTS)]},
    "cut": {"a": ["x -5", "y +1"], "b": ["y -1"]},
    "mended": {"a": ["x +1"], "b": ["x +1"]},
    "mended in a block": {"a": ["x +1", "y +1"], "b": ["x +1", "y -1"]},
}
"""What is in the accounts in the end, sorted."""

RESULTS: dict[str, dict[str, Any]] = {
    "transfers": {"x": "done", "y": "done", "z": "refused"},
    "rounds": {"x": "done", "y": "done"},
    "talk": {"x": [101, 103, 106]},
    "later": {"x": 103},
    "refused": {"x": ["no", 101]},
    "spread": {"x": 101, "child-x": "noted"},
    "posted": {},
    "cut": {"x": "Terminated", "y": "done"},
    "mended": {"x": 101},
    "mended in a block": {"x": 101, "y": "done"},
}


def bank(is_broken: Any) -> App:
    """Accounts that write down what was done to them, and orchestrations that do it."""
    app = App()

    @app.entity
    class Account:
        balance: int = 100
        log: list[str] = []  # noqa: RUF012 - each account begins with a list of its own

        def look(self) -> int:
            return self.balance

        def move(self, given: tuple[str, int]) -> int:
            self.balance += given[1]
            self.log.append(f"{given[0]} {given[1]:+}")
            return self.balance

        async def slow(self, given: tuple[str, int]) -> int:
            await asyncio.sleep(0.05)
            return self.move(given)

        def refuse(self, given: tuple[str, int], ctx: EntityContext) -> None:
            self.pass_on(given, ctx)
            raise ValueError("no")

        def pass_on(self, given: tuple[str, int], ctx: EntityContext) -> int:
            ctx.signal_entity(C, "move", given)
            ctx.signal_entity(C, "move", (f"{given[0]} once more", 2))
            ctx.start_orchestration("noted", instance_id=f"child-{given[0]}")
            return self.move(given)

    @app.activity
    async def check() -> None:
        await asyncio.sleep(0.01)
        if is_broken():
            raise ValueError("broken")

    _sections(app)
    _messages(app)
    del Account, check
    return app


def _sections(app: App) -> None:
    @app.orchestrator
    async def transfer(ctx: OrchestrationContext, given: tuple[str, str, int]) -> str:
        source, target, amount = given
        async with ctx.lock_entities(target, source):
            if await ctx.call_entity(source, "look") < amount:
                return "refused"
            await ctx.call_entity(source, "move", (ctx.instance_id, -amount))
            await ctx.create_timer(0.2)
            await ctx.call_entity(target, "slow", (ctx.instance_id, amount))
        return "done"

    @app.orchestrator
    async def again(ctx: OrchestrationContext, n: int) -> str:
        async with ctx.lock_entities(A, B):
            await ctx.call_entity(A, "move", (f"{ctx.instance_id}{n}", -n))
            await ctx.call_entity(B, "slow", (f"{ctx.instance_id}{n}", n))
            if n:
                ctx.continue_as_new(n - 1)
        return "done"

    @app.orchestrator
    async def holds(ctx: OrchestrationContext) -> None:
        async with ctx.lock_entities(A, B):
            await ctx.call_entity(A, "move", (ctx.instance_id, -5))
            ctx.set_custom_status("locked")
            await ctx.wait_for_external_event("never")

    @app.orchestrator
    async def mended_in_a_block(ctx: OrchestrationContext) -> int:
        async with ctx.lock_entities(A, B):
            call = ctx.call_entity(A, "slow", (ctx.instance_id, 1))
            await ctx.call_activity("check")
            await ctx.call_entity(B, "move", (ctx.instance_id, 1))
            return await call

    del transfer, again, holds, mended_in_a_block


def _messages(app: App) -> None:
    @app.orchestrator
    async def talk(ctx: OrchestrationContext, n: int) -> list[int]:
        got: list[int] = []
        for number in range(n):
            ctx.signal_entity(A, "move", (f"{ctx.instance_id} tells", 1))
            got.append(await ctx.call_entity(A, "move", (f"{ctx.instance_id}{number}", number)))
        return got

    @app.orchestrator
    async def later(ctx: OrchestrationContext) -> int:
        ctx.signal_entity(A, "move", (f"{ctx.instance_id} later", 2), at=0.3)
        ctx.signal_entity(A, "move", (ctx.instance_id, 1))
        await ctx.create_timer(1)
        return await ctx.call_entity(A, "look")

    @app.orchestrator
    async def refused(ctx: OrchestrationContext) -> list[Any]:
        try:
            await ctx.call_entity(A, "refuse", (ctx.instance_id, 7))
        except EntityOperationFailedError as error:
            return [error.details.message, await ctx.call_entity(A, "move", (f"{ctx.instance_id} behind", 1))]
        return []

    @app.orchestrator
    async def spread(ctx: OrchestrationContext) -> int:
        return await ctx.call_entity(A, "pass_on", (ctx.instance_id, 1))

    @app.orchestrator
    async def noted(ctx: OrchestrationContext) -> str:
        return "noted"

    @app.orchestrator
    async def mended(ctx: OrchestrationContext) -> int:
        call = ctx.call_entity(A, "slow", (ctx.instance_id, 1))
        await ctx.call_activity("check")
        await ctx.call_entity(B, "move", (ctx.instance_id, 1))
        return await call

    del talk, later, refused, spread, noted, mended


class Bank(Scenario):
    """Some work at a bank."""

    def __init__(self, loop: SimLoop, work: str, point: str, k: int, *, keys: EncryptionKeys | None) -> None:
        self.work = work
        self.broken = True
        super().__init__(loop, point, k, keys=keys)

    def build(self) -> App:
        return bank(lambda: self.broken)

    async def drive(self, host: AppHost) -> Any:
        for instance_id, name, given in WORK[self.work]:
            await host.client.start(name, given, instance_id=instance_id, on_existing="attach")
        if self.work == "cut":
            await self._cut(host)
        if self.work == "posted":
            for n in range(POSTS):  # a message with an id: however often it is posted, it counts once
                body = encode_body(CallEntity("move", f'["post{n}",1]'.encode()))
                await host.engine.store.post([InboxRow(f"post{n}", A, 0, body)])
        results = {one: await self._result(host, one) for one in RESULTS[self.work]}
        while self.hub.inbox or self.hub.timers:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
        return results, await self._books(host)

    async def _cut(self, host: AppHost) -> None:
        handle = host.client.handle("x")

        async def is_reached() -> bool:
            status = await handle.status()
            return status is not None and (
                status.custom_status == "locked" or status.runtime_status.is_terminal
            )

        await eventually(is_reached)
        with suppress(InstanceStateError):  # it was obeyed, and that host died before it could say so
            await handle.terminate("enough")

    async def _result(self, host: AppHost, instance_id: str) -> Any:
        handle = host.client.handle(instance_id)
        while True:
            try:
                return await handle.result()
            except OrchestrationFailedError as error:
                if error.status != "Failed":
                    return error.status
                self.broken = False
            with suppress(InstanceStateError):  # as above
                await handle.rewind()

    async def _books(self, host: AppHost) -> dict[str, list[str]]:
        books: dict[str, list[str]] = {}
        page = await host.client.query_entities(include_transient=True)
        for one in page.entities:
            state: Any = one.state
            assert one.locked_by is None, f"{one.entity_id} is locked by {one.locked_by}"
            assert state["balance"] == 100 + sum(int(line.rpartition(" ")[2]) for line in state["log"])
            books[one.entity_id.key] = sorted(state["log"])
        return books


@pytest.mark.parametrize(
    "point",
    once_but(["before commit", "after commit", "before recovery", "after recovery"], {"after commit"}),
)
@pytest.mark.parametrize("work", WORK)
def test_the_books_are_in_order_wherever_the_host_dies(work: str, point: str) -> None:
    die_everywhere(work, point)


@pytest.mark.parametrize("work", ["transfers", "later", "mended in a block"])
def test_the_books_of_an_encrypted_bank_are_no_others(work: str) -> None:
    die_everywhere(work, "after commit", KEYS)


def die_everywhere(work: str, point: str, keys: EncryptionKeys | None = None) -> None:
    k = 1
    while True:
        (results, books), bank = play(lambda loop, k=k: Bank(loop, work, point, k, keys=keys))
        assert results == RESULTS[work], f"{point} #{k}"
        assert books == BOOKS[work], f"{point} #{k}"
        assert all(row.status in TERMINAL for _, row in bank.hub.instances.values()), f"{point} #{k}"
        if not bank.fired:
            break
        k += 1
    assert k > 1, "no crash point was reached"
