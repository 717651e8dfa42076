"""``%NAME%`` in texts of code, and names of connections: both mean a setting."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from durably.errors import RegistrationError

_SETTING: Final = re.compile(r"%([A-Za-z_][A-Za-z0-9_:.-]*)%")

_ENCODED: Final = re.compile(r"[0-9A-Fa-f]{2}")


def setting(name: str, what: str, settings: Mapping[str, str] | None = None) -> str:
    """The value of a setting.

    Args:
        name: Of the setting.
        what: Who asks, as it begins a sentence: ``"Timer 'nightly'"``.
        settings: The environment by default.

    Raises:
        RegistrationError: It is not set.
    """
    value = (os.environ if settings is None else settings).get(name)
    if not value:
        raise RegistrationError(
            f"{what} needs the setting {name}, which is not set: expected an environment variable of this name"
        )
    return value


def filled(text: str, what: str, settings: Mapping[str, str] | None = None) -> str:
    """The text with each ``%NAME%`` replaced by its setting. Raises as `setting`.

    In a URL a percent sign also begins two hexadecimal digits, ``%C3%A9`` is a letter: what begins like that, and is no
    setting, stays.
    """
    is_url = "://" in text

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if is_url and _ENCODED.match(name) and not (os.environ if settings is None else settings).get(name):
            return match.group()
        return setting(name, what, settings)

    return _SETTING.sub(value, text)
