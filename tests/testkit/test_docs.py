"""The page about testing says what is true: each of its programs is run, as a newcomer would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ["-p", "durably.testing.pytest_plugin"]


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Pytest on a directory, with the plugin, and with no other plugin that happens to be installed."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *PLUGIN, *arguments, str(directory)],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


@pytest.mark.slow_once
def test_every_program_of_the_page_runs(tmp_path: Path) -> None:
    programs = re.findall(
        r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.DOTALL
    )
    assert len(programs) == (ROOT / "docs/testing.md").read_text().count("```python") > 5
    for name, code in programs:
        (tmp_path / name).write_text(code)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout
