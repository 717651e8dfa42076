"""A host that serves gRPC on a real socket, in a thread of its own, and the published client of the Durable Task SDK."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from durabletask.client import TaskHubGrpcClient

from durably import App, AppHost, OrchestrationContext
from durably.executors.remote.wire import pb, pb_grpc
from durably.grpc_server.gate import Gate
from durably.grpc_server.server import Address, GrpcServer
from durably.grpc_server.serving import grpc_server, hub_service, options_at
from durably.http_api.options import HttpOptions

PATIENCE_S = 20.0

T = TypeVar("T")


def flows() -> App:
    """Orchestrators that end in each way, and entities."""
    app = App()
    tries: dict[str, int] = {}

    @app.activity
    async def upper(text: str) -> str:
        return text.upper()

    @app.activity
    async def second_time(key: str) -> str:
        tries[key] = tries.get(key, 0) + 1
        if tries[key] == 1:
            raise ValueError("not yet")
        return "done"

    @app.orchestrator
    async def shout(ctx: OrchestrationContext, text: str) -> str:
        return await ctx.call_activity(upper, text)

    @app.orchestrator
    async def echo(ctx: OrchestrationContext, data: Any = None) -> Any:
        return data

    @app.orchestrator
    async def waits(ctx: OrchestrationContext, data: Any = None) -> Any:
        ctx.set_custom_status({"waits": True})
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def fails(ctx: OrchestrationContext, data: Any = None) -> None:
        try:
            raise KeyError("paper")
        except KeyError as error:
            raise ValueError("out of paper") from error

    @app.orchestrator
    async def flaky(ctx: OrchestrationContext, key: str) -> str:
        return await ctx.call_activity(second_time, key)

    @app.orchestrator
    async def parent(ctx: OrchestrationContext, child: str) -> Any:
        return await ctx.call_sub_orchestrator(waits, instance_id=child)

    @app.orchestrator
    async def locks(ctx: OrchestrationContext, key: str) -> None:
        async with ctx.lock_entities(f"@counter@{key}"):
            await ctx.wait_for_external_event("go")

    @app.entity
    class Counter:
        value: int = 0

        def add(self, by: int = 1) -> None:
            self.value += by

    @app.entity
    class Note:
        text: str = ""

        def write(self, text: str) -> None:
            self.text = text

    return app


class Scene:
    """What tests work with.

    Attributes:
        host: Of the app.
        place: Address and port of the server.
        client: Of the SDK.
        stub: For what the client of the SDK does not send.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, host: AppHost, server: GrpcServer) -> None:
        self._loop = loop
        self.host = host
        self.server = server
        self.place = server.url.removeprefix("grpc://").removeprefix("grpcs://")
        self.client = TaskHubGrpcClient(host_address=self.place)
        self._channel = grpc.insecure_channel(self.place)
        self.stub = pb_grpc.TaskHubSidecarServiceStub(self._channel)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the loop of the host."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def start(self, name: str, instance_id: str, input: Any = None, **more: Any) -> str:
        """Start an instance."""
        return self.client.schedule_new_orchestration(name, instance_id=instance_id, input=input, **more)

    def ended(self, instance_id: str) -> Any:
        """The state of an instance, once it has ended."""
        return self.client.wait_for_orchestration_completion(instance_id, timeout=PATIENCE_S)

    def finished(self, name: str, instance_id: str, input: Any = None, **more: Any) -> Any:
        """Start an instance, and return its state once it has ended."""
        self.start(name, instance_id, input, **more)
        return self.ended(instance_id)

    def status(self, instance_id: str) -> str | None:
        """The name of its status, or None."""
        state = self.client.get_orchestration_state(instance_id)
        return None if state is None else state.runtime_status.name

    def raw(self, instance_id: str, *, payloads: bool = True) -> pb.GetInstanceResponse:
        """The very message."""
        request = pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=payloads)
        return self.stub.GetInstance(request)

    def close(self) -> None:
        """Hang up."""
        self.client.close()
        self._channel.close()


def until(ask: Callable[[], T], expected: Any) -> T:
    """Ask until this is the answer."""
    ends = time.monotonic() + PATIENCE_S
    while (answer := ask()) != expected:
        assert time.monotonic() < ends, f"it stays {answer!r}, and not {expected!r}"
        time.sleep(0.005)
    return answer


@contextmanager
def refused(code: grpc.StatusCode, text: str = "") -> Iterator[None]:
    """Expect a call to be refused with a code, and a text that contains this."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error: Any = caught.value
    assert (error.code(), text in error.details()) == (code, True), error.details()


async def _serve(
    app: App,
    hub: str,
    *,
    address: str,
    options: dict[str, Any],
    more: dict[str, Any],
    opened: Callable[[AppHost, GrpcServer], None],
    over: threading.Event,
) -> None:
    async with app.host(hub) as host:
        place, url = Address.parse(address), host.engine.store.url
        given = options_at(HttpOptions(**options), place)
        service = hub_service(
            host.client,
            host.management,
            Gate.of(given, url, host.engine.clock),
            clock=host.engine.clock,
            random=host.engine.random,
            hub_url=url,
            options=given,
            **more,
        )
        server = grpc_server(service, place, given)
        await server.start()
        opened(host, server)
        await asyncio.to_thread(over.wait)
        await server.stop()


@contextmanager
def serving(
    folder: Path, app: App | None = None, address: str = "127.0.0.1:0", *, hub: str = "", **more: Any
) -> Iterator[Scene]:
    """Serve an app on a free port; `more` are options, and ``is_unstarted``."""
    extra = {name: more.pop(name) for name in ("is_unstarted", "work") if name in more}
    ready, over = threading.Event(), threading.Event()
    scenes: list[Scene] = []
    failed: list[BaseException] = []

    def opened(host: AppHost, server: GrpcServer) -> None:
        scenes.append(Scene(asyncio.get_running_loop(), host, server))
        ready.set()

    def serve() -> None:
        url = hub or f"sqlite:///{folder}/orders.db"
        try:
            served = _serve(
                app or flows(), url, address=address, options=more, more=extra, opened=opened, over=over
            )
            asyncio.run(served)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=serve, name="host")
    thread.start()
    ready.wait(PATIENCE_S)
    try:
        if failed:
            raise failed[0]
        yield scenes[0]
        scenes[0].close()
    finally:
        over.set()
        thread.join(PATIENCE_S)
    if failed:
        raise failed[0]
