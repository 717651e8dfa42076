"""What may be registered, how it is found, and which types it declares."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import pytest

from durably.codec.convert import JsonConverter
from durably.errors import RegistrationError
from durably.program.activity_context import ActivityContext
from durably.program.context import OrchestrationContext
from durably.program.registry import ActivityFunction, Registry

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]

T = TypeVar("T")

Renamed = ActivityContext


@dataclass
class Order:
    id: int


def context() -> ActivityContext:
    return ActivityContext(instance_id="i", task_id=0, attempt=1, delivery=1, idempotency_key="k")


def call(function: ActivityFunction, payload: bytes | None) -> Any:
    return function.call(function.arguments(payload, JsonConverter()), context())


# --- names -----------------------------------------------------------------------------------------------------------


def later(order: Later) -> Later:
    return order


@dataclass
class Later:
    id: int


async def activity(order: Order) -> Order:
    return order


async def orchestrator(ctx: OrchestrationContext, order: Order) -> list[Order]:
    return [order]


def test_functions_are_found_by_themselves_and_by_name() -> None:
    registry = Registry()
    assert registry.add_activity(activity, max_concurrent=3).max_concurrent == 3
    registry.add_orchestrator(orchestrator, name="Main")
    for key in (activity, "activity"):
        found = registry.activity(key)
        assert found is not None
        assert found.fn is activity
        assert registry.activity_name(key) == "activity"
    for key in (orchestrator, "Main"):
        found_too = registry.orchestrator(key)
        assert found_too is not None
        assert found_too.fn is orchestrator
        assert registry.orchestrator_name(key) == "Main"
    assert registry.activity("Main") is None
    assert registry.orchestrator("activity") is None
    assert registry.names("activity") == ["activity"]
    assert registry.names("orchestrator") == ["Main"]


def test_an_unregistered_function_goes_by_its_own_name() -> None:
    registry = Registry()
    assert registry.activity_name(activity) == "activity"
    assert registry.orchestrator_name("anything") == "anything"
    with pytest.raises(RegistrationError, match="has no name"):
        registry.activity_name(lambda: 1)


def test_a_name_may_be_taken_once_for_each_version() -> None:
    registry = Registry()
    registry.add_activity(activity)
    with pytest.raises(RegistrationError, match="'activity' is registered twice"):
        registry.add_activity(later, name="activity")
    registry.add_orchestrator(orchestrator, version="1")
    with pytest.raises(RegistrationError, match="of version '1' is registered twice"):
        registry.add_orchestrator(orchestrator, version="1")


def test_the_unversioned_function_is_found_else_the_highest_version() -> None:
    registry = Registry()

    def make(n: int) -> Callable[..., Any]:
        def versioned(ctx: OrchestrationContext) -> int:
            return n

        return versioned

    for n, version in enumerate(("1.9", "1.10", "1.2-beta", "1.2")):
        registry.add_orchestrator(make(n), version=version)

    def found(version: str | None = None) -> Any:
        function = registry.orchestrator("versioned", version)
        return None if function is None else function.version

    assert found() == "1.10"
    assert found("1.9") == "1.9"
    assert found("3") is None
    registry.add_orchestrator(make(9))
    assert found() is None
    assert registry.orchestrator("versioned") is not None


def test_an_activity_found_by_name_is_the_newest_also_after_a_lookup() -> None:
    registry = Registry()
    registry.add_activity(lambda: 1, name="a", version="1")
    first = registry.activity("a")
    registry.add_activity(lambda: 2, name="a", version="2")
    second = registry.activity("a")
    assert first is not None
    assert second is not None
    assert (first.version, second.version) == ("1", "2")


@pytest.mark.parametrize(
    ("fn", "word"),
    [
        (lambda x: x, "without a name"),
        (functools.partial(activity), "without a name"),
        (Order, "the class Order"),
        (5, "expected a function"),
        (dict.fromkeys, None),
    ],
)
def test_what_has_no_name_or_is_no_function_is_refused(fn: Any, word: str | None) -> None:
    if word is None:
        assert Registry().add_activity(fn).name == "fromkeys"
        return
    with pytest.raises(RegistrationError, match=word):
        Registry().add_activity(fn)


def test_a_name_makes_lambdas_and_partials_usable() -> None:
    registry = Registry()
    assert call(registry.add_activity(lambda x: x * 2, name="double"), b"4") == 8
    partial = registry.add_activity(functools.partial(lambda a, b: a + b, 10), name="plus ten")
    assert call(partial, b"4") == 14
    assert registry.add_activity(functools.partial(activity), name="p").kind == "coroutine"


def test_callable_objects_and_methods_are_functions() -> None:
    class Greeter:
        async def __call__(self, name: str) -> str:
            return name

        def method(self, name: str) -> set[int]:
            return set()

    registry = Registry()
    found = registry.add_activity(Greeter(), name="greet")
    assert (found.kind, found.input_type, found.result_type) == ("coroutine", str, str)
    bound = registry.add_activity(Greeter().method)
    assert (bound.kind, bound.input_type, bound.result_type) == ("plain", str, set[int])


@pytest.mark.parametrize("name", ["", " ", "a\nb"])
def test_a_name_must_be_readable(name: str) -> None:
    with pytest.raises(RegistrationError, match="printable"):
        Registry().add_activity(activity, name=name)


# --- signatures ------------------------------------------------------------------------------------------------------


def test_the_shapes_of_activities() -> None:
    def nothing() -> Any:
        return ()

    def only_input(x: int) -> Any:
        return x

    def input_first(x: int, ctx: ActivityContext) -> Any:
        return x, ctx.instance_id

    def context_first(ctx: Renamed, x: int) -> Any:
        return x, ctx.instance_id

    def only_context(ctx: ActivityContext) -> Any:
        return ctx.instance_id

    def keyword(x: int, *, ctx: ActivityContext) -> Any:
        return x, ctx.instance_id

    def optional(x: int, ctx: ActivityContext | None = None) -> Any:
        return x, ctx and ctx.instance_id

    def more(x: int, factor: int = 3, *rest: Any, flag: bool = False, **options: Any) -> Any:
        return x, factor, rest, flag, options

    registry = Registry()
    results = {
        fn.__name__: call(registry.add_activity(fn), b"5")
        for fn in (nothing, only_input, input_first, context_first, only_context, keyword, optional, more)
    }
    assert results == {
        "nothing": (),
        "only_input": 5,
        "input_first": (5, "i"),
        "context_first": (5, "i"),
        "only_context": "i",
        "keyword": (5, "i"),
        "optional": (5, "i"),
        "more": (5, 3, (), False, {}),
    }


def test_a_context_that_is_imported_for_type_checkers_only_is_found_by_its_name() -> None:
    namespace: dict[str, Any] = {}
    exec(
        "from __future__ import annotations\n"
        "def activity(x: int, context: durably.ActivityContext) -> int:\n"
        "    return x + context.attempt\n",
        namespace,
    )
    assert call(Registry().add_activity(namespace["activity"]), b"5") == 6


def test_an_input_may_have_a_default() -> None:
    def default(x: int = 7) -> int:
        return x

    def with_context(x: int = 7, ctx: ActivityContext | None = None) -> Any:
        return x, ctx is not None

    def without(x: Any) -> Any:
        return x

    registry = Registry()
    assert call(registry.add_activity(default), None) == 7
    assert call(registry.add_activity(default, name="b"), b"null") == 7
    assert call(registry.add_activity(default, name="c"), b"5") == 5
    assert call(registry.add_activity(with_context), None) == (7, True)
    assert call(registry.add_activity(without), None) is None


def _two_inputs(a: int, b: int) -> None: ...
def _keyword_only(a: int, *, b: int) -> None: ...
def _generator(a: int) -> Generator[int]:
    yield a


async def _async_generator(a: int) -> AsyncGenerator[int]:
    yield a


@pytest.mark.parametrize(
    ("fn", "word"),
    [
        (_two_inputs, "one dataclass or dict"),
        (_keyword_only, "'b', which nothing would fill"),
        (_generator, "is a generator function"),
        (_async_generator, "is an async generator"),
    ],
)
def test_a_bad_activity_is_refused(fn: Callable[..., Any], word: str) -> None:
    with pytest.raises(RegistrationError, match=word):
        Registry().add_activity(fn)


def test_options_of_activities_are_checked() -> None:
    registry = Registry()
    with pytest.raises(RegistrationError, match="max_concurrent=0"):
        registry.add_activity(activity, max_concurrent=0)
    with pytest.raises(RegistrationError, match="executor='gpu'"):
        registry.add_activity(activity, executor="gpu")
    with pytest.raises(RegistrationError, match="executor='thread'"):
        registry.add_activity(activity, executor="thread")
    with pytest.raises(
        RegistrationError, match="executor='process': expected None, or 'thread' or 'process'"
    ):
        registry.add_activity(activity, executor="process")
    assert registry.add_activity(later, executor="thread").executor == "thread"
    assert registry.add_activity(later, name="process", executor="process").executor == "process"
    assert registry.add_activity(activity).executor == "loop"


def _no_context() -> None: ...
def _three(ctx: Any, a: int, b: int) -> None: ...
def _keyword(ctx: Any, *, b: int) -> None: ...


@pytest.mark.parametrize(
    ("fn", "word"),
    [
        (_no_context, "takes no context"),
        (_three, "'b', which nothing would fill"),
        (_keyword, "'b', which nothing would fill"),
        (_async_generator, "is an async generator"),
    ],
)
def test_a_bad_orchestrator_is_refused(fn: Callable[..., Any], word: str) -> None:
    with pytest.raises(RegistrationError, match=word):
        Registry().add_orchestrator(fn)


def test_the_kinds_of_orchestrators() -> None:
    def plain(ctx: Any, a: int = 1, b: int = 2) -> None: ...
    def generator(ctx: Any) -> Any:
        yield

    registry = Registry()
    assert registry.add_orchestrator(orchestrator).kind == "coroutine"
    assert registry.add_orchestrator(plain).kind == "plain"
    assert registry.add_orchestrator(generator).kind == "generator"
    assert registry.add_orchestrator(lambda *args: None, name="any").input_name is None


# --- types -----------------------------------------------------------------------------------------------------------


def test_types_are_resolved_at_first_use() -> None:
    registry = Registry()
    found = registry.add_activity(later)
    assert (found.input_type, found.result_type) == (Later, Later)


def test_types_of_local_classes_are_resolved() -> None:
    @dataclass
    class Local:
        id: int

    async def local(order: Local) -> list[Local]:
        return [order]

    found = Registry().add_activity(local)
    assert (found.input_type, found.result_type) == (Local, list[Local])
    assert found.arguments(b'{"id":1}', JsonConverter()) == (Local(1),)


def test_one_type_that_cannot_be_resolved_counts_as_any_and_spoils_no_other() -> None:
    def broken(order: Missing) -> Order: ...
    def worse(order: 1 // 0) -> "also broken [": ...  # type: ignore[valid-type]  # noqa: F722
    def generic(order: T) -> T: ...

    registry = Registry()
    found = registry.add_activity(broken)
    assert (found.input_type, found.result_type) == (Any, Order)
    found = registry.add_activity(worse)
    assert (found.input_type, found.result_type) == (Any, Any)
    found = registry.add_activity(generic)
    assert (found.input_type, found.result_type) == (Any, Any)


def test_result_types() -> None:
    def none() -> None: ...
    def never() -> NoReturn:
        raise ValueError

    def missing(): ...  # type: ignore[no-untyped-def]
    def annotated() -> Annotated[int, "positive"]: ...
    def optional() -> Order | None: ...

    def generator(ctx: Any) -> Generator[Any, Any, Order]:
        return (yield)

    def bare(ctx: Any) -> Generator[Any]:
        yield

    registry = Registry()
    activities = [registry.add_activity(fn).result_type for fn in (none, never, missing, annotated, optional)]
    assert activities == [Any, Any, Any, Annotated[int, "positive"], Order | None]
    assert [registry.add_orchestrator(fn).result_type for fn in (generator, bare)] == [Order, Any]


def test_types_of_decorated_functions_are_those_of_the_function() -> None:
    def decorate(fn: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        @functools.wraps(fn)
        async def wrapper(*args: Any) -> T:
            return await fn(*args)

        return wrapper

    found = Registry().add_activity(decorate(activity))
    assert (found.name, found.kind, found.input_type, found.result_type) == (
        "activity",
        "coroutine",
        Order,
        Order,
    )


# --- merge -----------------------------------------------------------------------------------------------------------


def test_registries_are_merged_all_or_nothing() -> None:
    one, two, three = Registry(), Registry(), Registry()
    one.add_activity(activity)
    two.add_activity(later)
    two.add_orchestrator(orchestrator)
    two.add_activity(activity)  # the same function: kept once
    one.activity("later")
    one.merge(two)
    assert one.names("activity") == ["activity", "later"]
    assert one.activity(later) is two.activity("later")
    assert one.orchestrator(orchestrator) is not None
    three.add_activity(lambda: 1, name="new")
    three.add_orchestrator(lambda ctx: 1, name="orchestrator")
    with pytest.raises(RegistrationError, match="registered in both"):
        one.merge(three)
    assert one.activity("new") is None
