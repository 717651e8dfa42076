"""The pytest plugin: the fixture `durable_env`, and coroutine tests for those who use it.

Everything else is imported when it is used, so that the plugin costs other test runs nothing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from durably.app import App
    from durably.testing.environment import DurableEnvironment

_SEEDS = pytest.StashKey[int]()


class DurableEnv(Protocol):
    """The type of the fixture `durable_env`."""

    def __call__(self, app: App, **options: Any) -> DurableEnvironment:
        """An environment for an app, to be used with ``async with``; see `durably.testing.DurableEnvironment`."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--durably-seed``."""
    parser.getgroup("durably").addoption(
        "--durably-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the environments of the fixture durable_env: decides ids and faults (default: 0)",
    )


@pytest.fixture
def durable_env(request: pytest.FixtureRequest) -> DurableEnv:
    """Makes environments, which are used with ``async with``; their seed is that of ``--durably-seed``."""
    from durably.testing.environment import DurableEnvironment

    seed = int(request.config.getoption("--durably-seed", 0) or 0)
    request.node.stash[_SEEDS] = seed

    def make(app: App, **options: Any) -> DurableEnvironment:
        options.setdefault("seed", seed)
        return DurableEnvironment(app, **options)

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with which seed a test failed."""
    report = yield
    if report.failed and _SEEDS in item.stash:
        report.sections.append(("durably", f"--durably-seed={item.stash[_SEEDS]}"))
    return report


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test that uses `durable_env`, unless another plugin does: those come first."""
    if "durable_env" not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
