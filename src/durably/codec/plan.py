"""From a declared type to the function that reads it: by msgspec where it can, by forms where it must."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from durably.codec.builder import Builder
from durably.codec.foreign import Model
from durably.codec.form import Form, Misfit, Trial, identity
from durably.errors import PayloadError

FORMS_CACHED_MAX = 1024
"""Foreign types remembered; far more than a program has."""

_parse: Final = msgspec.json.Decoder().decode


def reader(annotation: Any) -> Callable[[bytes], Any]:
    """Plan how JSON text becomes a value of a type. Slow (tens of microseconds and more): remember the answer.

    Args:
        annotation: The declared type.

    Returns:
        A function of the JSON text. It raises `Misfit`, or what msgspec and user code raise.

    Raises:
        PayloadError: The annotation itself cannot be understood.
    """
    form = form_of(annotation)
    if form.native is not None:
        return msgspec.json.Decoder(form.annotation, dec_hook=_hook).decode
    if isinstance(form, Model):
        return form.read_text
    return lambda text: form.read(_parse(text), Trial())


def form_of(annotation: Any) -> Form:
    """The form of a declared type, ready to read. See `reader`."""
    root = Builder().build(annotation)
    # Inner forms too: the more of the data msgspec reads at once, the faster.
    for form in _reachable(root):
        if (
            not form.custom
            and not any(part.misread for part in _reachable(form))
            and _is_taken(form.annotation)
        ):
            form.native = partial(_convert, form.annotation)
    return root


def _reachable(root: Form) -> Iterator[Form]:
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        form = waiting.pop()
        if identity(form) not in seen:
            seen.add(identity(form))
            yield form
            waiting.extend(form.parts)


def _is_taken(annotation: Any) -> bool:
    """Whether msgspec takes the type, with all that is in it."""
    try:
        msgspec.json.Decoder(annotation, dec_hook=_hook)
    except Exception:  # noqa: BLE001 - its refusals are TypeErrors, but odd types raise many things; the form then walks
        return False
    return True


def _convert(annotation: Any, data: Any) -> Any:
    try:
        return msgspec.convert(data, annotation, strict=True, str_keys=True, dec_hook=_hook)
    except (RecursionError, PayloadError):
        raise
    except Exception as error:  # `__post_init__` may raise anything; a union then tries its next member
        raise Misfit.of(error) from error


_hooked: Final[dict[int, tuple[Any, Form]]] = {}


def _hook(annotation: Any, data: Any) -> Any:
    """Read what msgspec does not know: the ``dec_hook`` of all decoders."""
    known = _hooked.get(identity(annotation))
    if known is None:
        if len(_hooked) >= FORMS_CACHED_MAX:
            _hooked.clear()
        # The type is held, or another one could get its identity.
        known = _hooked[identity(annotation)] = (annotation, form_of(annotation))
    return known[1].read(data, Trial())
