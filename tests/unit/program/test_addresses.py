"""Which functions a worker process can find, and which are refused."""

from __future__ import annotations

import functools
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably import App, JsonConverter, RegistrationError
from durably.program.addresses import Address, address_of, converter_address, resolve


def plain(n: int) -> int:
    return n


def moved(n: int) -> int:
    return n


elsewhere = moved
moved = plain


def vanished() -> None: ...


gone = vanished
del vanished


class Shop:
    def sell(self) -> None: ...

    @classmethod
    def buy(cls) -> None: ...

    def __call__(self) -> None: ...


def without_wraps(fn: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper() -> Any:
        return fn()

    return wrapper


class Own(JsonConverter):
    pass


converter = Own()
app = App(converter=Own())


def nested() -> Callable[..., Any]:
    def within() -> None: ...

    return within


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda: None, "it is a lambda; expected"),
        (nested(), "'nested.<locals>.within' is made within another function"),
        (without_wraps(plain), "a decorator around it needs functools.wraps"),
        (functools.partial(plain, 1), "it is a partial object without a name"),
        (Shop(), "it is an object without a name"),
    ],
)
def test_what_nobody_can_import_is_refused_at_registration(fn: Callable[..., Any], words: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        App().activity(name="odd", executor="process")(fn)
    assert str(caught.value).startswith("Activity 'odd' has executor='process', but a worker process cannot")
    assert words in str(caught.value)
    assert "define it with def at the top level of a module, or leave executor='process' out" in str(
        caught.value
    )


def test_a_function_of_a_program_without_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setattr(plain, "__module__", "__main__")
    with pytest.raises(RegistrationError, match=r"the program has no file .* move it to a module"):
        App().activity(executor="process")(plain)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (elsewhere, "there is another object (<function plain"),
        (gone, "there is nothing at"),
        (Shop().sell, "there is another object (<function Shop.sell"),
    ],
)
def test_what_is_not_at_its_place_is_refused_at_first_use(fn: Callable[..., Any], words: str) -> None:
    App().activity(name="odd", executor="process")(fn)
    with pytest.raises(RegistrationError) as caught:
        address_of(fn, "odd")
    assert words in str(caught.value)
    assert "keep the function at the name that it was defined with" in str(caught.value)


def test_a_module_that_is_not_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "__module__", "of.nobody")
    with pytest.raises(RegistrationError, match=r"its module 'of\.nobody' is not among the loaded ones"):
        address_of(plain, "plain")


def test_an_address_leads_back() -> None:
    for fn in (plain, Shop.buy, textwrap.dedent):
        address = address_of(fn, "it")
        assert resolve(address) == fn
        assert address.file == sys.modules[fn.__module__].__file__


def test_a_converter_is_found_by_itself_and_by_its_app() -> None:
    for one, path in ((converter, "converter"), (app.converter, "app.converter")):
        for fn in (plain, textwrap.dedent):  # of the same module, and of another
            address = converter_address(one, fn, "it")
            assert (address.module, address.path) == (__name__, path)
            assert resolve(address) is one
    with pytest.raises(RegistrationError, match="the Own of its app cannot be found by a worker"):
        converter_address(Own(), plain, "it")


MODULE = """
import sys
from dataclasses import dataclass

@dataclass
class Order:
    n: "int"

def name() -> str:
    return f"{__name__} {Order(1)}"
"""


@pytest.mark.parametrize("module", ["loose_module", "no.such.package", "wave_of_user"])
def test_a_module_that_cannot_be_imported_by_name_is_loaded_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    (tmp_path / "wave").write_text(MODULE)
    address = Address(module, str(tmp_path / "wave"), "name")
    try:
        assert resolve(address)() == f"{module} Order(n=1)"
        assert resolve(address) is resolve(address)
    finally:
        del sys.modules[module]


def test_a_file_that_fails_leaves_no_half_module(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise LookupError")
    with pytest.raises(LookupError):
        resolve(Address("broken_module", str(tmp_path / "broken.py"), "name"))
    assert "broken_module" not in sys.modules


@pytest.mark.parametrize(
    ("line", "guarded"),
    [
        ("if __name__ == '__main__':\n    start()", True),
        ("if '__main__' == __name__ and True:\n    try:\n        start()\n    finally:\n        pass", True),
        ("__name__ == '__main__' and start()", True),
        ("start() if __name__ == '__main__' else None", True),
        ("start()", False),
        ("if True:\n    start()", False),
        ("if __name__ == '__main__':\n    pass\nstart()", False),
    ],
)
def test_a_program_may_start_its_host_under_its_guard_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, *, guarded: bool
) -> None:
    (tmp_path / "program.py").write_text(f"def work(): pass\n{line}\n")
    main = types.ModuleType("__main__")
    main.__file__ = str(tmp_path / "program.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    outcomes: list[Any] = []

    def start() -> None:
        try:
            outcomes.append(address_of(main.__dict__["work"], "work"))
        except RegistrationError as error:
            outcomes.append(error)

    main.__dict__["start"] = start
    text = Path(main.__file__).read_text()
    exec(compile(text, main.__file__, "exec"), main.__dict__)
    if guarded:
        assert outcomes == [Address("__durably_main__", main.__file__, "work")]
    else:
        assert "would run again when it is imported, from line" in str(outcomes[0])
        assert "put what runs the host under if __name__ == '__main__'" in str(outcomes[0])
