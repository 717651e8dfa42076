"""What partition objects have ended of: who is to blame, and what the next one has to do about it."""

from __future__ import annotations

from durably.errors import StoreRefusedError


class Strikes:
    """The book of one host on the ends of its partition objects.

    Args:
        strikes_max: An instance that ends a partition object this often is condemned.
    """

    def __init__(self, strikes_max: int) -> None:
        self.condemned: dict[str, str] = {}
        """Instances to park when they come into memory, with the cause; partitions take out whom they have dealt with."""
        self.cautious = False
        """True when the next object has to commit one instance at a time, to find the one whose data the store refuses."""
        self.counts: dict[str | None, int] = {}
        """Ends by culprit; of None, those without one since an object last committed anything."""
        self._max = strikes_max

    def count(self, error: Exception, culprit: str | None, *, progressed: bool) -> int:
        """A partition object ended.

        Args:
            error: Why.
            culprit: The instance that caused it, or None.
            progressed: It had committed something.

        Returns:
            How often that has happened, this time included.
        """
        if progressed:
            self.counts.pop(None, None)
        strikes = self.counts[culprit] = self.counts.get(culprit, 0) + 1
        if isinstance(error, StoreRefusedError):
            self.cautious = culprit is None
            if culprit is not None:
                self._condemn(culprit, f"Parked: the store refuses its data: {error}")
        elif culprit is not None and strikes >= self._max:
            self._condemn(culprit, f"Parked after it broke an invariant {strikes} times: {error}")
        return strikes

    def _condemn(self, culprit: str, cause: str) -> None:
        del self.counts[culprit]  # a redrive begins to count anew
        self.condemned[culprit] = cause
