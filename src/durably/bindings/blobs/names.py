"""Names of containers and blobs. They come from others, so they are data: no part of one ever means another place."""

from __future__ import annotations

import re
from typing import Any, Final

from durably.core.ids import check_storage_name
from durably.errors import InvalidTextError

NAME_CHARS_MAX: Final = 1024
"""As Azure Blob Storage and S3."""

PARTS_MAX: Final = 64
"""Of the path of a file: each folder on the way to one is open while it is listed."""

OWN: Final = ".durably-"
"""How the names of files begin that are on their way into a folder."""

_FORBIDDEN: Final = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|(?:com|lpt)[0-9¹²³])", re.IGNORECASE
)
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_PART_BYTES_MAX: Final = 255


def check_container(name: Any) -> str:
    """The name of a container, which is as Azure Storage has them.

    Raises:
        InvalidTextError: It is not usable.
    """
    return check_storage_name(name, "Container")


def check_blob(name: Any) -> str:
    """The name of a blob.

    Raises:
        InvalidTextError: It is not usable.
    """
    trouble = _trouble(name)
    if trouble is not None:
        raise InvalidTextError(f"Blob name {_shown(name)} is not usable: {trouble}")
    return name


def check_file(name: Any) -> list[str]:
    """The parts of a blob's name that becomes the path of a file below a folder.

    Raises:
        InvalidTextError: It is not usable, or not as the name of a file.
    """
    parts = check_blob(name).split("/")
    if len(parts) > PARTS_MAX:
        raise InvalidTextError(
            f"Blob name {_shown(name)} is not usable in a folder: it has {len(parts)} parts, expected {PARTS_MAX} at most"
        )
    for part in parts:
        trouble = _file_trouble(part)
        if trouble is not None:
            raise InvalidTextError(f"Blob name {_shown(name)} is not usable in a folder: {trouble}")
    if _DRIVE.fullmatch(parts[0]):
        raise InvalidTextError(f"Blob name {_shown(name)} is not usable in a folder: it begins with a drive")
    return parts


def is_blob(name: Any) -> bool:
    """True for what `check_blob` takes."""
    return _trouble(name) is None


def is_file_part(part: str) -> bool:
    """True for a part of a name that may be that of a file or folder; what a folder has beside is no blob."""
    return part not in {".", ".."} and not _FORBIDDEN.search(part) and _file_trouble(part) is None


def _trouble(name: Any) -> str | None:
    if type(name) is not str or not name:
        return "expected text that is not empty"
    if len(name) > NAME_CHARS_MAX:
        return f"it has {len(name)} characters, expected {NAME_CHARS_MAX} at most"
    found = _FORBIDDEN.search(name)
    if found is not None:
        return f"it holds {found.group()!r}, expected no backslash, control character or half surrogate"
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        return "expected parts between '/' that are not empty, '.' or '..', and no '/' at either end"
    return None


def _file_trouble(part: str) -> str | None:
    if len(part.encode()) > _PART_BYTES_MAX:
        return f"the part {part[:40]!r}… has more than {_PART_BYTES_MAX} bytes"
    if part.startswith(OWN):
        return f"parts that begin with '{OWN}' are those of the runtime"
    if _DEVICE.fullmatch(part.partition(".")[0].rstrip(" ")):
        return f"{part!r} is the name of a device in other systems"
    if part[-1] in {".", " "}:
        return f"{part!r} ends with {part[-1]!r}, which other systems drop"
    return None


def _shown(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:80]}…"
