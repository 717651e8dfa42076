"""``durably parked`` as operators use it, on what a real host has set aside."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from durably.core.commit import InboxRow
from durably.storage.open import open_store
from tests.integration.cli.programs import PATIENCE_S, Folder, Run, interrupted
from tests.integration.cli.test_run import until_ready

pytestmark = pytest.mark.slow_once

HUB = "sqlite:///durably.db"


def spoil(*ids: str) -> None:
    """Post messages whose bytes nobody can read."""

    async def post() -> None:
        store = open_store(HUB)
        await store.open()
        await store.post([InboxRow(key, f"order-{key}", 1, b"\xc1 garbage") for key in ids])
        await store.close()

    asyncio.run(post())


def parked(run: Run) -> list[dict[str, object]]:
    return json.loads(run("parked", "list", "-o", "json").out)


def until_parked(run: Run, count: int) -> list[dict[str, object]]:
    deadline = time.monotonic() + PATIENCE_S
    while len(found := parked(run)) != count:
        assert time.monotonic() < deadline, found
    return found


def test_what_is_parked_is_listed_redriven_and_discarded(folder: Folder, run: Run):
    spoil("one", "two", "three")
    assert run("parked", "list").out == ""  # no host has looked at them
    with folder.started("run", "shop.py") as process:
        until_ready(process)
        found = until_parked(run, 3)
        assert [(item["id"], item["kind"], item["instance_id"]) for item in found] == [
            ("one", "message", "order-one"),
            ("two", "message", "order-two"),
            ("three", "message", "order-three"),
        ]
        assert all("cannot be read" in str(item["cause"]) for item in found)
        assert found[0]["payload"] == b"\xc1 garbage".hex()
        table = run("parked", "list").out.splitlines()
        assert table[0].split()[:2] == ["ID", "KIND"]
        assert run("parked", "list", "-o", "ids", "--prefix", "order-t").out.split() == ["two", "three"]

        assert run("parked", "discard", "one").code == 0
        assert len(parked(run)) == 2
        again = run("parked", "redrive", "two", "-o", "jsonl")  # it is as unreadable as before
        assert json.loads(again.out) == {"instance_id": "two", "ok": True, "error": None}
        until_parked(run, 2)

        gone = run("parked", "discard", "one", "three")
        assert gone.code == 4
        assert "one" in gone.err
        assert [item["id"] for item in parked(run)] == ["two"]
        assert run("parked", "discard", "--all", "--dry-run", "-o", "ids").out.split() == ["two"]
        assert "1 done, 0 failed" in run("parked", "discard", "--all", "--yes").err
        assert parked(run) == []
        interrupted(process)


def test_what_cannot_be_meant_is_refused(folder: Folder, run: Run):
    spoil("one")
    for arguments in (("redrive",), ("discard", "one", "--all"), ("discard", ""), ("discard", "--all")):
        refused = run("parked", *arguments)
        assert refused.code == 2, arguments
        assert "xpected" in refused.err or "add --yes" in refused.err
    assert run("parked", "list", "--hub", "sqlite:///nowhere.db").code == 4
