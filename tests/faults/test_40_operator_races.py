"""Scenario 40: operators against completions: whatever four clients are told fits into one order of events."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from durably import App, AppHost, EngineOptions, OrchestrationContext
from durably.errors import InstanceAlreadyExistsError, InstanceNotFoundError, InstanceStateError
from tests.faults.checker import check_file
from tests.faults.evidence import Evidence
from tests.faults.linear import Call, linearizable

CLIENTS = 4
CALLS = (
    ["start"] * 3
    + ["raise"] * 3
    + ["suspend", "resume"] * 2
    + ["terminate", "purge", "purge", "status", "status"]
)


class Life(NamedTuple):
    """What the model knows of an instance: its status (None: there is none), and whether it may complete."""

    status: str | None
    told: bool = False


ABSENT = Life(None)


def model(life: Any, what: str) -> Iterable[tuple[Any, Life]]:
    """The legal answers of a hub in which one thing happens at a time."""
    status = life.status
    ended = status in ("Completed", "Terminated")
    if what == "status":
        yield status, life
    elif what == "start":
        yield ("ok", Life("Running")) if status is None or ended else (("exists", status), life)
    elif what == "purge":
        yield (False, life) if status is None else (True, ABSENT) if ended else (("state", status), life)
    elif status is None:
        yield "not found", life
    elif ended:
        yield ("state", status), life
    elif what == "raise":
        yield "ok", life._replace(told=True)
    elif what == "terminate":
        yield "ok", Life("Terminated")
    else:
        yield "ok", life._replace(status="Suspended" if what == "suspend" else "Running")


def drift(life: Any) -> Iterable[Life]:
    if life.told and life.status == "Running":
        yield Life("Completed")


def build() -> App:
    app = App()

    @app.activity
    async def work() -> None:
        await asyncio.sleep(0.001)

    @app.orchestrator
    async def racer(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go")
        await ctx.call_activity(work)

    return app


async def call(host: AppHost, instance_id: str, what: str) -> Any:
    client = host.client
    try:
        match what:
            case "start":
                await client.start("racer", instance_id=instance_id)
            case "raise":
                await client.raise_event(instance_id, "go")
            case "purge":
                return await client.purge(instance_id)
            case "status":
                status = await client.get_status(instance_id)
                return None if status is None else str(status.runtime_status.value)
            case _:
                await getattr(client, what)(instance_id)
    except InstanceNotFoundError:
        return "not found"
    except InstanceAlreadyExistsError as error:
        return "exists", error.status
    except InstanceStateError as error:
        return "state", error.status
    return "ok"


async def race(evidence: Evidence, instances: int, calls: int, seed: int) -> dict[str, list[Call]]:
    """Four clients, each with calls of its own to each instance in turn."""
    told: dict[str, list[Call]] = {}
    options = EngineOptions(
        turns_per_batch=2, max_resident_instances=4
    )  # so that all are evicted now and then
    async with build().host(evidence.url, options=options) as host:

        async def client(number: int, instance_id: str) -> None:
            chance = random.Random(f"{seed}/{instance_id}/{number}")
            for _ in range(calls):
                what = chance.choice(CALLS)
                made = time.monotonic()
                answer = await call(host, instance_id, what)
                told[instance_id].append(Call(made, time.monotonic(), what, answer))
                if chance.random() < 0.2:
                    await asyncio.sleep(chance.random() * 0.004)

        for first in range(0, instances, 8):
            names = [f"r-{n}" for n in range(first, min(first + 8, instances))]
            told.update((name, []) for name in names)
            await asyncio.gather(*(client(n, name) for name in names for n in range(CLIENTS)))
        for name, story in told.items():  # what is left afterwards is part of the story
            made = time.monotonic()
            answer = await call(host, name, "status")
            story.append(Call(made, time.monotonic(), "status", answer))
            if answer in ("Running", "Suspended"):
                await host.client.terminate(name)
            await host.client.purge(name)
    return told


def judge(evidence: Evidence, instances: int, calls: int, seed: int) -> None:
    told = asyncio.run(race(evidence, instances, calls, seed))
    for name, story in told.items():
        assert linearizable(story, ABSENT, model, drift), f"no order explains what {name} answered: {story}"
    orders = [one for story in told.values() for one in story if one.what != "status"]
    answers = Counter("ok" if one.answer in ("ok", True) else "refused" for one in orders)
    sys.stdout.write(f"{sum(map(len, told.values()))} calls on {instances} instances: {dict(answers)}\n")
    assert answers["ok"] >= 0.3 * answers.total()  # C15
    check_file(evidence)
    with contextlib.closing(apsw.Connection(str(evidence.hub))) as connection:
        for table in ("instances", "history", "timers", "inbox"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)], (
                f"{table} after purge"
            )


@pytest.mark.slow_once
def test_what_four_operators_are_told_is_explained_by_one_order(tmp_path: Path) -> None:
    judge(Evidence.in_folder(tmp_path), instances=32, calls=8, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(2, 7))
def test_ten_thousand_calls_of_operators(tmp_path: Path, seed: int) -> None:
    judge(Evidence.in_folder(tmp_path), instances=313, calls=8, seed=seed)


STORY = [Call(0, 1, "start", "ok"), Call(2, 5, "raise", "ok"), Call(3, 4, "terminate", "ok")]


@pytest.mark.parametrize(
    ("last", "legal"),
    [
        (Call(6, 7, "status", "Terminated"), True),
        (Call(6, 7, "status", "Running"), False),
        (Call(6, 7, "status", "Completed"), False),
        (Call(3.5, 7, "status", "Running"), True),
        (Call(6, 7, "purge", ("state", "Completed")), False),
    ],
)
def test_the_judge_knows_a_story_that_cannot_be(last: Call, legal: bool) -> None:
    assert linearizable([*STORY, last], ABSENT, model, drift) is legal
