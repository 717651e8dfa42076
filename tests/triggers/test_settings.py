"""What functions of triggers leave to settings: names, tries, how many at once."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from durably import App, InvalidTextError, QueueMessage, RegistrationError, Settings, TimerRequest, UsageError
from durably.triggers.options import QueueOptions
from tests.triggers.test_queue import until

HOST = {"extensions": {"queues": {"maxDequeueCount": 2, "visibilityTimeout": "00:00:00.01", "batchSize": 1}}}


def handle(body: object) -> None: ...


def again(body: object) -> None: ...


def test_a_function_takes_from_settings_what_it_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text(json.dumps(HOST))
    settings = Settings.load(tmp_path, {"REGION": "eu", "NIGHTLY": "0 30 2 * * *", "SITE": "shop"})
    app = App()
    tries: list[tuple[str, int]] = []
    written: list[str] = []

    @app.queue("orders-%REGION%")
    async def take(message: QueueMessage) -> None:
        tries.append((message.queue, message.dequeue_count))
        raise ValueError("never")

    @app.queue("own", max_dequeue_count=1)
    async def once(message: QueueMessage) -> None:
        tries.append((message.queue, message.dequeue_count))
        raise ValueError("never")

    @app.timer("%NIGHTLY%", run_on_startup=True)
    async def nightly(timer: TimerRequest) -> None:
        written.append(timer.schedule)

    async def main() -> None:
        hub = f"sqlite:///{tmp_path}/%SITE%.db"
        async with app.host(hub, settings=settings) as host:
            for queue in ("orders-eu", "own"):
                await host.client.queue(queue).send(1)
                await until(host.client.queue(f"{queue}-poison").count, 1)
            async with asyncio.timeout(30):
                while not written:  # noqa: ASYNC110 - functions do not tell
                    await asyncio.sleep(0.002)

    asyncio.run(main())
    assert tries == [("orders-eu", 1), ("orders-eu", 2), ("own", 1)]
    assert written == ["0 30 2 * * *"]
    assert (tmp_path / "shop.db").exists()


def test_names_that_settings_make_are_checked_when_a_host_is_made() -> None:
    app = App()
    app.queue("%QUEUE%")(handle)
    with pytest.raises(RegistrationError, match="needs the setting QUEUE, which is not set"):
        app.host("memory://", settings={})
    with pytest.raises(InvalidTextError, match="Queue name 'Not usable' is not usable"):
        app.host("memory://", settings={"QUEUE": "Not usable"})
    app.queue("orders")(again)
    with pytest.raises(RegistrationError, match="Queue 'orders' has the function"):
        app.host("memory://", settings={"QUEUE": "orders"})
    with pytest.raises(RegistrationError, match=r"Hub 'sqlite:///%SITE%\.db' needs the setting SITE"):
        App().host("sqlite:///%SITE%.db", settings={})


def test_defaults_that_cannot_be_are_refused() -> None:
    for name, value in (("MAX_CONCURRENT", "0"), ("MAX_DEQUEUE_COUNT", "x"), ("VISIBILITY_TIMEOUT_S", "-1")):
        with pytest.raises(UsageError, match=f"DURABLY_QUEUE_{name} is"):
            QueueOptions.from_environment({f"DURABLY_QUEUE_{name}": value})
    app = App()
    with pytest.raises(RegistrationError, match="max_concurrent=0: expected 1 or more"):
        app.queue("orders", max_concurrent=0)(handle)
    app.queue("orders", visibility_timeout=timedelta(seconds=3))(handle)
    (function,) = app.queue_functions.resolved(QueueOptions(), None)
    assert (function.max_dequeue_count, function.max_concurrent, function.visibility_us) == (5, 24, 3_000_000)
