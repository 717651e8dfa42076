"""Values of a wrong type or range in calls of the public API: each is refused by an error that names it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import App, InstanceNotFoundError, OrchestrationContext, RegistrationError, UsageError

NAN, INFINITE = float("nan"), float("inf")


def app_that_waits() -> App:
    app = App()

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    return app


@pytest.mark.parametrize(
    ("call", "arguments", "words"),
    [
        ("result", {"timeout": "5"}, "timeout is '5': expected a timedelta or a number of seconds"),
        ("result", {"timeout": NAN}, "timeout is nan: expected"),
        ("result", {"timeout": True}, "timeout is True: expected"),
        ("wait_for_completion", {"timeout": []}, r"timeout is \[\]: expected"),
        ("query_instances", {"page_size": "5"}, "page_size is '5': expected 1 to 1000"),
        ("query_instances", {"page_size": True}, "page_size is True: expected"),
        ("query_instances", {"continuation_token": 5}, "Continuation token '5' is not one of this hub"),
        ("query_instances", {"runtime_status": 5}, "runtime_status .*: expected some of Pending, "),
        ("query_instances", {"runtime_status": [[]]}, "runtime_status .*: expected some of Pending, "),
        ("query_instances", {"created_from": 5}, "created_from is 5: expected a datetime"),
        ("query_instances", {"created_to": "2020-01-01"}, "created_to is '2020-01-01': expected a datetime"),
        ("query_instances", {"name": 5}, "name of the orchestrator is 5: expected a string"),
        ("query_instances", {"instance_id_prefix": 5}, "instance_id_prefix is 5: expected a string"),
        ("query_instances", {"tags": "team"}, "tags are 'team': expected a dict of strings"),
        ("query_instances", {"tags": {"team": 5}}, "tag 'team' is 5: expected a string"),
        ("start", {"fn": "waits", "tags": ["team"]}, r"tags are \['team'\]: expected a dict of strings"),
        ("start", {"fn": "waits", "start_at": INFINITE}, "start_at is inf: expected"),
    ],
)
def test_of_a_client(call: str, arguments: dict[str, Any], words: str) -> None:
    async def called() -> None:
        async with app_that_waits().host("memory://") as host:
            handle = await host.client.start("waits")
            owner = host.client if call in {"query_instances", "start"} else handle
            async with asyncio.timeout(3):
                await getattr(owner, call)(**arguments)

    with pytest.raises(UsageError, match=words):
        asyncio.run(called())


@pytest.mark.parametrize("call", ["suspend", "resume", "terminate", "cancel", "purge", "rewind"])
def test_an_empty_id_is_that_of_no_instance(call: str) -> None:
    async def called() -> Any:
        async with app_that_waits().host("memory://") as host, asyncio.timeout(3):
            await host.client.start("waits", instance_id="here")
            try:
                return await getattr(host.client, call)("")
            except InstanceNotFoundError:
                return None

    assert asyncio.run(called()) in (None, False)


def test_an_infinite_timeout_waits_for_ever() -> None:
    async def waited() -> Any:
        async with app_that_waits().host("memory://") as host:
            handle = await host.client.start("waits")
            result = asyncio.ensure_future(handle.result(timeout=INFINITE))
            await handle.raise_event("go", 7)
            return await result

    assert asyncio.run(waited()) == 7


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": 5}, "Cannot register activity 5: expected a name of printable characters"),
        ({"max_concurrent": "two"}, "max_concurrent='two': expected 1 or more, or None"),
        ({"max_concurrent": 1.5}, "max_concurrent=1.5: expected 1 or more, or None"),
        ({"max_concurrent": True}, "max_concurrent=True: expected 1 or more, or None"),
        ({"version": 5}, "version of activity 'work' is 5: expected a string"),
    ],
)
def test_of_an_activity(given: dict[str, Any], words: str) -> None:
    def work() -> None: ...

    with pytest.raises(UsageError, match=words):
        App().activity(**given)(work)


def test_of_an_orchestrator() -> None:
    async def flow(ctx: OrchestrationContext) -> None: ...

    with pytest.raises(RegistrationError, match="Cannot register orchestrator 5"):
        App().orchestrator(name=5)(flow)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="version of orchestrator 'flow' is 5"):
        App().orchestrator(version=5)(flow)  # type: ignore[call-overload]


def test_of_an_app() -> None:
    app: Any = App()
    with pytest.raises(RegistrationError, match="Cannot include 5: expected an App"):
        app.include(5)
    with pytest.raises(UsageError, match="options is 5: expected EngineOptions"):
        app.host("memory://", options=5)
    with pytest.raises(UsageError, match="hub is 5: expected a URL"):
        app.host(5)
    make: Any = App
    with pytest.raises(UsageError, match="expected an HttpPolicy"):
        make(http="10.0.0.0/8")
