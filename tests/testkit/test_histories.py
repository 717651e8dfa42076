"""Histories as files, and the code of tomorrow that goes through them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from durably import App, HistoryCorruptError, NonDeterminismError, OrchestrationContext, UnknownFunctionError
from durably.core.events import ExecutionCompleted, TaskCompleted, TaskScheduled
from durably.testing import History, replay
from tests.golden.record_histories import HISTORIES
from tests.golden.record_histories import load as load_golden
from tests.testkit.programs import app, approvals, chain, double, parent, payment

GOLDEN = sorted(HISTORIES.glob("3.12/*.json"))


async def recorded(durable_env: Any, fn: Any, input: Any) -> History:
    async with durable_env(app) as env:
        await env.start(fn, input, instance_id="order-7")
        await env.settle()
        return await env.history("order-7")


async def test_a_history_is_a_file_that_people_can_read(durable_env: Any, tmp_path: Path) -> None:
    history = await recorded(durable_env, chain, 2)
    history.save(tmp_path / "chain.json")
    file = json.loads((tmp_path / "chain.json").read_text())
    assert file["durably_history"] == 1
    assert [event["event"] for event in file["events"]][:4] == [
        "TurnStarted",
        "ExecutionStarted",
        "TaskScheduled",
        "TurnStarted",
    ]
    assert file["events"][2] == {"event": "TaskScheduled", "seq": 0, "name": "double", "input": 1}
    assert len((tmp_path / "chain.json").read_text().splitlines()) == len(history) + 2
    assert repr(history) == f"<history of chain 'order-7': {len(history)} events>"
    assert [entry.name for entry in history if entry.event_type == "TaskCompleted"] == ["double", "double"]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_file_holds_all_of_a_history(path: Path, tmp_path: Path) -> None:
    history = History(load_golden(path))
    history.save(tmp_path / "history.json")
    assert History.load(tmp_path / "history.json") == history


@pytest.mark.parametrize(
    "payload", [None, b"null", b'"x"', b"1.50", b'{"base64": "x"}', b"\x00\xff", b"[1,\n2]", b"\xc3"]
)
def test_payloads_are_kept_to_the_byte(payload: bytes | None, tmp_path: Path) -> None:
    history = History(
        [TaskScheduled(0, "a", payload), TaskCompleted(0, payload), ExecutionCompleted(payload)]
    )
    history.save(tmp_path / "history.json")
    assert History.load(tmp_path / "history.json").events == history.events


@pytest.mark.parametrize(("fn", "input"), [(chain, 3), (approvals, 2), (parent, 3), (payment, 1)])
async def test_the_same_code_replays_finished_and_unfinished_histories(
    durable_env: Any, fn: Any, input: Any
) -> None:
    replay(app, await recorded(durable_env, fn, input))


async def test_other_code_is_told_where_it_differs(durable_env: Any, tmp_path: Path) -> None:
    history = await recorded(durable_env, chain, 3)
    history.save(tmp_path / "chain.json")
    changed = App()
    changed.activity(double)

    @changed.orchestrator(name="chain")
    async def hasty(ctx: OrchestrationContext, length: int) -> int:
        number = await ctx.call_activity(double, 1)
        await ctx.create_timer(1)
        return number

    with pytest.raises(NonDeterminismError) as found:
        replay(changed, tmp_path / "chain.json")
    assert "history says:  activity 'double' (#1)" in str(found.value)
    assert "code now does: timer (#1) at " in str(found.value)
    assert f"{Path(__file__).name}:" in str(found.value)


async def test_code_without_the_orchestrator_cannot_replay(durable_env: Any) -> None:
    with pytest.raises(UnknownFunctionError, match="chain"):
        replay(App(), await recorded(durable_env, chain, 1))


@pytest.mark.parametrize("text", ["", "[]", '{"durably_history": 1, "events": [{"event": "Nothing"}]}'])
def test_a_file_that_is_no_history_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(text)
    with pytest.raises(HistoryCorruptError, match=r"history\.json is no history"):
        replay(app, tmp_path / "history.json")
