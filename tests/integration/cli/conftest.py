"""A folder with an app for each test, and the program in this process."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from durably.cli.main import call
from tests.integration.cli.programs import Done, Folder, Run


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def run(folder: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    monkeypatch.chdir(folder.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "argv", ["durably"])
    handlers = list(logging.root.handlers)

    def run(*arguments: str) -> Done:
        code = call(arguments)
        _forget_modules(folder.path)
        return Done(code, *capfd.readouterr())

    yield run
    logging.root.handlers[:] = handlers


def _forget_modules(folder: Path) -> None:
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
