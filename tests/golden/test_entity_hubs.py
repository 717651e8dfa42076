"""Entities of hubs that earlier versions left behind: locks, what waits behind them, and what is due later."""

from __future__ import annotations

import asyncio
import tarfile
from pathlib import Path

import pytest

from durably import AppHost, EntityId
from tests.golden.entity_hub_program import LEDGER, A, B, build
from tests.golden.record_entity_hub import ENTITY_HUBS
from tests.support.waiting import eventually

RECORDED = sorted(ENTITY_HUBS.glob("*.tar.xz"))

BEHIND = ["second's", "signal of asks", "call of asks", "signal of a client"]
"""What waited behind the lock, in the order in which it came."""


@pytest.fixture(params=RECORDED, ids=lambda path: path.name.split(".")[0])
def hub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'hub.db'}"


def test_a_hub_is_kept() -> None:
    assert RECORDED, "record one: python -m tests.golden.record_entity_hub v<VERSION>"


def test_a_lock_outlives_its_version_and_everything_behind_it_is_done(hub: str) -> None:
    asyncio.run(_finish(hub))


async def _finish(hub: str) -> None:
    async with asyncio.timeout(60), build().host(hub) as host:
        found = await host.client.get_entity(A)
        assert found is not None
        assert (found.locked_by, found.waiting) == ("keeper", 4)
        assert (await host.client.clean_entity_storage()).released == 0
        await host.client.raise_event("keeper", "go")
        await host.client.rewind("audited")
        results = {
            one: (await host.client.wait_for_completion(one)).output
            for one in ("keeper", "second", "asks", "audited")
        }
        assert results == {
            "keeper": 2,
            "second": ["keeper's first", "keeper's third", "second's"],
            "asks": 5,
            "audited": ["audited", 1],
        }
        await eventually(lambda: _is_free(host, A, ["keeper's first", "keeper's third", *BEHIND]))
        await eventually(
            lambda: _is_free(host, B, ["keeper's second", "later", "call of asks passed on"], ordered=False)
        )


async def _is_free(host: AppHost, entity: EntityId, held: list[str], *, ordered: bool = True) -> bool:
    found = await host.client.get_entity(entity)
    assert found is not None
    state: dict[str, list[str]] = found.state or {"held": []}  # type: ignore[assignment]
    same = state["held"] == held if ordered else sorted(state["held"]) == sorted(held)
    return same and (found.locked_by, found.waiting) == (None, 0)


@pytest.mark.parametrize("version", [1, 2])
def test_a_state_of_an_old_version_is_read_and_migrated(hub: str, version: int) -> None:
    asyncio.run(_write(hub, version))


async def _write(hub: str, version: int) -> None:
    async with asyncio.timeout(60), build(version).host(hub) as host:
        assert await host.client.read_entity(LEDGER) == {"lines": ["first line"]}
        assert await host.client.call_entity(LEDGER, "write", "second line") == 2
        now = {"lines": ["first line", "second line"]}
        later = {"pages": [["first line"], ["second line"]]}
        assert await host.client.read_entity(LEDGER) == (now if version == 1 else later)
