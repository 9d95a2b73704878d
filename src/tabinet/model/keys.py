"""Keys: what a stored value is about, and the etcd path that says so (calico-v3 layout, both ways).

``ResourceKey`` names a v3 resource; ``AffinityKey``, ``VirtualAffinityKey``, ``BlockKey`` and ``HandleKey`` name IPAM values;
``ArrivalKey`` names the arrival of a machine that moved, ``HolderKey`` who holds an address that several may have; everything else is not
ours to interpret and parses to ``None``.
``parse_path(path_of(key)) == key`` for every key whose parts can stand in a path. The one IPAMConfiguration has a path of its own; the
kinds that are views have none, so that nobody writes there by mistake (see ``views``). O(length of the path).
"""

from __future__ import annotations

import msgspec

from tabinet.lib.ip import Prefix, parse_address, parse_prefix
from tabinet.model.arrivals import ARRIVALS
from tabinet.model.holders import HOLDERS
from tabinet.model.kinds import BY_NAME, BY_PLURAL, Kind

ROOT = "/calico/"
RESOURCES = "/calico/resources/v3/projectcalico.org/"
AFFINITIES = "/calico/ipam/v2/host/"
VIRTUAL_AFFINITIES = "/calico/ipam/v2/virtual/"
BLOCKS = "/calico/ipam/v2/assignment/"
HANDLES = "/calico/ipam/v2/handle/"
IPAM_CONFIG = "/calico/ipam/v2/config"


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


class VirtualAffinityKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """The claim of something that is no host, such as ``load-balancer``: ``/calico/ipam/v2/virtual/<owner>/ipv4/block/<10.0.0.0-26>``."""

    owner: str
    block: Prefix


class BlockKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """An IPAM block: ``/calico/ipam/v2/assignment/ipv4/block/<10.0.0.0-26>``."""

    block: Prefix


class HandleKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """The addresses of one owner: ``/calico/ipam/v2/handle/<id>``."""

    handle: str


class ArrivalKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """That a machine runs on the target of a migration: ``/tabinet/v1/arrivals/<namespace>/<name>``, named as the LiveMigration."""

    namespace: str
    name: str


class HolderKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Which of several endpoints holds an address: ``/tabinet/v1/holders/<address>``."""

    address: Prefix
    """A single one."""


Key = ResourceKey | AffinityKey | VirtualAffinityKey | BlockKey | HandleKey | ArrivalKey | HolderKey
"""Everything that ``parse_path`` can return besides ``None``."""


def parse_path(path: str) -> Key | None:
    """The key that a path of the store means; ``None`` for paths that are not ours to interpret, or malformed."""
    if path.startswith(RESOURCES):
        return _parse_resource(path[len(RESOURCES) :].split("/"))
    if path.startswith(AFFINITIES):
        host, _, rest = path[len(AFFINITIES) :].partition("/")
        block = _parse_block(rest)
        return AffinityKey(host, block) if block is not None and host else None
    if path.startswith(VIRTUAL_AFFINITIES):
        owner, _, rest = path[len(VIRTUAL_AFFINITIES) :].partition("/")
        block = _parse_block(rest)
        return VirtualAffinityKey(owner, block) if block is not None and owner else None
    if path.startswith(BLOCKS):
        block = _parse_block(path[len(BLOCKS) :])
        return None if block is None else BlockKey(block)
    if path.startswith(HANDLES):
        handle = path[len(HANDLES) :]
        return HandleKey(handle) if handle and "/" not in handle else None
    if path.startswith(ARRIVALS):
        namespace, _, name = path[len(ARRIVALS) :].partition("/")
        return ArrivalKey(namespace, name) if namespace and name and "/" not in name else None
    if path.startswith(HOLDERS):
        address = _parse_address(path[len(HOLDERS) :])
        return HolderKey(address) if address is not None else None
    return ResourceKey("IPAMConfiguration", "default") if path == IPAM_CONFIG else None


def _parse_resource(parts: list[str]) -> ResourceKey | None:
    kind = BY_PLURAL.get(parts[0])
    if kind is None or kind.view or kind.name == "IPAMConfiguration" or not all(parts):
        return None
    match parts, kind.namespaced:
        case [_, name], False:
            return ResourceKey(kind.name, name)
        case [_, namespace, name], True:
            return ResourceKey(kind.name, name, namespace)
        case _:
            return None


def _parse_address(text: str) -> Prefix | None:
    """Of the ways to write an address only ours, so that there is one path for it."""
    try:
        address = parse_address(text)
    except ValueError:
        return None
    return address if address.address == text else None


def _parse_block(text: str) -> Prefix | None:
    """``ipv4/block/10.0.0.0-26``."""
    match text.split("/"):
        case [("ipv4" | "ipv6") as family, "block", cidr] if "-" in cidr:
            try:
                block = parse_prefix(cidr.replace("-", "/", 1), strict=True)
            except ValueError:
                return None
            return block if block.family == int(family[-1]) else None
        case _:
            return None


def path_of(key: Key) -> str:
    """The path under which the value of ``key`` is stored.

    Raises:
        ValueError: an unknown kind, one that is only a view, a part that is empty or holds a ``/``, or a namespace where the kind wants
            none (or none where it wants one).
    """
    match key:
        case ResourceKey(kind, name, namespace):
            known = _stored_kind(kind)
            if kind == "IPAMConfiguration":
                if name != "default" or namespace:
                    raise ValueError("there is one IPAMConfiguration, named default")
                return IPAM_CONFIG
            if known.namespaced != bool(namespace):
                raise ValueError(f"{key} {'lacks its' if known.namespaced else 'has a'} namespace")
            middle = f"{_part(namespace)}/" if namespace else ""
            return f"{RESOURCES}{known.plural}/{middle}{_part(name)}"
        case VirtualAffinityKey(owner, block):
            return f"{VIRTUAL_AFFINITIES}{_part(owner)}/{_block_part(block)}"
        case AffinityKey(host, block):
            return f"{AFFINITIES}{_part(host)}/{_block_part(block)}"
        case BlockKey(block):
            return f"{BLOCKS}{_block_part(block)}"
        case ArrivalKey(namespace, name):
            return f"{ARRIVALS}{_part(namespace)}/{_part(name)}"
        case HolderKey(address):
            return f"{HOLDERS}{address.address}"
        case HandleKey(handle):
            return f"{HANDLES}{_part(handle)}"


def _stored_kind(name: str) -> Kind:
    known = BY_NAME.get(name)
    if known is None:
        raise ValueError(f"{name!r} is not a kind")
    if known.view:
        raise ValueError(f"{name} is a view of what the address management stores; it cannot be written")
    return known


def _part(text: str) -> str:
    if not text or "/" in text:
        raise ValueError(f"{text!r} cannot be part of a path")
    return text


def _block_part(block: Prefix) -> str:
    return f"ipv{block.family}/block/{block.address}-{block.length}"


def kind_prefix(kind: str, namespace: str = "") -> str:
    """The prefix below which all resources of a kind (or those of one namespace) are stored.

    Raises:
        ValueError: an unknown kind, one that is only a view, or a namespace for a kind without.
    """
    known = _stored_kind(kind)
    if namespace and not known.namespaced:
        raise ValueError(f"{kind} has no namespaces")
    if kind == "IPAMConfiguration":
        return IPAM_CONFIG
    return f"{RESOURCES}{known.plural}/" + (f"{_part(namespace)}/" if namespace else "")


def affinity_prefix(host: str) -> str:
    """The prefix below which all block affinities of a host are stored, both families."""
    return f"{AFFINITIES}{_part(host)}/"
