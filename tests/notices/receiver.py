"""Somebody who is told: a real server on this machine."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

SECRET_BYTES = b"0123456789abcdef0123456789abcdef"
SECRET = f"whsec_{base64.b64encode(SECRET_BYTES).decode()}"


class Told(NamedTuple):
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def is_signed(self) -> bool:
        said = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.raw
        expected = base64.b64encode(hmac.digest(SECRET_BYTES, said, hashlib.sha256)).decode()
        return self.headers.get("webhook-signature") == f"v1,{expected}"


class Receiver:
    """Keeps what it is told; `answer` says with which status."""

    def __init__(self, port: int) -> None:
        self.told: list[Told] = []
        self.answer: Callable[[Told], int] = lambda _: 204
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def at(self, path: str) -> list[Told]:
        return [one for one in list(self.told) if one.path == path]


@contextmanager
def receiving() -> Generator[Receiver]:
    receiver = Receiver(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            if len(raw) < int(self.headers["content-length"]):
                return  # who was telling died
            told = Told(self.path, {name.lower(): value for name, value in self.headers.items()}, raw)
            receiver.told.append(told)
            with contextlib.suppress(OSError):  # who was telling died
                self.send_response(receiver.answer(told))
                self.send_header("content-length", "0")
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
