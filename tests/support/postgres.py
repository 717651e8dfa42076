"""A private PostgreSQL server: on a free port, in a temporary folder, which tests may kill; and its standby."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from tests.support.certificates import Pair

_FOLDERS = ("/usr/lib/postgresql/{}/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql@{}/bin")
_INITDB = ("-U", "durably", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")


def program(name: str) -> str:
    """Where a program of PostgreSQL is; the newest one.

    Raises:
        AssertionError: It is not installed.
    """
    for version in range(19, 12, -1):
        for folder in _FOLDERS:
            path = Path(folder.format(version)) / name
            if path.exists():
                return str(path)
    found = shutil.which(name)
    assert found, f"PostgreSQL is missing: there is no '{name}'; install it (apt-get install postgresql)"
    return found


def free_port() -> int:
    with socket.socket() as wire:
        wire.bind(("127.0.0.1", 0))
        return wire.getsockname()[1]


def as_nobody() -> dict[str, Any]:
    """How a program is run that refuses to run as root."""
    if os.getuid():
        return {}
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def own_folder(folder: Path) -> Path:
    """A folder that belongs to who `as_nobody` is: this one, or another one, which is gone with this process.

    Each run of pytest bars all others but root from the folders of all runs.
    """
    if not as_nobody():
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    made = Path(tempfile.mkdtemp(prefix="durably-tests-")) / folder.name
    atexit.register(shutil.rmtree, made.parent, ignore_errors=True)
    made.parent.chmod(0o711)
    made.mkdir()
    shutil.chown(made, "nobody")
    return made


class PostgresServer:
    """A server of our own. It refuses to run as root, so then it runs as nobody.

    Args:
        folder: All of it is in there, or where `own_folder` says.
        durable: False: it syncs nothing, for tests that do not kill machines.
        settings: Of the server, beside what all have.
        pair: Its certificate and key; it serves TLS then.
        copy_of: A server that runs: this one is its standby, until it is promoted.
        through: The port by which it follows the other one, when that is not the port of the server itself.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = True,
        settings: Mapping[str, object] | None = None,
        pair: Pair | None = None,
        copy_of: PostgresServer | None = None,
        through: int = 0,
    ) -> None:
        self.folder = folder = own_folder(folder)
        self.port = free_port()
        self._durable = durable
        self._settings: dict[str, object] = {
            "listen_addresses": "127.0.0.1",
            "max_connections": 200,
            "shared_buffers": "128MB",
            "max_wal_size": "2GB",
            "fsync": "on" if durable else "off",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._chosen = False
        if copy_of is None:
            self._run("initdb", *self._data, *_INITDB)
        else:
            source = (
                f"host=127.0.0.1 port={through or copy_of.port} user=durably application_name={folder.name}"
            )
            self._run("pg_basebackup", *self._data, "-d", source, "-R", "-X", "stream", "-c", "fast", "-N")
        if pair is not None:
            self._serve_tls(pair)

    @property
    def _data(self) -> tuple[str, str]:
        return "-D", str(self.folder / "data")

    def _serve_tls(self, pair: Pair) -> None:
        self._settings["ssl"] = "on"
        for name, file in (("ssl_cert_file", pair.certificate), ("ssl_key_file", pair.key)):
            own = Path(shutil.copy(file, self.folder))
            own.chmod(0o600)
            if as_nobody():
                shutil.chown(own, "nobody")
            self._settings[name] = str(own)

    def standby(self, folder: Path) -> PostgresServer:
        """A copy that follows this one, and takes no writes until it is promoted; not started."""
        return PostgresServer(folder, durable=self._durable, copy_of=self)

    def promote(self) -> None:
        """Make the primary of a standby; returns when it takes writes."""
        self._run("pg_ctl", "promote", *self._data, "-w")

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [program(name), *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            **as_nobody(),
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start, and return when it answers. At the first time another port is tried when somebody was quicker."""
        for _ in range(5):
            self._launch()
            if self._answers():
                self._chosen = True
                return
            log = (self.folder / "log").read_text()
            assert "Address already in use" in log, log
            assert not self._chosen, log
            self.port = free_port()
        raise AssertionError("there is no free port for PostgreSQL")

    def _launch(self) -> None:
        arguments = [*self._data, "-p", str(self.port), "-k", ""]
        for name, value in self._settings.items():
            arguments += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), *arguments], stdout=log, stderr=log, cwd=self.folder, **as_nobody()
            )

    def _answers(self) -> bool:
        """True when it serves, False when it has ended."""
        asked = [program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q", "-t", "5"]
        while self._process is not None and self._process.poll() is None:
            if subprocess.run(asked, check=False).returncode == 0:
                return True
            time.sleep(0.02)
        return False

    @property
    def dsn(self) -> str:
        """The URL of its database."""
        return self.database()

    def database(self, name: str = "postgres", user: str = "durably") -> str:
        """The URL of one of its databases."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    def url(self, hub: str) -> str:
        """The URL of a hub on it."""
        return f"{self.dsn}?hub={hub}"

    async def execute(self, *texts: str, database: str = "postgres") -> Any:
        """Run statements as the superuser; returns the first value of the last one."""
        connection = await cast("Any", asyncpg).connect(self.database(database))
        try:
            for text in texts[:-1]:
                await connection.execute(text)
            return await connection.fetchval(texts[-1])
        finally:
            await connection.close()

    def kill(self) -> None:
        """As a power cut would end it, as far as processes go: the server and all that serve its connections."""
        if self._process is not None:
            self._signal_all(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let nothing of it run until `go_on`; its connections stay."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, which: signal.Signals) -> None:
        assert self._process is not None, "it does not run"
        asked = ["ps", "-A", "-o", "pid=,ppid="]
        listed = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
        pairs = [tuple(map(int, line.split())) for line in listed]
        for pid in (self._process.pid, *(pid for pid, parent in pairs if parent == self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, which)

    def stop(self) -> None:
        """End it at once, in order."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None
