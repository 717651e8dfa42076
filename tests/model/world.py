"""One hub under comparison: the steps of an example go to a real host and to the model, and everything seen must agree."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import Any

from tests.model.programs import activities, app, programs
from tests.model.reference import Failure, Instance, Model, Order, Outcome, Purge, Raise, Start
from tests.support.clock import START, ManualClock
from tests.support.hubs import Hub, crash

from durably import (
    AppHost,
    Client,
    EngineOptions,
    FailureDetails,
    HubClosedError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
    InstanceStatus,
    OrchestrationFailedError,
)

PATIENCE_S = 10.0
"""Real seconds after which a host that is not quiet never will be."""

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

    do: Give | Advance | Follow | Look
    then: str | int = "go on"


# --- the comparison ----------------------------------------------------------------------------------------------


class World:
    """A hub, the host that serves it, and the model of what both must show."""

    def __init__(self, hub: Hub, options: EngineOptions) -> None:
        self._hub = hub
        self._options = options
        self._clock = ManualClock()
        self._told: list[tuple[Any, ...]] = []
        self._model = Model(programs, activities)
        self._followers: list[tuple[int, asyncio.Task[Any]]] = []
        self._host: AppHost

    async def open(self) -> None:
        self._host = app.host(self._hub.store(), options=self._options, clock=self._clock)
        await self._host.start()

    async def close(self) -> None:
        await crash(self._host)
        for _, task in self._followers:
            task.cancel()

    async def take(self, step: Step) -> None:
        """Do a step and compare everything."""
        async with asyncio.timeout(PATIENCE_S):
            await self._take(step)

    async def _take(self, step: Step) -> None:
        do = step.do
        if isinstance(do, Give):
            if isinstance(step.then, int):
                await self._crash_in_doubt(do, step.then)
                return
            got = await asyncio.gather(*self._send(do))
            agree("answers", got, [self._tell("give", do.instance_id, message) for message in do.messages])
        elif isinstance(do, Advance):
            self._clock.advance(do.seconds)
            self._tell("advance", do.seconds)
        elif isinstance(do, Follow):
            await self._follow(do)
        else:
            await self._look(do)
        if step.then != "go on" and not isinstance(do, Look):
            await self._replace_host(in_order=step.then == "restart")
        self._tell("settle")
        await settle(self._host)
        await self._compare(self._model)
        self._compare_followers()

    def _send(self, give: Give) -> list[asyncio.Task[Outcome]]:
        client = self._host.client
        return [asyncio.ensure_future(_outcome(client, give.instance_id, one)) for one in give.messages]

    def _tell(self, *words: Any) -> Any:
        self._told.append(words)
        return _said(self._model, words)

    async def _replace_host(self, *, in_order: bool) -> None:
        if in_order:
            await self._host.stop()
        else:
            await crash(self._host)
        for serial, task in self._followers:
            if not in_order:
                task.cancel()  # it was in the process that died
            elif (end := await _result(task)) != ("HubClosedError",):
                agree("end", end, self._model.ends.get(serial))
        self._followers = []
        await self.open()

    async def _crash_in_doubt(self, give: Give, rounds: int) -> None:
        """Of commands without an answer, some were obeyed and the ones after them were not."""
        tasks = self._send(give)
        for _ in range(rounds):
            await asyncio.sleep(0)
        await crash(self._host)
        got = [await task for task in tasks]
        answered = len([one for one in got if one != ("HubClosedError",)])
        assert all(one == ("HubClosedError",) for one in got[answered:]), "answers out of order"
        for _, task in self._followers:
            task.cancel()
        self._followers = []
        await self.open()
        await settle(self._host)
        problems: list[AssertionError] = []
        for obeyed in range(answered, len(give.messages) + 1):
            told = [*self._told, *(("give", give.instance_id, one) for one in give.messages[:obeyed])]
            told.append(("settle",))
            model = Model(programs, activities)
            said = [_said(model, words) for words in told]
            agree("answers", got[:answered], said[len(self._told) :][:answered])
            try:
                await self._compare(model)
            except AssertionError as problem:
                problems.append(problem)
            else:
                self._told, self._model = told, model
                return
        raise ExceptionGroup(f"{answered} were answered, and no number of obeyed commands explains this", problems)

    # --- what is compared ----------------------------------------------------------------------------------------

    async def _compare(self, model: Model) -> None:
        engine = self._host.engine
        assert engine.failure is None
        assert engine._strikes == {}, "an invariant was broken on the way"
        page = await self._host.client.query_instances(page_size=1_000)
        seen = [_seen(status) for status in page.instances]
        agree("instances", seen, [_expected(instance) for instance in model.instances.values()])
        for instance in model.instances.values():
            history = await self._host.client.get_history(instance.instance_id)
            kinds = [(e.event_type, e.task_id) for e in history if e.event_type != "OrchestratorStarted"]
            expected = [] if instance.execution is None else instance.execution.history
            agree(f"history of {instance.instance_id}", kinds, expected)

    def _compare_followers(self) -> None:
        for serial, task in self._followers:
            agree("has ended", task.done(), serial in self._model.ends)
        self._followers = [entry for entry in self._followers if not self._check_ended(*entry)]

    def _check_ended(self, serial: int, task: asyncio.Task[Any]) -> bool:
        if task.done():
            agree("end", _result_of(task), self._model.ends[serial])
        return task.done()

    async def _follow(self, follow: Follow) -> None:
        handle = self._host.client.handle(follow.instance_id)
        now = asyncio.ensure_future(handle.result(timeout=0))
        status = await self._host.client.get_status(follow.instance_id)
        instance = self._model.instances.get(follow.instance_id)
        expected = None if instance is None else _expected(instance)
        agree("status", None if status is None else _seen(status), expected)
        agree("result", await _result(now), self._model.result(follow.instance_id))
        if instance is not None and not instance.ended:
            task = asyncio.ensure_future(handle.result())
            await asyncio.sleep(0)
            self._followers.append((instance.serial, task))

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
        expected = self._model.query(look.name, look.statuses, look.prefix, look.tags, start_s, end_s)
        size, token, pages = look.page_size, None, []
        while not pages or token is not None:
            page = await self._host.client.query_instances(**filters, page_size=size, continuation_token=token)
            pages.append([one.instance_id for one in page.instances])
            token = page.continuation_token
        agree("pages", pages, [expected[at : at + size] for at in range(0, len(expected), size)] or [[]])


def _said(model: Model, words: tuple[Any, ...]) -> Any:
    verb, *arguments = words
    return getattr(model, verb)(*arguments)


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
        moves = partition is None or partition._armed or partition._reading or not partition.quiet
        calm = 0 if moves or engine._tasks or len(engine.pool) else calm + 1


def agree(what: str, seen: Any, expected: Any) -> None:
    """Tell where host and model part."""
    if seen == expected:
        return
    if isinstance(seen, list) and isinstance(expected, list):
        pairs = zip_longest(seen, expected, fillvalue="nothing")
        at, seen, expected = next((at, *pair) for at, pair in enumerate(pairs) if pair[0] != pair[1])
        what = f"{what}, number {at}"
    if isinstance(seen, dict) and isinstance(expected, dict):
        what = f"{what} of {seen['instance_id']}"
        keys = [key for key in expected if seen[key] != expected[key]]
        seen, expected = ({key: side[key] for key in keys} for side in (seen, expected))
    raise AssertionError(f"{what}: the host has {seen}, the model {expected}")


# --- both sides in the same words ------------------------------------------------------------------------------------


async def _outcome(client: Client, instance_id: str, message: Any) -> Outcome:
    try:
        answer = await _call(client, instance_id, message)
    except InstanceNotFoundError as error:
        assert error.instance_id == instance_id
        return ("InstanceNotFoundError",)
    except InstanceAlreadyExistsError as error:
        assert error.instance_id == instance_id
        return ("InstanceAlreadyExistsError", error.status)
    except InstanceStateError as error:
        assert error.instance_id == instance_id
        return ("InstanceStateError", error.status, error.operation)
    except HubClosedError:
        return ("HubClosedError",)
    return ("ok", answer) if isinstance(message, Purge) else ("ok",)


async def _call(client: Client, instance_id: str, message: Any) -> Any:
    match message:
        case Start():
            return await client.start(
                message.name,
                message.input,
                instance_id=instance_id,
                start_at=message.delay_s,
                tags=dict(message.tags),
                on_existing=message.on_existing,  # type: ignore[arg-type]
            )
        case Raise():
            return await client.raise_event(instance_id, message.event, message.data)
        case Order():
            return await getattr(client, message.verb)(instance_id, message.reason)
        case _:
            return await client.purge(instance_id)


async def _result(task: asyncio.Task[Any]) -> Outcome:
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([task])
    return _result_of(task)


def _result_of(task: asyncio.Task[Any]) -> Outcome:
    error = task.exception()
    match error:
        case None:
            return ("ok", task.result())
        case OrchestrationFailedError():
            return ("OrchestrationFailedError", error.status, _failure(error.details))
        case _:
            return (type(error).__name__,)


def _failure(details: FailureDetails | None) -> Failure | None:
    return None if details is None else Failure(details.type, details.message, _failure(details.inner))


def _seen(status: InstanceStatus) -> dict[str, Any]:
    return {
        "instance_id": status.instance_id,
        "name": status.name,
        "version": status.version,
        "status": str(status.runtime_status),
        "created": (status.created_time - START).total_seconds(),
        "updated": (status.last_updated_time - START).total_seconds(),
        "input": status.input,
        "output": status.output,
        "custom_status": status.custom_status,
        "failure": _failure(status.failure),
        "blocked": status.blocked,
        "tags": status.tags,
        "parent": status.parent_instance_id,
    }


def _expected(instance: Instance) -> dict[str, Any]:
    parent = instance.start.parent
    return {
        "instance_id": instance.instance_id,
        "name": instance.start.name,
        "version": None,
        "status": instance.status,
        "created": instance.created,
        "updated": instance.updated,
        "input": instance.input,
        "output": instance.output,
        "custom_status": instance.custom_status,
        "failure": None if instance.status == "Terminated" else instance.failure,
        "blocked": None,
        "tags": dict(instance.start.tags),
        "parent": None if parent is None else parent[0],
    }
