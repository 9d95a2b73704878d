"""``Leases``: what each guest is leased, calculated once until something about it changes.

In: a port's interface. Out: its lease, or None: it gets none. Memory O(guests that asked); a lookup is O(1). It does not send anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tabinet.guest.directory import Directory, Port
from tabinet.guest.options import GuestOptions

Lease = TypeVar("Lease")


@dataclass(slots=True)
class Leases(Generic[Lease]):
    """Leases of one protocol, by ``make``."""

    directory: Directory
    options: GuestOptions
    make: Callable[[Port, Directory, GuestOptions], Lease | None]
    _made: dict[str, Lease | None] = field(default_factory=dict)
    """By interface, of those that asked and have not changed since."""

    def find(self, interface: str) -> tuple[Port, Lease] | None:
        """The port at the interface and its lease; None: there is no port, or it gets no lease."""
        port = self.directory.port(interface)
        if port is None:
            return None
        if interface not in self._made:
            self._made[interface] = self.make(port, self.directory, self.options)
        lease = self._made[interface]
        return None if lease is None else (port, lease)

    def forget(self, interfaces: set[str]) -> None:
        """What guests behind these interfaces get may be another thing now."""
        for interface in interfaces:
            self._made.pop(interface, None)
