"""Keys with a role: made once, stored as digests, by the side of those that Azure Functions has."""

from pathlib import Path

import pytest

from durably.cli import keys as commands
from durably.errors import UsageError
from durably.security.access_keys import AZURE_KINDS, AccessKey
from durably.security.key_file import KeyFile
from durably.security.roles import LEVELS, ROLES


def test_the_command_line_knows_the_roles_and_kinds_that_there_are() -> None:
    assert tuple(ROLES) == commands._ROLES
    assert commands._KINDS == AZURE_KINDS


@pytest.mark.parametrize("role", ROLES)
def test_a_key_stands_for_its_role_and_nothing_else(tmp_path: Path, role: str) -> None:
    keys = KeyFile(tmp_path / "keys", lambda: 7)
    text = keys.create("ann", role)
    found = keys.ring.find(text)
    assert found is not None
    assert (found.kind, found.name, found.role, found.function, found.created_at) == (
        "role",
        "ann",
        role,
        None,
        7,
    )
    principal = found.principal()
    assert (principal.name, principal.permissions) == ("key ann", ROLES[role])
    assert (principal.level, principal.function, principal.instance_id) == (LEVELS.get(role, 0), None, None)
    assert text not in (tmp_path / "keys").read_text()
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600


def test_renewed_it_keeps_its_role_and_others_stay(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys", lambda: 7)
    before, ben = keys.create("ann", "viewer"), keys.create("ben", "admin")
    host = keys.renew("host", "ann")  # of a kind: another key, although it is called the same
    after = keys.renew("role", "ann")
    ring = keys.ring
    assert ring.find(before) is None
    renewed = ring.find(after)
    assert renewed is not None
    assert renewed.role == "viewer"
    keys.delete("role", "ann")
    found = [keys.ring.find(text) for text in (after, ben, host)]
    assert [key and key.kind for key in found] == [None, "role", "host"]


@pytest.mark.parametrize(
    ("name", "role", "says"),
    [
        ("", "viewer", "expected text"),
        ("  ", "viewer", "expected text"),
        ("a/b", "viewer", "without '/'"),
        ("a\nb", "viewer", "expected text"),
        ("a" * 101, "viewer", "100 characters"),
        ("master", "viewer", "is a kind of keys"),
        ("ben", "owner", "expected one of viewer, reader, operator, developer, admin"),
        ("ben", "", "expected one of viewer"),
        ("ann", "admin", r"is a key 'ann' \(role viewer\).*keys renew ann"),
    ],
)
def test_what_cannot_be_made_is_refused_and_changes_nothing(
    tmp_path: Path, name: str, role: str, says: str
) -> None:
    keys = KeyFile(tmp_path / "keys", lambda: 7)
    keys.create("ann", "viewer")
    before = (tmp_path / "keys").read_bytes()
    with pytest.raises(UsageError, match=says):
        keys.create(name, role)
    assert (tmp_path / "keys").read_bytes() == before


def test_what_is_not_there_is_neither_renewed_nor_deleted(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys", lambda: 7)
    for change in (keys.renew, keys.delete):
        with pytest.raises(
            UsageError, match=r"no key 'ann'.*durably keys list.*master, host, function, system"
        ):
            change("role", "ann")
    assert not keys.ring.asks


def test_a_role_that_this_version_does_not_know_opens_nothing() -> None:
    key = AccessKey(kind="role", name="ann", digest="", created_at=0, role="emperor")
    assert (key.principal().permissions, key.principal().level) == (frozenset(), 0)
