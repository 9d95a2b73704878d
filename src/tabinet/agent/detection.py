"""Which addresses a host should have in its Node.

In: the Node as it is, other Nodes, what the operator says. Out: ``Detected``. For each family the first of these decides:

1. what the operator gave;
2. what the Node has, as long as the host has it: addresses do not jump from one interface to another;
3. the source address that the kernel takes towards the peers: addresses of the family that the operator named, else those of other Nodes,
   else the outside (an address for documentation, RFC 5737 and RFC 3849, which follows the default route). So an interface that merely
   exists, such as a container bridge or a VPN, is never chosen.

No packet is sent. O(interfaces + ``TRIED`` peers).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tabinet.errors import InputError, Problem
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address, parse_prefix

OUTSIDE = {IPV4: parse_address("198.51.100.1"), IPV6: parse_address("2001:db8::1")}
NEVER = tuple(map(parse_prefix, ("127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "::/127", "fe80::/10", "ff00::/8")))
"""Loopback, link-local, unspecified and multicast addresses are nobody's address towards others."""
TRIED = 10
"""Peers of a family that are looked at."""


class Owned(msgspec.Struct, frozen=True, gc=False):
    """An address of the host."""

    interface: str
    address: Prefix
    length: int


class Detected(msgspec.Struct, frozen=True):
    """What a Node should say."""

    addresses: dict[int, str]
    """By family, with the length of the subnet."""
    how: dict[int, str]
    """By family, in words: where it is from, or why there is none."""


def read_addresses() -> tuple[Owned, ...]:
    """The addresses of this host.

    Raises:
        KernelError: the kernel does not answer.
    """
    rtnetlink = open_rtnetlink()
    try:
        names = {link.index: link.name for link in rtnetlink.links()}
        return tuple(Owned(names.get(found.index, "?"), found.address, found.length) for found in rtnetlink.addresses())
    finally:
        rtnetlink.close()


def source_towards(target: Prefix) -> Prefix | None:
    """The address that the kernel would send from; ``None`` without a route."""
    family = socket.AF_INET if target.family == IPV4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target.address, 9))
            return parse_address(str(probe.getsockname()[0]).partition("%")[0])
    except (OSError, ValueError):
        return None


def detect(
    name: str,
    before: Mapping[str, Any] | None,
    nodes: Iterable[Mapping[str, Any]],
    *,
    given: Mapping[int, str | None],
    reach: Sequence[str] = (),
    owned: Callable[[], tuple[Owned, ...]] = read_addresses,
    source: Callable[[Prefix], Prefix | None] = source_towards,
) -> Detected:
    """The addresses that the Node ``name`` should have. ``before``: as it is; ``given``: by family, ``none`` for none.

    Raises:
        InputError: what is given is no address of its family.
        KernelError: the kernel does not answer.
    """
    mine = {found.address: found for found in owned()}
    targets = [_parse("--reach", text) for text in reach]
    peers = [address for node in nodes if node["metadata"].get("name") != name for address in _addresses_of(node).values()]
    addresses: dict[int, str] = {}
    how: dict[int, str] = {}
    for family in (IPV4, IPV6):
        text = given.get(family)
        if text is not None:
            how[family] = "as given"
            if text != "none":
                option = "--ip" if family == IPV4 else "--ip6"
                address = _parse(option, text, family)
                length = text.partition("/")[2]
                addresses[family] = f"{address.address}/{length}" if length else _with_length(address, mine)
            continue
        kept = _addresses_of(before).get(family) if before else None
        if kept is not None and kept in mine:
            addresses[family], how[family] = _with_length(kept, mine), f"kept; it is on {mine[kept].interface}"
            continue
        named = [target for target in targets if target.family == family]
        found = _towards(family, named or peers, source) or (None if named else _towards(family, [OUTSIDE[family]], source))
        if found is None:
            how[family] = "no route to peers or to the outside"
        else:
            address, target = found
            interface = mine[address].interface if address in mine else "an unknown interface"
            addresses[family], how[family] = (
                _with_length(address, mine),
                f"the way to {target.address} leaves from it; it is on {interface}",
            )
    return Detected(addresses, how)


def _towards(family: int, targets: Iterable[Prefix], source: Callable[[Prefix], Prefix | None]) -> tuple[Prefix, Prefix] | None:
    """The first usable source address towards one of the targets, and that target."""
    for target in [target for target in targets if target.family == family][:TRIED]:
        address = source(target)
        if address is not None and not any(prefix.contains(address) for prefix in NEVER):
            return address, target
    return None


def _with_length(address: Prefix, mine: Mapping[Prefix, Owned]) -> str:
    return f"{address.address}/{mine[address].length if address in mine else address.bits}"


def _addresses_of(node: Mapping[str, Any]) -> dict[int, Prefix]:
    """The addresses in a Node that can be understood."""
    spec = node.get("spec")
    bgp = spec.get("bgp") if isinstance(spec, Mapping) else None
    found = {}
    for family in (IPV4, IPV6):
        text = bgp.get(f"ipv{family}Address") if isinstance(bgp, Mapping) else None
        try:
            address = parse_address(str(text).partition("/")[0])
        except ValueError:
            continue
        if address.family == family:
            found[family] = address
    return found


def _parse(option: str, text: str, family: int = 0) -> Prefix:
    words = f"an IPv{family} address" if family else "an address"
    try:
        parse_prefix(text)
        address = parse_address(text.partition("/")[0])
    except ValueError:
        address = None
    if address is None or family not in (0, address.family):
        raise InputError([Problem(path=option, value=repr(text), allowed=f"{words}, as in {OUTSIDE[family or IPV4].address}")])
    return address
