"""Settings for all tests: Hypothesis profiles, and the switch for soak tests."""

import os
import signal

import pytest
from hypothesis import settings

# No database: a failure must not depend on what an earlier run left behind. CI repeats the same examples each time.
# No deadline: the machine may be busy; pytest-timeout catches what hangs.
settings.register_profile("durably", database=None, deadline=None)
settings.register_profile("durably-ci", settings.get_profile("durably"), derandomize=True, print_blob=True)
settings.load_profile("durably-ci" if os.environ.get("CI") else "durably")

# A shell starts what runs in its background with SIGINT ignored, which programs of the tests would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Programs that host a hub serve HTTP as well, on one port for all: only tests that are about it switch that on.
os.environ.setdefault("DURABLY_HTTP", "off")


_ON_DEFAULT = (
    "bench",
    "bindings",
    "conformance",
    "examples",
    "faults",
    "grpc",
    "http",
    "integration",
    "notices",
    "triggers",
)
"""Folders of tests that drive programs and servers: what an interpreter breaks there, other tests show as well."""

_ON_ENDS = (
    "model",
    "simulation",
    "statements",
    "testkit",
    "unit/bindings",
    "unit/cli",
    "unit/client",
    "unit/engine",
    "unit/schedules",
    "unit/security",
    "unit/storage",
)
"""Folders of tests of which what an interpreter breaks shows on the oldest or the newest."""


def _is_in(folders: tuple[str, ...], path: str) -> bool:
    return path.startswith(tuple(f"tests/{folder}/" for folder in folders))


def _has_file(name: str) -> bool:
    """Whether a test of a statement is on a hub in a file, or by a client outside: in memory the same code runs."""
    return "[sqlite" in name or "[outside" in name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soak tests take minutes: they belong to `make soak` and are not collected elsewhere."""
    for item in items:
        path = item.path.relative_to(config.rootpath).as_posix()
        if _is_in(_ON_DEFAULT, path) or (_is_in(("statements",), path) and _has_file(item.name)):
            item.add_marker("default_only")
        elif _is_in(_ON_ENDS, path):
            item.add_marker("ends_only")
        if _is_in(("faults",), path):
            item.add_marker("faults")
    if os.environ.get("DURABLY_SOAK"):
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
