"""The part of the fixed layout that is there while the host has host endpoints.

Where it joins in: ``forward``, ``input`` and ``output`` send what passes a covered interface to ``judge``, too. There an end of the flow
that is no workload's is either this host (then its own interface's normal policy decides) or came from, or goes to, elsewhere through
one of its interfaces (then the policy with applyOnForward does). preDNAT policy comes before both, judged by the flow as it was sent;
since connection tracking keeps that, it needs no hook of its own, and a reply is judged as the first packet was. doNotTrack policy has
raw chains; what it accepts carries a mark, because the filter chains cannot know it otherwise.

What is never denied, whatever policy says: the failsafe ports, the fabric's own control protocols, neighbour discovery, the loopback
interface, and anything on an interface without an endpoint. Traffic to and from workloads' interfaces is not a host endpoint's.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tabinet.rules.denied import count_denied
from tabinet.rules.ir import (
    Accept,
    AcceptUntracked,
    Address,
    AddressIn,
    Basis,
    Chain,
    Decided,
    Dispatch,
    Drop,
    Goto,
    HeaderAddressIn,
    HookPoint,
    InterfaceIn,
    InterfaceIs,
    InterfacePrefix,
    Jump,
    Match,
    NoInterface,
    OriginalDirection,
    Port,
    Protocol,
    ReplyDirection,
    Return,
    Rule,
    Side,
    Undecide,
    Untracked,
    Verdict,
    Via,
)
from tabinet.rules.options import CONTROL_PORTS, ProtoPort, TableOptions
from tabinet.rules.roles import (
    ACCEPTED,
    AFTER_PRE_DNAT,
    DENY_RAW,
    FAILSAFE_IN,
    FAILSAFE_OUT,
    HOST_MAPS,
    UNTRACKED,
    Role,
)

COVERED = "host_covered"
"""Set of the interfaces with a host endpoint."""
LOOPBACK = "lo"
JUDGE = "judge"
RAW_IN = "raw_in"


class HostUse(msgspec.Struct, frozen=True):
    """What the host endpoints in use need of the fixed part."""

    wildcard: dict[Role, str] = {}
    """First chains of the endpoint of all interfaces without one of their own; empty without such an endpoint."""
    pre_dnat: bool = False
    untracked: bool = False


def covered(via: Via, use: HostUse | None) -> tuple[Rule, ...]:
    """Sends what passes a covered interface to be judged."""
    if use is None:
        return ()
    if use.wildcard:
        return (Rule(Goto(JUDGE), (_real(via),)),)
    return (Rule(Goto(JUDGE), (InterfaceIn(COVERED, via),)),)


def accepted_untracked(use: HostUse | None, *, passed: bool = False) -> tuple[Rule, ...]:
    """Lets pass what a raw chain accepted, which may also be what is passed on to other hosts."""
    if use is None or not (use.untracked or passed):
        return ()
    return (Rule(Accept(), (Untracked(),), comment="accepted without a connection"),)


def host_chains(options: TableOptions, use: HostUse, local: dict[int, str]) -> dict[str, Chain]:
    """The chains; ``local`` names the sets of workloads' addresses."""
    chains = {
        FAILSAFE_IN: Chain(_failsafes(options.failsafe_inbound, Side.SOURCE, Goto(ACCEPTED))),
        FAILSAFE_OUT: Chain(_failsafes(options.failsafe_outbound, Side.DESTINATION, Goto(ACCEPTED))),
        AFTER_PRE_DNAT: Chain(
            (
                Rule(Undecide()),
                Rule(Goto(ACCEPTED), (OriginalDirection(), NoInterface(Via.OUT))),
                Rule(Goto(ACCEPTED), (ReplyDirection(), NoInterface(Via.IN))),
            )
        ),
    }
    for word, near, far in (("original", Via.IN, Via.OUT), ("reply", Via.OUT, Via.IN)):
        # ``near`` is the interface on the side where the flow began, ``far`` the other.
        chains[f"host_source_{word}"] = Chain(_host_source(options, far, local, use))
        chains[f"elsewhere_source_{word}"] = Chain(_elsewhere_source(word, near, far, use))
        chains[f"to_this_host_{word}"] = Chain(_dispatch(Role.TO_HOST, near, use, ACCEPTED))
        chains[f"elsewhere_target_{word}"] = Chain(_dispatch(Role.FORWARD_OUT, far, use, ACCEPTED))
        if use.pre_dnat:
            skip = _failsafes(options.failsafe_inbound, Side.SOURCE, Return())
            chains[f"pre_dnat_{word}"] = Chain((*skip, *_dispatch(Role.PRE_DNAT, near, use)), basis=Basis.ORIGINAL)
    if use.untracked:
        chains |= _raw_chains(options, use, local)
    return chains


