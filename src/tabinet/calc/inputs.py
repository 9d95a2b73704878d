"""What the calculation is told: typed changes of single values, and when the first snapshot is complete."""

from __future__ import annotations

import msgspec

from tabinet.model.keys import Key


class Put(msgspec.Struct, frozen=True, gc=False):
    """``key`` has this value now. ``value`` is a record of ``model.resources``, or of ``model.ipam`` for IPAM keys."""

    key: Key
    value: object
    revision: int


class Delete(msgspec.Struct, frozen=True, gc=False):
    """``key`` has no value (any more), or one that could not be decoded."""

    key: Key


class InSync(msgspec.Struct, frozen=True, gc=False):
    """Everything that was in the store at the time of the snapshot has been told."""


Input = Put | Delete | InSync
