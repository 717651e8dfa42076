"""Queues on the hub: each message is handed out until it is done, and what it starts is started once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from durably import (
    App,
    AppHost,
    Client,
    EngineOptions,
    InstanceAlreadyExistsError,
    InstanceStateError,
    InvalidIdError,
    InvalidTextError,
    OperationError,
    OrchestrationContext,
    PayloadError,
    QueueMessage,
    RegistrationError,
)
from durably.client.posting import post_message
from durably.core.queues import QueueItem, message_instance
from durably.testing import DurableEnvironment

PATIENCE_S = 30.0


async def until(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    answer = await ask()
    async with asyncio.timeout(PATIENCE_S):
        while answer != expected:
            await asyncio.sleep(0.002)
            answer = await ask()


async def value(of: Callable[[], Any]) -> Any:
    return of()


def orders(app: App) -> None:
    @app.orchestrator
    async def order(ctx: OrchestrationContext, number: int) -> int:
        return number * 2


def test_a_message_starts_an_orchestration_that_is_independent_of_it(tmp_path: Path) -> None:
    """Statement 4.13.8, and the first half of 4.13.3: success deletes the message."""
    app = App()
    orders(app)
    tries: list[int] = []

    @app.queue("orders", max_dequeue_count=3)
    async def take(number: int, message: QueueMessage, client: Client) -> None:
        tries.append(message.dequeue_count)
        await client.start("order", number)
        raise RuntimeError("the function fails behind its start")

    async def main() -> None:
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}") as host:
            queue = host.client.queue("orders")
            sent = await queue.send(21, message_id="m1")
            assert sent == "m1"
            await until(lambda: host.client.count_instances(name="order"), 1)
            assert await host.client.handle("orders:m1").result(timeout=PATIENCE_S) == 42
            await until(queue.count, 0)
            poison = host.client.queue("orders-poison")
            await until(poison.count, 1)
            (kept,) = await poison.peek()
            assert (kept.id, kept.body) == ("m1", 21)
            assert kept.failure == "RuntimeError: the function fails behind its start"
            assert await host.client.count_instances(name="order") == 1

    asyncio.run(main())
    assert tries == [1, 2, 3]


def test_bodies_are_typed_and_may_be_anything() -> None:
    app = App()
    taken: list[Any] = []

    @dataclass
    class Order:
        item: str
        count: int = 1

    @app.queue("typed")
    async def typed(order: Order) -> None:
        taken.append(order)

    @app.queue("plain")
    def plain(body: Any, message: QueueMessage) -> None:
        taken.append((body, message.queue, message.dequeue_count, message.insertion_time.tzinfo is not None))

    async def main() -> None:
        async with app.host("memory://") as host:
            await host.client.queue("typed").send(Order("tea", 2))
            await until(lambda: value(lambda: list(taken)), [Order("tea", 2)])
            for body in (None, "text", [1, {"a": None}], 7):
                await host.client.queue("plain").send(body)
                await until(host.client.queue("plain").count, 0)
                assert taken[-1] == (body, "plain", 1, True)
            await host.client.queue("typed").send({"count": 1})
            await until(host.client.queue("typed-poison").count, 1)
            (kept,) = await host.client.queue("typed-poison").peek()
            assert kept.body == {"count": 1}
            assert "item" in (kept.failure or "")

    asyncio.run(main())


def test_a_message_that_is_sent_twice_is_there_once() -> None:
    app = App()
    taken: list[str] = []

    @app.queue("orders")
    async def take(message: QueueMessage) -> None:
        taken.append(message.id)

    async def main() -> None:
        async with app.host("memory://") as host:
            queue = host.client.queue("orders")
            await asyncio.gather(*(queue.send("a", message_id="m1") for _ in range(5)))
            await until(queue.count, 0)
            await queue.send("again", message_id="m1")
            assert await queue.count() == 0
            await queue.send("b", message_id="m2")
            await until(queue.count, 0)

    asyncio.run(main())
    assert taken == ["m1", "m2"]


def test_a_message_is_forgotten_some_time_after_it_was_dealt_with() -> None:
    app = App()
    orders(app)
    taken: list[str] = []

    @app.queue("orders")
    async def take(message: QueueMessage) -> None:
        taken.append(message.id)

    async def main() -> None:
        async with app.host("memory://", options=EngineOptions(queue_keep_s=0.05)) as host:
            queue = host.client.queue("orders")
            await host.client.start("order", 1, instance_id="kept")
            await host.client.queue("nobody").send("kept as well")
            for message_id in ("m1", "m2", "m1"):
                await queue.send("a", message_id=message_id)
                await until(queue.count, 0)
                await asyncio.sleep(0.06)
            assert await host.client.count_instances(instance_id_prefix="queue:orders:") == 1
            assert await host.client.count_instances() == 3
        async with app.host("memory://", options=EngineOptions(queue_keep_s=0)) as host:
            queue = host.client.queue("orders")
            for message_id in ("m3", "m4"):
                await queue.send("a", message_id=message_id)
                await until(queue.count, 0)
            assert await host.client.count_instances(instance_id_prefix="queue:orders:") == 2

    asyncio.run(main())
    assert taken == ["m1", "m2", "m1", "m3", "m4"]


def test_what_an_earlier_host_has_left_is_forgotten_as_well(tmp_path: Path) -> None:
    app = App()

    @app.queue("orders")
    async def take(message: QueueMessage) -> None: ...

    async def main() -> None:
        hub = f"sqlite:///{tmp_path / 'hub.db'}"
        async with app.host(hub) as host:
            for number in range(5):
                await host.client.queue("orders").send("a", message_id=f"m{number}")
            await until(host.client.queue("orders").count, 0)
        async with app.host(hub, options=EngineOptions(queue_keep_s=0.001)) as host:
            await until(lambda: host.client.count_instances(instance_id_prefix="queue:orders:"), 0)

    asyncio.run(main())


def test_messages_wait_for_their_function(tmp_path: Path) -> None:
    """Also those that a poison queue holds, and over hosts."""
    hub = f"sqlite:///{tmp_path / 'hub.db'}"

    async def before() -> None:
        async with App().host(hub) as host:
            for number in range(5):
                await host.client.queue("orders").send(number, message_id=f"m{number}")
            await host.client.queue("other").send("waits on")

            async def waiting() -> int:
                page = await host.client.query_instances(instance_id_prefix="queue:")
                return sum(one.custom_status is not None for one in page.instances)

            await until(waiting, 6)
            assert await host.client.queue("orders").count() == 5
            assert [one.body for one in await host.client.queue("orders").peek(3)] == [0, 1, 2]
            assert "orders" in str(await host.client.get_status("queue:orders:m0"))

    taken: list[int] = []
    app = App()

    @app.queue("orders")
    async def take(number: int) -> None:
        taken.append(number)

    async def after() -> None:
        async with app.host(hub) as host:
            await until(host.client.queue("orders").count, 0)
            assert await host.client.queue("other").count() == 1

    asyncio.run(before())
    asyncio.run(after())
    assert sorted(taken) == [0, 1, 2, 3, 4]


def test_a_delay_and_a_visibility_timeout_are_kept(tmp_path: Path) -> None:
    app = App()
    at: list[float] = []

    @app.queue("orders", max_dequeue_count=2, visibility_timeout=timedelta(milliseconds=200))
    async def take(message: QueueMessage) -> None:
        at.append(asyncio.get_running_loop().time())
        if message.dequeue_count == 1:
            raise ValueError("once")

    async def main() -> None:
        async with app.host("memory://") as host:
            queue = host.client.queue("orders")
            at.append(asyncio.get_running_loop().time())
            await queue.send("a", delay=0.2)
            assert await queue.count() == 1
            await until(queue.count, 0)
            assert await host.client.queue("orders-poison").count() == 0

    asyncio.run(main())
    assert len(at) == 3
    # A timer never fires early; the clock of the loop and that of the hub may differ by a little.
    assert all(later - earlier > 0.19 for earlier, later in pairwise(at))


def test_no_more_at_once_than_allowed_and_a_deleted_message_is_gone() -> None:
    app = App()
    inside, most = 0, 0
    go = asyncio.Event()

    @app.queue("orders", max_concurrent=3)
    async def take(number: int) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await go.wait()
        inside -= 1

    async def main() -> None:
        async with app.host("memory://") as host:
            queue = host.client.queue("orders")
            for number in range(10):
                await queue.send(number, message_id=f"m{number}")
            await until(lambda: value(lambda: inside), 3)
            await queue.delete("m9")
            assert await queue.count() == 9
            go.set()
            await until(queue.count, 0)
            with pytest.raises(InstanceStateError):
                await queue.delete("m9")

    asyncio.run(main())
    assert most == 3


def test_what_fails_in_a_poison_queue_stays_there() -> None:
    app = App()
    tries: list[str] = []

    @app.queue("orders", max_dequeue_count=1)
    async def take(number: int) -> None:
        raise ValueError("no")

    @app.queue("orders-poison", max_dequeue_count=2)
    async def bury(message: QueueMessage) -> None:
        tries.append(message.failure or "")
        raise ValueError("not here either")

    async def main() -> None:
        async with app.host("memory://") as host:
            await host.client.queue("orders").send(1)
            await until(lambda: value(lambda: len(tries)), 2)
            await asyncio.sleep(0.05)
            assert await host.client.queue("orders-poison").count() == 1
            assert await host.client.queue("orders-poison-poison").count() == 0

    asyncio.run(main())
    assert tries == ["ValueError: no"] * 2


def test_apps_bring_their_queues_along_and_a_queue_has_one_function() -> None:
    def app_of(queue: str) -> App:
        app = App()

        @app.queue(queue)
        async def take(number: int) -> None: ...

        return app

    both = App()
    both.include(app_of("first"))
    both.include(app_of("second"))
    assert [function.queue for function in both.queue_functions] == ["first", "second"]
    with pytest.raises(RegistrationError, match="'first'"):
        both.include(app_of("first"))
    assert len(both.queue_functions) == 2


@pytest.mark.parametrize("name", ["", "ab", "Orders", "a--b", "-ab", "ab-", "a_b", "a" * 64, "a/b", 7])
def test_names_of_queues(name: Any) -> None:
    with pytest.raises(InvalidTextError, match=r"[Qq]ueue"):
        App().queue(name)(print)


def test_what_cannot_be_is_refused() -> None:
    app = App()
    for wrong in ({"max_dequeue_count": 0}, {"max_concurrent": 0}, {"max_dequeue_count": 1.5}):
        with pytest.raises(RegistrationError, match=next(iter(wrong))):
            app.queue("orders", function_name="f", **wrong)(print)  # type: ignore[arg-type]
    with pytest.raises(RegistrationError, match="function"):
        app.queue("orders")(7)  # type: ignore[type-var]

    def two(first: int, second: int) -> None: ...

    app.queue("orders")(two)

    async def main() -> None:
        host = app.host("memory://")
        with pytest.raises(RegistrationError, match="second"):
            await host.start()
        async with App().host("memory://") as other:
            await refusals(other)

    async def refusals(host: AppHost) -> None:
        queue = host.client.queue("orders")
        with pytest.raises(PayloadError):
            await queue.send(object())
        for message_id in ("", "a/b", "a" * 300):
            with pytest.raises(InvalidIdError):
                await queue.send(1, message_id=message_id)
        assert await queue.count() == 0

    asyncio.run(main())


def test_a_full_queue_keeps_nobody_else_from_working() -> None:
    """What waits for a queue's limit has not begun: it takes no place of activities, not even those it waits for."""
    app = App()

    @app.activity
    async def double(number: int) -> int:
        return number * 2

    @app.orchestrator
    async def order(ctx: OrchestrationContext, number: int) -> int:
        return await ctx.call_activity(double, number)

    @app.queue("orders", max_concurrent=1)
    async def take(number: int, client: Client) -> None:
        handle = await client.start(order, number)
        assert await handle.result(timeout=PATIENCE_S) == number * 2

    async def main() -> None:
        async with app.host("memory://", options=EngineOptions(max_concurrent_activities=2)) as host:
            queue = host.client.queue("orders")
            for number in range(10):
                await queue.send(number)
            await until(queue.count, 0)
            assert await host.client.queue("orders-poison").count() == 0

    asyncio.run(main())


