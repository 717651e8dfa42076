"""The file of keys: on the disk when it is said to be, of its owner, and named when it cannot be used."""

import os
from pathlib import Path

import pytest

from durably.errors import OperationError
from durably.security.key_file import KeyFile


def _now() -> int:
    return 7


def test_a_change_is_on_the_disk_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        synced.append((name, (tmp_path / "keys").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    KeyFile(tmp_path / "keys", _now).create("ann", "viewer")
    (draft, before), folder = synced
    assert (draft.startswith(".keys."), before, folder) == (True, False, (tmp_path.name, True))


def test_it_stays_with_its_owner_whoever_changes_it(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys", _now)
    keys.create("ann", "viewer")
    (tmp_path / "keys.lock").unlink()
    if os.geteuid() == 0:
        os.chown(tmp_path / "keys", 65534, 65534)
    owner = (tmp_path / "keys").stat().st_uid
    keys.renew("role", "ann")
    assert {path.name: path.stat().st_uid for path in tmp_path.iterdir()} == {
        "keys": owner,
        "keys.lock": owner,
    }


def test_what_cannot_be_used_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.lock").mkdir()
    for path, how in (("file/keys", "read"), ("nowhere/keys", "written"), ("taken", "written")):
        with pytest.raises(OperationError, match=rf"{path}.* cannot be {how} \(.*DURABLY_HTTP_KEY_FILE"):
            KeyFile(tmp_path / path, _now).prepare()
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(OperationError, match=r"cannot be read \(Is a directory\)"):
        KeyFile(tmp_path / "folder", _now).create("ann", "viewer")
