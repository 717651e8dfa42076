"""A carrier: a real HTTP server on a free port, which is busy when it is asked for a parcel for the first time."""

import json
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

PARCELS = {"P-1": "delivered", "P-2": "lost", "P-3": "on its way", "P-4": "lost"}


class Carrier(ThreadingHTTPServer):
    """Serves ``/parcels/P-1``. `asked` counts the requests by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Clerk)
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens; the system chose the port."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str) -> tuple[HTTPStatus, dict[str, str]]:
        """Status and body for a path."""
        with self._lock:
            self.asked[path] += 1
            first = self.asked[path] == 1
        state = PARCELS.get(path.removeprefix("/parcels/"))
        if state is None:
            return HTTPStatus.NOT_FOUND, {"error": "no such parcel"}
        if first:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "busy, come back later"}
        return HTTPStatus.OK, {"state": state}


class Clerk(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        """Write status, headers and JSON."""
        status, body = cast("Carrier", self.server).answer(self.path)
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: `asked` counts."""


@contextmanager
def open_carrier() -> Generator[Carrier]:
    """The server, in a thread of its own, for as long as the block runs."""
    with Carrier() as carrier:
        thread = threading.Thread(target=carrier.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield carrier
        finally:
            carrier.shutdown()
            thread.join()
