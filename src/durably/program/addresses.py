"""Where a worker process finds a function: its module, its file, and its name in there; never the function itself."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Final, cast

import msgspec

from durably.errors import RegistrationError

_MAIN: Final = "__main__"

_MAIN_IN_WORKER: Final = "__durably_main__"
"""The name of the program's file in a worker: not ``__main__``, so that what is under its guard does not run."""

_FIX: Final = "define it with def at the top level of a module, or leave executor='process' out"


class Address(msgspec.Struct, frozen=True):
    """A place in the code of the program. Made by the host from what is registered, never from stored data.

    Attributes:
        module: Name to import it by.
        file: Its file, or None; for a module that can be loaded from its file only.
        path: Dotted path within the module.
        wrappers: How many decorators lie around the function, and have to be taken off.
    """

    module: str
    file: str | None
    path: str
    wrappers: int = 0


# --- the host: function -> address -----------------------------------------------------------------------------------


def check_process_function(fn: Callable[..., Any], name: str) -> None:
    """Refuse at registration what a worker process could never import.

    Raises:
        RegistrationError: A lambda, a function within a function, an object without a name, or a function of a
            program without a file.
    """
    module, path = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not isinstance(path, str) or not isinstance(module, str):
        what = "a partial object" if isinstance(fn, functools.partial) else "an object"
        raise _refused(name, f"it is {what} without a name to import it by", _FIX)
    if path.rpartition(".")[2] == "<lambda>":
        raise _refused(name, "it is a lambda", _FIX)
    if "<locals>" in path:
        raise _refused(
            name,
            f"'{path}' is made within another function",
            f"{_FIX}; a decorator around it needs functools.wraps",
        )
    if module == _MAIN and _file_of(sys.modules.get(_MAIN)) is None:
        raise _refused(name, "the program has no file (python -c, stdin, a notebook)", "move it to a module")


def address_of(fn: Callable[..., Any], name: str) -> Address:
    """The address of a registered function, once its module is loaded.

    Raises:
        RegistrationError: There is another object at its place, or importing it would run the program once more.
    """
    check_process_function(fn, name)
    place = f"{fn.__module__}.{fn.__qualname__}"
    module = sys.modules.get(fn.__module__)
    if module is None:
        raise _refused(
            name, f"its module '{fn.__module__}' is not among the loaded ones", "import it as a module"
        )
    found: Any = module
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    wrappers = _wrappers_around(fn, found)
    if wrappers is None:
        what = "nothing" if found is None else f"another object ({found!r:.80})"
        raise _refused(
            name,
            f"there is {what} at '{place}'",
            "keep the function at the name that it was defined with; decorators around it need functools.wraps",
        )
    return _address(module, fn.__qualname__, name, wrappers)


def converter_address(converter: object, fn: Callable[..., Any], name: str) -> Address:
    """The address of a converter: by its own name or that of an object that has it, in the function's module or another.

    Raises:
        RegistrationError: It is not at the top level of any loaded module.
    """
    own = sys.modules.get(fn.__module__)
    for module in (own, *sys.modules.copy().values()):
        if not isinstance(module, ModuleType):  # there may be anything in sys.modules
            continue
        attributes: dict[str, Any] = vars(module).copy()
        for attribute, value in attributes.items():
            if value is converter:
                return _address(module, attribute, name)
            if (
                isinstance(getattr(cast("type[Any]", type(value)), "converter", None), property)
                and value.converter is converter
            ):
                return _address(module, f"{attribute}.converter", name)
    raise _refused(
        name,
        f"the {type(converter).__name__} of its app cannot be found by a worker",
        "keep the app, or the converter, in a variable at the top level of a module",
    )


def _wrappers_around(fn: Callable[..., Any], found: Any) -> int | None:
    for count in range(100):
        if found is fn or (inspect.ismethod(fn) and found == fn):
            return count
        found = getattr(found, "__wrapped__", None)
        if found is None:
            return None
    return None


