"""Fair shares: what each host takes and gives when all see the same."""

from __future__ import annotations

import random

import pytest

from durably.engine.balance import shares_of, to_give, to_take
from durably.storage.api import HostInfo, HostReport, PartitionInfo, Survey


def survey(owners: list[str | None], hosts: dict[str, str], me: str) -> Survey:
    """A survey in which partition i belongs to ``owners[i]``; a host "drains", was "told", or is "there"."""
    infos = [
        HostInfo(
            host_id=host,
            report=HostReport(host, "1", draining=state == "drains"),
            since=place,
            seen_at=100,
            partitions=owners.count(host),
            is_me=host == me,
            told_to_drain=state == "told",
        )
        for place, (host, state) in enumerate(hosts.items())
    ]
    partitions = [
        PartitionInfo(number, owner or "", owner, 1, orphaned=False) for number, owner in enumerate(owners)
    ]
    return Survey(partitions, infos)


def owned(owners: list[str | None], host: str) -> list[int]:
    return [number for number, owner in enumerate(owners) if owner == host]


@pytest.mark.parametrize(
    ("partitions", "hosts", "expected"),
    [
        (32, {"a": "there"}, {"a": 32}),
        (32, {"a": "there", "b": "there"}, {"a": 16, "b": 16}),
        (8, {"a": "there", "b": "there", "c": "there"}, {"a": 3, "b": 3, "c": 2}),
        (1, {"a": "there", "b": "there"}, {"a": 1, "b": 0}),
        (4, {"a": "drains", "b": "there"}, {"a": 0, "b": 4}),
        (4, {"a": "there", "b": "told"}, {"a": 4, "b": 0}),
        (4, {"a": "drains"}, {"a": 0}),
    ],
)
def test_shares_are_fair(partitions: int, hosts: dict[str, str], expected: dict[str, int]) -> None:
    assert shares_of(survey([None] * partitions, hosts, "a")).wanted == expected


def test_hosts_that_come_at_once_begin_at_different_partitions() -> None:
    free: list[str | None] = [None] * 8
    hosts = {"a": "there", "b": "there"}
    taken = {}
    for me in hosts:
        seen = survey(free, hosts, me)
        taken[me] = to_take(seen, shares_of(seen), [])
    assert taken == {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}


def test_only_what_others_lack_is_given() -> None:
    owners: list[str | None] = ["a"] * 6 + ["b"] * 2
    seen = survey(owners, {"a": "there", "b": "there"}, "a")
    assert to_give(seen, shares_of(seen), owned(owners, "a")) == [4, 5]
    crowded: list[str | None] = ["a"] * 5 + ["b"] * 4  # b has its share: nobody would take one
    seen = survey(crowded, {"a": "there", "b": "there"}, "a")
    assert to_give(seen, shares_of(seen), owned(crowded, "a")) == []


def test_one_that_drains_gives_all_away_and_takes_nothing() -> None:
    owners: list[str | None] = ["a", "a", None, None]
    for state in ("drains", "told"):
        seen = survey(owners, {"a": state, "b": "there"}, "a")
        assert to_give(seen, shares_of(seen), [0, 1]) == [0, 1]
        assert to_take(seen, shares_of(seen), [0, 1]) == []


@pytest.mark.parametrize("seed", range(200))
def test_hosts_that_come_and_go_settle_at_fair_shares(seed: int) -> None:
    """Each acts on what it saw, in any order; where two want the same, one gets it. Nothing moves once it is fair."""
    chance = random.Random(seed)
    count = chance.randint(1, 12)
    owners: list[str | None] = [None] * count
    hosts = {f"h{number}": "there" for number in range(chance.randint(1, 5))}

    def settle() -> int:
        for rounds in range(50):
            before = list(owners)
            for me in chance.sample(list(hosts), len(hosts)):
                seen = survey(owners, hosts, me)
                mine = owned(owners, me)
                for number in to_give(seen, shares_of(seen), mine):
                    owners[number] = None
                for number in to_take(seen, shares_of(seen), mine):
                    assert owners[number] is None
                    owners[number] = me
            if owners == before and None not in owners:
                return rounds
        raise AssertionError(f"they do not settle: {owners} of {hosts}")

    for _ in range(4):
        settle()
        each = count // len(hosts)
        assert all(owners.count(host) in {each, each + 1} for host in hosts)
        if len(hosts) > 1 and chance.random() < 0.5:
            gone = chance.choice(list(hosts))
            del hosts[gone]
            for number in owned(owners, gone):
                owners[number] = None
        else:
            hosts[f"h{len(hosts)}{chance.random():.6f}"] = "there"
