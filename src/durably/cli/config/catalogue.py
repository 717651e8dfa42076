"""All variables that there are: where each is read, and its default."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final, NamedTuple

import click

from durably.cli.serving import STALL_LIMIT_S, engine_options
from durably.cli.settings import DEFAULT_HUB
from durably.config.settings import Settings

PREFIX: Final = "DURABLY_"


class Known(NamedTuple):
    """A variable.

    Attributes:
        variable: Its name.
        group: What it is about.
        default: What holds when it is not set; None: nothing.
        about: What it is, where no class of options says it.
        secret: Its value is shown to nobody, as that of an option that is left out of the ``repr`` of its class.
    """

    variable: str
    group: str
    default: Any
    about: str = ""
    secret: bool = False


_OTHERS: Final = (
    Known(
        "DURABLY_HUB",
        "hub",
        DEFAULT_HUB,
        "URL of the hub (`--hub`): a file, or `postgresql://host/database?hub=name`.",
    ),
    Known("DURABLY_ALLOW_NETWORK_FILES", "hub", None, "1: the file of the hub may be on a network disk."),
    Known(
        "DURABLY_STATE_DIR",
        "hub",
        None,
        "Where a host on PostgreSQL notes what it is doing; a folder of this machine (temporary by default).",
    ),
    Known("DURABLY_LOG_LEVEL", "log", "info", "Least severe log records that are printed (`--log-level`)."),
    Known(
        "DURABLY_LOG_LEVELS",
        "log",
        None,
        "Of loggers of Python, separated by commas: `durably=warning,shop=debug`.",
    ),
    Known(
        "DURABLY_MAX_HISTORY_MIB",
        "engine",
        256,
        "The largest history, in MiB of its rows, that a host takes into memory.",
    ),
    Known(
        "DURABLY_PROCESSES",
        "engine",
        None,
        "How many processes serve a hub on PostgreSQL: a number, `auto`, or `MIN:MAX` (`--processes`).",
    ),
    Known(
        "DURABLY_SCALE_DOWN_S",
        "engine",
        60,
        "With `--processes MIN:MAX`: so long there has to be less to do before processes stop; 1 or more.",
    ),
    Known("DURABLY_HTTP", "http", default=True, about="HTTP is served (`--no-http`)."),
    Known(
        "DURABLY_GRPC",
        "http",
        None,
        "Address and port on which gRPC is served as well (`--grpc`), with the keys, tokens and certificates of HTTP.",
    ),
    Known(
        "DURABLY_GRPC_ITEM_BYTES_MAX",
        "http",
        4 * 1024 * 1024,
        "The largest piece of work that a worker gets over gRPC; the SDKs take no more unless told otherwise. What is larger fails.",
    ),
    Known(
        "DURABLY_BLOBS", "blobs", None, "URL of the store of blobs; by default a folder beside the hub file."
    ),
    Known("DURABLY_WEBHOOK_SECRET", "notices", None, "What messages to webhooks are signed with."),
    Known("DURABLY_EVENT_GRID_KEY", "notices", None, "Access key of the topic of Event Grid."),
)


def known_variables() -> list[Known]:
    """Every variable that a host reads, by groups."""
    found = [one for one in _OTHERS if one.group in {"hub", "log"}]
    for group, prefix, options in options_by_group():
        found += [one for one in _OTHERS if one.group == group]
        for field in fields(options):
            if field.init:
                default = field.default if field.default is not MISSING else None
                if field.name == "stall_limit_s":
                    default = STALL_LIMIT_S
                found.append(Known(f"{prefix}{field.name.upper()}", group, default, secret=not field.repr))
    return [*found, *(one for one in _OTHERS if one.group == "notices")]


def options_by_group() -> Iterator[tuple[str, str, Any]]:
    """Each group of options: its name, how its variables begin, and the class."""
    from durably.engine.options import EngineOptions
    from durably.executors.http.policy import HttpPolicy
    from durably.http_api.options import HttpOptions
    from durably.triggers.options import BlobOptions, QueueOptions

    yield "engine", PREFIX, EngineOptions
    yield "http", f"{PREFIX}HTTP_", HttpOptions
    yield "call_http", f"{PREFIX}HTTP_", HttpPolicy
    yield "queues", f"{PREFIX}QUEUE_", QueueOptions
    yield "blobs", f"{PREFIX}BLOB_", BlobOptions


def check_values(settings: Mapping[str, str]) -> None:
    """Refuse values that a host would refuse.

    Raises:
        UsageError: The message names the variable.
    """
    engine_options(settings, STALL_LIMIT_S)
    for group, _, options in options_by_group():
        if group != "engine":
            options.from_environment(settings)


def unknown_variables(settings: Settings) -> list[str]:
    """A line for each variable that begins like ours, and is none."""
    ours = [name for name in settings if name.startswith(PREFIX)]
    if not ours:
        return []
    known = {one.variable for one in known_variables()} | _of_commands()
    lines: list[str] = []
    for name in ours:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            meant = f": did you mean {close[0]}?" if close else ", and ignored"
            lines.append(f"{settings.origin(name)}: {name} is unknown{meant}")
    return lines


def _of_commands() -> set[str]:
    """The variables of all options of the command line."""
    from durably.cli.main import commands

    found: set[str] = {f"{PREFIX}COMPLETE"}
    waiting: list[tuple[str, click.Command]] = [(PREFIX.rstrip("_"), commands)]
    while waiting:
        prefix, command = waiting.pop()
        for one in command.params:
            found |= {one.envvar} if isinstance(one.envvar, str) else set(one.envvar or ())
            found.add(f"{prefix}_{str(one.name).upper()}")
        if isinstance(command, click.Group):
            for name, below in command.commands.items():
                waiting.append((f"{prefix}_{name.replace('-', '_').upper()}", below))
    return found