def _address(module: ModuleType, path: str, activity: str, wrappers: int = 0) -> Address:
    _refuse_running_program(module, activity)
    name = module.__name__
    if name == _MAIN:
        name = module.__spec__.name if module.__spec__ is not None else _MAIN_IN_WORKER
    return Address(name, _file_of(module), path, wrappers)


def _file_of(module: ModuleType | None) -> str | None:
    file = getattr(module, "__file__", None)
    return os.path.abspath(file) if file and Path(file).exists() else None  # noqa: PTH100 - links stay as they are


def _refused(name: str, why: str, fix: str) -> RegistrationError:
    return RegistrationError(
        f"Activity '{name}' has executor='process', but a worker process cannot import it: {why}; "
        f"expected a function of a module or of a program's file; {fix}"
    )


# --- the host: would an import run the program again? ----------------------------------------------------------------


def _refuse_running_program(module: ModuleType, name: str) -> None:
    """Refuse a module whose top level is what runs the host: each import of it would do so again."""
    for frame in _frames():
        if frame.f_code.co_name != "<module>" or frame.f_globals is not module.__dict__:
            continue
        if module.__name__ == _MAIN and _is_guarded(frame):
            continue
        what = "the program" if module.__name__ == _MAIN else f"the module '{module.__name__}'"
        raise _refused(
            name,
            f"{what} would run again when it is imported, from line {frame.f_lineno} of {frame.f_code.co_filename}",
            "put what runs the host under if __name__ == '__main__', or move the activity to a module",
        )


def _frames() -> Iterator[FrameType]:
    for top in list(sys._current_frames().values()):  # pyright: ignore[reportPrivateUsage]
        frame: FrameType | None = top
        while frame is not None:
            yield frame
            frame = frame.f_back


def _is_guarded(frame: FrameType) -> bool:
    """True when the line that runs is within a condition that looks at ``__name__``."""
    try:
        tree = ast.parse(Path(frame.f_code.co_filename).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, ast.If | ast.IfExp | ast.BoolOp):
            continue
        test = node.values[0] if isinstance(node, ast.BoolOp) else node.test
        looks = any(isinstance(one, ast.Name) and one.id == "__name__" for one in ast.walk(test))
        if looks and node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno):
            return True
    return False


# --- the worker: address -> object -----------------------------------------------------------------------------------


def resolve(address: Address) -> Any:
    """What is at an address; its module is imported when it is not yet.

    Raises:
        Exception: Whatever the import of the module raises; AttributeError when nothing is there.
    """
    found: Any = _module_at(address)
    for part in address.path.split("."):
        found = getattr(found, part)
    for _ in range(address.wrappers):
        found = found.__wrapped__
    return found


def _module_at(address: Address) -> ModuleType:
    loaded = sys.modules.get(address.module)
    if loaded is not None:
        return loaded
    if address.file is None or _is_found(address.module, address.file):
        return importlib.import_module(address.module)
    if address.module == _MAIN_IN_WORKER:
        stem = Path(address.file).stem
        if _is_found(stem, address.file):  # others may import it by this name: it is to be loaded once
            return importlib.import_module(stem)
    return _from_file(address.module, address.file)


def _is_found(module: str, file: str) -> bool:
    """True when importing the name gives this file."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):  # a parent is no package, or has no spec
        return False
    return spec is not None and spec.origin is not None and _same_file(spec.origin, file)


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _from_file(module: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module, file)
    if spec is None or spec.loader is None:
        spec = importlib.util.spec_from_loader(module, importlib.machinery.SourceFileLoader(module, file))
    if spec is None or spec.loader is None:
        raise ImportError(f"'{file}' is not Python")
    made = importlib.util.module_from_spec(spec)
    sys.modules[module] = made  # dataclasses and annotations are looked up there
    try:
        spec.loader.exec_module(made)
    except BaseException:
        sys.modules.pop(module, None)
        raise
    return made
