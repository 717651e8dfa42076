"""Hypothesis gives the same commands to the reference model and to hosts on each store; everything seen must agree."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably import EngineOptions
from tests.model.entity_programs import A, B, C
from tests.model.words import (
    Ask,
    Order,
    Purge,
    Raise,
    Restart,
    Signal,
    Start,
)
from tests.model.world import Advance, Follow, Give, Look, Mend, Step, World
from tests.support.hubs import FileHub, Hub, MemoryHubOfTest

# Everything is drawn from tables, one draw each: a strategy made of many small ones costs more than the hosts do.
# What comes first in a table is what a failing example shrinks to.

# Of a family one child at most is taken by a stranger: which of two refusals comes first is not said anywhere.
IDS = ["a"] * 12 + ["b"] * 6 + ["c"] * 2 + ["k", "a:0:0000", "a:1:0000", "b:0:0000"]
SECONDS = [0.0, 0.5, 1.0, 2.0, 400.0]
CHILDREN = [
    ("collect", 1),
    ("chain", 2),
    ("eternal", 0),
    ("failing", "luck"),
    ("retrying", 2),
    ("retrying", 4),
    ("repaired", 1),
    ("sleeper", 1.0),
    ("stubborn", None),
    ("tidy", 1.0),
]
INPUTS: dict[str, list[Any]] = {
    "collect": [1, 2, 3],
    "pair": [None],
    "chain": [1, 2, 3],
    "failing": ["luck", None, 1],
    "retrying": [1, 2, 3, 4],
    "repaired": [1, 2],
    "sleeper": SECONDS,
    "eternal": [0, 1],
    "forgetful": [0, 1, 2],
    "patient": SECONDS,
    "racer": SECONDS,
    "relay": [1, 2, 3],
    "stubborn": [None],
    "tidy": SECONDS,
    "parent": [[*child, "k" if taken else None, taken] for child in CHILDREN for taken in (False, True)],
    "family": [1, 2, 3],
    "starter": [1, 2],
    "teller": [1, 2],
    "rough": [0, 1],
    "fragile": [1, 2],
    "guard": ["a", "ab", "b", "ba"],
    "vault": [1, 2],
}
RIVALS = ("guard", "vault")
"""Of two that begin at one instant, which one is first at a lock is not said anywhere."""

TAGS: list[Any] = [(), (("team", "x"),), (("team", "x"), ("tier", "1")), (("team", "y"),)]
POLICIES = [
    "replace_finished",
    "replace_finished",
    "fail",
    "replace_finished",
    "replace",
    "replace_finished",
    "attach",
]
EVENTS = [Raise(name, data) for data in (1, 2, 3, 4, None, 0) for name in ("item", "go", "ITEM", "item")]
GOES = [Raise("go", data) for data in (1, 2, 3, 4, None, 0)]
ORDERS = [
    Order(verb, reason)
    for reason in (None, "why")
    for verb in ("suspend", "resume", "suspend", "resume", "cancel", "terminate", "rewind", "rewind")
]


def _starts() -> list[Start]:
    """Each orchestrator as often as any other."""
    chance = random.Random(0)
    delays = [None] * 4 + [1.0, 2.0, 0.0, -1.0]
    return [
        Start(
            name,
            chance.choice(inputs),
            None if name in RIVALS else delays[n % 8],
            chance.choice(TAGS),
            POLICIES[n % 7],
        )
        for n in range(64)
        for name, inputs in INPUTS.items()
    ]


def _looks() -> list[Look]:
    chance = random.Random(0)
    statuses = [None, ("Running",), ("Completed", "Failed"), ("Pending", "Suspended"), ("Canceled",), ()]
    moments = [None, None, 0.0, 1.0, 2.5, 60.0]
    return [
        Look(
            chance.choice([None, None, *INPUTS]),
            chance.choice(statuses),
            chance.choice([None, None, "a", "a:", "A", ""]),
            chance.choice(TAGS),
            (chance.choice(moments), chance.choice(moments)),
            chance.choice([1, 2, 3, 100]),
        )
        for _ in range(200)
    ]


STARTS = st.sampled_from(_starts())
RAISES = st.sampled_from(EVENTS)
MESSAGES = st.sampled_from([*EVENTS * 2, *ORDERS * 2, *[Purge()] * 4, *_starts()[:: 4 * len(INPUTS) - 1]])
AGAIN = st.sampled_from([*[Order("rewind", "why")] * 3, Restart()])
FRAIL = st.sampled_from(
    [
        Start("repaired", 1, None, (), "replace"),
        Start("retrying", 4, None, (), "replace"),
        Start("parent", ["repaired", 1, None, False], None, (), "replace"),
        Start("parent", ["parent", ["repaired", 2, None, False], None, False], None, (), "replace"),
    ]
)
"""Programs that fail, alone or with their children."""
FATES = st.sampled_from(["go on"] * 6 + ["restart", "crash", "crash"])
TARGETS = st.sampled_from(IDS)
LOCKING = st.sampled_from(
    [Start(name, value) for name in ("guard", "vault", "fragile", "guard") for value in INPUTS[name]]
)
"""Programs that compete for entities."""
OPERATIONS = st.sampled_from(
    [
        *[Signal("note", f"client {n}", delay_s) for n, delay_s in enumerate((None, 2.0, None, 0.5))],
        Ask("note", "asked"),
        Ask("look"),
        Ask("refuse", "c"),
        Ask("pass_on", "d"),
        Signal("refuse", "e"),
        Signal("delete"),
        Ask("count"),
    ]
)
ENTITIES = st.sampled_from([A, B, C])
BURSTS = st.one_of(
    st.tuples(MESSAGES),
    st.tuples(RAISES, RAISES, RAISES),
    st.tuples(MESSAGES, RAISES),
    st.tuples(RAISES, RAISES, MESSAGES, RAISES),
    st.tuples(STARTS, RAISES, MESSAGES, RAISES),
    st.tuples(MESSAGES, STARTS, RAISES),
)
STEP = st.one_of(
    st.builds(Step, st.builds(Give, TARGETS, st.tuples(STARTS)), FATES),
    st.builds(Step, st.builds(Give, TARGETS, BURSTS), FATES),
    st.builds(Step, st.builds(Give, TARGETS, BURSTS), FATES),
    st.builds(Step, st.builds(Give, TARGETS, BURSTS), FATES),
    st.builds(Step, st.builds(Give, TARGETS, BURSTS), st.integers(0, 6)),
    st.builds(Step, st.builds(Give, TARGETS, st.tuples(AGAIN)), FATES),
    st.builds(
        Step, st.builds(Give, st.just("a"), st.one_of(st.tuples(FRAIL, RAISES), st.tuples(AGAIN))), FATES
    ),
    st.builds(Step, st.builds(Give, TARGETS, st.tuples(LOCKING)), FATES),
    st.builds(Step, st.builds(Give, TARGETS, st.tuples(st.sampled_from(GOES))), FATES),
    st.builds(
        Step,
        st.builds(Give, ENTITIES, st.one_of(st.tuples(OPERATIONS), st.tuples(OPERATIONS, OPERATIONS))),
        FATES,
    ),
    st.builds(Step, st.builds(Mend, st.booleans())),
    st.builds(Step, st.sampled_from([Advance(s) for s in (0.5, 1.0, 1.5, 2.0, 5.0, 60.0, 700.0)]), FATES),
    st.builds(Step, st.one_of(TARGETS.map(Follow), st.sampled_from(_looks()))),
)
CONTEST = st.builds(
    Step,
    st.one_of(
        st.builds(Give, st.just("a"), st.tuples(LOCKING)),
        st.builds(Give, st.just("b"), st.tuples(LOCKING)),
        st.builds(Give, st.sampled_from(["a", "b"]), st.tuples(st.sampled_from(GOES))),
        st.builds(Give, st.just("a"), st.tuples(AGAIN)),
        st.builds(Mend, st.booleans()),
        st.just(Advance(0.5)),
    ),
    FATES,
)
"""Two instances want the same entities; what fails in it or behind it is rewound."""
# Three lists: one alone has six elements on average, and a history needs more than that to become interesting.
STEPS = st.tuples(
    st.lists(STEP, max_size=15),
    st.one_of(st.lists(STEP, max_size=15), st.lists(CONTEST, max_size=15)),
    st.lists(STEP, max_size=15),
).map(lambda lists: [*lists[0], *lists[1], *lists[2]])
OPTIONS = st.builds(
    EngineOptions,
    max_resident_instances=st.sampled_from([20_000, 1, 2]),
    max_resident_entities=st.sampled_from([100_000, 1]),
    entity_operations_per_batch=st.sampled_from([1_000, 1]),
    turns_per_batch=st.sampled_from([16, 1]),
    batch_bytes=st.sampled_from([1 << 20, 1]),
    timer_horizon_s=st.sampled_from([600.0, 2.0]),
)


async def live(hub: Hub, options: EngineOptions, steps: list[Step]) -> None:
    world = World(hub, options)
    await world.open()
    try:
        for step in steps:
            await world.take(step)
    finally:
        await world.close()


def in_memory(options: EngineOptions, steps: list[Step]) -> None:
    asyncio.run(live(MemoryHubOfTest(), options, steps))


def in_a_file(options: EngineOptions, steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(live(FileHub(Path(directory) / "hub.db"), options, steps))


def compare(run: Callable[[EngineOptions, list[Step]], None], examples: int) -> None:
    settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])(
        given(OPTIONS, STEPS)(run)
    )()


@pytest.mark.slow_once
def test_a_hub_in_memory_behaves_as_the_model() -> None:
    compare(in_memory, 120)


@pytest.mark.slow_once
def test_a_hub_in_a_file_behaves_as_the_model() -> None:
    compare(in_a_file, 40)


@pytest.mark.parametrize(
    "gives_up", [("parent", ["collect", 1, None, True], Order("cancel")), ("forgetful", 1, Raise("go", 1))]
)
def test_a_child_that_is_given_up_is_cancelled_only_if_it_is_the_child(
    gives_up: tuple[str, Any, Any],
) -> None:
    name, value, order = gives_up
    stranger = Step(Give("a:0:0000", (Start("collect", 1),)))
    in_memory(EngineOptions(), [stranger, Step(Give("a", (Start(name, value), order)))])


@pytest.mark.parametrize("then", ["go on", "crash"])
@pytest.mark.parametrize("answered", ["before the rewind", "after the rewind"])
@pytest.mark.parametrize("program", [Start("fragile", 1), Start("vault", 2)])
def test_what_waits_for_another_one_when_its_caller_fails_or_is_rewound(
    program: Start, answered: str, then: str
) -> None:
    lets_go = Step(Give("b", (Raise("go", 1),)), then)
    mends = [Step(Mend(broken=False)), Step(Give("a", (Order("rewind"),)), then)]
    steps = [
        Step(Give("b", (Start("guard", "a"),)), then),
        Step(Give("a", (program,)), then),
        Step(Advance(0.5), then),
        *([lets_go, *mends] if answered == "before the rewind" else [*mends, lets_go]),
        Step(Give("a", (Order("terminate"),))),
    ]
    in_memory(EngineOptions(), steps)


@pytest.mark.soak
def test_many_hubs_in_memory_behave_as_the_model() -> None:
    compare(in_memory, 12_000)


@pytest.mark.soak
def test_many_hubs_in_files_behave_as_the_model() -> None:
    compare(in_a_file, 4_000)
