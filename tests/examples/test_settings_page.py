"""docs/settings.md says what is true: its code runs, its tables are those of the code."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from durably import Settings
from durably.cli.config.catalogue import PREFIX, known_variables
from durably.config.json_file import leaves_of
from scripts.settings_tables import PAGE, with_tables

SOURCE = Path(__file__).parents[2] / "src" / "durably"


def test_every_setting_is_in_the_page_as_the_code_has_it() -> None:
    """`python scripts/settings_tables.py` writes the tables."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python scripts/settings_tables.py"


def test_every_variable_that_the_code_reads_is_known() -> None:
    known = {one.variable for one in known_variables()}
    read: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        if "cli" not in file.relative_to(SOURCE).parts:  # its variables are those of its options
            read |= set(re.findall(rf"\"({PREFIX}[A-Z0-9_]*[A-Z0-9])\"", file.read_text(encoding="utf-8")))
    assert read - known == {"DURABLY_KEY", "DURABLY_TOKEN"}  # of clients


def test_the_example_means_what_it_says(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (text,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert leaves_of(text, "host.json")
    (tmp_path / "host.json").write_text(text, encoding="utf-8")
    (tmp_path / "local.settings.json").write_text(json.dumps({"Values": {"SITE": "Shop"}}), encoding="utf-8")
    found = Settings.read(tmp_path, {})
    assert found.problems == []
    assert found["DURABLY_HUB"] == "sqlite:///ShopHub.db"
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    local = {"Values": {"SITE": "Shop", "DURABLY_HUB": "memory://"}}
    (tmp_path / "local.settings.json").write_text(json.dumps(local), encoding="utf-8")
    exec(code.replace("/srv/shop", str(tmp_path)), names)
    assert asyncio.run(names["main"]()) == 300.0
