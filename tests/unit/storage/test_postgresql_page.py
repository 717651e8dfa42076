"""The page about hubs on PostgreSQL names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from durably.cli.hub.group import hub_group
from durably.storage.postgres.address import OPTIONS

PAGE = (Path(__file__).parents[3] / "docs" / "postgresql.md").read_text(encoding="utf-8")


def test_each_option_of_a_url_is_told() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(OPTIONS)


def test_the_commands_exist() -> None:
    said = set(re.findall(r"durably hub (\w+)", PAGE))
    assert said <= set(hub_group.commands)
    options = {
        option for command in hub_group.commands.values() for one in command.params for option in one.opts
    }
    assert {
        one for one in re.findall(r"--[a-z][a-z-]*", PAGE) if one not in {"--hub", "--processes"}
    } <= options
