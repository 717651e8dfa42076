"""Servers of brokers, each started once for all tests of this folder that ask for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.rabbitmq import RabbitServer
from tests.support.servers import Server, azurite_queues, nats_server, redis_server

Folders = pytest.TempPathFactory


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: Folders) -> Iterator[RabbitServer]:
    server = RabbitServer(Path(tmp_path_factory.mktemp("rabbitmq")))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: Folders) -> Iterator[Server]:
    with _running(redis_server, tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def nats(tmp_path_factory: Folders) -> Iterator[Server]:
    with _running(nats_server, tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def azure(tmp_path_factory: Folders) -> Iterator[Server]:
    with _running(azurite_queues, tmp_path_factory) as server:
        yield server


@contextmanager
def _running(make: Callable[[Path], Server], folders: Folders) -> Iterator[Server]:
    server = make(Path(folders.mktemp(make.__name__)))
    server.start()
    yield server
    server.kill()
