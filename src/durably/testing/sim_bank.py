"""The clients of a simulated bank, and what must be true of its books in the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec

from durably.app import App
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import CallEntity
from durably.core.status import TERMINAL
from durably.testing.sim_bank_programs import OPENING, Entry, Move, account
from durably.testing.sim_clients import Clients
from durably.testing.sim_doors import Doors
from durably.testing.sim_scene import Scene

KEYS = ("a", "b", "c", "d")
"""Of all accounts."""

_REWOUND = 0.7
_WAYS = ("plain", "plain", "slow", "working", "twice", "undone", "fails", "hangs")

_ENDS: dict[str, Counter[str]] = {
    "refused": Counter(),
    "undone": Counter(("out", "back")),
    "done": Counter(("out", "in")),
}
"""What a transfer with this result wrote."""


class _Book(msgspec.Struct):
    """The state of an account."""

    balance: int
    log: list[Entry]


class Bank(Clients):
    """All clients of a bank.

    Args:
        scene: The world.
        doors: Whom they call.

    Attributes:
        moves: Transfers that were accepted, by instance.
        payers: Orchestrations that were accepted, and the accounts that they pay.
        tips: What clients were promised to arrive exactly once and in this order, by client.
        tried: The same of what they asked for, whether anybody answered or not.
    """

    def __init__(self, scene: Scene, doors: Doors) -> None:
        super().__init__(scene, doors)
        self.moves: dict[str, Move] = {}
        self.payers: dict[str, list[str]] = {}
        self.tips: dict[str, list[int]] = {}
        self.tried: dict[str, int] = {}

    async def live(self, name: str) -> None:
        """Be one client, as long as the storm lasts."""
        chance, count = self._scene.chance, 0
        while self._scene.storm:
            count += 1
            what = chance.random()
            if what < 0.5:
                await self._transfer(f"transfer-{name}-{count}")
            elif what < 0.7:
                await self._pay(f"payer-{name}-{count}")
            else:
                await self._tip(f"client-{name}")
            await asyncio.sleep(chance.uniform(0.0, 0.6))

    @property
    def is_at_rest(self) -> bool:
        """True when nothing is on the way and nothing is due."""
        return not self._scene.hub.inbox and not self._scene.hub.timers

    # --- what they do ------------------------------------------------------------------------------------------------

    async def _transfer(self, instance_id: str) -> None:
        chance = self._scene.chance
        source, target = chance.sample(KEYS, 2)
        move = Move(source, target, chance.choice((1, 5, 20, 80)), chance.choice(_WAYS))
        if move.how in {"undone", "fails"}:
            self._scene.broken.add(instance_id)
        while not await self._begun("transfer", move, instance_id):
            pass
        self.moves[instance_id] = move
        self._scene.report.transfers += 1
        if move.how == "hangs" or chance.random() < 0.3:
            await asyncio.sleep(chance.choice((0.0, 0.05, 0.3, 1.0)))
            await self._end(instance_id)
        elif move.how == "fails" and chance.random() < _REWOUND:
            await self._mend_transfer(instance_id)
        elif chance.random() < 0.2:
            await self._insist(lambda door: door.client.suspend(instance_id, "storm"))
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            await self._insist(lambda door: door.client.resume(instance_id))

    async def _end(self, instance_id: str) -> None:
        self.ordered_to_end.add(instance_id)
        if self._scene.chance.random() < 0.5:
            await self._insist(lambda door: door.client.terminate(instance_id, "ordered"))
        else:
            await self._insist(lambda door: door.client.cancel(instance_id, "ordered"))

    async def _mend_transfer(self, instance_id: str) -> None:
        while self._status(instance_id) not in TERMINAL:
            await asyncio.sleep(0.2)
            await self._boot_if_quiet()
        self._scene.broken.discard(instance_id)
        await self._insist(lambda door: door.client.rewind(instance_id, "mended"))

    async def _pay(self, instance_id: str) -> None:
        chance = self._scene.chance
        accounts = [chance.choice(KEYS) for _ in range(chance.randrange(1, 12))]
        while not await self._begun("payer", accounts, instance_id):
            pass
        self.payers[instance_id] = accounts
        if chance.random() < 0.2:
            await asyncio.sleep(chance.choice((0.0, 0.05, 0.3)))
            await self._end(instance_id)

    async def _begun(self, program: str, given: Any, instance_id: str) -> bool:
        door = self._doors.door
        if door is not None and await self._answered(
            door.client.start(program, given, instance_id=instance_id, on_existing="attach")
        ):
            self._scene.report.instances += 1
            return True
        await asyncio.sleep(self._scene.chance.uniform(0.05, 0.5))
        await self._boot_if_quiet()
        return False

    async def _tip(self, name: str) -> None:
        """Tip one account a few times, in one of the ways that clients have; a client keeps to its account."""
        chance = self._scene.chance
        way = chance.choice(("post", "signal", "call"))
        key = chance.choice(KEYS)
        who = f"{name} {way} {key}"
        for _ in range(chance.randrange(1, 5)):
            n = self.tried[who] = self.tried.get(who, 0) + 1
            if way == "post":
                row = self._tip_row(who, key, n)
                await self._insist(lambda door, row=row: door.store.post([row]))
            else:
                door = self._doors.door
                if door is None:
                    await asyncio.sleep(0.1)
                    continue
                operation = chance.choice(("tip", "slow_tip"))
                ask = door.client.signal_entity if way == "signal" else door.client.call_entity
                if not await self._answered(ask(account(key), operation, (who, n))):
                    continue  # perhaps it arrives and perhaps it does not; never twice
            self.tips.setdefault(who, []).append(n)

    def _tip_row(self, who: str, key: str, n: int) -> InboxRow:
        body = CallEntity("tip", f'["{who}",{n}]'.encode())
        return InboxRow(f"{who}/{n}", account(key), self._scene.clock.now(), encode_body(body))

    # --- the books ---------------------------------------------------------------------------------------------------

    def judge(self, app: App) -> None:
        """Everything that was promised is in the books once, in its order, and no money came or went."""
        books = self._books(app)
        self._judge_transfers(app, books)
        self._judge_payers(books)
        self._judge_tips(books)
        assert not self._scene.hub.inbox, f"messages are left: {list(self._scene.hub.inbox)}"
        assert not self._scene.hub.timers, f"timers are left: {list(self._scene.hub.timers.values())}"
        assert not self._scene.hub.parked, f"messages were set aside: {self._scene.hub.parked}"

    def _books(self, app: App) -> dict[str, list[Entry]]:
        books: dict[str, list[Entry]] = {}
        for instance_id, row in self._scene.hub.entities.items():
            assert row.locked_by is None, f"{instance_id} is locked by {row.locked_by}"
            assert row.name == "account", f"{instance_id} should have vanished"
            assert row.state is not None
            held = app.converter.decode(row.state, _Book)
            books[instance_id] = held.log
            total = OPENING + sum(_worth(entry) for entry in held.log)
            assert held.balance == total, f"{instance_id} has {held.balance}, its entries say {total}"
            assert total >= 0, f"{instance_id} is overdrawn"
        return books

    def _judge_transfers(self, app: App, books: dict[str, list[Entry]]) -> None:
        written: dict[str, Counter[str]] = {}
        for entry in (entry for log in books.values() for entry in log if entry.what != "tip"):
            written.setdefault(entry.who, Counter())[entry.what] += 1
        for instance_id, move in self.moves.items():
            row = self._scene.hub.instances[instance_id][1]
            rounds = [written.pop(f"{instance_id}/{n}", Counter[str]()) for n in range(2)]
            lines = Counter[str]()
            for one in rounds:
                lines += one
                assert max(one.values(), default=0) <= 1, f"{instance_id} did something twice: {rounds}"
                assert one["in"] + one["back"] <= one["out"], f"{instance_id} made money: {rounds}"
            told = f"seed {self._scene.report.seed}: {instance_id} ({move}) is {row.status}, {rounds}"
            if row.status != "Terminated":
                assert lines["out"] == lines["in"] + lines["back"], f"{told}: money is lost"
            if row.status == "Completed":
                assert row.output is not None
                result = app.converter.decode(row.output, str)
                assert rounds[row.ordinal] == _ENDS[result], f"{told} with {result}"
            elif row.status == "Failed":
                assert move.how == "fails", f"{told}: {row.failure}"
                assert not lines, f"{told}, and was to fail before anything moved"
            else:
                assert instance_id in self.ordered_to_end, f"{told}, and nobody ordered that"
        assert not written, f"entries of transfers that nobody asked for: {written}"

    def _judge_payers(self, books: dict[str, list[Entry]]) -> None:
        for instance_id, accounts in self.payers.items():
            status = self._scene.hub.instances[instance_id][1].status
            sent = self._paid(books, instance_id, accounts)
            assert sent == list(range(len(sent))), f"{instance_id} left a gap: {sent}"
            assert len(sent) == len(accounts) or instance_id in self.ordered_to_end, (
                f"{instance_id} is {status} and paid {len(sent)} of {len(accounts)}"
            )
            later = sorted(
                entry.n for log in books.values() for entry in log if entry.who == f"{instance_id} later"
            )
            assert later == sent, f"{instance_id} sent {later} for later; expected {sent}"
            passed = sorted(
                entry.n
                for log in books.values()
                for entry in log
                if entry.who.startswith(f"{instance_id} via")
            )
            assert passed == [n for n in sent if n % 6 == 3], f"of {instance_id}, {passed} were passed on"

    def _paid(self, books: dict[str, list[Entry]], who: str, accounts: list[str]) -> list[int]:
        found: list[int] = []
        for instance_id, log in books.items():
            numbers = [entry.n for entry in log if entry.who == who]
            assert numbers == sorted(numbers), f"{who} was overtaken by itself at {instance_id}: {numbers}"
            assert all(account(accounts[n]) == instance_id for n in numbers), f"{who} paid the wrong account"
            found += numbers
        return sorted(found)

    def _judge_tips(self, books: dict[str, list[Entry]]) -> None:
        for who, tried in self.tried.items():
            log = books.get(account(who.rpartition(" ")[2]), [])
            numbers = [entry.n for entry in log if entry.who == who]
            promised = self.tips.get(who, [])
            assert len(set(numbers)) == len(numbers), f"a tip of {who} arrived twice: {numbers}"
            assert set(numbers) <= set(range(1, tried + 1)), f"{who} never gave {numbers}"
            kept = [n for n in numbers if n in set(promised)]
            assert kept == promised, f"{who} was promised {promised}, and {kept} arrived"


def _worth(entry: Entry) -> int:
    return {"out": -entry.n, "in": entry.n, "back": entry.n, "tip": 1}[entry.what]
