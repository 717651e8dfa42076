"""``durably exec``: one instance, from its start or where it was left, to its result."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

import click

from durably.cli.answers import answer_of, failure_of
from durably.cli.output import Exit, complain, console, failure_text, print_json, say
from durably.cli.payloads import json_of
from durably.cli.settings import (
    DEFAULT_HUB,
    app_hub_option,
    output_option,
    quiet_option,
    settings_of,
    shared,
    timeout_option,
)

if TYPE_CHECKING:
    from durably.app import App
    from durably.cli.follow import Ending, Job
    from durably.cli.views import View
    from durably.core.status import InstanceStatus
    from durably.errors import FailureDetails

_EXAMPLES = """\b
Examples:
  durably exec orders.py process_order --input '{"id": 7}' --id order-7
  durably exec shop.orders:app process_order --input @order.json -o json
"""


@click.command("exec", short_help="Run one instance to its end and print its result.", epilog=_EXAMPLES)
@click.argument("app")
@click.argument("orchestrator")
@click.option(
    "-i",
    "--input",
    "given",
    metavar="JSON|@FILE|-",
    envvar="DURABLY_EXEC_INPUT",
    show_envvar=True,
    help="The input; - is stdin.",
)
@click.option(
    "--id",
    "instance_id",
    metavar="ID",
    envvar="DURABLY_EXEC_ID",
    show_envvar=True,
    help="The instance; a new id by default.",
)
@app_hub_option
@click.option(
    "--on-existing",
    type=click.Choice(("attach", "replace_finished", "replace", "fail")),
    default="attach",
    show_default=True,
    show_envvar=True,
    help="What to do when the id is taken. attach: follow the instance, or print its result.",
)
@timeout_option("Stop following after this long; the instance stays in the hub.")
@output_option
@quiet_option
@shared
@click.pass_context
def exec_command(
    context: click.Context,
    *,
    app: str,
    orchestrator: str,
    given: str | None,
    instance_id: str | None,
    hub: str,
    on_existing: Any,
    timeout: float | None,
    output: str,
    quiet: bool,
) -> int:
    """Run ORCHESTRATOR of APP to its end, hosting the hub meanwhile, and print its result.

    APP is a file or a module, and the name of the App in it when that is not "app": orders.py, shop.orders,
    orders.py:billing.

    When the id exists already, its instance is followed from where it is; when it has ended, its result is printed
    without running it again. So after a crash or Ctrl-C, the same command goes on.

    The result goes to stdout; progress, and what your code prints, to stderr.
    """
    stdout = sys.stdout
    value = json_of(given, "--input")
    with redirect_stdout(sys.stderr):
        from durably.cli.apps import load_app
        from durably.cli.from_files import left_to_files, settings_of_apps, take
        from durably.cli.logs import set_up_logging

        settings = settings_of_apps((app,))
        take(settings)
        hub = left_to_files(context, settings).get("hub", hub)
        loaded = load_app(app)
        set_up_logging(context, "warning", settings)
        from durably.cli.follow import Job, execute
        from durably.cli.hosting import run_loop
        from durably.clock import SystemRandom
        from durably.core.ids import check_instance_id

        _check(loaded, app, orchestrator, value, has_input=given is not None)
        missing = _missing_input(loaded, orchestrator) if value is None else None
        if instance_id is None:
            if missing is not None:
                raise click.BadParameter(missing, param_hint="--input")
            instance_id = SystemRandom().token()[:12]
        job = Job(
            loaded,
            hub,
            orchestrator,
            value,
            check_instance_id(instance_id),
            on_existing,
            timeout,
            missing,
            settings,
        )
        report = _Report(context, job, app, stdout, as_json=output == "json", quiet=quiet)
        return report.code(run_loop(execute(job, report.view, report.tell, quiet=quiet)))


# --- arguments -------------------------------------------------------------------------------------------------------


def _check(app: App, text: str, orchestrator: str, value: Any, *, has_input: bool) -> None:
    """Find wrong names and inputs before anything is started."""
    import difflib

    from durably.errors import PayloadError

    function = app.registry.orchestrator(orchestrator)
    if function is None:
        known = app.registry.names("orchestrator")
        close = difflib.get_close_matches(orchestrator, known, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? Registered are" if close else "registered are"
        raise click.BadParameter(
            f"no orchestrator '{orchestrator}' in {text}: {hint}: {', '.join(known) or 'none'}",
            param_hint="ORCHESTRATOR",
        )
    if not has_input:
        return
    if function.input_name is None:
        raise click.BadParameter(f"'{orchestrator}' takes no input; leave it out", param_hint="--input")
    try:
        function.arguments(app.converter.encode(value), app.converter)
    except PayloadError as error:
        raise click.BadParameter(
            f"it does not fit the input of '{orchestrator}': {error}", param_hint="--input"
        ) from None


def _missing_input(app: App, orchestrator: str) -> str | None:
    """Why the orchestrator cannot be started without an input, or None. To go on with an instance needs none."""
    from durably.errors import PayloadError

    function = app.registry.orchestrator(orchestrator)
    if function is None or function.input_name is None or function.has_input_default:
        return None
    try:
        app.converter.decode(b"null", function.input_type)
    except PayloadError as error:
        return f"'{orchestrator}' needs an input: {error}"
    return None


# --- what is said ----------------------------------------------------------------------------------------------------


class _Report:
    """Everything that a person or a program gets to see of the instance."""

    def __init__(
        self, context: click.Context, job: Job, app: str, stdout: TextIO, *, as_json: bool, quiet: bool
    ) -> None:
        self._context = context
        self._color = settings_of(context).color
        self._job = job
        self._app = app
        self._stdout = stdout
        self._as_json = as_json
        self._quiet = quiet

    def view(self, existing: InstanceStatus | None) -> View:
        """The view for this terminal, or log."""
        from durably.cli.views import LogView, NoView

        if existing is not None and self._job.input is not None and existing.input != self._job.input:
            say(f"Instance '{self._job.instance_id}' is there already: it keeps the input that it has")
        if self._quiet:
            return NoView()
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from durably.cli.progress import LiveView

            return LiveView(console(color=self._color))
        return LogView(resumed=existing is not None)

    def tell(self, ending: Ending) -> None:
        """The result; or why there is none, and what to do next."""
        status, job = ending.status, self._job
        failure = _failure_of(ending)
        if self._as_json:
            print_json(
                answer_of(status, failure, ended=ending.how == "ended"),
                self._stdout,
                pretty=False,
                color=self._color,
            )
        elif ending.how == "ended" and failure is None:
            print_json(status.output, self._stdout, pretty=True, color=self._color)
        match ending.how:
            case "ended":
                if failure is not None and not (self._as_json and self._quiet):
                    complain(f"Instance '{job.instance_id}' ended as {status.runtime_status.value}")
                    say(failure_text(failure))
            case "blocked":
                complain(f"Instance '{job.instance_id}' cannot go on\n\n{ending.blocked}\n")
                self._say_how_to_go_on(
                    "It keeps all that it has done, and goes on when the code fits its history"
                )
            case "interrupted":
                self._say_how_to_go_on("Interrupted")
            case "timeout":
                complain(f"Instance '{job.instance_id}' has not ended within {job.timeout_s:g} s")
                self._say_how_to_go_on("It has not been stopped")

    def code(self, ending: Ending) -> int:
        """The exit code."""
        match ending.how:
            case "ended":
                return Exit.OK if _failure_of(ending) is None else Exit.INSTANCE_FAILED
            case "blocked":
                return Exit.FAILED
            case "interrupted":
                return Exit.INTERRUPTED
            case "timeout":
                return Exit.TIMEOUT

    def _say_how_to_go_on(self, why: str) -> None:
        from durably.storage.open import shown_url

        job = self._job
        if job.hub.startswith("memory:"):
            say(f"{why}; but the hub was in memory only, and is gone")
            return
        words = [self._app, job.orchestrator, "--id", job.instance_id]
        source = self._context.get_parameter_source("hub")
        if source is not None and source.name == "COMMANDLINE" and job.hub != DEFAULT_HUB:
            words += ["--hub", shown_url(job.hub)]
        program = self._context.find_root().info_name or "durably"
        say(f"{why}. To go on:\n  {program} exec {shlex.join(words)}")


def _failure_of(ending: Ending) -> FailureDetails | None:
    from durably.errors import FailureDetails

    if ending.blocked is not None:
        return FailureDetails("Blocked", ending.blocked)
    return failure_of(ending.status) if ending.how == "ended" else None