def _host_source(options: TableOptions, far: Via, local: dict[int, str], use: HostUse) -> tuple[Rule, ...]:
    """The host began the flow. Towards workloads it needs no policy, nor where its packet still has the interface of before translation."""
    workloads: list[Match] = [InterfacePrefix(far, prefix) for prefix in options.interface_prefixes]
    workloads += [AddressIn(Side.DESTINATION, family, name) for family, name in local.items()]
    return (*(Rule(Goto(ACCEPTED), (match,)) for match in workloads), *_dispatch(Role.FROM_HOST, far, use, ACCEPTED))


def _elsewhere_source(word: str, near: Via, far: Via, use: HostUse) -> tuple[Rule, ...]:
    """The flow came in from elsewhere. What was said of it as it was sent comes first, and comes back if it decides nothing."""
    before = (Rule(Jump(f"pre_dnat_{word}")), Rule(Goto(AFTER_PRE_DNAT), (Decided(),))) if use.pre_dnat else ()
    return (*before, Rule(Goto(f"to_this_host_{word}"), (NoInterface(far),)), *_dispatch(Role.FORWARD_IN, near, use))


def _dispatch(role: Role, via: Via, use: HostUse, otherwise: str = "") -> tuple[Rule, ...]:
    rules = [Rule(Dispatch(HOST_MAPS[role], via))]
    if role in use.wildcard:
        rules.append(Rule(Goto(use.wildcard[role]), (_real(via),)))
    if otherwise:
        rules.append(Rule(Goto(otherwise)))
    return tuple(rules)


def _real(via: Via) -> Match:
    return InterfaceIs(via, LOOPBACK, negated=True)


def _raw_chains(options: TableOptions, use: HostUse, local: dict[int, str]) -> dict[str, Chain]:
    inbound, outbound = options.failsafe_inbound, options.failsafe_outbound
    # Answers are told by the port of the other end; without them half of a tracked flow would be untracked.
    into = (*_raw_failsafes(inbound, Side.DESTINATION, Side.SOURCE), *_raw_failsafes(outbound, Side.SOURCE, Side.SOURCE))
    out = (*_raw_failsafes(outbound, Side.DESTINATION, Side.DESTINATION), *_raw_failsafes(inbound, Side.SOURCE, Side.DESTINATION))
    tracked = "to a workload: tracked"
    workloads = tuple(Rule(Accept(), (HeaderAddressIn(Side.DESTINATION, family, name),), comment=tracked) for family, name in local.items())
    ours = tuple(Rule(Accept(), (InterfacePrefix(Via.OUT, prefix),)) for prefix in options.interface_prefixes)
    return {
        RAW_IN: Chain((*workloads, *into, *_dispatch(Role.UNTRACKED_IN, Via.IN, use)), basis=Basis.HEADER),
        "raw_out": Chain((*ours, *out, *_dispatch(Role.UNTRACKED_OUT, Via.OUT, use)), HookPoint.OUTPUT_RAW, Basis.HEADER),
        UNTRACKED: Chain((Rule(AcceptUntracked()),), basis=Basis.HEADER),
        DENY_RAW: Chain((*count_denied(), Rule(Drop(), counter=True, comment="denied")), basis=Basis.HEADER),
    }


def _failsafes(ports: Iterable[ProtoPort], peer: Side, verdict: Verdict) -> tuple[Rule, ...]:
    """The flow's destination port is one of these; control protocols count for both directions."""
    return tuple(_failsafe(port, Side.DESTINATION, peer, verdict) for port in dict.fromkeys((*ports, *CONTROL_PORTS)))


def _raw_failsafes(ports: Iterable[ProtoPort], side: Side, peer: Side) -> tuple[Rule, ...]:
    return tuple(_failsafe(port, side, peer, Accept()) for port in dict.fromkeys((*ports, *CONTROL_PORTS)))


def _failsafe(port: ProtoPort, side: Side, peer: Side, verdict: Verdict) -> Rule:
    matches = (*_peer(port, peer), Protocol(port.protocol), Port(side, port.port, port.port))
    return Rule(verdict, matches, comment=f"failsafe {_text(port)}")


def _peer(port: ProtoPort, side: Side) -> tuple[Match, ...]:
    return () if port.net is None else (Address(side, port.net.family, port.net.value, port.net.last),)


def _text(port: ProtoPort) -> str:
    return f"{port.protocol}/{port.port}" + (f" {port.net}" if port.net is not None else "")
