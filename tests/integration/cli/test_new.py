"""``durably new``: each project is written, its tests pass, and what its README says to run runs."""

import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from durably.cli.new import PATTERNS
from tests.integration.cli.programs import PATIENCE_S, Folder, Run


def written(run: Run, pattern: str) -> None:
    done = run("new", pattern, "--pattern", pattern)
    assert (done.code, done.out) == (0, f"cd {pattern} && cat README.md\n"), done.err


@pytest.mark.slow_once
@pytest.mark.parametrize(
    "patterns",
    [[*PATTERNS][:2], pytest.param([*PATTERNS][2:], marks=pytest.mark.soak)],
    ids=["two", "the others"],
)
def test_the_tests_of_each_project_pass(folder: Folder, run: Run, patterns: list[str]) -> None:
    for pattern in patterns:
        written(run, pattern)

    def tested(pattern: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
        return subprocess.run(
            command,
            cwd=folder.path / pattern,
            env=folder.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done in pool.map(tested, patterns):
            assert done.returncode == 0, done.stdout + done.stderr
            assert re.search(r"\d passed", done.stdout)


@pytest.mark.slow_once
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_the_readme_says_runs(
    folder: Folder, run: Run, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(run, pattern)
    project = folder.path / pattern
    monkeypatch.chdir(project)
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {pattern}\n")
    commands = [shlex.split(line, comments=True) for line in re.findall(r"(?m)^\$ durably (.*)$", readme)]
    assert ["run", "app.py", "--dev"] in commands
    for command in commands:
        if command[0] == "exec":
            done = run(*command)
            assert done.code == 0, done.err
        else:
            assert run(*command[:2], "--help").code == 0
    assert {path.name for path in project.iterdir() if not path.name.startswith("durably.db")} == {
        "app.py",
        "test_app.py",
        "README.md",
        ".gitignore",
    }


def test_nothing_is_written_over(folder: Folder, run: Run) -> None:
    done = run("new", ".")
    assert done.code == 2
    assert "'.' exists: expected the name of a new folder" in done.err
    (folder.path / "empty").mkdir()
    assert run("new", "empty").code == 0
    assert run("new", "shop.py/x").code == 2
    assert Path(folder.path / "shop.py").is_file()
    assert (
        "did you mean" in run("new", "x", "--pattern", "sagas").err
        or "one of" in run("new", "x", "--pattern", "sagas").err
    )
