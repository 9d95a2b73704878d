"""That a machine that was to move runs on its target now: ``/tabinet/v1/arrivals/<namespace>/<name>``.

Named as the LiveMigration (and the target's endpoint). The target's agent writes it when it sees the guest there, so that every host knows
from the store which of the two endpoints is the one that runs, an agent that has just started as well. It belongs to one migration, told by
its uid: what an earlier one of that name left behind says nothing.
"""

from __future__ import annotations

import msgspec

ARRIVALS = "/tabinet/v1/arrivals/"


class Arrival(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The value."""

    migration: str
    """The uid of the LiveMigration."""
    host: str = ""
    """Where it runs now."""


def render_arrival(arrival: Arrival) -> bytes:
    """The stored value."""
    return msgspec.json.encode(arrival)
