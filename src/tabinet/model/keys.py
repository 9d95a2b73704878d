"""Keys: what a stored value is about, and the etcd path that says so (calico-v3 layout, both ways).

``ResourceKey`` names a v3 resource; ``AffinityKey``, ``BlockKey`` and ``HandleKey`` name IPAM values;
everything else under ``/calico/`` is not ours to interpret and parses to ``None``.
"""

from __future__ import annotations

import msgspec

from tabinet.lib.ip import Prefix


class ResourceKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Kind, name and (for namespaced kinds) namespace of a resource."""

    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


class AffinityKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """The claim of a host on an IPAM block: ``/calico/ipam/v2/host/<host>/ipv4/block/<10.0.0.0-26>``."""

    host: str
    block: Prefix


class BlockKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """An IPAM block: ``/calico/ipam/v2/assignment/ipv4/block/<10.0.0.0-26>``."""

    block: Prefix


class HandleKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """The addresses of one owner: ``/calico/ipam/v2/handle/<id>``."""

    handle: str


Key = ResourceKey | AffinityKey | BlockKey | HandleKey
"""Everything that ``parse_path`` can return besides ``None``."""
