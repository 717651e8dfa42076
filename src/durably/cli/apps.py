"""APP on the command line -> the `App`: a file or a module, and the name in it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from durably.app import App
from durably.cli.traces import trace_of_users

DEFAULT_ATTRIBUTE = "app"


class AppError(click.ClickException):
    """The app cannot be loaded; the message says what was expected and what to do.

    Attributes:
        trace: The traceback of the user's code, or "".
    """

    exit_code = 2

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace

    def show(self, file: Any = None) -> None:
        """Print the traceback, then the message."""
        if self.trace:
            click.echo(self.trace, err=True, nl=False)
        super().show(file)


def load_app(text: str) -> App:
    """The app that ``path/to/file.py[:attribute]`` or ``package.module[:attribute]`` names.

    The current directory is put on ``sys.path``, as ``python -m`` does; for a file also the directory from which it, or
    the package it is in, can be imported.

    Raises:
        AppError: There is no such file, module or app, or its import failed.
    """
    place, attribute = _parts(text)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = _from_file(place) if _is_path(place) else _from_module(place)
    return _app_in(module, place, attribute)


def load_apps(texts: Iterable[str]) -> App:
    """One app of all functions of several.

    Raises:
        AppError: One cannot be loaded, or they do not fit together.
        RegistrationError: Two have a function of one name.
    """
    return _together([load_app(text) for text in texts])


def load_what_loads(texts: Collection[str]) -> tuple[App, list[AppError]]:
    """One app of all functions of those that can be loaded, and what is wrong with the others; of none an empty one.

    Raises:
        AppError: None can be loaded, or they do not fit together.
        RegistrationError: Two have a function of one name.
    """
    apps: list[App] = []
    failed: list[AppError] = []
    for text in texts:
        try:
            apps.append(load_app(text))
        except AppError as error:
            failed.append(error)
    if not texts:
        return App(), failed
    if not apps:
        for error in failed[:-1]:
            error.show()
        raise failed[-1]
    return _together(apps), failed


def _together(apps: list[App]) -> App:
    if len(apps) == 1:
        return apps[0]
    kinds = {type(app.converter) for app in apps}
    if len(kinds) > 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise AppError(
            f"The apps have different converters ({names}): expected one for all; give them the same, or run them apart"
        )
    policies = [app.http for app in apps if app.http is not None]
    if any(policy != policies[0] for policy in policies):
        raise AppError(
            "The apps have different HTTP policies (App(http=...)): expected one for all; give them the same, or run them apart"
        )
    together = App(converter=apps[0].converter, http=policies[0] if policies else None)
    for app in apps:
        together.include(app)
    return together


# --- which -----------------------------------------------------------------------------------------------------------


def _parts(text: str) -> tuple[str, str]:
    place, colon, attribute = text.rpartition(":")
    if not colon or "/" in attribute or attribute.endswith(".py"):
        return text, DEFAULT_ATTRIBUTE
    if not place or not all(part.isidentifier() for part in attribute.split(".")):
        raise AppError(f"APP is {text!r}: expected module:attribute or path/to/file.py:attribute")
    return place, attribute


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or place in (".", "..")


def _app_in(module: ModuleType, place: str, attribute: str) -> App:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise AppError(f"'{place}' has no attribute '{attribute}': {_candidates(module, place)}")
        value = getattr(value, part)
    if not isinstance(value, App):
        raise AppError(
            f"'{attribute}' in '{place}' is a {type(value).__name__}, not a durably.App: {_candidates(module, place)}"
        )
    return value


def _candidates(module: ModuleType, place: str) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, App)]
    if not names:
        return "it has no App at all; expected app = App() at its top level"
    return "its apps are: " + ", ".join(f"{place}:{name}" for name in names)


# --- files and modules -----------------------------------------------------------------------------------------------


def _from_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise AppError(f"App file '{place}' {what}: expected a Python file{_alike(path)}")
    names = [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file() and root.name.isidentifier():  # as a module of its package
        names.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    name = _free_name(".".join(names), path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AppError(f"App file '{place}' is not Python: expected a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        if len(names) > 1:
            importlib.import_module(".".join(names[:-1]))
        sys.modules[name] = module  # dataclasses and annotations are looked up there
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise _import_failed(place, error) from error
    return module


def _free_name(name: str, path: Path) -> str:
    """A module name for the file: two apps may be called app.py, and one may be called like a library."""
    taken = sys.modules.get(name)
    if taken is None and "." not in name and name in sys.stdlib_module_names:
        return f"{name}_of_user"
    if taken is None or getattr(taken, "__file__", None) == str(path):
        return name
    return _free_name(f"{name}_2", path)


def _alike(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = [one.name for one in path.parent.glob("*.py")]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _from_module(place: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise AppError(f"APP is {place!r}: expected module:attribute or path/to/file.py:attribute")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if place != missing and not place.startswith(f"{missing}."):
            raise _import_failed(place, error) from error
        hint = f"; for the file, write {place}.py" if Path(f"{place}.py").is_file() else ""
        raise AppError(
            f"Module '{missing}' is not installed and not in '{Path.cwd()}': expected module[:attribute] or "
            f"path/to/file.py[:attribute]{hint}"
        ) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(place, error) from error


def _import_failed(place: str, error: BaseException) -> AppError:
    if isinstance(error, SystemExit):
        message = f"'{place}' ended the program (exit {error.code}) while it was imported"
        return AppError(
            f"{message}: put what is not to run on import under if __name__ == '__main__'",
            trace_of_users(error),
        )
    return AppError(
        f"'{place}' could not be imported: {type(error).__name__}: {error}", trace_of_users(error)
    )
