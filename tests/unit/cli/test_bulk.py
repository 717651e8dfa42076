"""Many instances at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from durably.cli.instances.bulk import SHARE, Tally, for_all
from durably.cli.output import Exit
from durably.client import pacing
from durably.client.pacing import IN_FLIGHT
from durably.errors import HubSilentError, InstanceNotFoundError, StoreFailedError


class Notes:
    def __init__(self) -> None:
        self.advanced = 0
        self.complaints: list[str] = []

    def advance(self) -> None:
        self.advanced += 1

    def complain(self, text: str) -> None:
        self.complaints.append(text)


async def ids(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"i{number}"


def test_failures_are_told_and_the_others_go_on() -> None:
    async def act(instance_id: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        if instance_id == "i3":
            raise InstanceNotFoundError(instance_id)
        if instance_id == "i4":
            raise HubSilentError("no answer")
        return {"more": 1}

    told: list[dict[str, Any]] = []
    notes, tally = Notes(), Tally()
    asyncio.run(for_all(ids(100), act, told.append, notes, tally=tally, share=1))
    assert (tally.done, tally.failed, notes.advanced, tally.code) == (98, 2, 100, Exit.FAILED)
    assert sorted(notes.complaints)[1] == "i4: no answer"
    assert {"instance_id": "i4", "ok": False, "error": "HubSilentError: no answer"} in told
    assert {"instance_id": "i5", "ok": True, "error": None, "more": 1} in told


def test_as_many_at_a_time_as_a_client_takes() -> None:
    async def run() -> int:
        most = running = 0

        async def act(_: str) -> dict[str, Any]:
            nonlocal most, running
            running += 1
            most = max(most, running)
            for _turn in range(3):
                await asyncio.sleep(0)
            running -= 1
            return {}

        await for_all(ids(350), act, lambda _: None, Notes(), tally=Tally(), share=1)
        return most

    assert asyncio.run(run()) == IN_FLIGHT


def test_a_hub_that_fails_ends_the_work() -> None:
    acted: list[str] = []

    async def act(instance_id: str) -> dict[str, Any]:
        acted.append(instance_id)
        await asyncio.sleep(0)
        if instance_id == "i120":
            raise StoreFailedError("the disk is gone")
        return {}

    tally = Tally()
    with pytest.raises(StoreFailedError):
        asyncio.run(for_all(ids(1_000_000), act, lambda _: None, Notes(), tally=tally, share=1))
    assert len(acted) == 2 * IN_FLIGHT
    assert tally.done >= IN_FLIGHT


def test_a_verb_means_those_that_the_client_means() -> None:
    from durably.cli.instances import verbs
    from durably.cli.instances.control import Verb
    from durably.client.bulk import APPLIES_TO

    known = [one for one in vars(verbs).values() if isinstance(one, Verb)]
    assert SHARE == pacing.SHARE
    assert {one.name for one in known} == {*APPLIES_TO, "raise"}
    for one in known:
        assert set(one.applies_to) == set(APPLIES_TO.get(one.name, one.applies_to))


def test_the_exit_code_is_what_all_failures_have_in_common() -> None:
    assert Tally().code == 0
    assert Tally(codes={4}).code == 4
    assert Tally(codes={4, 5}).code == 1