@pytest.mark.parametrize("starts", [True, False])
def test_a_host_that_stops_while_a_function_has_a_message_loses_nothing(tmp_path: Path, starts: bool) -> None:
    """Neither when the function meets the closed hub, nor when only what is deleted beside it does."""
    app = App()
    orders(app)
    reached, go = asyncio.Event(), asyncio.Event()
    tries: list[int] = []

    @app.queue("orders", max_dequeue_count=5)
    async def take(number: int, message: QueueMessage, client: Client) -> None:
        if number == 2:
            tries.append(message.dequeue_count)
            reached.set()
            await go.wait()
            if starts:
                await client.start("order", number)

    async def main() -> None:
        hub = f"sqlite:///{tmp_path / 'hub.db'}"
        host = app.host(hub, options=EngineOptions(queue_keep_s=0.001))
        await host.start()
        await host.client.queue("orders").send(1, message_id="m1")
        await until(host.client.queue("orders").count, 0)
        await host.client.queue("orders").send(2, message_id="m2")
        await reached.wait()
        stopping = asyncio.create_task(host.stop(PATIENCE_S))
        await asyncio.sleep(0.05)
        go.set()
        await stopping
        async with app.host(hub) as host:
            await until(host.client.queue("orders").count, 0)
            status = await host.client.get_status("queue:orders:m2")
            assert status is not None
            assert (status.runtime_status, status.output) == ("Completed", "done")
            assert await host.client.queue("orders-poison").count() == 0

    asyncio.run(main())
    assert len(tries) == 1 + starts


