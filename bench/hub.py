"""Where a hub is, and that it is the kind of hub that its lines say."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.figures import MeasurementError
from durably import EngineOptions
from durably.storage.api import Store

POSTGRES = {"postgres": 32, "postgres-1": 1}
"""How many partitions the hub of a variant has."""

VARIANTS = ("memory", "sqlite", *POSTGRES)

SERVER = "BENCH_PG_URL"
"""Names the PostgreSQL server, here and in the harness of the peers: both are measured on the same one."""


def hub_url(variant: str, directory: Path) -> str:
    """The URL of the hub of a variant in a directory, which is absolute; of a new hub on the server.

    Raises:
        MeasurementError: No server is named.
    """
    if variant in POSTGRES:
        return f"{server()}?hub=bench_{time.time_ns()}"
    return "memory://" if variant == "memory" else f"sqlite:///{directory / 'hub.db'}"


def hub_options(variant: str) -> EngineOptions:
    """What a host of the hub of a variant is told."""
    return EngineOptions(partitions=POSTGRES.get(variant, 0))


def server() -> str:
    """The URL of a database on the server.

    Raises:
        MeasurementError: None is named.
    """
    url = os.environ.get(SERVER)
    if not url:
        raise MeasurementError(
            f"{SERVER} is not set: name a database on a server with its default durability, postgresql://…"
        )
    return url


def check_durable(variant: str, store: Store) -> None:
    """Refuse to pass figures of one kind of hub off as those of another.

    Raises:
        MeasurementError: An open store is durable and should not be, or the reverse.
    """
    durable = store.capabilities.durable
    if durable != (variant != "memory"):
        raise MeasurementError(f"the hub '{variant}' is {'' if durable else 'not '}durable: {store.url}")
