"""What operators may do to an instance with a child, and the legal answers of a hub in which one thing happens at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

ENDED = ("Completed", "Failed", "Terminated")


class Life(NamedTuple):
    """What the model knows of an instance and of whoever has the id of its child.

    Attributes:
        status: Of the instance; None: there is none.
        told: It may end, well or badly.
        child: ``"live"``, ``"ended"``, or None: there is none.
        ours: The child was called by this life of the instance.
        wanted: The start of a child is on its way.
        doomed: An order to the child that is there, to cancel itself, is on its way.
        ordered: An order to terminate is on its way to the child that is there.
        leaving: An order to purge is on its way to the child that is there.
    """

    status: str | None
    told: bool = False
    child: str | None = None
    ours: bool = False
    wanted: bool = False
    doomed: bool = False
    ordered: bool = False
    leaving: bool = False


ABSENT = Life(None)


def model(life: Any, what: str) -> Iterable[tuple[Any, Life]]:
    """The answers that a call may get, each with what follows."""
    status = life.status
    ended = status in ENDED
    if what == "status":
        yield status, life
        if status is None or ended:
            # A start lies in the inbox, and orders of the owner's own process overtake it.
            yield "Pending", life
    elif what == "obeyed":  # noted when a recursive order was answered and nobody else asks for anything
        if not life.ordered:
            yield None, life
    elif what == "child":
        yield life.child, life
    elif what == "start":
        yield ("ok", _begun(life)) if status is None or ended else (("exists", status), life)
    elif what in ("purge", "purge all"):
        yield (False, life) if status is None else (True, _purged(life, what)) if ended else _refused(life)
    elif status is None:
        yield "not found", life
    elif what == "restart":
        yield ("ok", _begun(life)) if ended else _refused(life)
    elif what == "rewind":
        yield (
            ("ok", life._replace(status="Running", wanted=life.ours))
            if status == "Failed"
            else _refused(life)
        )
    elif ended:
        yield _refused(life)
    elif what == "raise":
        yield "ok", life._replace(told=True)
    elif what == "terminate":
        yield "ok", life._replace(status="Terminated")
    elif what == "terminate all":
        yield "ok", _terminated_all(life)
    else:
        yield "ok", life._replace(status="Suspended" if what == "suspend" else "Running")


def drift(life: Any) -> Iterable[Life]:
    """What may happen by itself."""
    if life.told and life.status == "Running":
        doomed = life.doomed or life.ours or life.wanted
        yield life._replace(status="Completed", doomed=doomed)
        yield life._replace(status="Failed", doomed=doomed)
    if life.wanted and life.child == "live":  # refused by a stranger, or ours already
        yield life._replace(wanted=False)
    if life.wanted and life.child != "live":
        yield life._replace(wanted=False, child="live", ours=True, leaving=False)
    if life.child == "live" and (life.doomed or life.ordered):
        yield life._replace(child="ended", doomed=False, ordered=False)
    if life.child == "ended" and life.leaving:
        yield life._replace(child=None, leaving=False)


def _refused(life: Life) -> tuple[Any, Life]:
    return ("state", life.status), life


def _begun(life: Life) -> Life:
    return life._replace(status="Running", told=False, ours=False, wanted=True)


def _purged(life: Life, what: str) -> Life:
    leaving = life.leaving or (what == "purge all" and life.ours)
    return life._replace(status=None, told=False, ours=False, leaving=leaving)


def _terminated_all(life: Life) -> Life:
    reached = life.wanted or (life.ours and life.child == "live")
    return life._replace(status="Terminated", ordered=life.ordered or reached)
