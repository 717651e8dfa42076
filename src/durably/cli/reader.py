"""Reads the tree of an instance from a hub, as little of it as has changed."""

from __future__ import annotations

from typing import NamedTuple

from durably.cli.steps import Tree, tree_of
from durably.client.queries import Looks
from durably.core.status import InstanceStatus
from durably.errors import InstanceNotFoundError

_DEPTH_MAX = 8
_CHILDREN_MAX = 60
"""Sub-orchestrations that are read at most: more would not fit on a screen."""


class _Known(NamedTuple):
    mark: tuple[object, ...]
    tree: Tree


class TreeReader:
    """Follows one instance and its sub-orchestrations.

    Args:
        looks: At what.
        instance_id: The instance.
    """

    def __init__(self, looks: Looks, instance_id: str) -> None:
        self._looks = looks
        self._instance_id = instance_id
        self._known: dict[str, _Known] = {}

    async def read(self, looks: Looks | None = None) -> Tree:
        """The tree as committed.

        Args:
            looks: At what, from now on.

        Raises:
            InstanceNotFoundError: It was purged.
        """
        self._looks = looks or self._looks
        tree = await self._tree(self._instance_id, 0)
        if tree is None:
            raise InstanceNotFoundError(self._instance_id)
        return tree

    async def _tree(self, instance_id: str, depth: int) -> Tree | None:
        known = self._known.get(instance_id)
        if known is not None and known.tree.ended is not None and depth:
            return known.tree
        if known is None and len(self._known) > _CHILDREN_MAX:
            return None
        status = await self._looks.get_status(instance_id)
        if status is None:
            return None
        mark = _mark(status)
        if known is None or known.mark != mark:
            try:
                entries = await self._looks.get_history(instance_id)
            except InstanceNotFoundError:  # purged between the two reads
                return None
            known = self._known[instance_id] = _Known(mark, tree_of(entries, status))
        tree = known.tree
        if depth < _DEPTH_MAX:
            for step in tree.children():
                if step.child_id is not None and (step.child is None or step.child.ended is None):
                    step.child = await self._tree(step.child_id, depth + 1)
        return tree


def _mark(status: InstanceStatus) -> tuple[object, ...]:
    return status.last_updated_time, status.runtime_status, status.blocked
