"""The external scaler of KEDA: a real client asks the real program."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from durably import Client, UsageError
from durably.scaling.messages import MESSAGES, SERVICE
from durably.scaling.options import ScalerOptions
from durably.storage.postgres.address import Address
from durably.storage.postgres.store import PostgresStore
from tests.integration.postgres.controlled import until
from tests.support.certificates import Authority
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.slow_once

PATIENCE_S = 30


class Keda:
    """What KEDA asks."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.is_active = self._call(channel.unary_unary, "IsActive", "ScaledObjectRef", "IsActiveResponse")
        self.metric_spec = self._call(
            channel.unary_unary, "GetMetricSpec", "ScaledObjectRef", "GetMetricSpecResponse"
        )
        self.metrics = self._call(
            channel.unary_unary, "GetMetrics", "GetMetricsRequest", "GetMetricsResponse"
        )
        self.stream = self._call(
            channel.unary_stream, "StreamIsActive", "ScaledObjectRef", "IsActiveResponse"
        )

    @staticmethod
    def _call(kind: Any, method: str, takes: str, gives: str) -> Callable[..., Any]:
        return kind(
            f"/{SERVICE}/{method}",
            request_serializer=MESSAGES[takes].SerializeToString,
            response_deserializer=MESSAGES[gives].FromString,
        )


def ref(**metadata: str) -> Any:
    return MESSAGES["ScaledObjectRef"](name="shop", namespace="default", scalerMetadata=metadata)


@pytest.fixture
def hub(server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("DURABLY_STATE_DIR", str(tmp_path))
    url = server.url(f"scaler_{os.urandom(4).hex()}")

    async def make() -> None:
        store = PostgresStore(url, partitions=4)
        await store.open()
        await store.close()

    asyncio.run(make())
    return url


@contextmanager
def serving(hub: str, folder: Path, *arguments: str) -> Iterator[str]:
    """Where it is served."""
    command = [sys.executable, "-m", "durably", "scaler", "--hub", hub, "--bind", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r" on (127\.0\.0\.1:\d+) \(gRPC\)", said)
        assert found, said + process.stderr.read()
        yield found[1]
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def keda(hub: str, tmp_path: Path) -> Iterator[Keda]:
    with serving(hub, tmp_path) as place, grpc.insecure_channel(place) as channel:
        yield Keda(channel)


def sql(hub: str, text: str, *values: object) -> None:
    async def run() -> None:
        address = Address.of(hub)
        connection = await asyncpg.connect(address.dsn)
        await connection.execute(text.replace("{s}", address.schema), *values)
        await connection.close()

    asyncio.run(run())


def start(hub: str) -> None:
    async def run() -> None:
        async with Client(hub) as client:
            await client.start("anything")

    asyncio.run(run())


def test_keda_is_told_how_many_hosts_it_takes(keda: Keda, hub: str) -> None:
    assert keda.is_active(ref(), timeout=PATIENCE_S).result is False
    (spec,) = keda.metric_spec(ref(), timeout=PATIENCE_S).metricSpecs
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == ("durably-hosts", 1, 1.0)

    # A timer is told before it is due.
    due_s = time.time() + 4
    sql(hub, "INSERT INTO {s}.timers VALUES (1, 1, 1, 0, $1, 'a')", int(due_s * 1_000_000))
    stream = keda.stream(ref(wakeSeconds="2"), timeout=PATIENCE_S)
    assert next(stream).result is False
    assert next(stream).result is True
    assert 0 < due_s - time.time() <= 2
    stream.cancel()
    sql(hub, "DELETE FROM {s}.timers")

    # A message is told when it comes; who looks only now and then would need a minute.
    stream = keda.stream(ref(hub=hub.partition("hub=")[2]), timeout=PATIENCE_S)
    assert next(stream).result is False
    began = time.monotonic()
    start(hub)
    assert next(stream).result is True
    assert time.monotonic() - began < 10
    stream.cancel()

    def metric(**metadata: str) -> Any:
        asked = MESSAGES["GetMetricsRequest"](metricName="durably-hosts", scaledObjectRef=ref(**metadata))
        (value,) = keda.metrics(asked, timeout=PATIENCE_S).metricValues
        return value.metricName, value.metricValue, value.metricValueFloat

    start(hub)
    until(lambda: metric(messagesPerHost="1") == ("durably-hosts", 2, 2.0), "two messages are not two hosts")
    assert metric() == ("durably-hosts", 1, 1.0)

    # Who asks chooses no hub, and numbers that are some.
    for wrong in (
        {"hub": "others"},
        {"patienceSeconds": "soon"},
        {"messagesPerHost": "0"},
        {"wakeSeconds": "nan"},
    ):
        with pytest.raises(grpc.RpcError) as refused:
            keda.is_active(ref(**wrong), timeout=PATIENCE_S)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert next(iter(wrong.values())) in refused.value.details()
    with pytest.raises(grpc.RpcError) as refused:
        next(keda.stream(ref(hub="others"), timeout=PATIENCE_S))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_streams_leave_room_for_calls(keda: Keda) -> None:
    streams = [keda.stream(ref(), timeout=PATIENCE_S) for _ in range(64)]
    assert [next(stream).result for stream in streams] == [False] * 64
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as refused:
            next(keda.stream(ref(), timeout=PATIENCE_S))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert keda.is_active(ref(), timeout=PATIENCE_S).result is False
    for stream in streams:
        stream.cancel()

    def opens() -> bool:
        try:
            return next(keda.stream(ref(), timeout=PATIENCE_S)).result is False
        except grpc.RpcError:
            return False

    until(opens, "streams that were closed keep their places")


@pytest.mark.parametrize("more", [{}, {"tls_certificate": "a.pem", "tls_key": "a.key"}], ids=["plain", "TLS"])
def test_beyond_this_machine_callers_are_known_or_it_is_said_that_they_are_not(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"0\.0\.0\.0:7072.*client_ca is not set"):
        ScalerOptions(bind="0.0.0.0:7072", **more)
    assert ScalerOptions(bind="0.0.0.0:7072", insecure=True, **more).insecure


def test_who_has_no_certificate_of_the_authority_is_told_nothing(hub: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine, keda = authority.pair("scaler"), authority.pair("keda")
    ca = authority.file.read_bytes()
    tls = (
        "--tls-cert",
        str(mine.certificate),
        "--tls-key",
        str(mine.key),
        "--client-ca",
        str(authority.file),
    )
    with serving(hub, tmp_path, *tls) as place:
        known = grpc.ssl_channel_credentials(ca, keda.key.read_bytes(), keda.certificate.read_bytes())
        with grpc.secure_channel(place, known) as channel:
            assert Keda(channel).is_active(ref(), timeout=PATIENCE_S).result is False
        with grpc.secure_channel(place, grpc.ssl_channel_credentials(ca)) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                Keda(channel).is_active(ref(), timeout=PATIENCE_S)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
