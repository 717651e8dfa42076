"""Bindings to brokers: what is wrong is said before anything runs; a broker that is away keeps no host from starting."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from durably import App, EngineOptions, OrchestrationContext, QueueMessage, RegistrationError
from durably.bindings.connections import Connections
from durably.cli.faces import Faces
from durably.cli.serving import Service, announce
from durably.clock import SystemClock
from tests.bindings.broker_conformance import PATIENCE_S, until
from tests.support.rabbitmq import free_ports


@pytest.fixture
def hub(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'hub.db'}"


def bound(name: str = "orders", connection: Any = "RABBIT") -> App:
    app = App()

    @app.queue(name, connection=connection)
    async def take(message: QueueMessage) -> None:
        pass

    return app


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("orders", None, "Connection 'RABBIT' needs the setting RABBIT, which is not set"),
        ("orders", "http://localhost", "The setting RABBIT is no connection to a broker"),
        ("orders", "amqp://", "The URL of RabbitMQ is not usable"),
        ("orders", "amqp://guest:secret@host:port/", "The URL of RabbitMQ is not usable"),
        ("%NOT_SET%", "amqp://host", "Queue function 'take' needs the setting NOT_SET"),
    ],
)
def test_wrong_settings_are_told_before_anything_runs(
    name: str, value: str | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = f"sqlite:///{tmp_path / 'hub.db'}"
    if value is None:
        monkeypatch.delenv("RABBIT", raising=False)
    else:
        monkeypatch.setenv("RABBIT", value)

    async def main() -> None:
        with pytest.raises(RegistrationError, match=said) as told:
            async with bound(name).host(hub):
                pass
        assert "secret" not in str(told.value)

    asyncio.run(main())
    assert not (tmp_path / "hub.db").exists()


def test_a_missing_extra_is_named(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBIT", "amqp://localhost/")
    monkeypatch.setitem(sys.modules, "durably.bindings.rabbitmq", None)

    async def main() -> None:
        with pytest.raises(RegistrationError, match=r"pip install 'durably\[rabbitmq\]'"):
            async with bound().host(hub):
                pass

    asyncio.run(main())


def test_names_that_are_of_no_use_are_refused_where_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RegistrationError, match="expected the name of a setting"):
        bound(connection="amqp://host")
    with pytest.raises(ValueError, match="The name of a queue is empty"):
        bound("")
    app = bound()
    with pytest.raises(RegistrationError, match="expected one function for a queue"):
        app.include(bound())
    app.include(bound(connection="OTHER"))
    app.include(bound(connection=None))
    app.include(bound("%ORDERS%"))
    monkeypatch.setenv("ORDERS", "orders")
    with pytest.raises(RegistrationError, match=r"Queue 'orders \(RABBIT\)' has the function 'take'"):
        app.host("memory://")


def test_a_host_without_its_broker_starts_and_serves(
    hub: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RABBIT", f"amqp://guest:guest@127.0.0.1:{free_ports(1)[0]}/")
    app = bound()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        return "served"

    def warnings() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]

    async def main() -> None:
        async with app.host(hub, options=EngineOptions()) as host:
            assert await (await host.client.start(flow)).result(timeout=PATIENCE_S) == "served"
            await until(lambda: len(warnings()) > 0)
            await asyncio.sleep(0.7)  # it has tried once more

    asyncio.run(main())
    (warning,) = warnings()
    assert warning.startswith(
        "queue 'orders' of RABBIT cannot be taken from now, its messages wait there: RabbitMQ at 127"
    )
    assert "guest" not in warning


def test_durably_run_names_queues_and_timers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RABBIT", "amqp://localhost/")
    app = bound()
    app.include(bound(connection=None))

    @app.timer("0 0 3 * * *")
    async def nightly() -> None:
        pass

    async def no_http(host: object) -> None:
        return None

    async def main() -> None:
        announce(
            Service(app=app, hub="memory://", missing=0, open_http=no_http, settings={}),
            app.host("memory://"),
            Faces(),
        )

    asyncio.run(main())
    said = capsys.readouterr().out
    assert "  queues         orders (RABBIT), orders\n  timers         nightly\n" in said


@pytest.mark.parametrize("scheme", ["nats", "redis", "amqp"])
@pytest.mark.parametrize(
    "rest",
    [
        "user:12/cret@host",
        "user:12?cret@host",
        "user:12#cret@host",
        "user:se/cret@host",
        "user:se[cret@host",
        "user:12/cret@host:1,user:12/cret@other:1",
        "user:12,se/cret@host",
    ],
)
def test_no_part_of_a_password_is_shown(scheme: str, rest: str) -> None:
    connections = Connections(SystemClock(), {"SHOP": f"{scheme}://{rest}"})
    with pytest.raises(RegistrationError, match=r"'SHOP'.*as %XX") as told:
        connections.broker("SHOP")
    assert "12" not in str(told.value)
    assert "cret" not in str(told.value)


@pytest.mark.parametrize("scheme", ["nats", "redis"])
def test_no_value_of_an_option_is_shown(scheme: str) -> None:
    url = f"{scheme}://host?password=cret&no_such=cret&socket_timeout=cret"
    with pytest.raises(RegistrationError, match=r"'SHOP'.*'no_such'") as told:
        Connections(SystemClock(), {"SHOP": url}).broker("SHOP")
    assert "cret" not in str(told.value)
