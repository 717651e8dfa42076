"""An exchange office with bad days: a real HTTP server on a free port. It logs each request, and so is the witness."""

import json
import threading
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

RATES = {"CHF": 0.9412, "EUR": 1.0, "GBP": 0.8731, "NOK": 11.6285}

BAD_ANSWERS = {"CHF": 0, "EUR": 2, "NOK": 1, "GBP": 1_000_000}
"""How many of the first requests for a live rate fail."""


class Office(ThreadingHTTPServer):
    """Serves ``/live/EUR``, which fails as it likes, and ``/yesterday/EUR``, which does not."""

    def __init__(self, log: Path) -> None:
        super().__init__(("127.0.0.1", 0), Clerk)
        self._log = log
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens; the system chose the port."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str) -> tuple[HTTPStatus, Mapping[str, object]]:
        """Status and body for a path, and a line in the log."""
        _, kind, currency = [*path.split("/"), "", ""][:3]
        with self._lock:
            self._asked[path] += 1
            if currency not in RATES or kind not in ("live", "yesterday"):
                status, body = HTTPStatus.NOT_FOUND, {"error": f"no such currency: {currency}"}
            elif kind == "live" and self._asked[path] <= BAD_ANSWERS[currency]:
                status, body = HTTPStatus.SERVICE_UNAVAILABLE, {"error": "out of coins, come back later"}
            else:
                status, body = HTTPStatus.OK, {"rate": RATES[currency]}
            with self._log.open("a") as log:
                log.write(f"{datetime.now(UTC):%H:%M:%S.%f} GET {path} {status.value}\n")
        return status, body


class Clerk(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        """Write status, headers and JSON."""
        status, body = cast("Office", self.server).answer(self.path)
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the office writes its own log."""


@contextmanager
def open_office(log: Path) -> Generator[Office]:
    """The server, in a thread of its own, for as long as the block runs."""
    with Office(log) as office:
        thread = threading.Thread(target=office.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield office
        finally:
            office.shutdown()
            thread.join()
