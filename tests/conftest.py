"""Settings for all tests: Hypothesis profiles, and the switch for soak tests."""

import os

import pytest
from hypothesis import settings

# No database: a failure must not depend on what an earlier run left behind. CI repeats the same examples each time.
# No deadline: the machine may be busy; pytest-timeout catches what hangs.
settings.register_profile("durably", database=None, deadline=None)
settings.register_profile("durably-ci", settings.get_profile("durably"), derandomize=True, print_blob=True)
settings.load_profile("durably-ci" if os.environ.get("CI") else "durably")

# Programs that host a hub serve HTTP as well, on one port for all: only tests that are about it switch that on.
os.environ.setdefault("DURABLY_HTTP", "off")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soak tests take minutes: they belong to `make soak` and are not collected elsewhere."""
    if os.environ.get("DURABLY_SOAK"):
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
