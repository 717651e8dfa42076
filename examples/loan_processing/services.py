"""The services behind a loan: three that know things and a bank, on one real HTTP server. It logs each request."""

import json
import threading
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

from examples.effects import create, transaction

KNOWN = {
    "ann": {"credit": 780, "fraud": 0.01, "income": 4_100},
    "bob": {"credit": 640, "fraud": 0.02, "income": 2_900},
    "cleo": {"credit": 800, "fraud": 0.93, "income": 9_000},
    "dan": {"credit": 655, "fraud": 0.05, "income": 2_500},
    "eva": {"credit": 760, "fraud": 0.02, "income": 3_800},
}

BAD_ANSWERS = {"credit/ann": 2, "fraud/bob": 1, "income/eva": 1_000_000}
"""How many of the first requests fail."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS payouts (
    number INTEGER PRIMARY KEY, idempotency_key TEXT NOT NULL UNIQUE, applicant TEXT NOT NULL, euros INTEGER NOT NULL);
"""

Answer = tuple[HTTPStatus, Mapping[str, object]]


class Services(ThreadingHTTPServer):
    """Serves ``GET /credit/ann``, ``/fraud/…``, ``/income/…``, and ``POST /payouts``.

    Args:
        folder: For `access.log` and `bank.db`.
        bank_s: How long the bank takes to answer, once it has paid.
    """

    request_queue_size = 64  # connections that may wait at once; the rest would be late by a second

    def __init__(self, folder: Path, bank_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Clerk)
        self._log = folder / "access.log"
        self._bank = folder / "bank.db"
        self._bank_s = bank_s
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        create(self._bank, SCHEMA)

    @property
    def url(self) -> str:
        """Where it listens; the system chose the port."""
        return f"http://127.0.0.1:{self.server_port}"

    def look_up(self, path: str) -> Answer:
        """What is known."""
        kind, _, applicant = path.partition("/")
        with self._lock:
            self._asked[path] += 1
            is_busy = self._asked[path] <= BAD_ANSWERS.get(path, 0)
        if is_busy:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "busy"}
        value = KNOWN.get(applicant, {}).get(kind)
        return (HTTPStatus.NOT_FOUND, {}) if value is None else (HTTPStatus.OK, {"value": value})

    def pay(self, key: str, applicant: str, euros: int) -> Answer:
        """Pay, once for each key."""
        with transaction(self._bank) as db:
            new = db.execute(
                "INSERT INTO payouts (idempotency_key, applicant, euros) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (key, applicant, euros),
            )
            (number,) = db.execute("SELECT number FROM payouts WHERE idempotency_key = ?", (key,)).fetchone()
        if new.rowcount == 1:
            time.sleep(self._bank_s)
        return HTTPStatus.OK, {"number": number}

    def note(self, line: str) -> None:
        """Write a line into the log."""
        with self._lock, self._log.open("a") as log:
            log.write(f"{line}\n")


class Clerk(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        """A question."""
        self._say(cast("Services", self.server).look_up(self.path.removeprefix("/")))

    def do_POST(self) -> None:
        """An order to the bank."""
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        self._say(cast("Services", self.server).pay(key, order["applicant"], order["euros"]))

    def _say(self, answer: Answer) -> None:
        status, body = answer
        cast("Services", self.server).note(f"{self.command} {self.path} {status.value}")
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the services write their own log."""


@contextmanager
def open_services(folder: Path, bank_s: float = 0.0) -> Generator[Services]:
    """The server, in a thread of its own, for as long as the block runs."""
    with Services(folder, bank_s) as services:
        thread = threading.Thread(target=services.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield services
        finally:
            services.shutdown()
            thread.join()
