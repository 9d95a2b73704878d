"""``Inventory``: everything that address management has stored, and ``Fabric``: who is there to use addresses.

In: a store. Out: blocks, claims and handles, read at one revision, with the settings; hosts and the addresses that endpoints and hosts use.
The inventory is read first: what was assigned and put to use in between is then seen in use, never the other way round. O(everything).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from tabinet.errors import DataError
from tabinet.ipam.owners import affinity_of_key
from tabinet.ipam.reading import listed
from tabinet.ipam.settings import load_settings
from tabinet.ipam.view import ABSENT, Draft, Settings, Stored
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.codec import decode_stored
from tabinet.model.keys import BlockKey, HandleKey, Key, ResourceKey, kind_prefix, parse_path
from tabinet.model.resources import HostEndpoint, Node, WorkloadEndpoint
from tabinet.store.api import Datastore

K = TypeVar("K")

IPAM_ROOT = "/calico/ipam/v2/"


@dataclass(slots=True)
class Inventory:
    """What is stored about addresses."""

    settings: Settings
    blocks: dict[Prefix, Stored] = field(default_factory=dict)
    affinities: dict[tuple[str, Prefix], Stored] = field(default_factory=dict)
    """By owner (as in ``host:web1``) and block."""
    handles: dict[str, Stored] = field(default_factory=dict)

    def block(self, block: Prefix) -> Stored:
        """The stored block."""
        return self.blocks.get(block, ABSENT)

    def affinity(self, owner: str, block: Prefix) -> Stored:
        """The stored claim."""
        return self.affinities.get((owner, block), ABSENT)

    def handle(self, name: str) -> Stored:
        """The stored handle."""
        return self.handles.get(name, ABSENT)

    def record(self, draft: Draft, revision: int) -> None:
        """What a transaction has written is in the inventory."""
        for path, document in draft.writes.items():
            key = parse_path(path)
            if key is not None:
                self.put(key, ABSENT if document is None else Stored(document, revision))

    def put(self, key: Key, stored: Stored) -> None:
        """What is stored under the key is this now; nothing happens for keys that are not about addresses."""
        if isinstance(key, BlockKey):
            _put(self.blocks, key.block, stored)
        elif isinstance(key, HandleKey):
            _put(self.handles, key.handle, stored)
        elif (claim := affinity_of_key(key)) is not None:
            _put(self.affinities, claim, stored)


class Use(msgspec.Struct, frozen=True, order=True, gc=False):
    """That something uses an address."""

    by: str
    """The resource, and what for, as in ``WorkloadEndpoint/shop/web1-cni-c1-eth0``."""
    host: str


class Fabric(msgspec.Struct, frozen=True):
    """The hosts, and who uses which addresses."""

    hosts: dict[str, dict[str, str]]
    """Labels of each Node."""
    busy: frozenset[str]
    """Hosts that something in ``uses`` is on."""
    uses: dict[Prefix, tuple[Use, ...]]
    broken: tuple[str, ...] = ()
    """Endpoints and Nodes that cannot be understood: what they use is not known."""

    def knows(self, host: str) -> bool:
        """True when the host is there; also when nothing is known of any host, which says nothing about this one."""
        return host in self.hosts or host in self.busy or not self.hosts


async def read_inventory(store: Datastore) -> Inventory:
    """What is stored about addresses.

    Raises:
        DataError: configuration or a reservation cannot be understood.
        StoreUnavailable, StoreDenied: the store could not be read.
    """
    inventory = Inventory(await load_settings(store, ""))
    async for key, stored in listed(store, IPAM_ROOT):
        inventory.put(key, stored)
    return inventory


async def read_fabric(store: Datastore) -> Fabric:
    """Who is there.

    Raises:
        StoreUnavailable, StoreDenied: the store could not be read.
    """
    hosts: dict[str, dict[str, str]] = {}
    uses: dict[Prefix, list[Use]] = {}
    broken: list[str] = []
    for kind in ("Node", "WorkloadEndpoint", "HostEndpoint"):
        async for page in store.list(kind_prefix(kind)):
            for item in page.items:
                try:
                    decoded = decode_stored(item.key, item.value)
                except DataError as error:
                    broken.append(str(error))
                    continue
                if decoded is None:
                    continue
                key, record = decoded
                if not isinstance(key, ResourceKey):
                    continue
                if isinstance(record, Node):
                    hosts[key.name] = record.metadata.labels
                for address, use in _uses_of(key, record):
                    uses.setdefault(address, []).append(use)
    busy = frozenset(use.host for found in uses.values() for use in found)
    return Fabric(hosts=hosts, busy=busy, uses={address: tuple(found) for address, found in uses.items()}, broken=tuple(broken))


def _uses_of(key: ResourceKey, record: object) -> Iterator[tuple[Prefix, Use]]:
    match record:
        case WorkloadEndpoint(spec=spec):
            texts = {*spec.ip_networks, *(nat.external_ip for nat in spec.ip_nats)}
            pairs = [(text, Use(str(key), spec.node)) for text in texts]
        case HostEndpoint(spec=spec):
            pairs = [(text, Use(str(key), spec.node)) for text in spec.expected_ips]
        case Node():
            pairs = [(text, Use(f"{key} ({purpose})", key.name)) for text, purpose in _addresses_of(record)]
        case _:
            return
    for text, use in pairs:
        # Host bits count: a Node's address is written with the length of its subnet.
        yield parse_prefix(text.partition("/")[0]), use


def _addresses_of(node: Node) -> list[tuple[str, str]]:
    spec = node.spec
    found = [(one.address, one.type or "address") for one in spec.addresses]
    found += [(spec.ipv4_vxlan_tunnel_addr, "VXLAN tunnel"), (spec.ipv6_vxlan_tunnel_addr, "VXLAN tunnel")]
    if spec.bgp is not None:
        found += [(spec.bgp.ipv4_address, "BGP"), (spec.bgp.ipv6_address, "BGP"), (spec.bgp.ipv4_ipip_tunnel_addr, "IP-in-IP tunnel")]
    if spec.wireguard is not None:
        found += [(spec.wireguard.interface_ipv4_address, "WireGuard"), (spec.wireguard.interface_ipv6_address, "WireGuard")]
    return [(text, purpose) for text, purpose in found if text]


def _put(values: dict[K, Stored], key: K, stored: Stored) -> None:
    if stored.exists:
        values[key] = stored
    else:
        values.pop(key, None)
