"""Where a hub is, and that it is the kind of hub that its lines say."""

from __future__ import annotations

from pathlib import Path

from bench.figures import MeasurementError
from durably.storage.api import Store

VARIANTS = ("memory", "sqlite")


def hub_url(variant: str, directory: Path) -> str:
    """The URL of the hub of a variant in a directory, which is absolute."""
    return "memory://" if variant == "memory" else f"sqlite:///{directory / 'hub.db'}"


def check_durable(variant: str, store: Store) -> None:
    """Refuse to pass figures of one kind of hub off as those of another.

    Raises:
        MeasurementError: An open store is durable and should not be, or the reverse.
    """
    durable = store.capabilities.durable
    if durable != (variant != "memory"):
        raise MeasurementError(f"the hub '{variant}' is {'' if durable else 'not '}durable: {store.url}")
