"""Forms of lists, sets, tuples and dicts, whose items msgspec cannot read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from durably.codec.form import UNFIT, Form, Misfit, Trial, cut, expected, is_array, is_object


class Items(Form):
    """Any number of items of one type: `list`, `set`, ``tuple[X, ...]``, `deque`."""

    def __init__(
        self, annotation: Any, item: Form, make: Callable[[list[Any]], Any], *, custom: bool
    ) -> None:
        super().__init__(annotation)
        self._item = item
        self._make = make
        self.custom = custom

    @property
    def parts(self) -> Sequence[Form]:
        return (self._item,)

    def walk(self, data: Any, trial: Trial) -> Any:
        if not is_array(data):
            raise expected("array", data)
        items: list[Any] = []
        try:
            for item in data:
                items.append(self._item.read(item, trial))  # noqa: PERF401 - its length is the index of the misfit
        except Misfit as misfit:
            raise misfit.below(f"[{len(items)}]") from None
        return _made(self._make, items)

    def surplus(self, data: Any, trial: Trial) -> int:
        return sum(self._item.surplus(item, trial) for item in data) if is_array(data) else UNFIT


class Fixed(Form):
    """A tuple of so many items, each of its own type."""

    def __init__(self, annotation: Any, items: Sequence[Form]) -> None:
        super().__init__(annotation)
        self._items = items

    @property
    def parts(self) -> Sequence[Form]:
        return self._items

    def walk(self, data: Any, trial: Trial) -> Any:
        if not is_array(data):
            raise expected("array", data)
        if len(data) != len(self._items):
            raise Misfit(f"Expected `array` of length {len(self._items)}, got {len(data)}")
        items: list[Any] = []
        try:
            for form, item in zip(self._items, data, strict=True):
                items.append(form.read(item, trial))
        except Misfit as misfit:
            raise misfit.below(f"[{len(items)}]") from None
        return tuple(items)

    def surplus(self, data: Any, trial: Trial) -> int:
        if not is_array(data) or len(data) != len(self._items):
            return UNFIT
        return sum(form.surplus(item, trial) for form, item in zip(self._items, data, strict=True))


class Entries(Form):
    """Keys of one type and values of one type: `dict`, `Mapping`, `defaultdict`."""

    rank = 2  # takes any object

    def __init__(
        self,
        annotation: Any,
        key: Form,
        value: Form,
        make: Callable[[dict[Any, Any]], Any],
        read_keys: Callable[[dict[str, Any]], dict[Any, Any]] | None,
        *,
        custom: bool,
    ) -> None:
        super().__init__(annotation)
        self._key = key
        self._value = value
        self._make = make
        # In JSON keys are text: msgspec knows which texts are ints. It has no hook for keys of other classes.
        self._read_keys = read_keys
        self.custom = custom
        self.misread = key.custom

    @property
    def parts(self) -> Sequence[Form]:
        return (self._key, self._value)

    def walk(self, data: Any, trial: Trial) -> Any:
        if not is_object(data):
            raise expected("object", data)
        if self._read_keys is not None:
            keyed = self._read_keys(data)
        else:
            keyed = {self._key.read(key, trial): value for key, value in data.items()}
        entries: dict[Any, Any] = {}
        for key, value in keyed.items():
            try:
                entries[key] = self._value.read(value, trial)
            except Misfit as misfit:
                raise misfit.below(
                    f".{cut(key)}" if isinstance(key, str) else f"[{cut(repr(key))}]"
                ) from None
        return _made(self._make, entries)

    def surplus(self, data: Any, trial: Trial) -> int:
        if not is_object(data):
            return UNFIT
        return sum(self._value.surplus(value, trial) for value in data.values())


def _made(make: Callable[[Any], Any], parts: Any) -> Any:
    try:
        return make(parts)
    except TypeError as error:  # a set of lists
        raise Misfit.of(error) from error
