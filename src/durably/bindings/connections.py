"""Connections by their names: a setting says where a broker is, its scheme says which one it is."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from durably.bindings.broker import Broker
from durably.clock import Clock
from durably.config.names import setting
from durably.errors import RegistrationError

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class _Kind(NamedTuple):
    """Where the code of a kind of broker is: ``make(url, clock)`` of a module, which an extra installs what it needs for."""

    module: str
    extra: str


_KINDS: Final[dict[str, _Kind]] = {
    "amqp": _Kind("durably.bindings.rabbitmq", "rabbitmq"),
    "amqps": _Kind("durably.bindings.rabbitmq", "rabbitmq"),
    "redis": _Kind("durably.bindings.redis_streams", "redis"),
    "rediss": _Kind("durably.bindings.redis_streams", "redis"),
    "nats": _Kind("durably.bindings.nats", "nats"),
    "tls": _Kind("durably.bindings.nats", "nats"),
    "azure": _Kind("durably.bindings.azure_queues", "azure"),
}


def check_connection(name: str) -> str:
    """The name of a connection, which is the name of a setting.

    Raises:
        RegistrationError: It is not usable.
    """
    if type(name) is not str or not _NAME.fullmatch(name):
        raise RegistrationError(
            f"Connection {name!r} is not usable: expected the name of a setting, of letters, digits and '_'; the setting holds "
            "the URL"
        )
    return name


class Connections:
    """The brokers of a host, by the names of their settings. Each is made once, at its first use.

    Args:
        clock: Of the host.
        settings: The environment by default.
    """

    def __init__(self, clock: Clock, settings: Mapping[str, str] | None = None) -> None:
        self._clock = clock
        self._settings = settings
        self._brokers: dict[str, Broker] = {}

    def broker(self, connection: str) -> Broker:
        """The broker behind a connection. Nothing is connected yet.

        Raises:
            RegistrationError: The setting is missing, is no URL of a broker, or its extra is not installed.
        """
        found = self._brokers.get(connection)
        if found is None:
            found = self._brokers[connection] = self._make(connection)
        return found

    async def close(self) -> None:
        """Hang up on all of them. Idempotent, never raises."""
        brokers, self._brokers = self._brokers, {}
        await asyncio.gather(*(broker.close() for broker in brokers.values()))

    def _make(self, connection: str) -> Broker:
        url = setting(connection, f"Connection '{connection}'", self._settings)
        kind = _KINDS.get(scheme_of(url))
        if kind is None:
            schemes = ", ".join(f"{one}://" for one in sorted(_KINDS) if one != "azure")
            raise RegistrationError(  # the value is not shown: it may hold a password
                f"The setting {connection} is no connection to a broker: expected a URL that begins with "
                f"{schemes} or a connection string of Azure Storage"
            )
        try:
            module = importlib.import_module(kind.module)
        except ImportError as error:
            raise RegistrationError(
                f"Connection '{connection}' needs the extra '{kind.extra}' ({error}): pip install 'durably[{kind.extra}]'"
            ) from None
        try:
            made: Broker = module.make(url, self._clock)
        except RegistrationError as error:
            raise RegistrationError(f"Connection '{connection}': {error}") from None
        return made


def scheme_of(url: str) -> str:
    """What comes before ``://``; ``"azure"`` for a connection string of Azure Storage; "" for anything else."""
    if "://" in url.partition("=")[0]:
        return url.partition("://")[0].lower()
    keys = {part.partition("=")[0].strip().lower() for part in url.split(";")}
    azure = {"accountname", "usedevelopmentstorage", "queueendpoint", "blobendpoint"}
    return "azure" if keys & azure else ""
