"""Endpoints whose policy is asked about every packet: replies pass because a rule allows them, never because of the flow.

A stateless endpoint is asked before anything is known of the flow (``packets``, the first thing in ``forward``): its egress policy about
what it sends, its ingress policy about what it receives, by the packet's own header. What it denies ends there. What both ends allow,
if neither minds flows, is accepted there, whatever connection tracking thinks of it: routes may be asymmetric, and there is no mark to
revoke. Otherwise the other end is asked as always, by the flow; then the stateless end's policy is asked about the flow besides, which
allows what it allowed already.

Between a workload and its own host everything is as with other endpoints, because the host tracks its own connections. Limits of numbers
of connections do not count where no connection is looked at.

The chains are there while any endpoint is stateless; without, nothing of this costs anything. Pure.
"""

from __future__ import annotations

from tabinet.rules.hostlayout import COVERED, HostUse
from tabinet.rules.ir import (
    Accept,
    Basis,
    Chain,
    Dispatch,
    Drop,
    InterfaceIn,
    InterfacePrefix,
    Jump,
    Match,
    Return,
    Rule,
    Undecide,
    Via,
)
from tabinet.rules.options import TableOptions
from tabinet.rules.servers import server_packets
from tabinet.rules.tunnels import forbidden_packets

STATELESS = "stateless"
"""Set of the interfaces of stateless endpoints."""
PACKET_EGRESS = "packet_egress"
"""Map: interface of a stateless endpoint to the first chain of its egress policy, for each packet."""
PACKET_INGRESS = "packet_ingress"
PACKETS = "packets"
SENDER = "packet_sender"
RECEIVER = "packet_receiver"


def look_at_packets(stateless: bool) -> tuple[Rule, ...]:
    """Asks the stateless ends of a packet, and comes back when another end has to be asked."""
    return (Rule(Jump(PACKETS)),) if stateless else ()


def packet_chains(options: TableOptions, stateless: bool, hosts: HostUse | None) -> dict[str, Chain]:
    """The chains; none without need."""
    if not stateless:
        return {}
    sends, receives = InterfaceIn(STATELESS, Via.IN), InterfaceIn(STATELESS, Via.OUT)
    never = [*forbidden_packets(options), *server_packets(options)]
    return {
        PACKETS: Chain(
            (
                *(Rule(Drop(), (sends, *matches), counter=True, comment="what no workload may send") for matches in never),
                Rule(Undecide()),
                Rule(Jump(SENDER)),
                Rule(Undecide()),
                Rule(Jump(RECEIVER)),
                Rule(Undecide()),
                Rule(Accept(), (sends, receives), comment="stateless at both ends"),
                *_with_outside(options, sends, receives, hosts),
            ),
            basis=Basis.PACKET,
        ),
        SENDER: Chain((Rule(Dispatch(PACKET_EGRESS, Via.IN)),)),
        RECEIVER: Chain((Rule(Dispatch(PACKET_INGRESS, Via.OUT)),)),
    }


def _with_outside(options: TableOptions, sends: Match, receives: Match, hosts: HostUse | None) -> tuple[Rule, ...]:
    """The other end is none of this host's workloads, nor has the interface to it policy of its own."""
    if hosts is not None and hosts.wildcard:
        return ()
    covered = () if hosts is None else tuple(Rule(Return(), (InterfaceIn(COVERED, via),)) for via in (Via.IN, Via.OUT))
    comment = "stateless, the other end is elsewhere"
    ends = ((sends, Via.OUT), (receives, Via.IN))
    foreign = {via: tuple(InterfacePrefix(via, prefix, negated=True) for prefix in options.interface_prefixes) for via in Via}
    return (*covered, *(Rule(Accept(), (end, *foreign[via]), comment=comment) for end, via in ends))
