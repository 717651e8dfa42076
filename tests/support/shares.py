"""Which cases of a test are run on every interpreter, and which on the default one only."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def once_but(cases: Iterable[Any], everywhere: Collection[Any]) -> list[Any]:
    """The cases of a test, for `parametrize`; those that are not named here differ in nothing that the interpreter does."""
    return [pytest.param(case, marks=[] if case in everywhere else pytest.mark.slow_once) for case in cases]
