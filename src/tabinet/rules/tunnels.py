"""Who may send packets in tunnels: hosts of the fabric to each other, and workloads to nobody.

A tunnel packet that comes to this host is looked at by its own header, each one, before anything else: from a host that the calculation
knows it is accepted, whatever policy of host endpoints says, from anybody else dropped, so that nobody can put packets into the fabric
past the policy at their source. What is in it comes by again, from the tunnel's interface, and is judged like everything else.

A workload that sends tunnel packets could do just that, if its address were taken for a host's: its flows of that kind are denied, to
wherever they go, unless the operator allows them. What a host sends from its own address into a tunnel, and not from its end of it,
gets the end's address: the answer must come back the same way.

Chains and rules are O(1); a tunnel packet costs two comparisons and a set lookup.
"""

from __future__ import annotations

import msgspec

from tabinet.calc.messages import ALL_HOSTS, Tunnel
from tabinet.rules.ir import (
    Accept,
    AddressIn,
    Basis,
    Chain,
    Family,
    Goto,
    HookPoint,
    InterfaceIs,
    InterfacePrefix,
    Jump,
    Match,
    OriginalDirection,
    Port,
    Protocol,
    ReplyDirection,
    Rule,
    Side,
    TranslateSource,
    Via,
)
from tabinet.rules.names import member_set
from tabinet.rules.options import IPIP, UDP, TableOptions
from tabinet.rules.policy import SetShape
from tabinet.rules.roles import DROPPED

TUNNEL_IN, TUNNEL_OUT, TUNNELLED, TUNNEL_NAT = "tunnel_in", "tunnel_out", "tunnelled", "nat_tunnel"


class TunnelUse(msgspec.Struct, frozen=True):
    """The tunnels that the host has, and the shape of the set of all hosts."""

    tunnels: frozenset[Tunnel] = frozenset()
    hosts: SetShape | None = None


def tunnel_use(options: TableOptions, wanted: frozenset[Tunnel], hosts: SetShape | None) -> TunnelUse:
    """What is needed now."""
    tunnels = wanted - options.tunnels_off
    return TunnelUse(tunnels, hosts) if tunnels and hosts is not None else TunnelUse()


def tunnel_chains(options: TableOptions, use: TunnelUse) -> dict[str, Chain]:
    """The chains; those about what comes and goes only while there are tunnels."""
    chains = {TUNNELLED: Chain(_denied(options))} if _forbidden(options) else {}
    if not use.tunnels:
        return chains
    incoming: list[Rule] = []
    outgoing: list[Rule] = []
    translated: list[Rule] = []
    for tunnel in sorted(use.tunnels, key=lambda each: each.value):
        name, family = tunnel.value, tunnel.family
        packets = (Family(family), *_packets(options, tunnel))
        incoming += [Rule(Accept(), (*packets, known), comment=f"{name} from a host") for known in _hosts(use, family, Side.SOURCE)]
        incoming.append(Rule(Goto(DROPPED), packets, counter=True, comment=f"{name} from elsewhere"))
        outgoing += [Rule(Accept(), (*packets, known), comment=f"{name} to a host") for known in _hosts(use, family, Side.DESTINATION)]
        leaving = InterfaceIs(Via.OUT, tunnel.interface)
        own = [Rule(TranslateSource(None), (leaving, known), comment=f"into {name}") for known in _hosts(use, family, Side.SOURCE)]
        translated += own
    return chains | {
        TUNNEL_IN: Chain(tuple(incoming), basis=Basis.HEADER),
        TUNNEL_OUT: Chain(tuple(outgoing), basis=Basis.HEADER),
        TUNNEL_NAT: Chain(tuple(translated), HookPoint.POSTROUTING_NAT),
    }


def look_at_tunnels(use: TunnelUse, chain: str) -> tuple[Rule, ...]:
    """Sends packets of tunnels to ``chain``, which comes back with all others."""
    protocols = sorted({IPIP if tunnel is Tunnel.IPIP else UDP for tunnel in use.tunnels})
    return tuple(Rule(Jump(chain), (Protocol(number),)) for number in protocols)


def deny_tunnelled(options: TableOptions) -> tuple[Rule, ...]:
    """Sends flows of tunnel packets to be denied if they are a workload's."""
    return tuple(Rule(Jump(TUNNELLED), _packets(options, tunnel)) for tunnel in _forbidden(options))


def forbidden_packets(options: TableOptions) -> list[tuple[Match, ...]]:
    """What tells each kind of tunnel packets that no workload may send."""
    return [_packets(options, tunnel) for tunnel in _forbidden(options)]


def _forbidden(options: TableOptions) -> tuple[Tunnel, ...]:
    """Kinds of packets that no workload sends; VXLAN stands for both families."""
    kinds = ((Tunnel.VXLAN4, options.workloads_send_vxlan), (Tunnel.IPIP, options.workloads_send_ipip))
    return tuple(tunnel for tunnel, allowed in kinds if not allowed)


def _denied(options: TableOptions) -> tuple[Rule, ...]:
    ends: tuple[tuple[Match, Via], ...] = ((OriginalDirection(), Via.IN), (ReplyDirection(), Via.OUT))
    return tuple(
        Rule(Goto(DROPPED), (direction, InterfacePrefix(via, prefix)), counter=True, comment="a workload's tunnel packet")
        for direction, via in ends
        for prefix in options.interface_prefixes
    )


def _packets(options: TableOptions, tunnel: Tunnel) -> tuple[Match, ...]:
    if tunnel is Tunnel.IPIP:
        return (Protocol(IPIP),)
    return (Protocol(UDP), Port(Side.DESTINATION, options.vxlan_port, options.vxlan_port))


def _hosts(use: TunnelUse, family: int, side: Side) -> list[Match]:
    """The ways in which an address can be a host's."""
    if use.hosts is None:
        return []
    kinds = ("a", "n") if family in use.hosts.net_families else ("a",)
    return [AddressIn(side, family, member_set(ALL_HOSTS, kind, family)) for kind in kinds]
