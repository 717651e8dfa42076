"""A real issuer of tokens on this machine: discovery, keys, and a log of what it was asked for."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

AUDIENCE = "api://orders"

Key = RSAKey | ECKey


def rsa(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, parameters={"kid": kid, "use": "sig"}, private=True)


def weak(kid: str) -> dict[str, Any]:
    """The public half of a key that is too short."""
    numbers = generate_private_key(65_537, 1024).public_key().public_numbers()
    n, e = (
        base64.urlsafe_b64encode(number.to_bytes(length, "big")).rstrip(b"=").decode()
        for number, length in ((numbers.n, 128), (numbers.e, 3))
    )
    return {"kty": "RSA", "kid": kid, "n": n, "e": e}


def ec(kid: str, curve: Any = "P-256") -> ECKey:
    return ECKey.generate_key(curve, parameters={"kid": kid, "use": "sig"}, private=True)


class LocalIssuer:
    """Serves keys, until it is closed; it can be opened again at the same port."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.asked: list[str] = []
        self.overrides: dict[str, Any] = {}
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                document = issuer.document(self.path)
                if isinstance(document, str):
                    self.send_response(302)
                    self.send_header("Location", document)
                    self.end_headers()
                    return
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def document(self, path: str) -> Any:
        if path in self.overrides:
            return self.overrides[path]
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {"keys": [key if isinstance(key, dict) else key.as_dict(private=False) for key in self.keys]}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a good token; those that are None are left out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "roles": ["durably.developer"],
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, key: Key, algorithm: str = "", header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """A token, good but for the changes."""
        alg = algorithm or ("RS256" if key.key_type == "RSA" else "ES256")
        fields = {"alg": alg, "kid": key.kid, **(header or {})}
        fields = {name: value for name, value in fields.items() if value is not None}
        return jwt.encode(fields, self.claims(**changes), key, algorithms=[alg])


@contextmanager
def issuing(*keys: Key) -> Generator[LocalIssuer]:
    issuer = LocalIssuer()
    issuer.keys.extend(keys)
    issuer.open()
    try:
        yield issuer
    finally:
        issuer.close()
