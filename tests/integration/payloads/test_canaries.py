"""With encryption on, nothing that a payload holds is found in a file, a log or an export, after a kill -9 either."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durably import Client, EncryptionKeys
from durably.cli.output import Exit
from durably.core.commit import InboxRow
from durably.storage.open import open_store
from tests.integration.payloads.program import KINDS
from tests.support.payloads import payloads_aside

HUB = "sqlite:///hub/hub.db"
VARIABLE = "DURABLY_ENCRYPTION_KEYS"
KEY = "k1=" + base64.b64encode(bytes(range(32))).decode()
COMMANDS = (
    ("instances", "list", "-o", "json"),
    ("instances", "show", "keeper", "-o", "json"),
    ("instances", "show", "fails"),
    ("instances", "why", "changes"),
    ("instances", "history", "keeper", "-o", "jsonl", "--payloads"),
    ("instances", "result", "keeper"),
    ("parked", "list", "-o", "json"),
)


class Scene:
    """A folder with a hub, canaries, and programs that run in it."""

    def __init__(self, folder: Path, keys: str | None) -> None:
        self.folder = folder
        self.keys = keys
        self.canaries = {kind: f"canary-{kind}-{secrets.token_hex(12)}" for kind in KINDS}
        self.environment = {name: text for name, text in os.environ.items() if name != VARIABLE}
        self.environment["DURABLY_COMPRESS_ABOVE"] = "0"
        self.environment["DURABLY_PAYLOAD_INLINE_MAX"] = "1"
        (folder / "hub").mkdir()

    def run(self, *, expected: int = 0) -> str:
        """Run the program; returns what it logged."""
        command = [sys.executable, "-m", "tests.integration.payloads.program", HUB]
        root = Path(__file__).parents[3]
        path = os.pathsep.join([str(root), *sys.path])
        given = {VARIABLE: self.keys} if self.keys else {}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": path, **given},
            input=json.dumps(self.canaries),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == expected, done.stderr[-4_000:]
        return done.stdout + done.stderr

    def durably(self, *arguments: str, keys: str | None = None) -> subprocess.CompletedProcess[str]:
        """Call the command line."""
        environment = {
            **self.environment,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **({VARIABLE: keys} if keys else {}),
        }
        command = [sys.executable, "-m", "durably", *arguments, "--hub", HUB]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    def found(self, *texts: str) -> set[str]:
        """The kinds of canary in the files of the hub, and in texts."""
        where = [path.read_bytes() for path in (self.folder / "hub").iterdir() if path.is_file()]
        where += [text.encode() for text in texts]
        return {
            kind for kind, canary in self.canaries.items() if any(canary.encode() in one for one in where)
        }

    async def post(self) -> None:
        """What outside clients do while no host runs."""
        keys = EncryptionKeys.parse(self.keys) if self.keys else None
        async with Client(HUB, encryption_keys=keys) as client:
            await client.raise_event("keeper", "Go", self.canaries["event"])
            await client.raise_event("waiter", "Go", None)
        store = open_store(HUB, keys)
        await store.open()
        await store.post([InboxRow("damaged", "waiter", 0, self.canaries["unreadable"].encode())])
        await store.close()


async def play(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """All of it; returns the kinds of canary that were found anywhere."""
    monkeypatch.chdir(scene.folder)
    found = scene.found(scene.run(expected=-signal.SIGKILL))
    await scene.post()
    found |= scene.found()
    assert payloads_aside(scene.folder / "hub" / "hub.db") > 0
    return found | scene.found(scene.run())


@pytest.mark.slow_once
async def test_no_canary_is_found_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, KEY)
    assert await play(scene, monkeypatch) == set()
    for command in COMMANDS:
        done = scene.durably(*command)
        assert done.returncode == Exit.AUTH, command
        assert "'k1'" in done.stderr, "it names the key that is missing"
        assert scene.found(done.stdout, done.stderr) == set()
    examined = scene.durably("doctor", "--deep", "-o", "json")
    assert examined.returncode == 0, examined.stdout
    assert scene.found(examined.stdout, examined.stderr) == set()
    with_key = [scene.durably(*command, keys=KEY).stdout for command in COMMANDS]
    assert {"input", "result", "status", "output", "failure", "cause", "custom"} <= scene.found(*with_key)


@pytest.mark.slow_once
async def test_without_keys_each_canary_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: each secret does get to where it is looked for."""
    assert await play(Scene(tmp_path, None), monkeypatch) == set(KINDS)
