"""Groups that mostly have one member: the member itself, and a set only once there are more.

Most namespaces, label values and classes of large fabrics belong to one endpoint each, and a set of one costs 216 bytes and a garbage
collector that looks at it. ``None`` is the empty group. A group is changed by assigning what ``add`` and ``remove`` return, which may be
the same set, changed in place. Members must not be sets. Pure; O(1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Few: TypeAlias = T | set[T] | None


def add(group: Few[T], member: T) -> Few[T]:
    """The group with the member."""
    if group is None or group == member:
        return member
    if isinstance(group, set):
        group.add(member)
        return group
    return {group, member}


def remove(group: Few[T], member: T) -> Few[T]:
    """The group without the member; a set that shrinks to one stays a set, because it may grow again."""
    if isinstance(group, set):
        group.discard(member)
        return group or None
    return None if group == member else group


def each(group: Few[T]) -> Iterable[T]:
    """The members. Not to be used while the group changes."""
    if group is None:
        return ()
    return group if isinstance(group, set) else (group,)


def as_set(group: Few[T]) -> set[T]:
    """The members as a set, which may be the group itself: not to be changed."""
    if group is None:
        return set()
    return group if isinstance(group, set) else {group}


def size(group: Few[T]) -> int:
    """How many members there are."""
    if group is None:
        return 0
    return len(group) if isinstance(group, set) else 1
