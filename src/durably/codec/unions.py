"""Which member of a union the data means, where JSON itself does not say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from durably.codec.annotations import type_name
from durably.codec.form import MISFITS_SHOWN_MAX, Form, Misfit, Trial, cut, identity, is_compound


class Union(Form):
    """Reads the first member that fits, trying the likeliest first.

    The rule, which the documentation repeats:

    1. A member fits when all of the data has the types that it declares, and all that it requires is there.
    2. Of those, the member with the fewest unknown keys is meant, counted at every depth. So ``A | B`` of two dataclasses is
       told apart by field names, whatever the order.
    3. Then what has a recognizable form goes before what takes anything: a datetime before `str`, an enum before `int`, a
       dataclass before `dict`. Therefore a `str` that looks exactly like a datetime comes back from ``str | datetime``
       as a datetime: their JSON is the same.
    4. Then the order of declaration decides.

    Not told apart, and refused: `bytes` and `str`. Bytes travel as base64 text, and ordinary words are valid base64.
    """

    def __init__(self, annotation: Any, members: Sequence[Form]) -> None:
        super().__init__(annotation)
        others = [member for member in members if member.annotation is not type(None)]
        self._has_none = len(others) < len(members)
        self._members = sorted(others, key=lambda member: member.rank)
        declared = {member.annotation for member in members if isinstance(member.annotation, type)}
        self._is_ambiguous_text = str in declared and not declared.isdisjoint({bytes, bytearray, memoryview})

    @property
    def parts(self) -> Sequence[Form]:
        return self._members

    def walk(self, data: Any, trial: Trial) -> Any:
        if data is None and self._has_none:
            return None
        if not is_compound(data):
            return self._first_fit(data, self._members, trial)
        place = (identity(self), identity(data))
        if place not in trial.outcomes:
            try:
                trial.outcomes[place] = (
                    self._first_fit(data, self._likeliest_first(data, trial), trial),
                    None,
                )
            except Misfit as misfit:
                trial.outcomes[place] = (None, misfit)
        value, misfit = trial.outcomes[place]
        if misfit is not None:
            raise misfit
        return value

    def _first_fit(self, data: Any, members: Iterable[Form], trial: Trial) -> Any:
        if self._is_ambiguous_text and isinstance(data, str):
            raise Misfit(
                f"type '{type_name(self.annotation)}' cannot be read: bytes travel as base64 text, which no reader can "
                "tell from str; declare one of them, or a dataclass for each"
            )
        misfits: list[tuple[Form, Misfit]] = []
        for member in members:
            try:
                return member.read(data, trial)
            except Misfit as misfit:
                misfits.append((member, misfit))
        if len(misfits) == 1:  # X | None: the reason of X says it all
            raise misfits[0][1]
        shown = "; ".join(
            f"{type_name(member.annotation)}: {cut(str(misfit))}"
            for member, misfit in misfits[:MISFITS_SHOWN_MAX]
        )
        raise Misfit(f"Expected `{type_name(self.annotation)}`, but no member fits ({shown})")

    def _likeliest_first(self, data: Any, trial: Trial) -> Iterator[Form]:
        """Members by surplus. Lazy: the first without any is mostly the one, and the others need not be looked at."""
        later: list[tuple[int, int]] = []
        for index, member in enumerate(self._members):
            surplus = member.surplus(data, trial)
            if surplus == 0:
                yield member
            else:
                later.append((surplus, index))
        for _, index in sorted(later):
            yield self._members[index]

    def surplus(self, data: Any, trial: Trial) -> int:
        if not is_compound(data):
            return 0
        place = (identity(self), identity(data))
        if place not in trial.surpluses:
            trial.surpluses[place] = min(member.surplus(data, trial) for member in self._members)
        return trial.surpluses[place]