def test_a_poison_queue_goes_on_trying_its_function() -> None:
    app = App()
    tries: list[int] = []
    mended = False

    @app.queue("orders-poison", max_dequeue_count=2)
    async def bury(message: QueueMessage) -> None:
        tries.append(message.dequeue_count)
        if not mended:
            raise ValueError("not yet")

    async def main() -> None:
        nonlocal mended
        async with DurableEnvironment(app) as env:
            queue = env.client.queue("orders-poison")
            await queue.send(1)
            await env.advance(timedelta(days=7))
            assert await queue.count() == 1
            mended = True
            await env.advance(timedelta(hours=2))
            assert await queue.count() == 0
            return

    asyncio.run(main())
    assert tries == list(range(1, len(tries) + 1))
    assert len(tries) > 100  # and its history began anew


def test_a_message_that_was_put_aside_is_tried_again_when_it_is_sent_again() -> None:
    app = App()
    tries: list[int] = []

    @app.queue("orders", max_dequeue_count=1)
    async def take(number: int, message: QueueMessage) -> None:
        tries.append(number)
        if number == 1:
            raise RuntimeError("the first one is not dealt with")

    async def main() -> None:
        async with app.host("memory://") as host:
            queue, poison = host.client.queue("orders"), host.client.queue("orders-poison")
            await queue.send(1, message_id="m")
            await until(poison.count, 1)
            await until(queue.count, 0)
            await queue.send(2, message_id="m")
            await until(lambda: value(lambda: list(tries)), [1, 2])
            await until(queue.count, 0)
            await queue.send(3, message_id="m")  # it was dealt with
            assert await queue.count() == 0

    asyncio.run(main())
    assert tries == [1, 2]


