"""``HolderIndex``: of the endpoints that may have the same address, the one that holds it.

In: records of holders, endpoints of all hosts, which of them are away. Out: the holder of an address, and which addresses to look at again
when something changes. A record counts while the endpoint that it names exists, has the address, and is not away; so nobody yields to
an endpoint that could not have it. Pure; O(1) for a record, and for an endpoint that no record names; else O(addresses of which it is named
as the holder).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tabinet.lib.ip import Prefix
from tabinet.model.holders import Holder
from tabinet.model.keys import ResourceKey

NOTHING: tuple[Prefix, ...] = ()


@dataclass(slots=True)
class HolderIndex:
    """All records, and of the endpoints that they name whether they count."""

    _named: dict[Prefix, ResourceKey] = field(default_factory=dict)
    _addresses: dict[ResourceKey, set[Prefix]] = field(default_factory=dict)
    """By endpoint: of what it is named as the holder."""
    _here: dict[ResourceKey, frozenset[Prefix]] = field(default_factory=dict)
    """By endpoint that some record names: the addresses that it has; none while it is away."""

    def on_holder_update(self, address: Prefix, holder: Holder | None, has: Collection[Prefix]) -> Collection[Prefix]:
        """Addresses to look at again. ``has``: what the endpoint that is named has here and now."""
        before = self._named.pop(address, None)
        if before is not None:
            self._addresses[before].discard(address)
            if not self._addresses[before]:
                del self._addresses[before]
                del self._here[before]
        if holder is not None:
            key = endpoint_of(holder)
            self._named[address] = key
            self._addresses.setdefault(key, set()).add(address)
            self._here[key] = frozenset(has)
        return (address,)

    def on_endpoint_update(self, key: ResourceKey, has: Collection[Prefix]) -> Collection[Prefix]:
        """Addresses to look at again, when the endpoint has these, and no others, here and now."""
        if key not in self._addresses:
            return NOTHING
        before, self._here[key] = self._here[key], frozenset(has)
        return (before ^ self._here[key]) & self._addresses[key]

    def names(self, key: ResourceKey) -> bool:
        """True: some record is about the endpoint."""
        return key in self._addresses

    def holder(self, address: Prefix) -> ResourceKey | None:
        """Who holds the address; ``None``: nobody was heard of, so all that may have it do."""
        key = self._named.get(address)
        return key if key is not None and address in self._here[key] else None


def endpoint_of(holder: Holder) -> ResourceKey:
    """The endpoint that a record names."""
    return ResourceKey("WorkloadEndpoint", holder.name, holder.namespace)
