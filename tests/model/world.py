"""One hub under comparison: the steps of an example go to a real host and to the model, and everything seen must agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from durably import AppHost, EngineOptions
from tests.model.entities import READS
from tests.model.entity_programs import operations
from tests.model.programs import activities, app, health, programs
from tests.model.reference import Model
from tests.model.sides import (
    DIED,
    agree,
    by_clients,
    expected_entities,
    expected_of,
    in_order,
    outcome,
    result_of,
    seen_entities,
    seen_of,
)
from tests.model.state import ENDED
from tests.model.words import Ask, Outcome
from tests.support.clock import START, ManualClock
from tests.support.hubs import Hub, crash

PATIENCE_S = 60.0
"""Real seconds after which a host that is not quiet never will be."""

BELIEFS_MAX = 6
"""With more than these, no host is crashed before its commands are answered: each such crash multiplies them."""

# --- steps -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Give:
    """Messages for one instance, all at once."""

    instance_id: str
    messages: tuple[Any, ...]


@dataclass(frozen=True)
class Advance:
    seconds: float


@dataclass(frozen=True)
class Mend:
    """Brittle activities fail from now on, or work."""

    broken: bool


@dataclass(frozen=True)
class Follow:
    """Wait for the end of an instance, from now until it comes or the host goes."""

    instance_id: str


@dataclass(frozen=True)
class Look:
    """A query, page by page."""

    name: str | None
    statuses: tuple[str, ...] | None
    prefix: str | None
    tags: tuple[tuple[str, str], ...]
    created_s: tuple[float | None, float | None]
    page_size: int


@dataclass(frozen=True)
class Step:
    """What to do, and what becomes of the host then.

    `then` is "go on", "restart" (in order), "crash" (what was promised is durable, what follows from it has not
    happened), or a number: a crash so many rounds of the loop after the messages were sent, with no answer awaited.
    """

    do: Give | Advance | Mend | Follow | Look
    then: str | int = "go on"


# --- the comparison ----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Belief:
    """What may have happened: after a crash with commands under way there are several, until one shows to be right."""

    model: Model
    told: list[tuple[Any, ...]]

    def tell(self, *words: Any) -> Any:
        """Tell the model, and remember what had an effect: a belief is forked by telling a new model the same."""
        verb, *arguments = words
        answer = getattr(self.model, verb)(*arguments)
        if answer is None or answer[0] == "ok":
            self.told.append(words)
        return answer

    def fork(self) -> Belief:
        fork = new_belief()
        for words in self.told:
            fork.tell(*words)
        return fork


def new_belief() -> Belief:
    return Belief(Model(programs, activities, operations), [])


class World:
    """A hub, the host that serves it, and the model of what both must show."""

    def __init__(self, hub: Hub, options: EngineOptions) -> None:
        self._hub = hub
        self._options = options
        self._clock = ManualClock()
        health["broken"] = True
        self._beliefs = [new_belief()]
        self._followers: list[tuple[str, dict[Belief, int], asyncio.Task[Any]]] = []
        self._host: AppHost

    async def open(self) -> None:
        self._host = app.host(self._hub.store(), options=self._options, clock=self._clock)
        await self._host.start()

    async def close(self) -> None:
        await crash(self._host)
        self._drop_followers()

    async def take(self, step: Step) -> None:
        """Do a step and compare everything."""
        async with asyncio.timeout(PATIENCE_S):
            await self._do(step)
            await settle(self._host)
            for belief in self._beliefs:
                belief.tell("settle")
            await self._compare()

    async def _do(self, step: Step) -> None:
        do = step.do
        if isinstance(do, Give) and self._would_wait(do):
            return
        if isinstance(do, Give):
            tasks = [
                asyncio.ensure_future(outcome(self._host.client, do.instance_id, one)) for one in do.messages
            ]
            if isinstance(step.then, int) and len(self._beliefs) <= BELIEFS_MAX:
                await self._crash_in_doubt(do, tasks, step.then)
                return
            answers = await asyncio.gather(*tasks)
            told = {
                belief: [belief.tell("give", do.instance_id, one) for one in do.messages]
                for belief in self._beliefs
            }
            self._keep_beliefs(lambda belief: agree("answers", answers, told[belief]))
        elif isinstance(do, Advance):
            self._clock.advance(do.seconds)
            for belief in self._beliefs:
                belief.tell("advance", do.seconds)
        elif isinstance(do, Mend):
            health["broken"] = do.broken
            for belief in self._beliefs:
                belief.tell("mend", do.broken)
        elif isinstance(do, Follow):
            await self._follow(do)
        else:
            await self._look(do)
        if step.then in ("restart", "crash"):
            await self._replace_host(in_order=step.then == "restart")

    def _would_wait(self, give: Give) -> bool:
        """A client that calls a locked entity has no answer before the end of the step."""
        asks = any(isinstance(one, Ask) and one.operation not in READS for one in give.messages)
        return asks and not all(one.model.entities.is_open(give.instance_id) for one in self._beliefs)

    async def _replace_host(self, *, in_order: bool) -> None:
        if in_order:
            await self._host.stop()
            for _, _, task in self._followers:
                await asyncio.wait([task])  # whoever waits is told
        else:
            await crash(self._host)
        self._drop_followers()
        await self.open()

    async def _crash_in_doubt(self, give: Give, tasks: list[asyncio.Task[Outcome]], rounds: int) -> None:
        """Of commands without an answer, some were obeyed and the ones after them were not."""
        for _ in range(rounds):
            await asyncio.sleep(0)
        await crash(self._host)
        answers = [await task for task in tasks]
        answered = len([one for one in answers if one != DIED])
        assert all(one == DIED for one in answers[answered:]), "answers out of order"
        self._drop_followers()
        believed, self._beliefs = self._beliefs, []
        told: dict[Belief, list[Outcome]] = {}
        for obeyed in range(answered, len(give.messages) + 1):
            for belief in believed:
                fork = belief.fork()
                told[fork] = [fork.tell("give", give.instance_id, one) for one in give.messages[:obeyed]]
                if all(fork.told != other.told for other in self._beliefs):
                    self._beliefs.append(fork)
        self._keep_beliefs(lambda belief: agree("answers", answers[:answered], told[belief][:answered]))
        await self.open()

    def _drop_followers(self) -> None:
        for _, _, task in self._followers:
            task.cancel()
        self._followers = []

    # --- what is compared ----------------------------------------------------------------------------------------

    def _keep_beliefs(self, check: Callable[[Belief], None]) -> None:
        """Go on with the beliefs that pass; none is left when host and model disagree."""
        problems: list[AssertionError] = []
        kept: list[Belief] = []
        for belief in self._beliefs:
            try:
                check(belief)
            except AssertionError as problem:
                problems.append(problem)
            else:
                kept.append(belief)
        if not kept:
            raise problems[0] if len(problems) == 1 else ExceptionGroup("none of these is right", problems)
        self._beliefs = kept

    async def _compare(self) -> None:
        engine, client = self._host.engine, self._host.client
        assert engine.failure is None
        assert engine._own.holdings[0]._strikes.counts == {}, "an invariant was broken on the way"
        page = await client.query_instances(page_size=1_000)
        seen = [seen_of(status) for status in page.instances]
        histories = {one["instance_id"]: await self._history(one["instance_id"]) for one in seen}
        entities = await seen_entities(client)

        def check(belief: Belief) -> None:
            instances = belief.model.instances
            expected = [expected_of(instance) for instance in instances.values()]
            agree("instances", in_order(seen), in_order(expected))
            agree("started by clients", by_clients(seen), by_clients(expected))
            agree("entities", entities, expected_entities(belief.model))
            for instance_id, history in histories.items():
                execution = instances[instance_id].execution
                agree(f"history of {instance_id}", history, [] if execution is None else execution.history)
            for instance_id, serials, task in self._followers:
                end = belief.model.ends.get(serials[belief], ("waits",))
                agree(f"end of {instance_id}", result_of(task) if task.done() else ("waits",), end)

        self._keep_beliefs(check)
        self._followers = [entry for entry in self._followers if not entry[2].done()]
        created = [one["created"] for one in seen]
        assert created == sorted(created), "not in the order of creation"

    async def _history(self, instance_id: str) -> list[tuple[str, int | None]]:
        history = await self._host.client.get_history(instance_id)
        return [(one.event_type, one.task_id) for one in history if one.event_type != "OrchestratorStarted"]

    async def _follow(self, follow: Follow) -> None:
        instance_id = follow.instance_id
        handle = self._host.client.handle(instance_id)
        result = asyncio.ensure_future(handle.result(timeout=0))
        await asyncio.wait([result])
        found = await handle.status()
        seen = None if found is None else seen_of(found)

        def check(belief: Belief) -> None:
            instance = belief.model.instances.get(instance_id)
            agree("status", seen, None if instance is None else expected_of(instance))
            agree("result", result_of(result), belief.model.result(instance_id))

        self._keep_beliefs(check)
        if seen is not None and seen["status"] not in ENDED:
            serials = {one: one.model.instances[instance_id].serial for one in self._beliefs}
            self._followers.append((instance_id, serials, asyncio.ensure_future(handle.result())))

    async def _look(self, look: Look) -> None:
        start_s, end_s = look.created_s
        filters: dict[str, Any] = {
            "name": look.name,
            "runtime_status": look.statuses,
            "instance_id_prefix": look.prefix,
            "tags": dict(look.tags),
            "created_from": None if start_s is None else START + timedelta(seconds=start_s),
            "created_to": None if end_s is None else START + timedelta(seconds=end_s),
        }
        everything = await self._host.client.query_instances(page_size=1_000)
        size, token, pages = look.page_size, None, []
        while not pages or token is not None:
            page = await self._host.client.query_instances(
                **filters, page_size=size, continuation_token=token
            )
            pages.append([one.instance_id for one in page.instances])
            token = page.continuation_token

        def check(belief: Belief) -> None:
            matching = belief.model.query(
                name=look.name,
                statuses=look.statuses,
                prefix=look.prefix,
                tags=look.tags,
                created_from=start_s,
                created_to=end_s,
            )
            found = [one.instance_id for one in everything.instances if one.instance_id in matching]
            agree("pages", pages, [found[at : at + size] for at in range(0, len(found), size)] or [[]])

        self._keep_beliefs(check)


async def settle(host: AppHost) -> None:
    """Return when nothing moves any more: neither in the partition and its store, nor in the pool, nor on the loop."""
    engine = host.engine
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    calm = rounds = 0
    while calm < 4:
        assert asyncio.get_running_loop().time() < deadline, "the host does not become quiet"
        rounds += 1
        await asyncio.sleep(0 if rounds < 30 else 0.0002)
        partition = engine.partition
        moves = partition is None or not partition.still
        calm = 0 if moves or engine._tasks or len(engine.pool) else calm + 1
