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
    modules = set(sys.modules)
    handlers = list(logging.root.handlers)

    def run(*arguments: str) -> Done:
        code = call(arguments)
        return Done(code, *capfd.readouterr())

    yield run
    logging.root.handlers[:] = handlers
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder.path)):
            del sys.modules[name]
