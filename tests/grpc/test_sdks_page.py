"""docs/sdks.md says what is true: its host is started by its command, and its programs run on that."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grpc.javascript import SOURCES
from tests.support.npm import node, place

pytestmark = pytest.mark.slow_once

PAGE = (Path(__file__).parents[2] / "docs" / "sdks.md").read_text(encoding="utf-8")
(COMMAND,) = re.findall(r"\$ durably (run --grpc .*)", PAGE)
(PYTHON,) = re.findall(r"```python\n# orders\.py\n(.*?)```", PAGE, re.DOTALL)
(JAVASCRIPT,) = re.findall(r"```javascript\n// orders\.js\n(.*?)```", PAGE, re.DOTALL)
PLACE = "localhost:4001"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the host; its port is a free one."""
    assert PLACE in COMMAND
    host = subprocess.Popen(
        [sys.executable, "-m", "durably", *COMMAND.replace(PLACE, "localhost:0").split(), "--no-http"],
        cwd=tmp_path_factory.mktemp("host"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert host.stdout is not None
    with host:
        try:
            said: list[str] = []
            for line in host.stdout:
                said.append(line)
                found = re.search(r"grpc://(\S+)", line)
                if found is not None:
                    yield found[1]
                    return
            raise AssertionError("".join(said))
        finally:
            host.kill()


def printed(command: list[str], folder: Path) -> str:
    """What a program prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_program_in_python(address: str, tmp_path: Path) -> None:
    (tmp_path / "orders.py").write_text(PYTHON.replace(PLACE, address))
    assert printed([sys.executable, "orders.py"], tmp_path) == "COMPLETED receipt for 30\n"


def test_the_program_in_javascript(address: str, tmp_path: Path) -> None:
    place(SOURCES, tmp_path)
    (tmp_path / "orders.js").write_text(JAVASCRIPT.replace(PLACE, address))
    assert printed([node(), "orders.js"], tmp_path) == '"receipt for 30"\n'


def test_each_program_says_what_it_prints() -> None:
    assert "It prints `COMPLETED receipt for 30`." in PAGE
    assert 'It prints `"receipt for 30"`.' in PAGE