def test_an_instance_that_is_no_message_loses_none_that_would_have_its_id() -> None:
    app = App()
    orders(app)

    async def main() -> None:
        async with app.host("memory://") as host:
            await host.client.start("order", 1, instance_id="queue:orders:m")
            with pytest.raises(InstanceAlreadyExistsError, match="queue:orders:m"):
                await host.client.queue("orders").send(1, message_id="m")

    asyncio.run(main())


def test_two_at_once_that_were_put_aside_are_tried_again_once() -> None:
    app = App()
    tries: list[int] = []

    @app.queue("orders", max_dequeue_count=1)
    async def take(number: int) -> None:
        tries.append(number)
        if number == 1:
            raise RuntimeError("the first one is not dealt with")

    async def main() -> None:
        async with app.host("memory://") as host:
            queue, poison = host.client.queue("orders"), host.client.queue("orders-poison")
            await queue.send(1, message_id="m")
            await until(poison.count, 1)
            await until(queue.count, 0)
            await asyncio.gather(*(queue.send(2, message_id="m") for _ in range(5)))
            await until(queue.count, 0)

    asyncio.run(main())
    assert tries == [1, 2]


def test_a_message_of_which_nobody_can_say_whether_it_is_known_is_not_sent() -> None:
    class Vanishing:
        """What is in the way is gone whenever it is looked at, and there again whenever something is started."""

        async def start(self, instance_id: str, start: Any) -> None:
            raise InstanceAlreadyExistsError(instance_id, "Running", "durably:queue")

        async def get(self, instance_id: str) -> None: ...

    async def main() -> None:
        item = QueueItem("orders", "m", 1, 0)
        with pytest.raises(OperationError, match="'m' cannot be sent to queue 'orders' now"):
            await post_message(cast("Any", Vanishing()), App().converter, item, "e")

    asyncio.run(main())


