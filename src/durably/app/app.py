"""App: decorators that register functions, and what a host of them is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, overload

from durably.app.host import AppHost
from durably.app.routable import Routable
from durably.client.schedulable import Schedulable
from durably.clock import Clock, Random
from durably.codec.convert import Converter, JsonConverter
from durably.engine.options import EngineOptions
from durably.errors import RegistrationError, UsageError
from durably.executors.http.activity import HttpActivity
from durably.executors.http.policy import HttpPolicy
from durably.executors.http.tokens import TokenHook, TokenSources
from durably.executors.notices import NoticeKeys, Notifier
from durably.program.registry import Registry
from durably.schedules.spec import Spec
from durably.storage.api import Store
from durably.triggers.triggerable import Triggerable

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound=TokenHook)
E = TypeVar("E", bound=Callable[..., Any])


class App(Schedulable, Triggerable, Routable):
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
        self._check_mounts(other)
        self._merge_routes(other)
        self._registry.merge(other.registry)
        self._tokens.merge(other._tokens)
        self._merge_triggers(other)
        self._merge_schedules(other)

    @property
    def schedules(self) -> dict[str, Spec]:
        """What has been declared, by id, as it is stored; timers are schedules, too."""
        return self.declared(None)

    def declared(self, settings: Mapping[str, str] | None) -> dict[str, Spec]:
        """The same with ``%NAME%`` of these settings; the environment by default."""
        timers = {
            function.schedule_id: function.spec(self._registry, self._converter, settings)
            for function in self.timer_functions
        }
        return {**super().schedules, **timers}

    def http_activity(self, clock: Clock, settings: Mapping[str, str] | None = None) -> HttpActivity:
        """What makes the requests of `call_http` in a host of this app."""
        return HttpActivity(self._policy(settings), self._tokens, clock.now)

    def _policy(self, settings: Mapping[str, str] | None) -> HttpPolicy:
        return HttpPolicy.from_environment(settings) if self._http is None else self._http

    def notifier(
        self,
        hub: str | Store,
        clock: Clock,
        event_grid_endpoint: str | None,
        settings: Mapping[str, str] | None = None,
    ) -> Notifier:
        """What tells others of the instances of a hub in a host of this app."""
        url = hub if isinstance(hub, str) else hub.url
        name = Path(url.partition("://")[2].partition("?")[0]).stem or "hub"
        keys = NoticeKeys.from_environment(settings)
        return Notifier(name, self._policy(settings), keys, clock, event_grid_endpoint=event_grid_endpoint)

    def host(
        self,
        hub: str | Store,
        *,
        options: EngineOptions | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> AppHost:
        """A host of a hub, to be used with ``async with``: opening creates the hub where needed, leaving drains.

        Installs no signal handlers.

        Args:
            hub: ``"sqlite:///hub.db"`` (a relative path), ``"sqlite:////data/hub.db"`` (an absolute one),
                ``"memory://"``, or a store that is not open. ``%NAME%`` stands for a setting.
            options: Limits; by default from the settings, see `EngineOptions`.
            clock: Time; the machine's by default.
            random: Ids; the machine's by default.
            settings: By the names of environment variables; the environment by default. No file is read unless this is
                `Settings.load(folder)`.

        Raises:
            UsageError: The URL names no hub, or a value is none of these.
        """
        return AppHost(self, hub, options, clock, random, settings=settings)
