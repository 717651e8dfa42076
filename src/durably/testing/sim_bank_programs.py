"""A bank for the simulation: accounts, transfers under locks, and payments that only have to arrive once and in order.

An account writes down who did what to it, so that the end can be judged entry by entry, whatever was cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from durably.app import App
from durably.errors import EntityOperationFailedError
from durably.program.context import OrchestrationContext
from durably.program.entity_context import EntityContext

OPENING = 50
"""What is in an account that nobody has touched."""

Alarm = Callable[[str, str], None]


class Entry(msgspec.Struct, array_like=True):
    """One line of an account: who did what, the number or the amount."""

    who: str
    what: str
    n: int


class Move(msgspec.Struct):
    """What a transfer is asked for; `how` it goes says `build_bank`."""

    source: str
    target: str
    amount: int
    how: str
    round: int = 0


def account(key: str) -> str:
    """The id of an account."""
    return f"@account@{key}"


def build_bank(app: App, alarm: Alarm, is_broken: Callable[[str], bool]) -> App:
    """Add the bank to an app.

    Args:
        app: Gets it.
        alarm: Called with an account and what it saw, when somebody came between the operations of a critical section.
        is_broken: Tells whether the transfer of an instance meets an operation that fails.
    """
    _entities(app, alarm, is_broken)
    _transfers(app)
    _payments(app)
    return app


def _entities(app: App, alarm: Alarm, is_broken: Callable[[str], bool]) -> None:
    class Account:
        balance: int = OPENING
        log: list[Entry] = []  # noqa: RUF012 - each account begins with a list of its own

        def look(self) -> int:
            return self.balance

        def withdraw(self, given: tuple[str, int, int], ctx: EntityContext) -> None:
            move, amount, seen = given
            self._check(seen, ctx)
            self.balance -= amount
            self.log.append(Entry(move, "out", amount))

        def deposit(self, given: tuple[str, int, int], ctx: EntityContext) -> None:
            move, amount, seen = given
            self._check(seen, ctx)
            self.balance += amount
            self.log.append(Entry(move, "in", amount))

        def give_back(self, move: str) -> None:
            """Undo a withdrawal, if there was one."""
            for entry in self.log:
                if (entry.who, entry.what) == (move, "out"):
                    self.balance += entry.n
                    self.log.append(Entry(move, "back", entry.n))
                    return

        def brittle(self, instance_id: str) -> None:
            self.balance -= 1_000  # an operation that raises leaves no trace
            if is_broken(instance_id):
                raise ValueError("the money is counted")
            self.balance += 1_000

        def tip(self, given: tuple[str, int]) -> int:
            who, n = given
            self.balance += 1
            self.log.append(Entry(who, "tip", n))
            return n

        async def slow_tip(self, given: tuple[str, int]) -> int:
            await asyncio.sleep(0.15)
            return self.tip(given)

        def pass_on(self, given: tuple[str, int, str], ctx: EntityContext) -> int:
            """A tip for this account, and one for another from here."""
            who, n, other = given
            ctx.signal_entity(other, "tip", (f"{who} via {ctx.entity_id.key}", n))
            return self.tip((who, n))

        def _check(self, seen: int, ctx: EntityContext) -> None:
            if self.balance != seen:
                alarm(str(ctx.entity_id), f"{ctx.caller_instance_id} saw {seen}, there is {self.balance}")

    app.entity(name="account")(Account)

    @app.entity(idle_ttl=timedelta(seconds=2))
    def mayfly(ctx: EntityContext) -> int:
        """Comes into being and vanishes all the time."""
        if ctx.operation_name == "vanish":
            ctx.delete_state()
            return 0
        ctx.set_state(ctx.get_state(int, 0) + 1)
        return ctx.get_state(int)

    del mayfly


def _transfers(app: App) -> None:
    @app.orchestrator
    async def transfer(ctx: OrchestrationContext, move: Move) -> str:
        """Under locks: refused, done, done twice, undone, failed before anything moved, or cut off anywhere."""
        name = f"{ctx.instance_id}/{move.round}"
        source, target = account(move.source), account(move.target)
        async with ctx.lock_entities(target, source):
            if move.how == "fails":
                await ctx.call_entity(source, "brittle", ctx.instance_id)
            seen = await ctx.call_entity(source, "look", returns=int)
            if seen < move.amount:
                return "refused"
            is_paid = False
            try:
                await ctx.call_entity(source, "withdraw", (name, move.amount, seen))
                await _dawdle(ctx, move, target)
                seen = await ctx.call_entity(target, "look", returns=int)
                paying = ctx.call_entity(target, "deposit", (name, move.amount, seen))
                is_paid = True  # cancelling the call does not take the deposit back
                await paying
            except (asyncio.CancelledError, EntityOperationFailedError) as error:
                if is_paid:
                    raise
                await ctx.call_entity(source, "give_back", name)
                if move.how == "undone" and isinstance(error, EntityOperationFailedError):
                    return "undone"
                raise
            if move.how == "twice" and move.round == 0:
                ctx.continue_as_new(msgspec.structs.replace(move, round=1))
        return "done"

    del transfer


async def _dawdle(ctx: OrchestrationContext, move: Move, target: str) -> None:
    """What happens between the withdrawal and the deposit."""
    if move.how == "slow":
        await ctx.create_timer(timedelta(seconds=0.4))
    elif move.how == "working":
        await ctx.call_activity("add_one", 1)
    elif move.how == "hangs":
        await ctx.wait_for_external_event("never")
    elif move.how == "undone":
        await ctx.call_entity(target, "brittle", ctx.instance_id)


def _payments(app: App) -> None:
    @app.orchestrator
    async def payer(ctx: OrchestrationContext, accounts: list[str]) -> int:
        """A tip for each of the accounts, in this order, in all the ways there are; and some that are due later."""
        me = ctx.instance_id
        calls: list[asyncio.Future[Any]] = []
        for n, key in enumerate(accounts):
            target = account(key)
            ctx.signal_entity(target, "tip", (f"{me} later", n), at=0.3 * n)
            if n % 6 == 1:
                calls.append(ctx.call_entity(target, "tip", (me, n)))
            elif n % 6 == 3:
                ctx.signal_entity(target, "pass_on", (me, n, account(accounts[0])))
            elif n % 6 == 4:
                ctx.signal_entity(target, "slow_tip", (me, n))
            elif n % 6 == 5:
                await ctx.call_entity(target, "slow_tip", (me, n))
            else:
                ctx.signal_entity(target, "tip", (me, n))
            ctx.signal_entity(f"@mayfly@{key}", ("touch", "vanish")[n % 3 == 2], at=(None, 0.5)[n % 2])
        for call in calls[: len(calls) // 2]:
            await call
        return len(accounts)

    del payer
