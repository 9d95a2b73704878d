"""How many senders a workload may have on its link: each becomes an entry of the host's tables of neighbours, which all share.

The kernel makes an entry for the sender of an ARP request (RFC 826) and of a neighbour or router solicitation (RFC 4861 sections 7.2.3 and
6.2.6), whoever that claims to be. By ARP a workload speaks with its own addresses, without limit, and asks without one (RFC 5227); packets
of family arp meet a table of their own. By neighbour discovery it speaks with its own addresses, without limit, and with link-local ones,
which nobody knows beforehand (RFC 7217). Those, and addresses within prefixes that it may use besides, are *learned*: a sender that
was heard in the last minute is heard again; of others each interface has ``NEW_SENDERS_BURST``, and then ``NEW_SENDERS_PER_S``.
So a workload costs the host at most the burst and what the kernel has not collected yet, about 60 to 75 s of that rate (arp(7)).

The host does not claim a workload's own addresses towards it: when a workload announces one that is routed elsewhere at that moment, the
kernel would answer for it (proxy ARP), and that would be a conflict to the workload (RFC 5227 section 2.4).

Hardware addresses are not compared in ARP: whatever a workload says of its own address concerns itself only, and the host's entry for
it is permanent where its hardware address is known.
"""

from __future__ import annotations

from tabinet.lib.ip import IPV4, IPV6, parse_prefix
from tabinet.rules.ir import (
    Accept,
    ArpProbe,
    ArpSaid,
    Chain,
    Drop,
    Goto,
    HeaderAddress,
    HeaderIcmp6,
    HookPoint,
    InterfacePrefix,
    Match,
    PairedIn,
    RateWithin,
    Remember,
    Rule,
    SetDef,
    SetType,
    Side,
    SourceIn,
    Tuple,
    Via,
)
from tabinet.rules.roles import DROPPED

ARP_OWN = "arp_own"
"""Set of (interface, address): what a workload may claim by ARP."""
ARP_SPOOF = "arp_spoof"
"""The same for prefixes, within which senders are learned."""
ARP_LEARNED, ND_LEARNED = "arp_learned", "nd_learned"
"""Sets of (interface, address) of senders that were heard; what they hold is packets' affair."""
ARP_RATE, ND_RATE = "arp_rate", "nd_rate"
"""Sets of interfaces that new senders were heard on."""
ARP_INPUT, ARP_OUTPUT, ARP_SENDERS, ND_SENDERS = "arp_input", "arp_output", "arp_senders", "nd_senders"

NEW_SENDERS_PER_S, NEW_SENDERS_BURST = 1, 32

LINK_LOCAL6 = parse_prefix("fe80::/10")
_SOLICITED = HeaderIcmp6(133, 136)
"""Router and neighbour solicitation and advertisement (RFC 4861 section 4)."""


def neighbour_sets() -> dict[str, SetDef]:
    """Sets that every table has."""
    return {
        ARP_OWN: SetDef(SetType.SOURCES, IPV4),
        ARP_SPOOF: SetDef(SetType.SOURCE_NETS, IPV4),
        ARP_LEARNED: SetDef(SetType.SENDERS, IPV4),
        ARP_RATE: SetDef(SetType.RATES),
        ND_LEARNED: SetDef(SetType.SENDERS, IPV6),
        ND_RATE: SetDef(SetType.RATES),
    }


def neighbour_chains(prefixes: tuple[str, ...]) -> dict[str, Chain]:
    """Chains that every table has. ``prefixes``: of workloads' interfaces."""
    foreign = tuple(InterfacePrefix(Via.IN, prefix, negated=True) for prefix in prefixes)
    arp = (
        Rule(Accept(), foreign),
        Rule(Accept(), (SourceIn(IPV4, ARP_OWN, Tuple.ARP),)),
        Rule(Accept(), (ArpProbe(),), comment="duplicate address detection"),
        Rule(Goto(ARP_SENDERS), (SourceIn(IPV4, ARP_SPOOF, Tuple.ARP),)),
        Rule(Drop(), counter=True, comment="spoofed sender"),
    )
    return {
        ARP_INPUT: Chain(arp, HookPoint.ARP_INPUT),
        ARP_OUTPUT: Chain((Rule(Drop(), (ArpSaid(ARP_OWN),), comment="the workload's own address"),), HookPoint.ARP_OUTPUT),
        ARP_SENDERS: Chain((*_learn(IPV4, ARP_LEARNED, ARP_RATE, Tuple.ARP), Rule(Drop(), counter=True, comment="too many senders"))),
        ND_SENDERS: Chain(
            (*_learn(IPV6, ND_LEARNED, ND_RATE, Tuple.HEADER), Rule(Goto(DROPPED), counter=True, comment="too many neighbours"))
        ),
    }


def learn_neighbours(spoof: str) -> tuple[Rule, ...]:
    """Neighbour discovery from a workload's other addresses than its own. ``spoof``: the set of prefixes that it may use."""
    return (learn_link_local(), Rule(Goto(ND_SENDERS), (_SOLICITED, SourceIn(IPV6, spoof)), comment="neighbour discovery"))


def learn_link_local() -> Rule:
    """Neighbour discovery from link-local addresses."""
    return Rule(Goto(ND_SENDERS), (_SOLICITED, HeaderAddress(Side.SOURCE, LINK_LOCAL6)), comment="neighbour discovery")


def learn_pairs(pairs: str) -> Rule:
    """Neighbour discovery from addresses that a workload may use with other hardware addresses than its own."""
    return Rule(Goto(ND_SENDERS), (_SOLICITED, PairedIn(IPV6, pairs)), comment="neighbour discovery of allowed address pairs")


def _learn(family: int, learned: str, rate: str, source: Tuple) -> tuple[Rule, ...]:
    new: tuple[Match, ...] = (RateWithin(rate, NEW_SENDERS_PER_S, NEW_SENDERS_BURST), Remember(family, learned, source))
    return (Rule(Accept(), (SourceIn(family, learned, source),)), Rule(Accept(), new, comment="new sender"))
