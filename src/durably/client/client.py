"""Client: starts, follows and controls instances."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Concatenate, Literal, Protocol, Self, TypeVar, cast, overload

import msgspec

from durably.client.bulk import BulkVerbs
from durably.client.connection import Connection
from durably.client.control import ControlVerbs
from durably.client.entities import EntityVerbs
from durably.client.handle import Handle
from durably.client.hosts import HostVerbs
from durably.client.outside import OutsideOperations
from durably.client.parked import ParkedVerbs
from durably.client.queries import QueryVerbs
from durably.client.queues import QueueVerbs
from durably.client.schedules import Schedules
from durably.clock import Clock, Random, SystemClock, SystemRandom
from durably.codec.convert import Converter, JsonConverter
from durably.core.history import readable
from durably.core.ids import check_tags, check_text
from durably.core.messages import Restart, StartInstance
from durably.core.notices import with_callback
from durably.core.timeline import instant
from durably.errors import InstanceNotFoundError, UsageError
from durably.management import Management
from durably.program.context import OrchestrationContext
from durably.program.durations import micros_of
from durably.program.registry import Registry
from durably.security.keys import KeySource, keys_from_environment, resolve_keys
from durably.storage.api import Store

R = TypeVar("R")
OnExisting = Literal["replace_finished", "fail", "replace", "attach"]

_decode_tags = msgspec.json.Decoder(dict[str, str]).decode


def is_http(hub: str) -> bool:
    """True for the URL of a host, not of a hub."""
    return hub.lower().startswith(("http://", "https://"))


def _http_client() -> type[Client]:
    try:
        from durably.client.remote.client import HttpClient
    except ImportError as error:
        raise UsageError(
            f"Asking over HTTP needs the extra 'http' ({error}): pip install 'durably[http]'"
        ) from None
    return HttpClient


class Functions(Protocol):
    """What a client takes of an `App`: names and types of functions, and how payloads become JSON."""

    @property
    def registry(self) -> Registry:
        """What has been registered, by name."""
        ...

    @property
    def converter(self) -> Converter:
        """What turns values into payloads and back."""
        ...


class Client(ControlVerbs, QueryVerbs, BulkVerbs, EntityVerbs, QueueVerbs, ParkedVerbs, HostVerbs):
    """Starts, follows and controls instances. Every call that changes something returns once the change is durable.

    ``host.client`` is that of a host in this process. In a process without one, a client talks to the hub alone::

        async with Client("sqlite:///hub.db") as client:
            handle = await client.start("process_order", {"id": 7}, instance_id="order-7")

    While a host serves the hub, calls do and raise what they do in its process. While none does, what is durable is
    accepted: the next host deals with it. A hub that does not exist is created by the first start; any other call raises
    `HubNotFoundError`. Safe to use from many tasks of one event loop at once.

    Args:
        hub: ``"sqlite:///hub.db"`` (a relative path), ``"sqlite:////data/hub.db"`` (an absolute one),
            ``"postgresql://host/database?hub=name"``, or a store that is not open. Or a host of it that serves HTTP:
            ``"http://127.0.0.1:7071"``; needs the extra ``http``.
        app: Whose functions are started: gives names and result types. Without it functions are known by their names, and
            results are plain JSON data.
        converter: Turns values into payloads and back; that of the app, or JSON, by default.
        encryption_keys: Of a hub that is encrypted, as in `EngineOptions`; those in ``DURABLY_ENCRYPTION_KEYS`` by default.
        key: Of the host, for HTTP; that in ``DURABLY_KEY`` by default.
        token: A bearer token for it; that in ``DURABLY_TOKEN`` by default.
        ca: A PEM file with the authorities that may vouch for the host; by default that in ``SSL_CERT_FILE``, or the usual
            ones.

    Attributes:
        schedules: The schedules of the hub.
    """

    schedules: Schedules

    def __new__(
        cls,
        hub: str | Store,
        *,
        app: Functions | None = None,  # noqa: ARG004 - as in __init__
        converter: Converter | None = None,  # noqa: ARG004
        encryption_keys: KeySource = None,  # noqa: ARG004
        key: str | None = None,  # noqa: ARG004
        token: str | None = None,  # noqa: ARG004
        ca: str | None = None,  # noqa: ARG004
    ) -> Self:
        """Of a host that is asked over HTTP: a client of another kind."""
        if cls is Client and isinstance(hub, str) and is_http(hub):
            return cast("Self", object.__new__(_http_client()))
        return object.__new__(cls)

    def __init__(
        self,
        hub: str | Store,
        *,
        app: Functions | None = None,
        converter: Converter | None = None,
        encryption_keys: KeySource = None,
        key: str | None = None,
        token: str | None = None,
        ca: str | None = None,
    ) -> None:
        if (key, token, ca) != (None, None, None):
            raise UsageError(
                f"A key or token is for the URL of a host, such as http://127.0.0.1:7071, and not for {hub}"
            )
        keys = keys_from_environment() if encryption_keys is None else resolve_keys(encryption_keys)
        connection = Connection(hub, keys)
        clock, random = SystemClock(), SystemRandom()
        if converter is None:
            converter = JsonConverter() if app is None else app.converter
        self._attach(
            OutsideOperations(connection, clock, random),
            Registry() if app is None else app.registry,
            converter,
            clock,
            random,
            connection=connection,
        )

    @classmethod
    def of(
        cls, management: Management, registry: Registry, converter: Converter, clock: Clock, random: Random
    ) -> Client:
        """The client of something that is connected already: a host makes its own so."""
        client = object.__new__(cls)
        client._attach(management, registry, converter, clock, random)
        return client

    def _attach(
        self,
        management: Management,
        registry: Registry,
        converter: Converter,
        clock: Clock,
        random: Random,
        *,
        connection: Connection | None = None,
    ) -> None:
        self._management = management
        self._registry = registry
        self._converter = converter
        self._clock = clock
        self._random = random
        self._connection = connection
        self.schedules = Schedules(management, registry, converter, clock)

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            await self._connection.try_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the hub; whoever still waits gets `HubClosedError`. Idempotent. The client of a host: does nothing."""
        if self._connection is not None:
            await self._connection.close()

    # --- start -------------------------------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        fn: Callable[Concatenate[OrchestrationContext, ...], Awaitable[R]],
        input: Any = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | float | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        on_existing: OnExisting = "replace_finished",
        callback_url: str | None = None,
    ) -> Handle[R]: ...

    @overload
    async def start(
        self,
        fn: Callable[Concatenate[OrchestrationContext, ...], Generator[Any, Any, R]],
        input: Any = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | float | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        on_existing: OnExisting = "replace_finished",
        callback_url: str | None = None,
    ) -> Handle[R]: ...

    @overload
    async def start(
        self,
        fn: Callable[..., Any] | str,
        input: Any = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | float | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        on_existing: OnExisting = "replace_finished",
        callback_url: str | None = None,
    ) -> Handle[Any]: ...

    async def start(
        self,
        fn: Callable[..., Any] | str,
        input: Any = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | float | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        on_existing: OnExisting = "replace_finished",
        callback_url: str | None = None,
    ) -> Handle[Any]:
        """Start an orchestration.

        Args:
            fn: The orchestrator, or its name.
            input: Its input, any value that becomes JSON.
            instance_id: Its id, at most 256 characters; 32 random hex digits by default.
            start_at: Not before this instant (naive means UTC), or this long from now; it is Pending until then.
            version: The version it keeps for its whole life. By default that of `fn`, if it is a function whose decorator
                says one, else what the host gives new instances; "" is none.
            tags: Text by text, to find it by.
            on_existing: What to do when the id is taken. ``"replace_finished"`` replaces an instance that has ended and
                refuses otherwise; ``"fail"`` refuses; ``"replace"`` terminates and replaces; ``"attach"`` returns a
                handle of the one that is there, if it is of this orchestrator. Of two starts at the same time with one new
                id, one wins.
            callback_url: Is told of its end, at least once, also of that of a restart; see docs/notifications.md.

        Returns:
            A handle, once the start is durable.

        Raises:
            InstanceAlreadyExistsError: The id is taken and the policy refuses.
            UnknownFunctionError: The host serves no such orchestrator.
            PayloadError: The input cannot become JSON.
            InvalidIdError: The id is not usable.
        """
        function = self._registry.orchestrator(fn, version) or self._registry.orchestrator(fn)
        name = function.name if function is not None else self._registry.orchestrator_name(fn)
        check_text(version, "version")
        fresh = instance_id is None
        target = self._management.new_instance_id() if instance_id is None else instance_id
        start = StartInstance(
            name,
            None if input is None else self._converter.encode(input),
            self._random.token(),
            self._registry.asked_version(fn, version),
            None,
            with_callback(check_tags(tags), callback_url),
            None if start_at is None else await self._instant(start_at),
            on_existing,
            fresh,
        )
        await self._management.start(target, start)
        return Handle(self, target, Any if function is None else function.result_type)

    def handle(self, instance_id: str, returns: Any = Any) -> Handle[Any]:
        """A handle of an instance, without looking whether it exists.

        Args:
            instance_id: Its id.
            returns: The type of its result; plain JSON data by default.
        """
        return Handle(self, instance_id, returns)

    # --- once more ---------------------------------------------------------------------------------------------------

    async def restart(
        self, instance_id: str, *, new_instance_id: bool = False, reason: str | None = None
    ) -> Handle[Any]:
        """Start an instance once more, from the beginning: with the same name, version, input and tags.

        Args:
            instance_id: The instance. One that continued as new starts with the input of its current execution.
            new_instance_id: False: the new instance takes the place of the old one, which must have ended. True: it gets
                a random id of its own, and the old one stays, running or not.
            reason: For people; in the history of the new instance.

        Returns:
            A handle of the new instance, once its start is durable.

        Raises:
            InstanceNotFoundError: No such instance.
            InstanceStateError: It has not ended, and its id is wanted.
            UnknownFunctionError: The host serves no such orchestrator.
        """
        check_text(reason, "reason")
        row = await self._management.get(instance_id)
        if row is None:
            raise InstanceNotFoundError(instance_id)
        function = self._registry.orchestrator(row.name, row.version) or self._registry.orchestrator(row.name)
        returns = Any if function is None else function.result_type
        if not new_instance_id:
            await self._management.restart(instance_id, Restart(self._random.token(), reason))
            return Handle(self, instance_id, returns)
        target = self._management.new_instance_id()
        start = StartInstance(
            row.name,
            readable(instance_id, "input", row.input),
            self._random.token(),
            row.version or "",  # as it was, also where new instances get one
            tags=_decode_tags(row.tags) if row.tags else None,
            fresh=True,
            reason=reason,
        )
        await self._management.start(target, start)
        return Handle(self, target, returns)

    async def _instant(self, when: datetime | timedelta | float) -> int:
        if isinstance(when, datetime):
            return micros_of(when)
        now = await self._management.now()
        try:
            delay = when if isinstance(when, timedelta) else timedelta(seconds=when)
            return micros_of(instant(now) + delay)
        except (OverflowError, ValueError, TypeError):
            raise UsageError(
                f"start_at is {when!r}: expected an instant or a delay that ends before the year 10000"
            ) from None
