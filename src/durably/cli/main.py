"""The program: its commands, and how its errors become one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from durably.cli.audit import audit_group
from durably.cli.completion import COMPLETE_VAR, completion_command
from durably.cli.doctor import doctor_command
from durably.cli.entities.group import entities_group
from durably.cli.exec import exec_command
from durably.cli.func_durable import func_durable_group
from durably.cli.instances.group import instances_group
from durably.cli.invoke import invoke_command
from durably.cli.keys import keys_group
from durably.cli.new import new_command
from durably.cli.output import Exit, complain, exit_code, leave
from durably.cli.parked import parked_group
from durably.cli.run import run_command
from durably.cli.schedules.group import schedules_group
from durably.cli.settings import Commands, Settings, output_option, shared


def _version() -> str:
    from importlib.metadata import version

    return version("durably")


def _print_version(context: click.Context, _: click.Parameter, given: Any) -> None:
    if given and not context.resilient_parsing:
        click.echo(f"durably {_version()}")
        context.exit()


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "DURABLY",
        "max_content_width": 100,
    },
    epilog="Exit codes: 0 done · 1 error · 2 wrong usage · 3 not allowed · 4 not found · 5 conflict · 6 time-out · "
    "7 the instance failed · 130 interrupted. Engine options have environment variables: see the documentation of "
    "EngineOptions (DURABLY_MAX_CONCURRENT_ACTIVITIES, DURABLY_DRAIN_TIMEOUT_S, …).",
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


commands.add_command(new_command)
commands.add_command(exec_command)
commands.add_command(run_command)
commands.add_command(invoke_command)
commands.add_command(instances_group)
commands.add_command(schedules_group)
commands.add_command(entities_group)
commands.add_command(parked_group)
commands.add_command(keys_group)
commands.add_command(audit_group)
commands.add_command(doctor_command)
commands.add_command(func_durable_group)
commands.add_command(completion_command)


def call(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    Args:
        arguments: Of the command line; those of this process by default.
    """
    settings = Settings()

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
