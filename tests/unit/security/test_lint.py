"""Secrets are compared in constant time: nothing whose name says that it is one is compared by ``==``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import durably

ROOMS = ("security", "http_api")

_SECRET = re.compile(r"key|token|secret|digest|signature|mac|sig|password|passphrase", re.IGNORECASE)

ALLOWED = {"key == EMPTY_KEY"}
"""The key of an entity, which opens nothing."""


def compared(tree: ast.AST) -> Iterator[str]:
    """Comparisons of something whose name is that of a secret, as they are written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops):
            sides = [node.left, *node.comparators]
            if all(_named_as_secret(side) for side in sides if not isinstance(side, ast.Constant)):
                yield ast.unparse(node)


def _named_as_secret(side: ast.expr) -> bool:
    name = side.attr if isinstance(side, ast.Attribute) else side.id if isinstance(side, ast.Name) else ""
    if isinstance(side, ast.Call):
        return _named_as_secret(side.func)
    return bool(_SECRET.search(name))


def test_nothing_that_is_secret_is_compared_by_equality() -> None:
    root = Path(durably.__file__).parent
    files = [file for room in ROOMS for file in (root / room).rglob("*.py")]
    assert len(files) > 40
    found = {
        f"{file.relative_to(root)}: {text}"
        for file in files
        for text in compared(ast.parse(file.read_text()))
        if text not in ALLOWED
    }
    assert found == set(), "compare them with hmac.compare_digest"


def test_the_lint_finds_what_it_looks_for() -> None:
    bad = (
        "key == given_key",
        "self.token != token",
        "ring.digest == digest_of(text)",
        "signature == mac",
        "secret == 'x'",
    )
    for text in bad:
        assert [*compared(ast.parse(text))] == [text]
    for text in ("status == 200", "hmac.compare_digest(a, b)", "kind == 'key'"):
        assert [*compared(ast.parse(text))] == []
