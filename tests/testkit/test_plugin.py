"""The pytest plugin in a pytest of its own, as users have it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.testkit.test_docs import ROOT, run_pytest

pytestmark = pytest.mark.slow_once

PROGRAM = """
from durably import App

app = App()

@app.activity
async def work():
    return 1

@app.orchestrator
async def main(ctx):
    return await ctx.call_activity(work)
"""


def project(directory: Path, tests: str) -> Path:
    (directory / "program.py").write_text(PROGRAM)
    (directory / "test_it.py").write_text("from program import app, main, work\n" + tests)
    return directory


def test_coroutine_tests_run_with_the_fixture_and_only_with_it(tmp_path: Path) -> None:
    tests = """
async def test_with(durable_env):
    async with durable_env(app) as env:
        assert await env.run(main) == 1

async def test_wrong(durable_env):
    async with durable_env(app) as env:
        assert await env.run(main) == 2

async def test_without():
    pass
"""
    done = run_pytest(project(tmp_path, tests), "-rf", "--durably-seed", "41")
    assert "1 passed" in done.stdout
    assert "FAILED test_it.py::test_wrong - assert 1 == 2" in done.stdout
    assert "FAILED test_it.py::test_without - Failed: async def functions are not nat" in done.stdout
    assert done.stdout.count("--durably-seed=41") == 1


def test_the_seed_comes_from_the_command_line(tmp_path: Path) -> None:
    tests = """
async def test_ids(durable_env):
    for options in ({}, {"seed": 3}):
        async with durable_env(app, **options) as env:
            print("id", (await env.start(main)).instance_id)
"""
    project(tmp_path, tests)

    def ids(seed: str) -> list[str]:
        output = run_pytest(tmp_path, "-s", "--durably-seed", seed).stdout
        return [line.split("id ")[1] for line in output.splitlines() if "id " in line]

    first, second = ids("1"), ids("2")
    assert first == ids("1")
    assert first[0] != second[0]
    assert first[1] == second[1]


def test_other_plugins_come_first(tmp_path: Path) -> None:
    tests = """
async def test_it(durable_env):
    raise AssertionError("nobody should run this")
"""
    project(tmp_path, tests)
    (tmp_path / "conftest.py").write_text("""
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    return True
""")
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_plugin_is_an_entry_point_that_pytest_finds(tmp_path: Path) -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert list(points) == ["durably"]
    assert importlib.import_module(points["durably"]).durable_env
    dist = tmp_path / "site" / "durably_as_installed-1.dist-info"
    dist.mkdir(parents=True)
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: durably-as-installed\nVersion: 1\n")
    lines = [f"{name} = {module}" for name, module in points.items()]
    (dist / "entry_points.txt").write_text("[pytest11]\n" + "\n".join(lines) + "\n")
    path = os.pathsep.join([str(ROOT / "src"), str(dist.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert "durable_env -- " in done.stdout


def test_the_plugin_costs_other_test_runs_nothing() -> None:
    code = (
        "import durably.testing.pytest_plugin, sys; "
        "print(sorted(name for name in sys.modules if name.startswith('durably')))"
    )
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert found.strip() == "['durably', 'durably.testing', 'durably.testing.pytest_plugin']"


def test_durably_itself_does_without_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None; "
        "import durably.testing as testing; [getattr(testing, name) for name in testing.__all__]"
    )
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True)
