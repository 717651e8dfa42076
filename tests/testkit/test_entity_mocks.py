"""Entities in the test kit: canned operations, faults, histories, and orchestrators that run by themselves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import (
    App,
    EntityContext,
    EntityId,
    EntityOperationFailedError,
    InvalidIdError,
    NonDeterminismError,
    OrchestrationContext,
    OrchestrationFailedError,
    UsageError,
)
from durably.core.events import LockGranted
from durably.testing import History, MockOrchestrationContext, RecordedOperation, replay

ANN, BOB = EntityId("account", "ann"), EntityId("account", "bob")


def bank(outside: list[str] | None = None) -> App:
    """Accounts, and transfers between them. What operations do outside is noted."""
    app = App()
    notes = [] if outside is None else outside

    @app.entity(read_only=["balance"])
    class Account:
        euros: int = 0

        def deposit(self, euros: int) -> int:
            notes.append(f"deposit {euros}")
            self.euros += euros
            return self.euros

        async def withdraw(self, euros: int) -> int:
            notes.append(f"withdraw {euros}")
            await asyncio.sleep(0)
            self.euros -= euros
            return self.euros

        def balance(self) -> int:
            return self.euros

    app.orchestrator(transfer)
    app.orchestrator(pay)
    del Account
    return app


async def transfer(ctx: OrchestrationContext, euros: int) -> int:
    async with ctx.lock_entities(ANN, BOB):
        if await ctx.call_entity(ANN, "balance", returns=int) < euros:
            return 0
        await ctx.call_entity(ANN, "withdraw", euros)
        await ctx.call_entity(BOB, "deposit", euros)
    ctx.signal_entity("@audit@all", "note", euros)
    return euros


async def pay(ctx: OrchestrationContext, euros: int) -> int:
    ctx.signal_entity(ANN, "deposit", euros)
    return await ctx.call_entity(ANN, "deposit", euros)


# --- a whole hub -----------------------------------------------------------------------------------------------------


async def test_an_operation_is_mocked_and_the_others_are_real(durable_env: Any) -> None:
    async with durable_env(bank()) as env:
        audit = env.mock_entity("Audit", "note")
        env.mock_entity("account", "balance", returns=100)
        assert await env.run(transfer, 30) == 30
        await env.settle()
        assert (await env.client.read_entity(ANN), await env.client.read_entity(BOB)) == (
            {"euros": -30},
            {"euros": 30},
        )
        assert [(str(call.entity_id), call.input) for call in audit.calls] == [("@audit@all", 30)]
        assert env.operations("account", "deposit") == [
            RecordedOperation(BOB, "deposit", 30, env.operations()[0].caller_instance_id)
        ]
        assert [one.operation for one in env.operations()] == ["balance", "withdraw", "deposit", "note"]
        assert await env.client.read_entity("@audit@all") is None


async def test_mocks_answer_one_after_the_other_and_then_the_entity(durable_env: Any) -> None:
    async with durable_env(bank()) as env:
        env.mock_entity("account", "deposit", raises=ValueError("closed"), times=1)
        env.mock_entity("account", "deposit", runs=lambda euros: -euros, times=1)
        mock = env.mock_entity("account", returns="any", times=1)
        with pytest.raises(EntityOperationFailedError, match="closed"):
            await env.client.call_entity(ANN, "deposit", 1)
        assert [await env.client.call_entity(ANN, "deposit", number) for number in (2, 3, 4)] == [
            -2,
            "any",
            4,
        ]
        assert [call.input for call in mock.calls] == [3]


async def test_a_mock_may_await_and_have_a_context_whose_changes_count(durable_env: Any) -> None:
    async def twice(euros: int, ctx: EntityContext) -> int:
        await asyncio.sleep(0)
        ctx.set_state({"euros": 2 * euros})
        ctx.signal_entity("@audit@all", "note", euros)
        return ctx.get_state()["euros"]

    async with durable_env(bank()) as env:
        audit = env.mock_entity("audit")
        env.mock_entity("account", "deposit", runs=twice, times=1)
        assert [await env.client.call_entity(ANN, "deposit", 5) for _ in range(2)] == [10, 15]
        await env.settle()
        assert [call.caller_instance_id for call in audit.calls] == [str(ANN)]


async def test_what_is_neither_registered_nor_mocked_says_so(durable_env: Any) -> None:
    async with durable_env(bank()) as env:
        env.mock_entity("audit", "note")
        with pytest.raises(EntityOperationFailedError, match=r"env.mock_entity\('audit', operation='read'"):
            await env.client.call_entity("@audit@all", "read")
        with pytest.raises(UsageError, match="several answers"):
            env.mock_entity("audit", returns=1, raises=ValueError)
        with pytest.raises(UsageError, match="times of the mock of entity 'audit' is 0"):
            env.mock_entity("audit", times=0)
        with pytest.raises(InvalidIdError):
            env.mock_entity("a@b")


@pytest.mark.parametrize("operation", ["deposit", "*"])
async def test_an_operation_that_comes_twice_has_its_effect_once(durable_env: Any, operation: str) -> None:
    outside: list[str] = []
    async with durable_env(bank(outside)) as env:
        fault = env.duplicate("account", operation=operation, times=None)
        assert await env.run(pay, 5) == 10
        assert (await env.client.read_entity(ANN)) == {"euros": 10}
        assert fault.happened == 2
        assert outside == ["deposit 5"] * 4  # what is done outside is done as often as it is delivered
        if operation == "*":
            assert await env.client.call_entity(ANN, "withdraw", 1) == 9
            assert outside[4:] == ["withdraw 1"] * 2


async def test_a_fault_of_activities_leaves_operations_alone(durable_env: Any) -> None:
    async with durable_env(bank()) as env:
        fault = env.duplicate(times=None)
        await env.run(pay, 5)
        assert (fault.happened, len(env.operations())) == (0, 2)


@pytest.mark.parametrize("commit", range(1, 9))
async def test_a_death_at_any_commit_changes_nothing(durable_env: Any, commit: int) -> None:
    async with durable_env(bank()) as env:
        env.mock_entity("audit")
        await env.client.call_entity(ANN, "deposit", 50)
        env.kill_after(commit)
        assert await env.run(transfer, 30) == 30
        await env.settle()
        assert (await env.client.read_entity(ANN), await env.client.read_entity(BOB)) == (
            {"euros": 20},
            {"euros": 30},
        )
        assert (await env.client.clean_entity_storage()).released == 0


# --- histories -------------------------------------------------------------------------------------------------------


async def test_a_history_with_locks_calls_and_signals_is_kept_and_replayed(
    durable_env: Any, tmp_path: Path
) -> None:
    async with durable_env(bank()) as env:
        env.mock_entity("audit")
        env.mock_entity("account", "balance", returns=100)
        handle = await env.start(transfer, 30)
        await handle.result()
        history = await env.history(handle.instance_id)
    history.save(tmp_path / "transfer.json")
    assert History.load(tmp_path / "transfer.json") == history
    replay(bank(), tmp_path / "transfer.json")

    changed = App()

    @changed.orchestrator(name="transfer")
    async def without_lock(ctx: OrchestrationContext, euros: int) -> int:
        return await ctx.call_entity(ANN, "balance")

    with pytest.raises(NonDeterminismError, match="@account@ann"):
        replay(changed, history)
    del without_lock


# --- one orchestrator alone ------------------------------------------------------------------------------------------


def test_an_orchestrator_locks_calls_and_signals_without_a_hub() -> None:
    ctx = MockOrchestrationContext()
    ctx.mock_entity("account", "balance", returns=100)
    ctx.mock_entity("account", runs=lambda euros: euros)
    assert ctx.run(transfer, 30) == 30
    assert [(str(one.entity_id), one.operation, one.input) for one in ctx.operations] == [
        ("@account@ann", "balance", None),
        ("@account@ann", "withdraw", 30),
        ("@account@bob", "deposit", 30),
        ("@audit@all", "note", 30),
    ]
    assert {one.caller_instance_id for one in ctx.operations} == {"test"}
    assert [event.entity for event in ctx.history.events if isinstance(event, LockGranted)] == [
        str(ANN),
        str(BOB),
    ]


def test_an_operation_fails_without_a_hub_and_the_lock_is_left() -> None:
    ctx = MockOrchestrationContext(app=bank())
    ctx.mock_entity("account", "balance", returns=100, times=1)
    ctx.mock_entity("account", "withdraw", raises=ValueError("closed"))
    with pytest.raises(OrchestrationFailedError, match="closed") as failed:
        ctx.run(transfer, 30)
    assert failed.value.details.is_caused_by(EntityOperationFailedError)


def test_what_is_not_mocked_and_what_awaits_is_named() -> None:
    async def slow() -> int:
        await asyncio.sleep(0)
        return 1

    ctx = MockOrchestrationContext()
    with pytest.raises(
        UsageError, match=r"'balance' of entity '@account@ann' \(#1\), and no mock of it is left"
    ):
        ctx.run(transfer, 30)
    ctx = MockOrchestrationContext()
    ctx.mock_entity("account", runs=slow)
    with pytest.raises(UsageError, match="mock of entity 'account' awaits something"):
        ctx.run(transfer, 30)


def test_a_signal_goes_nowhere_but_into_the_record() -> None:
    async def remind(ctx: OrchestrationContext) -> None:
        ctx.signal_entity(ANN, "remind", {"in": "May"}, at=timedelta(days=3))

    ctx = MockOrchestrationContext()
    assert ctx.run(remind) is None
    assert ctx.operations == [RecordedOperation(ANN, "remind", {"in": "May"}, "test")]
