"""What shells offer while somebody types."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.integration.cli import scene
from tests.integration.cli.programs import Folder, Run


@pytest.fixture
def hub(folder: Folder) -> Folder:
    scene.build(folder.path, scene.one_of_each)
    return folder


@pytest.fixture
def offered(
    hub: Folder, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], list[str]]:
    monkeypatch.setenv("_DURABLY_COMPLETE", "bash_complete")

    def offered(line: str) -> list[str]:
        """What the program answers to the script of bash."""
        monkeypatch.setenv("COMP_LINE", line)
        with pytest.raises(SystemExit):
            run()
        out, err = capfd.readouterr()
        assert err == ""
        return [text.removeprefix("plain,") for text in out.split("\n") if text]

    return offered


def test_commands_ids_names_and_statuses(
    hub: Folder, offered: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
):
    assert offered("durably inst") == ["instances"]
    assert offered("durably instances su") == ["suspend"]
    assert offered("durably instances show pa") == ["paid-1", "parent-1", "parent-1:0:0000"]
    assert offered("durably instances show paid-1 pa") == ["parent-1", "parent-1:0:0000"]
    assert offered("durably instances show parent-1:") == ["parent-1:0:0000"]
    assert offered("durably instances rewind ") == ["failed-1"]
    assert offered("durably instances list --name p") == ["parent", "pay"]
    assert offered("durably instances list --status Failed,su") == ["Failed,Suspended"]
    assert offered("durably instances show --hub sqlite:///none.db ") == []
    assert not (hub.path / "none.db").exists()
    monkeypatch.setenv("DURABLY_HUB", "mysql://x")
    assert offered("durably instances show ") == []


def test_ids_of_entities(
    folder: Folder, offered: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
):
    (folder.path / "other").mkdir()
    scene.build(folder.path / "other", scene.with_entities)
    monkeypatch.setenv("DURABLY_HUB", f"sqlite:///{folder.path}/other/{scene.HUB}")
    assert offered("durably entities s") == ["show", "signal"]
    assert offered("durably entities show @acc") == [
        "@account@=cmd",
        "@account@ann",
        "@account@bob",
        "@account@later",
    ]
    assert offered("durably entities call @account@b") == ["@account@bob"]
    assert offered("durably entities call @nobody@") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_call_the_program(run: Run, shell: str):
    done = run("completion", shell)
    assert done.code == 0
    assert f"_DURABLY_COMPLETE={shell}_complete" in done.out
    assert run("completion", "tcsh").code == 2


@pytest.mark.slow_once
def test_bash_completes_ids_with_colons(hub: Folder):
    (hub.path / "durably").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m durably "$@"\n')
    (hub.path / "durably").chmod(0o755)
    script = """
        eval "$(./durably completion bash)"
        complete_line() {
            COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMP_WORDBREAKS="$2"
            _durably_completion ./durably; echo "${COMPREPLY[*]}"
        }
        complete_line 'durably instances show parent-1:0' $' \\t\\n:='
        complete_line 'durably instances show parent-1:0' $' \\t\\n'
        complete_line 'durably instances show paid' $' \\t\\n:='
    """
    done = subprocess.run(
        ["bash", "-c", script], cwd=hub.path, env=hub.environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["0:0000", "parent-1:0:0000", "paid-1"]
