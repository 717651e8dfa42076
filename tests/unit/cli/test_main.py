"""The program as a whole: its options, its errors, its exit codes."""

import json
import subprocess
import sys

import click
import pytest

from durably import errors
from durably.cli.main import call, commands
from durably.cli.output import Exit, exit_code, failure_text
from durably.cli.shelf import Shelf


def called(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = call(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_help_names_the_commands_and_the_exit_codes(capfd: pytest.CaptureFixture[str]):
    for flag in ("-h", "--help"):
        code, out, _ = called(capfd, flag)
        assert code == 0
        assert all(
            word in out for word in ("exec", "run", "instances", "doctor", "version", "130 interrupted")
        )
    assert called(capfd, "exec", "-h")[0] == 0


def test_help_loads_none_of_the_heavy_rooms():
    heavy = (
        "asyncio",
        "rich",
        "uvloop",
        "durably.app",
        "durably.client",
        "durably.engine",
        "durably.storage",
        "durably.http_api",
        "httpx",
        "starlette",
        "uvicorn",
    )
    probe = (
        "import sys\nfrom durably.cli.main import call\n"
        "assert call(['--help']) == call(['exec', '--help']) == call(['run', '--help']) == 0\n"
        "assert call(['instances', '-h']) == call(['config', 'show', '-h']) == call(['doctor', '-h']) == 0\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_help_loads_no_command_and_a_command_no_other():
    def loaded(*arguments: str) -> set[str]:
        probe = (
            f"import sys\nfrom durably.cli.main import call\nassert call({list(arguments)}) == 0\n"
            "print(*[name for name in sys.modules if name.startswith('durably')], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        return set(done.stderr.split())

    bare = {
        "durably",
        "durably.cli",
        *(f"durably.cli.{name}" for name in ("main", "output", "settings", "shelf")),
    }
    assert loaded("--help") == bare
    processes = {"durably.cli.processes", "durably.cli.processes.count"}
    assert loaded("run", "--help") == {*bare, *processes, "durably.cli.run", "durably.errors"}


def test_the_shelf_says_of_commands_what_they_say_of_themselves():
    assert isinstance(commands.commands, Shelf)
    for name, place in commands.commands.places.items():
        command = commands.commands[name]
        assert (command.name, command.short_help) == (name, place.about)


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("click", "httpx", "rich", "starlette", "uvicorn", "uvloop", "apsw", "durably.http_api")
    probe = f"import sys, durably\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_version(capfd: pytest.CaptureFixture[str]):
    from importlib.metadata import version

    code, out, _ = called(capfd, "--version")
    assert (code, out) == (0, f"durably {version('durably')}\n")
    assert called(capfd, "version")[1].startswith(f"durably {version('durably')}  (Python 3.")
    assert json.loads(called(capfd, "version", "-o", "json")[1])["durably"] == version("durably")


def test_an_unknown_command_with_what_may_be_meant(capfd: pytest.CaptureFixture[str]):
    code, _, err = called(capfd, "exce")
    assert (code, err.splitlines()[-1]) == (2, "Error: No such command 'exce': did you mean 'exec'?")
    known = "audit, completion, config, doctor, entities, exec, func-durable, hosts, hub, instances, invoke, keys, new, parked, run, scaler, schedules, version"
    assert f"expected one of {known}" in called(capfd, "xyz")[2]


def test_an_unknown_option(capfd: pytest.CaptureFixture[str]):
    code, _, err = called(capfd, "exec", "--imput", "1", "a.py", "x")
    assert code == 2
    assert "--input" in err


def every(group: click.Group) -> list[click.Command]:
    """The group, its commands, and those of its groups."""
    found: list[click.Command] = [group]
    for command in group.commands.values():
        found += every(command) if isinstance(command, click.Group) else [command]
    return found


@pytest.mark.parametrize("found", every(commands), ids=lambda command: command.name or "durably")
def test_every_option_has_an_environment_variable(found: click.Command):
    options = [
        one for one in found.params if isinstance(one, click.Option) and one.name not in ("help", "version")
    ]
    assert options
    for option in options:
        with click.Context(found, info_name=found.name, auto_envvar_prefix="DURABLY_X") as context:
            hint = option.get_help_record(context)
        assert hint is not None
        assert "env var: DURABLY_" in hint[1]


def test_options_may_come_from_the_environment(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DURABLY_OUTPUT", "json")
    assert called(capfd, "version")[1].startswith("{")
    monkeypatch.setenv("DURABLY_EXEC_TIMEOUT", "soon")
    code, _, err = called(capfd, "exec", "a.py", "x")
    assert code == 2
    assert "'soon' is not a valid" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UnknownFunctionError("x"), Exit.USAGE),
        (errors.InvalidIdError("x"), Exit.USAGE),
        (errors.InstanceNotFoundError("x"), Exit.NOT_FOUND),
        (errors.HubNotFoundError("x"), Exit.NOT_FOUND),
        (errors.InstanceAlreadyExistsError("x", "Running"), Exit.CONFLICT),
        (errors.InstanceStateError("x", "Running", "purge", "an end"), Exit.CONFLICT),
        (errors.HubLockedError("x"), Exit.CONFLICT),
        (errors.StoreFailedError("x"), Exit.FAILED),
        (errors.AccessDeniedError("x"), Exit.AUTH),
        (errors.InvariantError("I1", "x", "y"), Exit.FAILED),
        (errors.NonDeterminismError("x", "y"), Exit.FAILED),
        (
            errors.OrchestrationFailedError("x", "Failed", errors.FailureDetails("E", "m")),
            Exit.INSTANCE_FAILED,
        ),
        (TimeoutError(), Exit.TIMEOUT),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
        (ZeroDivisionError(), Exit.FAILED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: BaseException, code: Exit):
    assert exit_code(error) is code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.HubLockedError("Hub x is served by pid 7"), 5, "Error: Hub x is served by pid 7\n"),
        (KeyError("x"), 1, "Error: KeyError: 'x'. This is a bug in durably; --debug shows where\n"),
        (KeyboardInterrupt(), 130, "\n"),  # behind the ^C that the terminal shows
        (click.Abort(), 130, ""),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_an_error_is_one_line(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    line: str,
):
    def raises(**_: object) -> None:
        raise error

    monkeypatch.setattr(commands.commands["version"], "callback", raises)
    assert called(capfd, "version") == (code, "", line)


def test_debug_shows_the_traceback_wherever_it_stands(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def raises(**_: object) -> None:
        raise errors.StoreFailedError("the disk is gone")

    monkeypatch.setattr(commands.commands["version"], "callback", raises)
    for arguments in (("--debug", "version"), ("version", "--debug")):
        code, _, err = called(capfd, *arguments)
        assert code == 1
        assert "Traceback (most recent call last)" in err
        assert err.endswith("Error: the disk is gone\n")
    monkeypatch.setenv("DURABLY_DEBUG", "1")
    assert "Traceback" in called(capfd, "version")[2]


def test_a_failure_is_told_with_the_frames_and_causes():
    trace = 'Traceback (most recent call last):\n  File "a.py", line 3, in f\n    x()\n    ~^^\nE: one\ntwo\n'
    cause = errors.FailureDetails("KeyError", "")
    failure = errors.FailureDetails(
        "E", "one\ntwo", trace, errors.FailureDetails("Mid", "m", "…cut\nE: x", cause)
    )
    assert click.unstyle(failure_text(failure)) == (
        'E: one\ntwo\n  File "a.py", line 3, in f\n    x()\n    ~^^\n'
        "caused by Mid: m\n  …cut\n  E: x\n"
        "caused by KeyError"
    )
