"""Settings in layers: ``host.json``, ``local.settings.json``, the environment.

Every setting is a text with the name of an environment variable. What a file says becomes such a text, so whoever reads the
environment reads the files as well, and knows of neither.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

from durably.config.host_keys import HostKey, alike, host_key
from durably.config.json_file import Leaf, read_leaves
from durably.config.names import filled, setting
from durably.errors import RegistrationError, UsageError

HOST_FILE: Final = "host.json"
LOCAL_FILE: Final = "local.settings.json"
ENVIRONMENT: Final = "environment"

_OVERRIDE: Final = "azurefunctionsjobhost"
"""Before a key of ``host.json``, as Functions has it in the environment."""

_log = logging.getLogger("durably.config")


class Problem(NamedTuple):
    """Something about a setting that whoever wrote it should know.

    Attributes:
        level: ``"error"``: nothing can be started with it; ``"warning"``: it does not do what it says.
        text: Where it is, what was expected.
    """

    level: Literal["error", "warning"]
    text: str


class _Said(NamedTuple):
    """What a layer says of a variable. The higher rank counts."""

    rank: int
    value: str
    origin: str


class _HostLeaf(NamedTuple):
    rank: int
    leaf: Leaf
    origin: str


_FROM_HOST, _HOST_IN_LOCAL, _FROM_LOCAL, _HOST_IN_ENVIRONMENT, _FROM_ENVIRONMENT = range(5)


class Settings(Mapping[str, str]):
    """What is set, by the names of environment variables; and where.

    Attributes:
        problems: What is wrong, unknown, or not supported.
        exports: What ``local.settings.json`` adds to the environment, for code that reads it.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.exports: dict[str, str] = {}
        self._folder = folder
        self._said: dict[str, _Said] = {}
        self._host: dict[tuple[str, ...], _HostLeaf] = {}
        for leaf in self._leaves(HOST_FILE):
            self._override(_HostLeaf(_FROM_HOST, leaf, f"{HOST_FILE}:{leaf.line}"))
        self._read_local(environment)
        for name, value in environment.items():
            self._variable(name, value, _FROM_ENVIRONMENT, ENVIRONMENT)
        self._apply_host()

    @classmethod
    def load(cls, folder: str | Path = ".", environment: Mapping[str, str] | None = None) -> Self:
        """Settings of the files in a folder, where they are there, and the environment above them.

        What is unknown or not supported is logged as a warning (``durably.config``).

        Args:
            folder: Of ``host.json`` and ``local.settings.json``.
            environment: That of this process by default.

        Raises:
            UsageError: A file cannot be read, or a value is none; the message names file and line.
        """
        found = cls.read(folder, environment)
        found.check()
        for text in found.warnings:
            _log.warning("%s", text)
        return found

    @classmethod
    def read(cls, folder: str | Path = ".", environment: Mapping[str, str] | None = None) -> Self:
        """The same, with all that is wrong among the `problems`, and nothing raised or logged."""
        return cls(Path(folder), dict(os.environ if environment is None else environment))

    def check(self) -> None:
        """Refuse settings that nothing can be started with.

        Raises:
            UsageError: There are some; each is named.
        """
        errors = [problem.text for problem in self.problems if problem.level == "error"]
        if errors:
            raise UsageError("; ".join(errors))

    @property
    def warnings(self) -> list[str]:
        """What does not do what it says."""
        return [problem.text for problem in self.problems if problem.level == "warning"]

    def origin(self, name: str) -> str | None:
        """Where a setting was set: ``environment``, or a file and a line; None: it is not."""
        said = self._said.get(name)
        return None if said is None else said.origin

    def __getitem__(self, name: str) -> str:
        return self._said[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._said)

    def __len__(self) -> int:
        return len(self._said)

    # --- layers ------------------------------------------------------------------------------------------------------

    def _leaves(self, file: str) -> list[Leaf]:
        try:
            return read_leaves(self._folder / file) or []
        except UsageError as error:
            self._wrong(str(error))
            return []

    def _say(self, name: str, said: _Said) -> None:
        before = self._said.get(name)
        if before is None or before.rank <= said.rank:
            self._said[name] = said

    def _variable(self, name: str, value: str, rank: int, origin: str) -> None:
        """A variable as such; or one that stands for a key of ``host.json``."""
        head, *rest = name.replace(":", "__").split("__")
        if head.lower() == _OVERRIDE and rest:
            self._override(_HostLeaf(rank - 1, Leaf(tuple(rest), value, 0), f"{origin} {name}"))
        else:
            self._say(name, _Said(rank, value, origin))

    def _override(self, found: _HostLeaf) -> None:
        self._host[tuple(part.lower() for part in found.leaf.path)] = found

    def _read_local(self, environment: Mapping[str, str]) -> None:
        for leaf in self._leaves(LOCAL_FILE):
            where = f"{LOCAL_FILE}:{leaf.line}"
            match [part.lower() for part in leaf.path]:
                case ["isencrypted"]:
                    if str(leaf.value).lower() == "true":
                        self._wrong(f"{where}: it is encrypted; decrypt it with 'func settings decrypt'")
                case ["values"]:
                    pass  # there are none
                case ["values", _]:
                    self._local_value(leaf, where, environment)
                case ["host", "localhttpport"]:
                    self._say("DURABLY_HTTP_PORT", _Said(_HOST_IN_LOCAL, str(leaf.value), where))
                case ["host", "cors" | "corscredentials"]:
                    self._doubt(
                        f"{where}: {leaf.key} is not supported: a proxy in front of the host adds headers"
                    )
                case ["connectionstrings", *_]:
                    self._doubt(f"{where}: {leaf.key} is not supported: put it under Values")
                case _:
                    expected = "IsEncrypted, Values or Host.LocalHttpPort"
                    self._doubt(f"{where}: {leaf.key} is unknown: expected {expected}")

    def _local_value(self, leaf: Leaf, where: str, environment: Mapping[str, str]) -> None:
        name, value = leaf.path[1], leaf.value
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, str | int | float):
            self._wrong(f"{where}: {name} is no text: expected one in quotes")
            return
        if name not in environment:
            self.exports[name] = str(value)
            self._variable(name, str(value), _FROM_LOCAL, where)

    # --- host.json ---------------------------------------------------------------------------------------------------

    def _apply_host(self) -> None:
        for found in self._host.values():
            leaf, known = found.leaf, host_key(found.leaf.key)
            if known is None:
                close = alike(leaf.key)
                meant = f": did you mean {close}?" if close else ", and ignored"
                self._doubt(f"{found.origin}: {leaf.key} is unknown{meant}")
            elif known.refused:
                self._doubt(f"{found.origin}: {leaf.key} is not supported: {known.refused}")
            elif known.always is not None:
                if str(leaf.value).lower() != str(known.always).lower():
                    self._doubt(
                        f"{found.origin}: {leaf.key} is {leaf.value!r}, which is not supported: it is "
                        f"{str(known.always).lower()} here"
                    )
            elif known.variables:
                self._convert(found, known)

    def _convert(self, found: _HostLeaf, known: HostKey) -> None:
        leaf = found.leaf
        try:
            what = f"{found.origin}: {leaf.key}"
            given = filled(leaf.value, what, self) if isinstance(leaf.value, str) else leaf.value
            value = known.convert(given, self._section(leaf.path))
            if known.names:
                value = setting(value, what, self)
        except ValueError as error:
            missing = isinstance(error, RegistrationError)
            expected = f"{found.origin}: {leaf.key} is {leaf.value!r}: expected {error}"
            self._wrong(str(error) if missing else expected)
            return
        origin = found.origin if leaf.line == 0 else f"{found.origin} {leaf.key}"
        for variable in known.variables:
            self._say(variable, _Said(found.rank, value, origin))

    def _section(self, path: tuple[str, ...]) -> dict[str, Any]:
        above = tuple(part.lower() for part in path[:-1])
        return {one.leaf.path[-1]: one.leaf.value for key, one in self._host.items() if key[:-1] == above}

    # --- problems ----------------------------------------------------------------------------------------------------

    def _wrong(self, text: str) -> None:
        self.problems.append(Problem("error", text))

    def _doubt(self, text: str) -> None:
        self.problems.append(Problem("warning", text))
