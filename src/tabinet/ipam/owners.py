"""Whose a block is: a host's, or that of something that is no host, such as the addresses of load balancers. Pure.

In: a use and a name. Out: the *owner* as blocks name it (``host:web1``, ``virtual:load-balancer``) and the keys that go with it. O(1).
"""

from __future__ import annotations

from tabinet.lib.ip import Prefix
from tabinet.model.keys import VIRTUAL_AFFINITIES, AffinityKey, Key, VirtualAffinityKey, affinity_prefix

WORKLOAD, TUNNEL, LOAD_BALANCER = "Workload", "Tunnel", "LoadBalancer"
"""What an address may be used for: ``allowedUses`` of a pool."""

_HOST, _VIRTUAL = "host:", "virtual:"


def owner_for(use: str, name: str) -> str:
    """The owner of blocks for ``use`` on the host ``name``; load balancers are no hosts, their blocks have a virtual owner of that name."""
    return (_VIRTUAL if use == LOAD_BALANCER else _HOST) + name


def host_of(owner: str) -> str:
    """The host that ``owner`` is; empty when it is none."""
    return owner.removeprefix(_HOST) if owner.startswith(_HOST) else ""


def affinity_key(owner: str, block: Prefix) -> AffinityKey | VirtualAffinityKey:
    """Where the owner's claim on the block is stored.

    Raises:
        ValueError: neither a host nor a virtual owner.
    """
    kind, _, name = owner.partition(":")
    match kind:
        case "host":
            return AffinityKey(name, block)
        case "virtual":
            return VirtualAffinityKey(name, block)
        case _:
            raise ValueError(f"{owner!r} is no owner of blocks")


def has_affinities(owner: str) -> bool:
    """True for owners whose claims are stored under keys of their own."""
    kind, _, name = owner.partition(":")
    return kind in ("host", "virtual") and bool(name) and "/" not in name


def affinity_of_key(key: Key) -> tuple[str, Prefix] | None:
    """Owner and block of a claim; None for any other key."""
    match key:
        case AffinityKey(host, block):
            return _HOST + host, block
        case VirtualAffinityKey(name, block):
            return _VIRTUAL + name, block
        case _:
            return None


def affinity_listing(owner: str) -> str:
    """The prefix below which all claims of the owner are stored."""
    host = host_of(owner)
    return affinity_prefix(host) if host else f"{VIRTUAL_AFFINITIES}{owner.removeprefix(_VIRTUAL)}/"
