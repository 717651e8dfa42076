"""What an app has registered: activities, orchestrators and entities by name, and by themselves."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, Literal, TypeVar

from durably.codec.convert import Converter
from durably.core.events import Payload
from durably.core.ids import check_text
from durably.errors import RegistrationError
from durably.program.activity_context import ActivityContext
from durably.program.addresses import check_process_function
from durably.program.durations import microseconds
from durably.program.entities import EntityFunction, Migration
from durably.program.signatures import Signature, activity_plan, function_input, inner_function
from durably.program.versions import version_key

Kind = Literal["coroutine", "generator", "plain"]

_NULL = b"null"

BUILT_IN: Final = "BuiltIn::"
"""How the names of the runtime's own activities begin."""


class RegisteredFunction:
    """What activities and orchestrators have in common.

    Attributes:
        name: The name it is called by.
        fn: The function.
        kind: ``"coroutine"``, ``"generator"`` or ``"plain"``.
        version: The version it was registered with, or None.
    """

    def __init__(self, fn: Callable[..., Any], name: str, kind: Kind, version: str | None) -> None:
        self.fn = fn
        self.name = name
        self.kind: Kind = kind
        self.version = version
        self.signature = Signature(fn, name)
        self.input_name: str | None = None
        self.has_input_default = False

    @functools.cached_property
    def input_type(self) -> Any:
        """The declared type of the input, resolved at first use; `Any` without one."""
        return Any if self.input_name is None else self.signature.type_of(self.input_name)

    @functools.cached_property
    def result_type(self) -> Any:
        """The declared type of the result, resolved at first use; `Any` without one."""
        return self.signature.result_type()

    def arguments(self, payload: Payload, converter: Converter) -> tuple[Any, ...]:
        """The input as positional arguments: none when the function takes none, or has a default and gets nothing.

        Raises:
            PayloadError: The payload does not fit the declared type.
        """
        if self.input_name is None:
            return ()
        if payload is None or payload == _NULL:
            return () if self.has_input_default else (None,)
        return (converter.decode(payload, self.input_type),)

    def _set_input(self, input_name: str | None) -> None:
        self.input_name = input_name
        if input_name is not None:
            parameter = next(one for one in self.signature.parameters if one.name == input_name)
            self.has_input_default = parameter.default is not parameter.empty


