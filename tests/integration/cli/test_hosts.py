"""``durably hosts`` as operators use it."""

from __future__ import annotations

import json

import pytest

from tests.integration.cli.programs import Folder, Run, interrupted
from tests.integration.cli.test_run import until_ready

pytestmark = pytest.mark.slow_once


def test_the_host_of_a_file_is_listed_and_has_nobody_to_drain_to(folder: Folder, run: Run):
    with folder.started("run", "shop.py") as process:
        until_ready(process)
        (host,) = json.loads(run("hosts", "list", "-o", "json").out)
        assert f"pid {process.pid} on " in host["name"]
        assert (host["partitions"], host["draining"]) == (1, False)
        table = [line.split() for line in run("hosts", "list").out.splitlines()]
        assert table[0] == ["ID", "NAME", "VERSION", "SINCE", "PARTITIONS", "BACKLOG", "STATE"]
        assert (table[1][0], table[1][-1]) == (host["id"], "serving")
        assert run("hosts", "list", "-o", "ids").out.split() == [host["id"]]
        for name in (host["name"], host["id"]):
            refused = run("hosts", "drain", name)
            assert refused.code == 2
            assert "stop that process" in refused.err
        refused = run("hosts", "drain", "nobody")
        assert refused.code == 2
        assert host["name"] in refused.err
        interrupted(process)
    assert json.loads(run("hosts", "list", "-o", "json").out) == []
