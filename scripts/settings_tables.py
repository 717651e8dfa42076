"""Writes the tables of docs/settings.md, from the classes of options and the keys of host.json."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from durably.cli.config.catalogue import Known, known_variables, options_by_group
from durably.config.host_keys import HOST_KEYS

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

TITLES = {
    "hub": "The hub",
    "log": "Logs",
    "engine": "The engine (`EngineOptions`)",
    "http": "HTTP (`HttpOptions`)",
    "call_http": "`ctx.call_http` (`HttpPolicy`)",
    "queues": "Functions of queues that do not say it themselves",
    "blobs": "Blobs",
    "notices": "Secrets of notices",
}


def tables() -> str:
    """All tables, as the page has them."""
    return "\n".join((*_variables(), *_host_keys()))


def _variables() -> Iterator[str]:
    about = {
        name: text for _, prefix, options in options_by_group() for name, text in _attributes(prefix, options)
    }
    known = known_variables()
    for group, title in TITLES.items():
        yield from (f"### {title}", "", "| variable | default | |", "|---|---|---|")
        for one in known:
            if one.group == group:
                yield f"| `{one.variable}` | {_default(one)} | {one.about or about[one.variable]} |"
        yield ""


def _attributes(prefix: str, options: Any) -> Iterator[tuple[str, str]]:
    """Variables and what they are, as the class says it."""
    text = inspect.getdoc(options) or ""
    section = re.search(r"\nAttributes:\n(.*?)(?:\n\S|\Z)", text, re.DOTALL)
    for part in re.split(r"\n {4}(?=\w+: )", "\n" + (section[1] if section else "")):
        name, _, said = part.strip().partition(": ")
        one_line = " ".join(said.split()).replace("``", "`").replace("|", "\\|")
        yield f"{prefix}{name.upper()}", re.sub(r"`(\w+)`", _as_variable(prefix, options), one_line)


def _as_variable(prefix: str, options: Any) -> Any:
    names = set(options.__dataclass_fields__)
    return lambda match: f"`{prefix}{match[1].upper()}`" if match[1] in names else match[0]


def _default(one: Known) -> str:
    value = one.default
    if one.variable == "DURABLY_ACTIVITY_PROCESSES":
        return "processors"
    if isinstance(value, tuple):
        return "see there" if value else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value in {None, ""} else f"`{value}`" if isinstance(value, str) else str(value)


def _host_keys() -> Iterator[str]:
    yield from ("### Keys of `host.json`", "", "| key | here |", "|---|---|")
    for one in HOST_KEYS:
        about = re.sub(r"(DURABLY_[A-Z_]+)", r"`\1`", one.about)
        yield f"| `{one.key}` | {about} |"


def with_tables(page: str) -> str:
    """The page with its tables as they are now."""
    head = page.partition("<!-- tables -->")[0]
    return f"{head}<!-- tables -->\n\n{tables()}\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
