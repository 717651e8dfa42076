"""Several hubs behind one server: each is opened once, by somebody who may, and opened again when its host has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from durably.errors import StoreFailedError
from durably.executors.remote.wire import pb
from durably.grpc_server.gate import Gate
from durably.grpc_server.hubs import ANY, Hubs
from durably.grpc_server.refusals import Code
from durably.grpc_server.served import Rpc
from durably.security.access_keys import KeyRing
from durably.security.failures import Failures


class Context:
    """Of a call, as far as hubs look at it."""

    def __init__(self, hub: str) -> None:
        self._hub = hub
        self.code: Any = None

    def invocation_metadata(self) -> Any:
        return [("taskhub", self._hub)]

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def abort(self, code: Any, text: str) -> None:
        self.code = code
        raise ConnectionAbortedError(text)


class Service:
    """Answers with its name."""

    way_in = "open"

    def __init__(self, name: str) -> None:
        async def answer(request: Any, context: Any) -> str:
            return name

        self.rpcs = {"GetInstance": Rpc(pb.GetInstanceRequest, "read", answer)}
        self.calls = {"GetInstance": answer}

    async def close(self) -> None:
        pass


class Hub:
    """Another hub. `fails` is set when its host is to stop by itself, `trouble` when it cannot be opened."""

    def __init__(self, name: str, *, asks: bool = False) -> None:
        keys = KeyRing if asks else None
        self.gate = Gate(name, keys, None, open_until_keys=False, failures=Failures(10))
        self.service: Any = Service(name)
        self.opened = self.stopped = 0
        self.trouble: Exception | None = None
        self.fails, self.let_go = asyncio.Event(), asyncio.Event()

    async def open(self) -> Any:
        self.opened += 1
        await asyncio.sleep(0.01)
        if self.trouble is not None:
            raise self.trouble
        self.fails.clear()
        return self

    async def failed(self) -> Exception:
        await self.fails.wait()
        return StoreFailedError("its disk failed")

    async def stop(self) -> None:
        self.stopped += 1
        self.let_go.set()


Test = Callable[[Hub, Hubs, Callable[[str], Coroutine[Any, Any, str]]], Coroutine[Any, Any, None]]


def with_hub(test: Test, *, asks: bool = False, others: str = ANY) -> None:
    async def run() -> None:
        hub = Hub("other", asks=asks)
        own: Any = Service("own")
        hubs = Hubs(own, "mine", frozenset((others,)), lambda name: hub)
        handler: Any = hubs.handlers()["GetInstance"]

        async def call(name: str) -> str:
            return await handler.unary_unary(pb.GetInstanceRequest(), Context(name))

        await test(hub, hubs, call)
        await hubs.close()

    asyncio.run(run())


def test_a_hub_is_opened_once_when_it_is_first_asked_for() -> None:
    async def test(hub: Hub, hubs: Hubs, call: Any) -> None:
        assert [await call(name) for name in ("", "mine", "MINE", "default")] == ["own"] * 4
        assert hub.opened == 0
        assert await asyncio.gather(*(call("other") for _ in range(5))) == ["other"] * 5
        assert await call("Other") == "other"
        assert hub.opened == 1
        await hubs.close()
        assert hub.stopped == 1

    with_hub(test)


def test_who_hangs_up_while_it_is_opened_takes_it_from_nobody() -> None:
    async def test(hub: Hub, hubs: Hubs, call: Any) -> None:
        first, second = asyncio.create_task(call("other")), asyncio.create_task(call("other"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "other"
        assert hub.opened == 1

    with_hub(test)


def test_a_hub_whose_host_failed_is_let_go_of_and_opened_again() -> None:
    async def test(hub: Hub, hubs: Hubs, call: Any) -> None:
        assert await call("other") == "other"
        hub.fails.set()
        await hub.let_go.wait()
        assert await call("other") == "other"
        assert (hub.opened, hub.stopped) == (2, 1)

    with_hub(test)


def test_a_hub_that_cannot_be_opened_is_tried_again_with_the_next_call() -> None:
    async def test(hub: Hub, hubs: Hubs, call: Any) -> None:
        hub.trouble = StoreFailedError("there is no disk")
        with pytest.raises(ConnectionAbortedError, match="there is no disk"):
            await call("other")
        hub.trouble = None
        assert await call("other") == "other"

    with_hub(test)


def test_nobody_opens_a_hub_without_a_credential_and_many_tries_are_counted() -> None:
    async def test(hub: Hub, hubs: Hubs, call: Any) -> None:
        handler: Any = hubs.handlers()["GetInstance"]
        codes: list[Any] = []
        for _ in range(40):
            context = Context("other")
            with pytest.raises(ConnectionAbortedError):
                await handler.unary_unary(pb.GetInstanceRequest(), context)
            codes.append(context.code)
        assert hub.opened == 0
        assert codes[0] is Code.UNAUTHENTICATED
        assert codes[-1] is Code.RESOURCE_EXHAUSTED

    with_hub(test, asks=True)


def test_a_name_that_is_not_served_is_for_the_own_hub_to_refuse() -> None:
    async def test(hub: Hub, hubs: Hubs, call: Any) -> None:
        assert await call("strange") == "own"  # a fake: the real one answers NOT_FOUND
        assert hub.opened == 0

    with_hub(test, others="other")
