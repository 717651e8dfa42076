"""The program: its commands, and how its errors become one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from durably.cli.output import Exit, complain, exit_code, leave
from durably.cli.settings import COMPLETE_VAR, Settings, output_option, shared
from durably.cli.shelf import Place, Shelf, ShelvedCommands

_COMMANDS: dict[str, Place] = {
    "new": Place("new", "new_command", "Write a small project that runs."),
    "exec": Place("exec", "exec_command", "Run one instance to its end and print its result."),
    "run": Place("run", "run_command", "Serve a hub until stopped."),
    "invoke": Place("invoke", "invoke_command", "Call a function of a running host."),
    "instances": Place("instances.group", "instances_group", "Start, follow, list and control instances."),
    "schedules": Place("schedules.group", "schedules_group", "Create, list and control schedules."),
    "entities": Place("entities.group", "entities_group", "List, show, signal and call entities."),
    "parked": Place("parked", "parked_group", "List, redrive and discard what was set aside."),
    "hub": Place(
        "hub.group", "hub_group", "Look at a hub as a whole: migrate, back up, restore and move it."
    ),
    "hosts": Place("hosts", "hosts_group", "List hosts, and take their work off one."),
    "scaler": Place("scaler", "scaler_command", "Tell KEDA how many hosts a hub takes."),
    "keys": Place("keys", "keys_group", "Keys that open a host over HTTP."),
    "audit": Place("audit", "audit_group", "Who changed what over HTTP."),
    "config": Place("config.group", "config_group", "What is set, and where."),
    "doctor": Place("doctor", "doctor_command", "Look for what is wrong with a hub."),
    "func-durable": Place("func_durable", "func_durable_group", "The verbs of Azure's 'func durable'."),
    "completion": Place("completion", "completion_command", "Print a script that completes what is typed."),
}

if TYPE_CHECKING:
    from durably.cli.processes.worker import Attached


def _version() -> str:
    from importlib.metadata import version

    return version("durably")


def _print_version(context: click.Context, _: click.Parameter, given: Any) -> None:
    if given and not context.resilient_parsing:
        click.echo(f"durably {_version()}")
        context.exit()


@click.group(
    cls=ShelvedCommands,
    commands=Shelf(_COMMANDS),
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "DURABLY",
        "max_content_width": 100,
    },
    epilog="Exit codes: 0 done · 1 error · 2 wrong usage · 3 not allowed · 4 not found · 5 conflict · 6 time-out · "
    "7 the instance failed · 130 interrupted. A host has more settings than options: durably config show --all.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
@shared
def commands() -> None:
    """Durable Functions in Python: workflows that survive crashes, deployments and long waits."""


@commands.command("version", short_help="Show the version.")
@output_option
@shared
def version_command(output: str) -> None:
    """Show the version of durably, and of the Python that runs it."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    if output == "json":
        import json

        click.echo(json.dumps({"durably": _version(), "python": python, "platform": sys.platform}))
    else:
        click.echo(f"durably {_version()}  (Python {python} on {sys.platform})")


def call(arguments: Sequence[str] | None = None, attached: Attached | None = None) -> int:
    """Run the program and return its exit code.

    Args:
        arguments: Of the command line; those of this process by default.
        attached: To the control process that wants it.
    """
    given = sys.argv[1:] if arguments is None else arguments
    settings = Settings(arguments=tuple(given), attached=attached)
    if COMPLETE_VAR in os.environ:
        import_module("durably.cli.completion")  # what it has for bash

    def run() -> Any:
        return commands.main(args=arguments, complete_var=COMPLETE_VAR, standalone_mode=False, obj=settings)

    return guarded(run, settings)


def guarded(run: Callable[[], Any], settings: Settings) -> int:
    """Call something; its errors become a line and an exit code."""
    try:
        code = run()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        if settings.debug:
            _print_traceback()
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:  # who read our output has seen enough
        return Exit.FAILED
    except Exception as error:  # noqa: BLE001 - the last resort: one line and an exit code, never silent
        if settings.debug:
            _print_traceback()
        complain(_text_of(error), color=settings.color)
        return exit_code(error)
    return code if isinstance(code, int) else Exit.OK


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def _text_of(error: Exception) -> str:
    from durably.errors import DurablyError, InvariantError

    if isinstance(error, InvariantError) or not isinstance(error, (DurablyError, TimeoutError, OSError)):
        return f"{type(error).__name__}: {error}. This is a bug in durably; --debug shows where"
    return str(error)


def main() -> NoReturn:
    """The entry point of the program."""
    leave(call())
