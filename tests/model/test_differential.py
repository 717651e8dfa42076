"""Hypothesis gives the same commands to the reference model and to hosts on each store; everything seen must agree."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from tests.model.reference import Order, Purge, Raise, Start
from tests.model.world import Advance, Follow, Give, Look, Step, World
from tests.support.hubs import FileHub, Hub, MemoryHubOfTest

from durably import EngineOptions

SOAK = 100 if os.environ.get("DURABLY_SOAK") else 1

IDS = st.sampled_from(["a", "a", "b", "b", "c", "k", "a:0:0000", "a:0:0001", "a:1:0000", "b:0:0000"])
SECONDS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0, 400.0])
COUNTS = st.integers(1, 3)
TAGS = st.sampled_from([(), (("team", "x"),), (("team", "x"), ("tier", "1")), (("team", "y"),)])
CHILDREN = st.one_of(
    st.tuples(st.just("chain"), COUNTS),
    st.tuples(st.just("collect"), COUNTS),
    st.tuples(st.just("eternal"), st.just(0)),
    st.tuples(st.just("failing"), st.just("luck")),
    st.tuples(st.just("retrying"), st.integers(1, 4)),
    st.tuples(st.just("sleeper"), SECONDS),
    st.tuples(st.just("stubborn"), COUNTS),
)
INPUTS: dict[str, st.SearchStrategy[Any]] = {
    "chain": COUNTS,
    "failing": st.sampled_from(["luck", None, 1]),
    "retrying": st.integers(1, 4),
    "sleeper": SECONDS,
    "collect": COUNTS,
    "pair": st.none(),
    "eternal": st.integers(0, 1),
    "forgetful": st.integers(0, 2),
    "patient": SECONDS,
    "racer": SECONDS,
    "relay": COUNTS,
    "stubborn": st.none(),
    "tidy": SECONDS,
    "parent": st.builds(
        lambda child, instance_id, catches: [*child, instance_id, catches],
        CHILDREN,
        st.sampled_from([None, None, "k"]),
        st.booleans(),
    ),
    "family": COUNTS,
    "starter": COUNTS,
}
STARTS = st.sampled_from(sorted(INPUTS)).flatmap(
    lambda name: st.builds(
        Start,
        st.just(name),
        INPUTS[name],
        st.sampled_from([None, None, None, -1.0, 0.0, 1.0, 2.0]),
        TAGS,
        st.sampled_from(["replace_finished", "replace_finished", "fail", "replace", "attach"]),
    )
)
EVENTS = st.builds(
    Raise, st.sampled_from(["item", "item", "Item", "go", "other"]), st.sampled_from([1, 2, 3, 0, None])
)
ORDERS = st.builds(
    Order, st.sampled_from(["suspend", "resume", "cancel", "terminate"]), st.sampled_from([None, "why"])
)
MESSAGES = st.one_of(STARTS, EVENTS, EVENTS, ORDERS, st.builds(Purge))
GIVES = st.builds(Give, IDS, st.lists(MESSAGES, min_size=1, max_size=4).map(tuple))
ADVANCES = st.builds(Advance, st.sampled_from([0.5, 1.0, 1.5, 2.0, 5.0, 60.0, 700.0]))
LOOKS = st.builds(
    Look,
    st.sampled_from([None, None, *sorted(INPUTS)]),
    st.sampled_from([None, None, ("Running",), ("Completed", "Failed"), ("Pending", "Suspended"), ()]),
    st.sampled_from([None, None, "a", "a:", "A", ""]),
    TAGS,
    st.tuples(st.sampled_from([None, 0.0, 1.0, 2.5]), st.sampled_from([None, 0.0, 1.0, 2.5, 60.0])),
    st.sampled_from([1, 2, 3, 100]),
)
FATES = st.sampled_from(["go on"] * 6 + ["restart", "crash", "crash"])
STEP = st.one_of(
    st.builds(Step, GIVES, FATES),
    st.builds(Step, GIVES, FATES),
    st.builds(Step, GIVES, FATES),
    st.builds(Step, GIVES, st.integers(0, 6)),
    st.builds(Step, ADVANCES, FATES),
    st.builds(Step, IDS.map(Follow), FATES),
    st.builds(Step, LOOKS),
)
# Three lists: one alone has six elements on average, and a history needs more than that to become interesting.
STEPS = st.tuples(*[st.lists(STEP, max_size=15)] * 3).map(lambda lists: [*lists[0], *lists[1], *lists[2]])
OPTIONS = st.builds(
    EngineOptions,
    max_resident_instances=st.sampled_from([20_000, 1, 2]),
    turns_per_batch=st.sampled_from([16, 1]),
    batch_bytes=st.sampled_from([1 << 20, 1]),
    timer_horizon_s=st.sampled_from([600.0, 2.0]),
)


async def live(hub: Hub, options: EngineOptions, steps: list[Step]) -> None:
    world = World(hub, options)
    await world.open()
    try:
        for number, step in enumerate(steps):
            note(f"step {number}: {step}")
            await world.take(step)
    finally:
        await world.close()


@settings(max_examples=250 * SOAK, suppress_health_check=[HealthCheck.too_slow])
@given(OPTIONS, STEPS)
def test_a_hub_in_memory_behaves_as_the_model(options: EngineOptions, steps: list[Step]) -> None:
    asyncio.run(live(MemoryHubOfTest(), options, steps))


@settings(max_examples=50 * SOAK, suppress_health_check=[HealthCheck.too_slow])
@given(OPTIONS, STEPS)
def test_a_hub_in_a_file_behaves_as_the_model(options: EngineOptions, steps: list[Step]) -> None:
    directory = tempfile.mkdtemp()
    try:
        asyncio.run(live(FileHub(Path(directory) / "hub.db"), options, steps))
    finally:
        shutil.rmtree(directory)
