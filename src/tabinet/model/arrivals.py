"""That a machine that was to move is its target's now: ``/tabinet/v1/arrivals/<namespace>/<name>``.

Named as the LiveMigration (and the target's endpoint). The target's agent writes it when it sees the guest there, and the source's before
that, when its hypervisor tells that the guest has stopped for good: so every host knows from the store at which of the two endpoints the
machine is, an agent that has just started as well. It belongs to one migration, told by its uid: what an earlier one of that name left
behind says nothing.
"""

from __future__ import annotations

import msgspec

ARRIVALS = "/tabinet/v1/arrivals/"
FLOWS = "/tabinet/v1/flows/"
"""Below it, by target host: flows that sources hand over, under a lease."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The value."""

    migration: str
    """The uid of the LiveMigration."""
    host: str = ""
    """Where it runs now."""
    running: bool = True
    """False: it has stopped at the source, and nobody has seen it here yet."""


def render_arrival(arrival: Arrival) -> bytes:
    """The stored value."""
    return msgspec.json.encode(arrival)


def flows_prefix(host: str) -> str:
    """Below it is what is handed over to this host."""
    return f"{FLOWS}{host}/"


def flows_path(host: str, namespace: str, name: str) -> str:
    """Below it are the parts of what is handed over for a migration to this host."""
    return f"{flows_prefix(host)}{namespace}/{name}"
