"""``durably hub export``, ``import`` and ``copy`` as people call them."""

from __future__ import annotations

import os
import stat
import sys

import pytest

from tests.integration.cli import scene
from tests.integration.cli.programs import Folder, Run

HUB = f"sqlite:///{scene.HUB}"


@pytest.fixture
def hub(folder: Folder) -> Folder:
    scene.build(folder.path, scene.one_of_each)
    return folder


def names(folder: Folder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir() if path.suffix not in {".lock", ".pyc"})


def listed(run: Run, hub: str) -> str:
    done = run("instances", "list", "--hub", hub, "-o", "csv")
    assert done.code == 0, done.err
    return done.out


def test_a_backup_is_a_new_file_that_becomes_a_hub_again(hub: Folder, run: Run) -> None:
    done = run("hub", "export", HUB, "backup.hub")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("Exported 9 instances, ")
    assert stat.S_IMODE((hub.path / "backup.hub").stat().st_mode) == 0o600
    assert "backup.hub.partial" not in names(hub)
    done = run("hub", "import", "backup.hub", "sqlite:///again.db")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("Imported 9 instances, ")
    assert listed(run, "sqlite:///again.db") == listed(run, HUB)
    assert "again.db.import" not in names(hub)


def test_a_hub_is_copied_and_the_first_one_stays(hub: Folder, run: Run) -> None:
    before = listed(run, HUB)
    done = run("hub", "copy", HUB, "sqlite:///copy.db")
    assert (done.code, done.err[:19]) == (0, "Copied 9 instances,")
    assert listed(run, "sqlite:///copy.db") == listed(run, HUB) == before


def test_stdin_and_stdout_are_files_too(hub: Folder) -> None:
    script = f"{sys.executable} -m durably hub export {HUB} - | {sys.executable} -m durably hub import - sqlite:///b.db"
    assert os.waitstatus_to_exitcode(os.system(f"cd {hub.path} && {script} 2>/dev/null")) == 0
    assert (hub.path / "b.db").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["export", "sqlite:///none.db", "x.hub"], 4, "does not exist"),
        (["export", "memory://", "x.hub"], 2, "A hub in memory ends with its process and cannot be moved"),
        (["export", "http://127.0.0.1:7071", "x.hub"], 2, "works in this process, on the hub itself"),
        (["export", HUB, "shop.py"], 2, "File 'shop.py' is there already"),
        (["export", HUB, "no/folder.hub"], 1, "No such file or directory: 'no/folder.hub.partial'"),
        (["import", "none.hub", "sqlite:///b.db"], 1, "No such file or directory: 'none.hub'"),
        (["import", "shop.py", "sqlite:///b.db"], 1, "File 'shop.py' is no export of a hub"),
        (["import", "shop.py", HUB], 5, "durably.db' is there already: a hub is imported into a new file"),
        (["import", "shop.py", "sqlite:///no/b.db"], 4, "there is no folder"),
        (["copy", HUB, HUB], 5, "durably.db' is there already"),
        (["copy", HUB, "postgresql://h/d?hub=No!"], 2, "Hub name 'No!' in a hub URL is not usable"),
        (["copy", HUB, "postgresql://127.0.0.1:1/d"], 1, "is not available now"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    hub: Folder, run: Run, arguments: list[str], code: int, words: str
) -> None:
    before = names(hub)
    done = run("hub", *arguments)
    assert (done.code, words in done.err) == (code, True), done.err
    assert names(hub) == before


def test_a_file_that_is_cut_off_makes_no_hub(hub: Folder, run: Run) -> None:
    run("hub", "export", HUB, "backup.hub")
    whole = (hub.path / "backup.hub").read_bytes()
    (hub.path / "short.hub").write_bytes(whole[:-3])
    done = run("hub", "import", "short.hub", "sqlite:///b.db")
    assert done.code == 1
    assert "File 'short.hub' is cut off behind 9 instances, " in done.err
    assert not [name for name in names(hub) if name.startswith("b.db")]
    assert run("hub", "import", "backup.hub", "sqlite:///b.db").code == 0


def test_a_hub_that_is_served_is_exported_and_copied_for_a_backup_only(folder: Folder, run: Run) -> None:
    with folder.started("run", "shop.py") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Ready"):
            assert process.poll() is None
        started = run("instances", "start", "wait", "--id", "w1")
        assert started.code == 0, started.err
        done = run("hub", "copy", HUB, "sqlite:///moved.db")
        assert done.code == 5
        assert "is served by a host: its instances would go on there, and again in the copy" in done.err
        assert "--live" in done.err
        assert not (folder.path / "moved.db").exists()
        assert run("hub", "copy", "--live", HUB, "sqlite:///moved.db").code == 0
        assert run("hub", "export", HUB, "backup.hub").code == 0
        assert "w1" in listed(run, "sqlite:///moved.db")
        done = run("hub", "import", "backup.hub", HUB)
        assert done.code == 5
    assert run("hub", "copy", HUB, "sqlite:///moved2.db").code == 0


def test_a_target_that_is_served_is_left_alone(hub: Folder, run: Run) -> None:
    run("hub", "export", HUB, "backup.hub")
    with hub.started("run", "shop.py", "--hub", "sqlite:///b.db") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Ready"):
            assert process.poll() is None
        done = run("hub", "import", "backup.hub", "sqlite:///b.db")
    assert done.code == 5
    assert "is served by" in done.err


def test_an_import_that_is_killed_leaves_no_hub_and_the_next_one_works(hub: Folder, run: Run) -> None:
    run("hub", "export", HUB, "backup.hub")
    whole = (hub.path / "backup.hub").read_bytes()
    with hub.started("hub", "import", "-", "sqlite:///b.db") as process:
        assert process.stdin is not None
        os.write(process.stdin.fileno(), whole[:-10])
        built = hub.path / "b.db.import"
        while not built.exists():
            assert process.poll() is None
        process.kill()
        process.wait()
        process.stdin.close()
    assert not (hub.path / "b.db").exists()
    assert run("instances", "list", "--hub", "sqlite:///b.db").code == 4
    assert run("hub", "import", "backup.hub", "sqlite:///b.db").code == 0
    assert not built.exists()
    assert listed(run, "sqlite:///b.db") == listed(run, HUB)


def test_the_group_says_what_it_is_for(run: Run) -> None:
    done = run("hub", "--help")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.split("Commands:")[1].splitlines() if line.strip()] == [
        "status", "load", "migrate", "export", "import", "copy",
    ]  # fmt: skip
