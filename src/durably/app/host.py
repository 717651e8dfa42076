"""A host of an app: engine, executors and triggers tied together in this process."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from durably.bindings.blobs.accounts import BlobAccounts
from durably.bindings.blobs.container import BlobContainer
from durably.bindings.connections import Connections
from durably.bindings.outlets import Outlets
from durably.client import Client
from durably.client.declaring import Declarations
from durably.client.routed import RoutedOperations
from durably.clock import Clock, Random, SystemClock
from durably.config.names import filled
from durably.core.notices import NOTICE
from durably.engine.host import Host
from durably.engine.operations import Operations
from durably.engine.options import EngineOptions
from durably.errors import OperationError, UsageError
from durably.executors.native import NativeExecutor, NativeOptions
from durably.executors.rehearsal import Audience, RehearsedExecutor, rehearse_live
from durably.executors.router import RouterExecutor
from durably.executors.stalls import StallWatch
from durably.management import Management
from durably.program.noticing import NOTICING
from durably.program.run import ProgramOptions
from durably.program.versions import Versioning
from durably.security.keys import resolve_keys
from durably.storage.api import Store
from durably.storage.open import shown_url, store_of
from durably.triggers.forgetting import Forgetting
from durably.triggers.trigger_host import TriggerHost

if TYPE_CHECKING:
    from durably.app.app import App
    from durably.executors.remote.executor import RemoteExecutor
    from durably.http_api.options import HttpOptions
    from durably.http_api.server import HttpServer


class AppHost:
    """Engine and client in this process; `App.host` makes it.

    Attributes:
        client: Starts and controls instances.
        connections: To brokers, by the names of their settings; for as long as it runs.
        workers: Runs what the app has no function for, in workers that connect to this host; or None.

    Args:
        audience: Is told of what fails, and of code that is not deterministic: each turn is replayed. For development.
        settings: By the names of environment variables; the environment by default.
        workers: As above.
    """

    def __init__(
        self,
        app: App,
        hub: str | Store,
        options: EngineOptions | None,
        clock: Clock | None,
        random: Random | None,
        *,
        audience: Audience | None = None,
        settings: Mapping[str, str] | None = None,
        workers: RemoteExecutor | None = None,
    ) -> None:
        options = EngineOptions.from_environment(settings) if options is None else options
        _check_host(hub, options)
        hub = filled(hub, f"Hub {shown_url(hub)!r}", settings) if isinstance(hub, str) else hub
        keys = resolve_keys(options.encryption_keys)
        clock = SystemClock() if clock is None else clock
        self.connections = Connections(clock, settings)
        self._triggers = TriggerHost(
            app,
            app.converter,
            options.function_timeout_s,
            settings,
            connections=self.connections,
        )
        self._notifier = app.notifier(hub, clock, options.event_grid_endpoint, settings)
        builtins = [
            app.http_activity(clock, settings).registered(),
            *self._triggers.builtins,
            self._notifier.registered(),
            NOTICING,
        ]
        executor = self._executor = NativeExecutor(
            app.registry, app.converter, _native(options, discreet=keys is not None), builtins
        )
        self._stalls = StallWatch(options.stall_limit_s)
        store = store_of(
            hub,
            keys,
            compress_above=options.compress_above,
            inline_max=options.payload_inline_max,
            partitions=options.partitions or None,
            lease_s=options.lease_s,
        )
        self._rehearsal = None if audience is None else RehearsedExecutor(executor, audience)
        here = self._rehearsal or executor
        everywhere = here if workers is None else RouterExecutor(here, workers)
        self.engine = Host(store, everywhere, options, clock, random)
        self.workers = workers
        if workers is not None:
            workers.connect(self.engine.submit)
        self._app = app
        self._settings = settings
        is_shared = store.capabilities.shared
        self._operations = RoutedOperations(self.engine) if is_shared else Operations(self.engine)
        self.client = Client.of(
            self._operations, app.registry, app.converter, self.engine.clock, self.engine.random
        )
        self._blobs = BlobAccounts(self.engine.store.url, settings)
        self._outlets = Outlets(self.client, self.connections, self._blobs, app.converter, settings)
        self._triggers.connect(
            self.client,
            self._operations,
            self.engine.clock,
            self.engine.random,
            options.queue_keep_s,
            outlets=self._outlets,
        )
        keep_us = int(options.queue_keep_s * 1_000_000)
        self._notifier.connect(Forgetting(self._operations, self.engine.clock, keep_us, NOTICE))
        self._declarations = Declarations(self._operations, app.declared(settings), self.engine.clock)

    async def start(self) -> None:
        """Open the hub and go on with what is in flight.

        Raises:
            OperationError: See `durably.engine.host.Host.start`.
            RegistrationError: An activity with ``executor="process"`` cannot be imported by a worker process; a setting of a
                connection is missing or of no use.
        """
        self._executor.check_processes()
        self._triggers.check()
        self._stalls.start()  # before: work that was in flight begins at once
        try:
            await self.engine.start()
        except BaseException:
            self._stalls.stop()
            raise
        try:
            await self._declarations.make()
        except BaseException:
            await self.stop()
            raise
        self._triggers.start()

    async def stop(self, drain_timeout_s: float | None = None) -> None:
        """Drain and let go; see `durably.engine.host.Host.stop`."""
        await self._declarations.close()
        await self._triggers.stop()
        try:
            await self.engine.stop(drain_timeout_s)
        finally:
            if isinstance(self._operations, RoutedOperations):
                self._operations.close()
            self._stalls.stop()
            await self.connections.close()
            await self._blobs.close()

    @property
    def failure(self) -> Exception | None:
        """Why the host stopped by itself (a disk that fails, a hub that somebody else took over), or None."""
        return self.engine.failure

    async def failed(self) -> None:
        """Return when the host has stopped by itself: `failure` says why. Never returns for one that goes on."""
        await self.engine.failed()

    def blobs(self, container: str, connection: str | None = None) -> BlobContainer:
        """A container of blobs.

        Args:
            container: 3 to 63 lower-case letters, digits and single hyphens.
            connection: The setting that says where it is; by default the folder ``blobs`` beside the hub, or what
                ``DURABLY_BLOBS`` says.

        Raises:
            InvalidTextError: The name is not usable.
            RegistrationError: The setting is missing, is no URL of a store, or its extra is not installed.
        """
        return BlobContainer(container, self._blobs.store(connection))

    @property
    def management(self) -> Management:
        """The operations behind `client`, with payloads as they are stored: what faces beside this host work on."""
        return self._operations

    async def rehearse(self) -> None:
        """Replay what is under way, so that the audience hears of code that does otherwise than before."""
        if self._rehearsal is not None:
            await rehearse_live(self._rehearsal, self._operations)

    def serve_http(self, options: HttpOptions | None = None) -> HttpServer:
        """A server of the management API and the HTTP functions of this host, to be used with ``async with`` while it runs.

        Args:
            options: Where and how; by default from the settings, see `HttpOptions`.

        Raises:
            OperationError: The extra ``server`` is not installed, or the keys cannot be read.
            RegistrationError: An HTTP function has a parameter that nothing would fill.
        """
        try:
            from durably.http_api.options import HttpOptions
            from durably.http_api.server import HttpServer
            from durably.http_api.serving import host_app
        except ImportError as error:
            raise OperationError(
                f"Serving HTTP needs the extra 'server' ({error}): pip install 'durably[server]'"
            ) from None
        given = HttpOptions.from_environment(self._settings) if options is None else options
        application = host_app(
            self.client,
            self._operations,
            self._app.http_functions,
            registry=self._app.registry,
            converter=self._app.converter,
            clock=self.engine.clock,
            random=self.engine.random,
            outlets=self._outlets,
            mounts=self._app.http_mounts if self._app.has_mounts else None,
            hub_url=self.engine.store.url,
            options=given,
            time_limit_s=self.engine.options.function_timeout_s,
        )
        return HttpServer(application, given)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _native(options: EngineOptions, *, discreet: bool) -> NativeOptions:
    return NativeOptions(
        threads=options.activity_threads,
        processes=options.activity_processes,
        slow_turn_s=options.slow_turn_s,
        program=ProgramOptions(actions_max=options.max_actions, discreet=discreet),
        versioning=Versioning(
            options.code_version or None, options.default_version, options.version_match_strategy
        ),
    )


def _check_host(hub: Any, options: Any) -> None:
    """Refuse here what would fail far from the mistake, in users' code without a type checker."""
    if not isinstance(options, EngineOptions):
        raise UsageError(f"options is {options!r}: expected EngineOptions")
    if not isinstance(hub, str) and not hasattr(hub, "acquire"):
        raise UsageError(f"hub is {hub!r}: expected a URL such as sqlite:///hub.db, or a store")