def test_starts_of_two_messages_never_have_one_id() -> None:
    app = App()
    orders(app)

    @app.queue("orders")
    async def take(number: int, client: Client) -> None:
        await client.start("order", number)
        await client.start("order", number + 1)

    ids = ["order-7", "order-7:2", "order-7%3A2", "order-7%253A2", "order-7:2:2", ":2", "2"]

    async def main() -> None:
        async with app.host("memory://") as host:
            queue = host.client.queue("orders")
            for number, message_id in enumerate(ids):
                await queue.send(10 * number, message_id=message_id)
            await until(queue.count, 0)
            assert await host.client.count_instances(name="order") == 2 * len(ids)
            assert await host.client.handle("orders:order-7:2").result(timeout=PATIENCE_S) == 2
            assert await host.client.handle("orders:order-7%3A2").result(timeout=PATIENCE_S) == 20

    asyncio.run(main())


def test_the_longest_id_may_be_put_aside() -> None:
    app = App()

    @app.queue("orders", max_dequeue_count=1)
    async def take(number: int) -> None:
        raise RuntimeError("never")

    async def main() -> None:
        async with app.host("memory://") as host:
            queue, poison = host.client.queue("orders"), host.client.queue("orders-poison")
            with pytest.raises(InvalidIdError, match="expected 1 to 236"):
                await queue.send(1, message_id="m" * 237)
            await queue.send(1, message_id="m" * 236)
            await until(poison.count, 1)
            (kept,) = await poison.peek()
            assert kept.id == "m" * 236

    asyncio.run(main())


def test_an_id_that_looks_like_the_digest_of_another_one_is_another_one() -> None:
    long = "x" * 300
    its = message_instance("RABBIT.orders", long).rpartition(":")[2]
    assert message_instance("RABBIT.orders", its) != message_instance("RABBIT.orders", long)


def test_what_brokers_may_deliver_again_is_kept_for_a_while_after_a_host_has_started() -> None:
    """While none ran, they could not."""
    app = App()

    @app.queue("orders")
    async def here(message: QueueMessage) -> None: ...

    @app.queue("orders", connection="RABBIT")
    async def there(message: QueueMessage) -> None: ...

    async def main() -> None:
        async with DurableEnvironment(app, options=EngineOptions(queue_keep_s=600)) as env:
            hub = cast("Any", env)._gateway
            for queue in ("orders", "RABBIT.orders"):
                item = QueueItem(queue, "m", "1", 0, form="text" if "." in queue else "")
                await post_message(hub, app.converter, item, queue)

            async def left() -> list[int]:
                prefixes = ("queue:orders:", "queue:RABBIT.orders:")
                return [await env.client.count_instances(instance_id_prefix=one) for one in prefixes]

            await until(env.client.queue("orders").count, 0)
            await env.advance(3600)
            await env.restart()
            await until(left, [0, 1])
            assert await post_message(hub, app.converter, item, "again") is False
            await env.advance(3600)
            await env.client.queue("orders").send(1, message_id="next")
            await until(left, [1, 0])

    asyncio.run(main())
