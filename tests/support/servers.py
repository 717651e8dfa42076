"""Servers of our own, each with a port and a folder of its own: killed and started again at will, gone after the test."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.rabbitmq import make_certificate

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[2]

AZURITE = "3.35.0"
"""Pinned like everything that judges. `make clean` removes it."""


class Server:
    """A program that listens on a port.

    Args:
        folder: Where it keeps its data, and its output.
        command: It and its arguments.
        port: Where it listens.
        url: The connection to it.
        ready: Tells whether the one that listens there serves already.
    """

    def __init__(
        self,
        folder: Path,
        command: list[str],
        port: int,
        url: str,
        ready: Callable[[int], bool] | None = None,
    ) -> None:
        self.port = port
        self.url = url
        self._ready = ready or is_open
        self._folder = folder
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it takes connections."""
        log = self._folder / "output.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        until = time.monotonic() + PATIENCE_S
        while not self._ready(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(f"{self._command[0]} does not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.02)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, ``kill -9`` unless told otherwise."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(PATIENCE_S)


def redis_server(folder: Path) -> Server:
    """A Redis that writes down each command before it answers; it takes the password of the URL only.

    Without `appendfsync always` it answers first while the disk is slow, and forgets up to two seconds when it is killed.
    """
    port = free_port()
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "requirepass": "secret",
    }
    flat = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [program("redis-server", "redis-server"), *flat]
    return Server(folder, command, port, f"redis://:secret@127.0.0.1:{port}/0", _has_loaded)


def redis_server_with_tls(folder: Path) -> Server:
    """A Redis that speaks TLS only; its certificate vouches for itself."""
    port, certificate, key = free_port(), folder / "cert.pem", folder / "key.pem"
    make_certificate(certificate, key)
    options = f"--port 0 --tls-port {port} --bind 127.0.0.1 --tls-auth-clients no --save".split()
    files = ["", "--dir", str(folder), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    command = [
        program("redis-server", "redis-server"),
        *options,
        *files,
        "--tls-ca-cert-file",
        str(certificate),
    ]
    return Server(folder, command, port, f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")


def nats_server_with_tls(folder: Path) -> Server:
    """A NATS that speaks TLS only; its certificate vouches for itself."""
    port, certificate, key = free_port(), folder / "cert.pem", folder / "key.pem"
    make_certificate(certificate, key)
    options = f"-js -a 127.0.0.1 -p {port} --tls".split()
    files = ["-sd", str(folder), f"--tlscert={certificate}", f"--tlskey={key}"]
    command = [program("nats-server", "nats-server"), *options, *files]
    return Server(folder, command, port, f"tls://127.0.0.1:{port}?cafile={certificate}")


def nats_server(folder: Path) -> Server:
    """A NATS with JetStream; it takes the user of the URL only."""
    port = free_port()
    arguments = [
        "-js",
        "-sd",
        str(folder),
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        "--user",
        "u",
        "--pass",
        "secret",
    ]
    command = [program("nats-server", "nats-server"), *arguments]
    return Server(folder, command, port, f"nats://u:secret@127.0.0.1:{port}")


def azurite_queues(folder: Path) -> Server:
    """The queues of Azurite. It writes down every few seconds what it has, and when it is told to end."""
    port = free_port()
    arguments = ["--queueHost", "127.0.0.1", "--queuePort", str(port), "--location", str(folder)]
    quiet = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    command = [program("node", "nodejs"), str(azurite("azurite-queue")), *arguments, *quiet]
    return Server(folder, command, port, azure_connection(port))


def azure_connection(port: int) -> str:
    """The connection string of Azurite: account and key are the same everywhere, and no secret."""
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    account = "devstoreaccount1"
    return (
        f"AccountName={account};AccountKey={key};DefaultEndpointsProtocol=http;"
        f"QueueEndpoint=http://127.0.0.1:{port}/{account}"
    )


def azurite(name: str) -> Path:
    """A program of Azurite, installed from npm where `make` keeps what it made; once, whoever else asks meanwhile."""
    folder = ROOT / ".venvs" / f"azurite-{AZURITE}"
    found = folder / "node_modules" / ".bin" / name
    npm = program("npm", "npm")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            command = [
                npm,
                "install",
                "--prefix",
                str(folder),
                "--no-audit",
                "--no-fund",
                f"azurite@{AZURITE}",
            ]
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert run.returncode == 0, f"npm cannot install azurite@{AZURITE}:\n{run.stdout}{run.stderr}"
            done.touch()
    return found


def program(name: str, package: str) -> str:
    """Where a program is."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert found is not None, f"{name} is missing: install it (Debian: apt-get install {package})"
    return found


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def _has_loaded(port: int) -> bool:
    """Redis listens while it still reads its file, and says so."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"AUTH secret\r\nPING\r\n")
            said = b""
            while said.count(b"\r\n") < 2 and (more := connection.recv(1024)):
                said += more
    except OSError:
        return False
    return said.endswith(b"+PONG\r\n")


def is_open(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
