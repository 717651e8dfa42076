"""Instance ids: what is allowed, and how children are named."""

from __future__ import annotations

import hashlib
import re

from durably.errors import InvalidIdError, InvalidTextError

INSTANCE_ID_CHARS_MAX = 256
_FORBIDDEN = re.compile(r"[/\\#?\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_STORAGE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){2,62}")


def check_storage_name(name: object, what: str) -> str:
    """Return the name of a queue or container when it is as Azure Storage has them.

    Raises:
        InvalidTextError: It is not usable.
    """
    if type(name) is not str or not _STORAGE_NAME.fullmatch(name):
        raise InvalidTextError(
            f"{what} {name!r} is not usable: expected 3 to 63 lower-case letters, digits and single hyphens inside"
        )
    return name


def check_instance_id(instance_id: str) -> str:
    r"""Return the id when the hub can hold it.

    Raises:
        InvalidIdError: Empty, longer than 256 characters, starting with ``@`` (reserved for entities), or holding
            ``/ \ # ?``, a control character or half a surrogate pair.
    """
    if type(instance_id) is not str or not instance_id:
        raise InvalidIdError(
            f"Instance id {instance_id!r} is not usable: expected a string that is not empty"
        )
    if len(instance_id) > INSTANCE_ID_CHARS_MAX:
        raise InvalidIdError(
            f"Instance id '{instance_id[:40]}…' has {len(instance_id)} characters: expected {INSTANCE_ID_CHARS_MAX} at most"
        )
    if instance_id[0] == "@":
        raise InvalidIdError(
            f"Instance id '{instance_id}' starts with '@', which is reserved for entities: drop it"
        )
    found = _FORBIDDEN.search(instance_id)
    if found is not None:
        raise InvalidIdError(
            f"Instance id {instance_id!r} holds {found.group()!r}: expected no '/', '\\', '#', '?', control character "
            "or half surrogate; replace it, for example by '-'"
        )
    return instance_id


def check_text(text: str | None, what: str) -> None:
    """Refuse what is not text that can be stored.

    Raises:
        InvalidTextError: Not a string, or one with half a surrogate pair.
    """
    if text is None:
        return
    if type(text) is not str:
        raise InvalidTextError(f"The {what} is {text!r}: expected a string")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidTextError(
                f"The {what} {text!r} holds half a surrogate pair: expected text"
            ) from None


def check_tags(tags: dict[str, str] | None) -> dict[str, str] | None:
    """A copy of tags that can be stored; None for none.

    Raises:
        InvalidTextError: Not a dict, or one of other things than `check_text` takes.
    """
    if not tags:
        return None
    if not isinstance(tags, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
        raise InvalidTextError(f"The tags are {tags!r}: expected a dict of strings")
    for key, value in tags.items():
        for text, what in ((key, "name of a tag"), (value, f"tag {key!r}")):
            if type(text) is not str:
                raise InvalidTextError(f"The {what} is {text!r}: expected a string")
            check_text(text, what)
    return dict(tags)


def child_id(parent: str, ordinal: int, seq: int) -> str:
    """The id of a child that was given none: unique per parent, execution and call, and the same on every replay."""
    return f"{parent}:{ordinal}:{seq:04x}"


def attempt_id(instance_id: str, attempt: int) -> str:
    """The id of the n-th attempt of a retried child: a fresh instance each time, the first one under the plain id."""
    return instance_id if attempt == 1 else f"{instance_id}~{attempt}"


def derived_execution_id(execution_id: str, what: str) -> str:
    """The id of an execution that another one causes: as good as random, and the same however often it is derived."""
    return hashlib.blake2b(what.encode(), digest_size=16, key=execution_id.encode()[:64]).hexdigest()


def next_execution_id(execution_id: str) -> str:
    """The id of the execution that follows when this one continues as new."""
    return derived_execution_id(execution_id, "next")


def digest(text: str) -> str:
    """32 hex digits that stand for a text: always the same, and those of no other one."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def task_key(instance_id: str, execution_id: str, seq: int) -> str:
    """The idempotency key of a logical call: the same for retries and redelivery, new after a new execution."""
    return f"{instance_id}:{execution_id}:{seq}"