class ActivityFunction(RegisteredFunction):
    """A registered activity.

    Attributes:
        executor: ``"thread"`` or ``"process"`` for a plain function, ``"loop"`` for a coroutine function.
        max_concurrent: How many attempts may run at once on a host, or None for no limit of its own.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        kind: Kind,
        version: str | None,
        max_concurrent: int | None,
        *,
        in_process: bool = False,
    ) -> None:
        super().__init__(fn, name, kind, version)
        plain = "process" if in_process else "thread"
        self.executor: Literal["thread", "process", "loop"] = "loop" if kind == "coroutine" else plain
        self.max_concurrent = max_concurrent
        input_name, self.context_name, self._context_first, self._context_keyword = activity_plan(
            self.signature, name
        )
        self._set_input(input_name)

    def call(self, arguments: tuple[Any, ...], context: ActivityContext) -> Any:
        """Call the function: the result, or the coroutine that gives it.

        Args:
            arguments: From `arguments`.
            context: Passed on if the function wants it.
        """
        if self.context_name is None:
            return self.fn(*arguments)
        if self._context_keyword or (
            self.input_name is not None and not self._context_first and not arguments
        ):
            return self.fn(*arguments, **{self.context_name: context})
        if self._context_first:
            return self.fn(context, *arguments)
        return self.fn(*arguments, context)


class OrchestratorFunction(RegisteredFunction):
    """A registered orchestrator."""

    def __init__(self, fn: Callable[..., Any], name: str, kind: Kind, version: str | None) -> None:
        super().__init__(fn, name, kind, version)
        self._set_input(function_input(self.signature, f"Orchestrator '{name}'", "OrchestrationContext"))


_R = TypeVar("_R", bound=RegisteredFunction)


class Registry:
    """Activities and orchestrators, by name and version.

    A name may be registered once per version. Looked up without a version, the unversioned one is found, else the one
    of the highest version. An orchestrator and an activity may share a name.

    Attributes:
        activity_of: Activities by function and by name, as far as they were asked for. For the hot path; `activity` is
            the question that has an answer.
    """

    def __init__(self) -> None:
        self._activities: dict[str, dict[str | None, ActivityFunction]] = {}
        self._orchestrators: dict[str, dict[str | None, OrchestratorFunction]] = {}
        # By the function itself, or by its name: what `call_activity` looks into first.
        self.activity_of: dict[Any, ActivityFunction] = {}
        self._orchestrator_of: dict[Any, OrchestratorFunction] = {}
        self._entities: dict[str, EntityFunction] = {}

    def add_activity(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        version: str | None = None,
        executor: str | None = None,
        max_concurrent: int | None = None,
    ) -> ActivityFunction:
        """Register an activity: (), (input), (input, ctx) or (ctx, input), with ``ctx: ActivityContext``.

        Args:
            fn: A coroutine function, or a plain one, which will run in a thread or a process.
            name: The name to call it by; that of the function by default.
            version: Kept with it.
            executor: ``"thread"`` or ``"process"`` for a plain function, or None: a thread.
            max_concurrent: How many attempts may run at once on a host; no limit of its own by default.

        Raises:
            RegistrationError: The name is taken, or the function cannot be an activity.
        """
        name = _name_for(fn, name, "activity")
        check_text(version, f"version of activity '{name}'")
        kind = _kind_of(fn, name)
        if kind == "generator":
            raise RegistrationError(
                f"Activity '{name}' is a generator function: expected def or async def that returns its result"
            )
        if executor not in (None, "thread", "process") or (executor is not None and kind == "coroutine"):
            raise RegistrationError(
                f"Activity '{name}' has executor={executor!r}: expected None, or 'thread' or 'process' for a plain def; "
                "async def runs on the event loop of the host"
            )
        if executor == "process":
            check_process_function(fn, name)
        if max_concurrent is not None and (type(max_concurrent) is not int or max_concurrent < 1):
            raise RegistrationError(
                f"Activity '{name}' has max_concurrent={max_concurrent!r}: expected 1 or more, or None"
            )
        function = ActivityFunction(fn, name, kind, version, max_concurrent, in_process=executor == "process")
        _put(self._activities, function, "Activity")
        self.activity_of.pop(name, None)  # another version of it may have been looked up
        self.activity_of.setdefault(fn, function)
        return function

    def add_orchestrator(
        self, fn: Callable[..., Any], *, name: str | None = None, version: str | None = None
    ) -> OrchestratorFunction:
        """Register an orchestrator: (ctx) or (ctx, input).

        Args:
            fn: A coroutine function, a generator function that yields tasks, or a plain function.
            name: The name to call it by; that of the function by default.
            version: Of the code; see `durably.program.versions`.

        Raises:
            RegistrationError: The name is taken, or the function cannot be an orchestrator.
        """
        name = _name_for(fn, name, "orchestrator")
        check_text(version, f"version of orchestrator '{name}'")
        version = version or None
        function = OrchestratorFunction(fn, name, _kind_of(fn, name), version)
        _put(self._orchestrators, function, "Orchestrator")
        self._orchestrator_of.setdefault(fn, function)
        return function

    def add_entity(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        read_only: Iterable[str] = (),
        state_version: int = 0,
        migrate: Migration | None = None,
        idle_ttl: timedelta | float | None = None,
    ) -> EntityFunction:
        """Register an entity; see `durably.App.entity`.

        Raises:
            RegistrationError: The name is taken, or the class or function cannot be an entity.
        """
        if not callable(fn):
            raise RegistrationError(f"Cannot register {fn!r} as entity: expected a class or a function")
        given = getattr(fn, "__name__", "") if name is None else name
        ttl = None if idle_ttl is None else microseconds(idle_ttl, "idle_ttl", least=1)
        entity = EntityFunction(
            fn, given, read_only=read_only, state_version=state_version, migrate=migrate, idle_ttl_us=ttl
        )
        if entity.name in self._entities:
            raise RegistrationError(
                f"Entity '{entity.name}' is registered twice: expected one for a name; pass another name='…'"
            )
        self._entities[entity.name] = entity
        return entity

    def entity(self, name: str) -> EntityFunction | None:
        """The entity of a name in lower case; None when there is none."""
        return self._entities.get(name)

    def activities(self) -> list[ActivityFunction]:
        """All activities of all versions."""
        return [function for versions in self._activities.values() for function in versions.values()]

    def activity(self, fn: Callable[..., Any] | str) -> ActivityFunction | None:
        """The activity of a name, or registered from a function; None when there is none."""
        found = _look_up(fn, self._activities, self.activity_of, None)
        if found is not None and isinstance(fn, str):
            self.activity_of[fn] = found
        return found

    def orchestrator(
        self, fn: Callable[..., Any] | str, version: str | None = None
    ) -> OrchestratorFunction | None:
        """The orchestrator of a name and version, or registered from a function; None when there is none."""
        return _look_up(fn, self._orchestrators, self._orchestrator_of, version)

    def versions(self, name: str) -> Mapping[str | None, OrchestratorFunction]:
        """All code of an orchestrator, by version."""
        return self._orchestrators.get(name, {})

    def asked_version(self, fn: Callable[..., Any] | str, version: str | None) -> str | None:
        """The version that a call asks for: the one it gives, else that of the function it gives; None: none."""
        if version is not None or isinstance(fn, str):
            return version
        function = self.orchestrator(fn)
        return None if function is None else function.version

    def activity_name(self, fn: Callable[..., Any] | str) -> str:
        """The name to call an activity by: as registered, else as the function is called."""
        function = self.activity(fn)
        return function.name if function is not None else name_of(fn)

    def orchestrator_name(self, fn: Callable[..., Any] | str) -> str:
        """The name to call an orchestrator by: as registered, else as the function is called."""
        function = self.orchestrator(fn)
        return function.name if function is not None else name_of(fn)

    def names(self, kind: Literal["orchestrator", "activity", "entity"]) -> list[str]:
        """All names of one kind, sorted."""
        if kind == "entity":
            return sorted(self._entities)
        return sorted(self._activities if kind == "activity" else self._orchestrators)

    def merge(self, other: Registry) -> None:
        """Take over everything of another registry; all or nothing. What both have from one function is kept once.

        Raises:
            RegistrationError: Both have a function of one name and version.
        """
        _check_clash(self._activities, other._activities, "Activity")
        _check_clash(self._orchestrators, other._orchestrators, "Orchestrator")
        for name, entity in other._entities.items():
            if name in self._entities and self._entities[name].fn is not entity.fn:
                raise RegistrationError(
                    f"Entity '{name}' is registered in both apps: expected one for a name; rename one of them"
                )
        self._entities |= {name: one for name, one in other._entities.items() if name not in self._entities}
        for name, activities in other._activities.items():
            self._activities.setdefault(name, {}).update(activities)
        for name, orchestrators in other._orchestrators.items():
            self._orchestrators.setdefault(name, {}).update(orchestrators)
        by_function = {fn: one for fn, one in other.activity_of.items() if not isinstance(fn, str)}
        self.activity_of = by_function | {
            fn: one for fn, one in self.activity_of.items() if not isinstance(fn, str)
        }
        self._orchestrator_of = other._orchestrator_of | self._orchestrator_of


def name_of(fn: Callable[..., Any] | str) -> str:
    """The name by which a function that is not registered here is called.

    Raises:
        RegistrationError: It has none.
    """
    if isinstance(fn, str):
        check_text(fn, "name of the function")
    name = fn if isinstance(fn, str) else getattr(fn, "__name__", None)
    if not isinstance(name, str) or not name or name == "<lambda>":
        raise RegistrationError(
            f"{fn!r} has no name to call it by: expected a named function, or a name as a string"
        )
    return name


def _name_for(fn: Callable[..., Any], name: str | None, what: str) -> str:
    if not callable(fn):
        raise RegistrationError(f"Cannot register {fn!r} as {what}: expected a function")
    if inspect.isclass(fn):
        raise RegistrationError(f"Cannot register the class {fn.__qualname__} as {what}: expected a function")
    if name is None:
        name = getattr(fn, "__name__", "")
        if not name or name == "<lambda>":
            raise RegistrationError(
                f"Cannot register {fn!r} as {what} without a name: expected a named function; pass name='…'"
            )
    if not isinstance(name, str) or not name.strip() or not name.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RegistrationError(f"Cannot register {what} {name!r}: expected a name of printable characters")
    if name.startswith(BUILT_IN):
        raise RegistrationError(
            f"Cannot register {what} '{name}': names with '{BUILT_IN}' are those of the runtime"
        )
    return name


def _kind_of(fn: Callable[..., Any], name: str) -> Kind:
    inner = inner_function(fn)
    if inspect.isasyncgenfunction(inner):
        raise RegistrationError(
            f"Function '{name}' is an async generator: expected async def with await instead of yield, or def with yield"
        )
    if inspect.iscoroutinefunction(inner):
        return "coroutine"
    return "generator" if inspect.isgeneratorfunction(inner) else "plain"


def _put(space: dict[str, dict[str | None, _R]], function: _R, what: str) -> None:
    versions = space.setdefault(function.name, {})
    if function.version in versions:
        of_version = f" of version {function.version!r}" if function.version is not None else ""
        raise RegistrationError(
            f"{what} '{function.name}'{of_version} is registered twice: expected one function for a name; "
            "pass another name='…'"
        )
    versions[function.version] = function


def _check_clash(
    space: dict[str, dict[str | None, _R]], other: dict[str, dict[str | None, _R]], what: str
) -> None:
    for name, versions in other.items():
        for version, function in versions.items():
            mine = space.get(name, {}).get(version)
            if mine is not None and mine.fn is not function.fn:
                raise RegistrationError(
                    f"{what} '{name}' is registered in both apps: expected one function for a name; rename one of them"
                )


def _look_up(
    fn: Callable[..., Any] | str,
    space: dict[str, dict[str | None, _R]],
    of: dict[Any, _R],
    version: str | None,
) -> _R | None:
    if not isinstance(fn, str):
        try:
            return of.get(fn)
        except TypeError:  # a callable object without a hash
            return None
    versions = space.get(fn)
    if not versions:
        return None
    found = versions.get(version)
    if found is not None or version is not None:
        return found
    return versions[max(versions, key=version_key)]
