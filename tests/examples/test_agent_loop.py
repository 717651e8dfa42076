"""An agent whose tools have real effects: killed in a refund, approved from elsewhere, led astray, and cut short."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably.testing.pytest_plugin import DurableEnv
from examples.agent_loop import app as agent
from examples.agent_loop.__main__ import ORDERS
from examples.agent_loop.app import Conversation, Decision, Message, ToolCall
from examples.agent_loop.approve import waiting_in
from examples.agent_loop.service import Carrier, open_carrier
from examples.agent_loop.tools import SCHEMA
from examples.effects import create, query, transaction
from tests.examples.commands import Example

QUESTION = [Message("user", "Which parcels are lost?")]
TURNS = [f"turn {number}" for number in range(1, 6)]


# --- as a command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow_once
def test_an_agent_killed_after_a_refund_pays_once_and_asks_the_model_for_no_turn_again(
    tmp_path: Path,
) -> None:
    example = Example("agent_loop", tmp_path)

    # The money is gone, and the tool lingers: its result is not recorded.
    def is_paid() -> bool:
        return len(example.query("shop.db", "SELECT 1 FROM refunds")) > 0

    example.kill_when(is_paid, "--step", "60", "--deadline", "600")
    assert (tmp_path / "model.log").read_text().split("\n")[:-1] == TURNS[:3]
    out = example.run()

    assert "tool  3.2  denied by Mia: so much is for the director to say" in out
    assert "answered after 5 turns" in out
    assert example.query("shop.db", "SELECT order_id, cents FROM refunds") == [("order-2", 86_50)]
    assert (tmp_path / "model.log").read_text().split("\n")[:-1] == TURNS
    assert (tmp_path / "notes" / "lost-parcels.txt").read_text() == (
        "refunded 8650 cents of order-2\ndenied by Mia: so much is for the director to say\n"
    )


@pytest.mark.slow_once
def test_a_human_elsewhere_decides_while_nobody_serves_the_hub(tmp_path: Path) -> None:
    example, approve = Example("agent_loop", tmp_path), Example("agent_loop.approve", tmp_path)

    example.kill_at("3.2 waits for approval", "--no-human", "--deadline", "600")
    assert approve.run().splitlines() == [
        "3.1  refund {'order_id': 'order-2', 'cents': 8650}",
        "3.2  refund {'order_id': 'order-4', 'cents': 129900}",
    ]
    approve.run("3.2", "--yes")
    approve.run("3.1", "--no", "--by", "Cy", "--reason", "it was found")
    out = example.run("--no-human")

    assert "tool  3.1  denied by Cy: it was found" in out
    assert example.query("shop.db", "SELECT order_id, cents FROM refunds") == [("order-4", 1_299_00)]


# --- on virtual time --------------------------------------------------------------------------------------------------


@pytest.fixture
def carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Carrier]:
    create(tmp_path / "shop.db", SCHEMA)
    with transaction(tmp_path / "shop.db") as db:
        db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", ORDERS)
    monkeypatch.setenv("AGENT_DIR", str(tmp_path))
    with open_carrier() as carrier:
        monkeypatch.setenv("CARRIER_URL", carrier.url)
        yield carrier


async def test_what_nobody_approves_in_three_days_is_not_done(
    durable_env: DurableEnv, carrier: Carrier, tmp_path: Path
) -> None:
    days = timedelta(days=3)
    async with durable_env(agent.app) as env:
        began = env.now
        answer = await env.run(agent.converse, Conversation(QUESTION, approval_s=days.total_seconds()))
        assert timedelta() <= env.now - began - days < timedelta(seconds=1)
    assert answer.state == "answered"
    assert answer.text.count("denied by the deadline: nobody has answered") == 2
    assert query(tmp_path / "shop.db", "SELECT * FROM refunds") == []
    assert set(carrier.asked.values()) == {2}  # each parcel was asked for again when the carrier was busy


@pytest.mark.parametrize("commit", range(1, 15, 2))
async def test_an_agent_that_dies_anywhere_pays_once_and_keeps_the_turns_it_has(
    durable_env: DurableEnv, carrier: Carrier, tmp_path: Path, commit: int
) -> None:
    async with durable_env(agent.app, auto_skip=False) as env:
        env.kill_after(commit)
        env.kill_after(agent.ask_model)
        env.duplicate(agent.use_tool, times=None)
        handle = await env.start(
            agent.converse, Conversation(QUESTION, turns_per_execution=2), instance_id="agent"
        )
        while not (waiting := waiting_in(await handle.status())):
            await env.advance(1)
        assert sorted(waiting) == ["3.1", "3.2"]
        await handle.raise_event("Approval 3.2", Decision(approved=False, by="Mia", reason="no"))
        await handle.raise_event("Approval 3.1", Decision(approved=True, by="Mia"))
        answer = await handle.result()
        assert env.deaths == 2
    assert answer.turns == 5
    assert query(tmp_path / "shop.db", "SELECT order_id, cents FROM refunds") == [("order-2", 86_50)]
    turns = (tmp_path / "model.log").read_text().split("\n")[:-1]
    assert turns == sorted(turns)  # a turn that was recorded is never asked for again
    assert set(turns) == set(TURNS)
    assert len(turns) <= len(TURNS) + 2  # only the two that nobody had recorded when the host died


def endless(messages: list[Message]) -> Message:
    return Message("model", "Let me see.", [ToolCall("query", {"sql": "SELECT 1"})])


async def test_a_model_that_comes_to_no_end_is_cut_short_and_no_history_grows(
    durable_env: DurableEnv, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_MODEL", f"{__name__}:endless")
    async with durable_env(agent.app) as env:
        talk = Conversation(QUESTION, turns_max=31, turns_per_execution=5)
        handle = await env.start(agent.converse, talk)
        answer = await handle.result()
        assert (answer.state, answer.turns, len(answer.messages)) == ("out of turns", 31, 1 + 2 * 31)
        assert len(await handle.history()) < 15
        assert len(env.calls(agent.ask_model)) == 31


WISHES: list[tuple[str, dict[str, Any], str]] = [
    ("launch", {}, "error: there is no tool 'launch'; there are query, refund, track, write_note"),
    ("query", {"sql": "DELETE FROM orders"}, "error: not authorized"),
    ("query", {"sql": "ATTACH 'other.db' AS other"}, "error: not authorized"),
    ("query", {"sql": "SELECT colour FROM orders"}, "error: no such column: colour"),
    ("query", {"table": "orders"}, "error: missing a required argument: 'sql'"),
    ("track", {"parcel": "P-9/../P-1"}, "error: the carrier knows no parcel 'P-9/../P-1'"),
    ("write_note", {"name": "../shop.db", "text": ""}, "error: '../shop.db' is no file name"),
    (
        "refund",
        {"order_id": "order-1", "cents": 49_01},
        "error: 4901 cents of order 'order-1' cannot be paid",
    ),
]


def astray(messages: list[Message]) -> Message:
    if len(messages) == 1:
        return Message("model", "", [ToolCall(name, arguments) for name, arguments, _ in WISHES])
    return Message("model", json.dumps([message.text for message in messages if message.role == "tool"]))


async def test_a_model_that_asks_for_nonsense_is_told_so_and_harms_nothing(
    durable_env: DurableEnv, carrier: Carrier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_MODEL", f"{__name__}:astray")
    async with durable_env(agent.app) as env:
        handle = await env.start(agent.converse, Conversation(QUESTION))
        await handle.raise_event("Approval 1.8", Decision(approved=True, by="Mia"))
        told = json.loads((await handle.result()).text)
    for (_, _, expected), text in zip(WISHES, told, strict=True):
        assert text.startswith(expected)
    assert len(query(tmp_path / "shop.db", "SELECT * FROM orders")) == 4
    assert query(tmp_path / "shop.db", "SELECT * FROM refunds") == []


async def test_a_model_that_is_overloaded_is_asked_again(durable_env: DurableEnv) -> None:
    async with durable_env(agent.app) as env:
        env.mock_activity(agent.ask_model, raises=TimeoutError("the model is overloaded"), times=2)
        env.mock_activity(agent.ask_model, returns=Message("model", "At your service."))
        answer = await env.run(agent.converse, Conversation(QUESTION))
        assert len({call.idempotency_key for call in env.calls(agent.ask_model)}) == 1
        assert len(env.calls(agent.ask_model)) == 3
    assert (answer.text, answer.turns) == ("At your service.", 1)
