"""Which files count as changed."""

import os
from pathlib import Path

from durably.cli.dev.watch import Watch


def test_what_is_written_made_and_removed_is_told_once(tmp_path: Path):
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "gone.py").write_text("1")
    watch = Watch([str(tmp_path)])
    assert watch.changed() == []
    (tmp_path / "a.py").write_text("22")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "b.py").write_text("1")
    assert watch.changed() == [str(tmp_path / name) for name in ("a.py", "gone.py", "new/b.py")]
    assert watch.changed() == []


def test_a_file_that_is_put_in_the_place_of_another_has_changed(tmp_path: Path):
    """As editors save: also with the same size and time."""
    (tmp_path / "a.py").write_text("1")
    os.utime(tmp_path / "a.py", ns=(10**18, 10**18))
    watch = Watch([str(tmp_path)])
    (tmp_path / "other").write_text("2")
    os.utime(tmp_path / "other", ns=(10**18, 10**18))
    (tmp_path / "other").replace(tmp_path / "a.py")
    assert watch.changed() == [str(tmp_path / "a.py")]


def test_what_is_not_code_of_the_project_does_not_count(tmp_path: Path):
    watch = Watch([str(tmp_path)])
    for name in (".git", "__pycache__", "node_modules", "env"):
        (tmp_path / name).mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    for name in (".git/a.py", "__pycache__/a.py", "node_modules/a.py", "env/a.py", "hub.db-wal", "text.md"):
        (tmp_path / name).write_text("1")
    assert watch.changed() == []


def test_folders_may_be_added_and_what_they_hold_is_seen(tmp_path: Path):
    (tmp_path / "app").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("1")
    watch = Watch([str(tmp_path / "app")])
    watch.add([str(tmp_path / "lib"), str(tmp_path / "app")])
    assert watch.changed() == []
    (tmp_path / "lib" / "a.py").write_text("22")
    assert watch.changed() == [str(tmp_path / "lib" / "a.py")]
