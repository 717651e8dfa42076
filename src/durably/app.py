"""App: decorators that register functions, and hosts that run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from durably.client import Client
from durably.client.declaring import Declarations
from durably.client.schedulable import Schedulable
from durably.clock import Clock, Random, SystemClock
from durably.codec.convert import Converter, JsonConverter
from durably.core.notices import NOTICE
from durably.engine.host import Host
from durably.engine.operations import Operations
from durably.engine.options import EngineOptions
from durably.errors import OperationError, RegistrationError, UsageError
from durably.executors.http.activity import HttpActivity
from durably.executors.http.policy import HttpPolicy
from durably.executors.http.tokens import TokenHook, TokenSources
from durably.executors.native import NativeExecutor, NativeOptions
from durably.executors.notices import NoticeKeys, Notifier
from durably.executors.rehearsal import Audience, RehearsedExecutor, rehearse_live
from durably.executors.stalls import StallWatch
from durably.program.noticing import NOTICING
from durably.program.registry import Registry
from durably.program.run import ProgramOptions
from durably.program.versions import Versioning
from durably.schedules.spec import Spec
from durably.security.keys import resolve_keys
from durably.storage.api import Store
from durably.storage.open import store_of
from durably.triggers.forgetting import Forgetting
from durably.triggers.trigger_host import TriggerHost
from durably.triggers.triggerable import Triggerable

if TYPE_CHECKING:
    from durably.http_api.functions.routes import HttpFunctions
    from durably.http_api.options import HttpOptions
    from durably.http_api.server import HttpServer

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound=TokenHook)
E = TypeVar("E", bound=Callable[..., Any])


class App(Schedulable, Triggerable):
    """A set of orchestrators, activities and entities, and how their payloads become JSON.

    The decorators return the function as it is: it can be called and tested like any other.

    Args:
        converter: Turns values into payloads and back; JSON typed by annotations by default.
        http: What `call_http` may reach; by default from the environment, see `HttpPolicy`.

    Raises:
        UsageError: `http` is something else.
    """

    def __init__(self, *, converter: Converter | None = None, http: HttpPolicy | None = None) -> None:
        if http is not None and not isinstance(http, HttpPolicy):  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
            raise UsageError(f"http is {http!r}: expected an HttpPolicy")
        super().__init__()
        self._registry = Registry()
        self._tokens = TokenSources()
        self._http = http
        self._http_functions: HttpFunctions | None = None
        self._converter: Converter = converter or JsonConverter()

    @property
    def registry(self) -> Registry:
        """What has been registered, by name."""
        return self._registry

    @property
    def converter(self) -> Converter:
        """What turns values into payloads and back."""
        return self._converter

    @property
    def http(self) -> HttpPolicy | None:
        """What `call_http` may reach, or None: that is left to the environment of the host."""
        return self._http

    @overload
    def activity(self, fn: F, /) -> F: ...

    @overload
    def activity(
        self,
        /,
        *,
        name: str | None = None,
        executor: str | None = None,
        max_concurrent: int | None = None,
        version: str | None = None,
    ) -> Callable[[F], F]: ...

    def activity(
        self,
        fn: F | None = None,
        /,
        *,
        name: str | None = None,
        executor: str | None = None,
        max_concurrent: int | None = None,
        version: str | None = None,
    ) -> F | Callable[[F], F]:
        """Register an activity: a unit of work that may do I/O and runs at least once.

        Its parameters are none, the input, or the input and an `ActivityContext` (found by its annotation). An
        ``async def`` runs on the host's event loop, a plain ``def`` in a thread, or in a worker process.

        ``executor="process"`` is for a plain ``def`` that computes: it runs beside everything else, on another processor,
        and a time-out or a cancellation really ends it (SIGTERM, which unwinds it, then SIGKILL). A worker imports the
        function, so it has to be at the top level of a module, or of a program that starts its host under
        ``if __name__ == "__main__":``. A process that dies fails the attempt with ``ProcessDiedError``.

        Args:
            fn: The function, when used without parentheses.
            name: The name to call it by; that of the function by default.
            executor: ``"process"``, or ``"thread"`` to say what a plain function does anyway.
            max_concurrent: Attempts that may run at once on a host.
            version: Kept with it.

        Raises:
            RegistrationError: The name is taken, or the function cannot be an activity.
        """

        def register(function: F) -> F:
            self._registry.add_activity(
                function, name=name, version=version, executor=executor, max_concurrent=max_concurrent
            )
            return function

        return register if fn is None else register(fn)

    @overload
    def orchestrator(self, fn: F, /) -> F: ...

    @overload
    def orchestrator(self, /, *, name: str | None = None, version: str | None = None) -> Callable[[F], F]: ...

    def orchestrator(
        self, fn: F | None = None, /, *, name: str | None = None, version: str | None = None
    ) -> F | Callable[[F], F]:
        """Register an orchestrator: code of ``(ctx)`` or ``(ctx, input)`` whose every step is durable.

        An ``async def``, a generator that yields durable tasks, or a plain function that completes at once. It must be
        deterministic: time, chance and ids come from its `OrchestrationContext`, I/O is done in activities.

        Args:
            fn: The function, when used without parentheses.
            name: The name to call it by; that of the function by default.
            version: Code of several versions stands side by side under one name; an instance runs on that of its own. See
                `EngineOptions.version_match_strategy` for what happens where there is none.

        Raises:
            RegistrationError: Name and version are taken, or the function cannot be an orchestrator.
        """

        def register(function: F) -> F:
            self._registry.add_orchestrator(function, name=name, version=version)
            return function

        return register if fn is None else register(fn)

    def token_source(self, name: str, /) -> Callable[[T], T]:
        """Register a source of credentials for `call_http`: ``async def`` of the resource, or None.

        It is called right before each request, in the host, and returns a token (sent as ``Authorization: Bearer``), or a
        mapping of headers. What it returns is never stored, and only goes to the origin that was called.

        Args:
            name: What `call_http` names it by.

        Raises:
            RegistrationError: The name is taken, or the function is no coroutine function.
        """
        self._tokens.check_name(name)

        def register(hook: T) -> T:
            self._tokens.add(name, hook)
            return hook

        return register

    @overload
    def entity(self, fn: E, /) -> E: ...

    @overload
    def entity(
        self,
        /,
        *,
        name: str | None = None,
        read_only: Iterable[str] = (),
        state_version: int = 0,
        migrate: Callable[[Any, int], Any] | None = None,
        idle_ttl: timedelta | float | None = None,
    ) -> Callable[[E], E]: ...

    def entity(
        self,
        fn: E | None = None,
        /,
        *,
        name: str | None = None,
        read_only: Iterable[str] = (),
        state_version: int = 0,
        migrate: Callable[[Any, int], Any] | None = None,
        idle_ttl: timedelta | float | None = None,
    ) -> E | Callable[[E], E]:
        """Register an entity: a small piece of state with a name and a key, whose operations come one after the other.

        A class: its annotated attributes, all with defaults, are the state; its public methods are the operations, plain or
        ``async``, of ``(self)``, ``(self, input)``, and an `EntityContext` wherever a parameter is annotated with it. It
        begins as ``cls()``. Attributes whose names begin with ``_`` are not stored. A dataclass or a struct will do.

        Or a function of an `EntityContext`, which finds out there what it is to do.

        An operation that raises leaves no trace: neither in the state nor in what it sent. Every entity has the operation
        ``delete``, unless it has one of its own of that name.

        Args:
            fn: The class or function, when used without parentheses.
            name: What it is called by; its own name by default. Compared without case.
            read_only: Operations that change and send nothing. They do not wait behind locks and other operations, and see
                the state as the last operation left it.
            state_version: Of the form of the state, stored with it.
            migrate: ``migrate(state, version)`` turns plain JSON data of an older version into that of this one.
            idle_ttl: Delete the state when no operation came for so long (timedelta or seconds); never by default.

        Raises:
            RegistrationError: The name is taken, or this cannot be an entity.
        """

        def register(function: E) -> E:
            self._registry.add_entity(
                function,
                name=name,
                read_only=read_only,
                state_version=state_version,
                migrate=migrate,
                idle_ttl=idle_ttl,
            )
            return function

        return register if fn is None else register(fn)

    def route(
        self,
        path: str | None = None,
        /,
        *,
        methods: Iterable[str] | str | None = None,
        auth_level: Literal["anonymous", "function", "admin"] = "function",
        name: str | None = None,
    ) -> Callable[[F], F]:
        """Register an HTTP function: one that answers requests, and may start orchestrations.

        Its parameters are filled by what they are annotated with: `starlette.requests.Request`, `Client`, or, for one more,
        the type of the JSON body; parameters of the route by their names. It returns a response, a `Handle` (202 with
        links to the instance), text, bytes, None (204), or anything that becomes JSON. A plain ``def`` runs in a thread.

        Needs the extra ``server``. Served by `AppHost.serve_http` and ``durably run``.

        Args:
            path: The route below the prefix (``/api``): ``"orders/{id:int}"``, ``"files/{*path}"``, ``"page/{number?}"``;
                the name of the function by default.
            methods: ``"GET"``, ``"POST"`` and so on; all by default.
            auth_level: ``"function"`` needs a function, host or master key, in the header ``x-functions-key`` or the
                parameter ``code``; ``"admin"`` the master key; ``"anonymous"`` none.
            name: Of the function; its own by default.

        Raises:
            RegistrationError: Name or route are taken, or the route is none.
        """
        functions = self.http_functions

        def register(function: F) -> F:
            functions.add(function, name=name, route=path, methods=methods, auth_level=auth_level)
            return function

        return register

    @property
    def http_functions(self) -> HttpFunctions:
        """HTTP functions, by name.

        Raises:
            RegistrationError: The extra ``server`` is not installed.
        """
        if self._http_functions is None:
            try:
                from durably.http_api.functions.routes import HttpFunctions
            except ImportError as error:
                raise RegistrationError(
                    f"HTTP functions need the extra 'server' ({error}): pip install 'durably[server]'"
                ) from None
            self._http_functions = HttpFunctions()
        return self._http_functions

    @property
    def has_http_functions(self) -> bool:
        """True when there is one; asking imports nothing."""
        return self._http_functions is not None and len(self._http_functions) > 0

    def include(self, other: App) -> None:
        """Take over all functions, schedules and token sources of another app; all or nothing. The HTTP policy stays.

        Raises:
            RegistrationError: Both have a function of one name, or a schedule of one id.
        """
        if not isinstance(other, App):  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
            raise RegistrationError(f"Cannot include {other!r}: expected an App")
        self._tokens.check_merge(other._tokens)
        self._check_triggers(other)
        self._check_schedules(other)
        if other.has_http_functions:
            self.http_functions.merge(other.http_functions)
        self._registry.merge(other.registry)
        self._tokens.merge(other._tokens)
        self._merge_triggers(other)
        self._merge_schedules(other)

    @property
    def schedules(self) -> dict[str, Spec]:
        """What has been declared, by id, as it is stored; timers are schedules, too."""
        timers = {
            function.schedule_id: function.spec(self._registry, self._converter)
            for function in self.timer_functions
        }
        return {**super().schedules, **timers}

    def http_activity(self, clock: Clock) -> HttpActivity:
        """What makes the requests of `call_http` in a host of this app."""
        policy = HttpPolicy.from_environment() if self._http is None else self._http
        return HttpActivity(policy, self._tokens, clock.now)

    def notifier(self, hub: str | Store, clock: Clock, event_grid_endpoint: str | None) -> Notifier:
        """What tells others of the instances of a hub in a host of this app."""
        policy = HttpPolicy.from_environment() if self._http is None else self._http
        url = hub if isinstance(hub, str) else hub.url
        name = Path(url.partition("://")[2].partition("?")[0]).stem or "hub"
        return Notifier(
            name, policy, NoticeKeys.from_environment(), clock, event_grid_endpoint=event_grid_endpoint
        )

    def host(
        self,
        hub: str | Store,
        *,
        options: EngineOptions | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> AppHost:
        """A host of a hub, to be used with ``async with``: opening creates the hub where needed, leaving drains.

        Installs no signal handlers.

        Args:
            hub: ``"sqlite:///hub.db"`` (a relative path), ``"sqlite:////data/hub.db"`` (an absolute one),
                ``"memory://"``, or a store that is not open.
            options: Limits; by default from the environment, see `EngineOptions`.
            clock: Time; the machine's by default.
            random: Ids; the machine's by default.

        Raises:
            UsageError: The URL names no hub, or a value is none of these.
        """
        return AppHost(self, hub, options, clock, random)


class AppHost:
    """Engine and client in this process; `App.host` makes it.

    Attributes:
        client: Starts and controls instances.

    Args:
        audience: Is told of what fails, and of code that is not deterministic: each turn is replayed. For development.
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
    ) -> None:
        options = EngineOptions.from_environment() if options is None else options
        _check_host(hub, options)
        keys = resolve_keys(options.encryption_keys)
        native = NativeOptions(
            threads=options.activity_threads,
            processes=options.activity_processes,
            slow_turn_s=options.slow_turn_s,
            program=ProgramOptions(actions_max=options.max_actions, discreet=keys is not None),
            versioning=Versioning(
                options.code_version or None, options.default_version, options.version_match_strategy
            ),
        )
        clock = SystemClock() if clock is None else clock
        self._triggers = TriggerHost(app.queue_functions, app.timer_functions, app.converter)
        self._notifier = app.notifier(hub, clock, options.event_grid_endpoint)
        builtins = [
            app.http_activity(clock).registered(),
            *self._triggers.builtins,
            self._notifier.registered(),
            NOTICING,
        ]
        executor = self._executor = NativeExecutor(app.registry, app.converter, native, builtins)
        self._stalls = StallWatch(options.stall_limit_s)
        store = store_of(
            hub, keys, compress_above=options.compress_above, inline_max=options.payload_inline_max
        )
        self._rehearsal = None if audience is None else RehearsedExecutor(executor, audience)
        self.engine = Host(store, self._rehearsal or executor, options, clock, random)
        self._app = app
        self._operations = Operations(self.engine)
        self.client = Client.of(
            self._operations, app.registry, app.converter, self.engine.clock, self.engine.random
        )
        self._triggers.connect(self.client, self._operations, self.engine.clock, options.queue_keep_s)
        keep_us = int(options.queue_keep_s * 1_000_000)
        self._notifier.connect(Forgetting(self._operations, self.engine.clock, keep_us, NOTICE))
        self._declarations = Declarations(self._operations, app.schedules, self.engine.clock)

    async def start(self) -> None:
        """Open the hub and go on with what is in flight.

        Raises:
            OperationError: See `durably.engine.host.Host.start`.
            RegistrationError: An activity with ``executor="process"`` cannot be imported by a worker process.
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
            self._stalls.stop()

    @property
    def failure(self) -> Exception | None:
        """Why the host stopped by itself (a disk that fails, a hub that somebody else took over), or None."""
        return self.engine.failure

    async def failed(self) -> None:
        """Return when the host has stopped by itself: `failure` says why. Never returns for one that goes on."""
        await self.engine.failed()

    async def rehearse(self) -> None:
        """Replay what is under way, so that the audience hears of code that does otherwise than before."""
        if self._rehearsal is not None:
            await rehearse_live(self._rehearsal, self._operations)

    def serve_http(self, options: HttpOptions | None = None) -> HttpServer:
        """A server of the management API and the HTTP functions of this host, to be used with ``async with`` while it runs.

        Args:
            options: Where and how; by default from the environment, see `HttpOptions`.

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
        given = HttpOptions.from_environment() if options is None else options
        application = host_app(
            self.client,
            self._operations,
            self._app.http_functions,
            registry=self._app.registry,
            converter=self._app.converter,
            clock=self.engine.clock,
            random=self.engine.random,
            hub_url=self.engine.store.url,
            options=given,
        )
        return HttpServer(application, given)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _check_host(hub: Any, options: Any) -> None:
    """Refuse here what would fail far from the mistake, in users' code without a type checker."""
    if not isinstance(options, EngineOptions):
        raise UsageError(f"options is {options!r}: expected EngineOptions")
    if not isinstance(hub, str) and not hasattr(hub, "acquire"):
        raise UsageError(f"hub is {hub!r}: expected a URL such as sqlite:///hub.db, or a store")
