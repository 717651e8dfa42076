"""A RabbitMQ of our own: its ports, node, cookie and files are those of the test, and it dies with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE_S = 60.0


class RabbitServer:
    """A server in a folder. It can be killed and started again, with what it has on disk.

    Attributes:
        url: Where it listens.
        tls_url: Where it listens with TLS, to who knows its certificate.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._tls_port, self._dist_port, self._epmd_port = free_ports(4)
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/"
        self.tls_url = f"amqps://guest:guest@127.0.0.1:{self._tls_port}/?cafile={folder}/cert.pem"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = folder / "output.log"
        (folder / "plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.ssl.1 = 127.0.0.1:{self._tls_port}\n"
            f"ssl_options.cacertfile = {folder}/cert.pem\n"
            f"ssl_options.certfile = {folder}/cert.pem\n"
            f"ssl_options.keyfile = {folder}/key.pem\n"
            "ssl_options.verify = verify_none\n"
        )
        make_certificate(folder / "cert.pem", folder / "key.pem")

    def start(self) -> None:
        """Return when it takes connections."""
        program, epmd = _programs()
        # Erlang's name server outlives what starts it, unless it is there already.
        self._spawn([epmd, "-address", "127.0.0.1", "-port", str(self._epmd_port)])
        server = self._spawn([program])
        until = time.monotonic() + PATIENCE_S
        while not _greets(self._port):
            if server.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(f"RabbitMQ does not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """``kill -9``, of the whole of it."""
        processes, self._processes = self._processes, []
        for process in reversed(processes):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        while processes and _is_open(self._port):
            time.sleep(0.01)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        folder = str(self._folder)
        environment = {
            "PATH": os.environ["PATH"] + ":/usr/sbin",
            "HOME": folder,  # of the cookie
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"durably{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
        }
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        return process


def _programs() -> tuple[str, str]:
    """The server itself, not what Debian puts before it, which wants to be root; and Erlang's name server."""
    path = os.environ["PATH"] + ":/usr/sbin"
    script = shutil.which("rabbitmq-server", path=path)
    if script is None:
        raise AssertionError(
            "rabbitmq-server is missing: install RabbitMQ (Debian: apt-get install rabbitmq-server)"
        )
    own = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    epmd = shutil.which("epmd", path=path)
    if epmd is None:
        raise AssertionError("epmd is missing: install Erlang (Debian: apt-get install erlang-base)")
    return str(own[-1]) if own else script, epmd


def make_certificate(certificate: Path, key: Path) -> None:
    """A certificate of 127.0.0.1 that vouches for itself."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, secret.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _greets(port: int) -> bool:
    """A server that listens may not speak yet."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return len(connection.recv(7)) > 0
    except OSError:
        return False


def _is_open(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
