"""The casts of a simulated fleet: travellers whose instances live in all partitions, and a bank with couriers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec

from durably.app import App
from durably.program.context import OrchestrationContext
from durably.testing.sim_bank import KEYS, Bank
from durably.testing.sim_bank_programs import account
from durably.testing.sim_clients import Clients


class Travellers(Clients):
    """Clients whose instances live in all partitions, and talk to each other."""

    programs = (
        ("chain", 4),
        ("fan", 6),
        ("retried", 2),
        ("saga", 2),
        ("race", 1),
        ("collector", 5),
        ("collector", 8),
        ("ring", 7),
        ("patient", 2),
        ("parent", 3),
        ("unlucky_parent", 1),
        ("ping", 3),
        ("mended", 3),
    )

    @property
    def is_at_rest(self) -> bool:
        """True when nothing is on the way and nothing is due."""
        return not self._scene.hub.inbox and not self._scene.hub.timers


class Errand(msgspec.Struct):
    """So many tips for an account."""

    account: str
    who: str
    count: int


class Couriers(Bank):
    """A bank with couriers: what one sends in many turns, one after the other, has to arrive once and in this order."""

    async def live(self, name: str) -> None:
        """Be one client, as long as the storm lasts."""
        chance, count = self._scene.chance, 0
        while self._scene.storm:
            count += 1
            what = chance.random()
            if what < 0.3:
                await self._transfer(f"transfer-{name}-{count}")
            elif what < 0.4:
                await self._pay(f"payer-{name}-{count}")
            elif what < 0.7:
                await self._send_courier(f"courier-{name}-{count}")
            else:
                await self._tip(f"client-{name}")
            await asyncio.sleep(chance.uniform(0.0, 0.4))

    async def _send_courier(self, instance_id: str) -> None:
        chance = self._scene.chance
        key, count = chance.choice(KEYS), chance.randint(3, 8)
        who = f"{instance_id} to {key}"
        while not await self._begun("courier", Errand(account(key), who, count), instance_id):
            pass
        self.tried[who] = count
        self.tips[who] = list(range(1, count + 1))


def build_couriers(app: App) -> App:
    """Add what sends again and again, and waits a moment in between."""

    @app.orchestrator
    async def courier(ctx: OrchestrationContext, errand: Errand) -> None:
        for n in range(errand.count):
            ctx.signal_entity(errand.account, "tip", (errand.who, n + 1))
            await ctx.create_timer(timedelta(milliseconds=2))

    del courier
    return app
