"""Quality of service in the packet filter: packet rates, numbers of connections, DSCP. Bandwidth is traffic control's (``dataplane.tc``).

Rates are of packets, whatever flow they belong to, so that they have base chains of their own: of what workloads send before connection
tracking sees it, of what they receive after policy. Numbers of connections are asked where a flow is judged, before its policy, and
only when it is new: a flow that was let in stays. Rates and numbers are counted by the kernel for each rule, so each interface with
limits has chains of its own; their content is a function of the limits, so that a change of policy does not begin the counting again.
"""

from __future__ import annotations

import re

import msgspec

from tabinet.calc.messages import Limits, Qos
from tabinet.lib.ip import IPV4, IPV6
from tabinet.rules import names
from tabinet.rules.edit import TableEdit
from tabinet.rules.ir import Chain, ConnectionsOver, Dispatch, Goto, HookPoint, Jump, RateOver, Rule, SetDscp, State, StateIs, Via
from tabinet.rules.roles import DENY, DROPPED

QOS_EGRESS = "qos_egress"
"""Map: interface to the chain that what comes from its workload passes."""
QOS_INGRESS = "qos_ingress"
DEFAULT_PACKET_BURST = 5
_READABLE = re.compile(r"[A-Za-z0-9._-]+")


class Queueing(msgspec.Struct, frozen=True):
    """What the table holds for the limits of one interface."""

    chains: dict[str, Chain]
    egress: str = ""
    """The chain for QOS_EGRESS; empty when none is needed."""
    ingress: str = ""
    egress_gate: str = ""
    """The chain that asks for the number of connections before the egress policy; empty when none is needed."""
    ingress_gate: str = ""


NOTHING = Queueing({})


def qos_chains() -> dict[str, Chain]:
    """The base chains, while any interface has limits."""
    return {
        "qos_in": Chain((Rule(Dispatch(QOS_EGRESS, Via.IN)),), HookPoint.PREROUTING_QOS),
        "qos_out": Chain((Rule(Dispatch(QOS_INGRESS, Via.OUT)),), HookPoint.POSTROUTING_QOS),
    }


def queueing(interface: str, qos: Qos) -> Queueing:
    """The chains of one interface."""
    word = interface if _READABLE.fullmatch(interface) else names.digest(interface)
    egress, ingress = _rates(qos.egress), _rates(qos.ingress)
    if qos.dscp is not None:
        egress += tuple(Rule(SetDscp(family, qos.dscp), comment=f"DSCP {qos.dscp}") for family in (IPV4, IPV6))
    gates = {f"ge-{word}": _gate(qos.egress), f"gi-{word}": _gate(qos.ingress)}
    chains = {f"qe-{word}": egress, f"qi-{word}": ingress} | gates
    wanted = {name: Chain(rules) for name, rules in chains.items() if rules}
    if not wanted:
        return NOTHING

    def name_of(prefix: str) -> str:
        name = f"{prefix}-{word}"
        return name if name in wanted else ""

    return Queueing(wanted, name_of("qe"), name_of("qi"), name_of("ge"), name_of("gi"))


def entrance(gate: str, chain: str, edit: TableEdit) -> str:
    """The chain to dispatch to: past the gate, if there is one, to the policy's chain."""
    if not gate:
        return chain
    name = f"{gate}/in"
    edit.set_chain(name, Chain((Rule(Jump(gate)), Rule(Goto(chain)))))
    return name


def change(interface: str, before: Queueing, after: Queueing, edit: TableEdit) -> None:
    """The table has the chains and map elements of ``after`` instead of ``before``; entrances of gates that go are gone."""
    for name in before.chains.keys() - after.chains.keys():
        edit.remove_chain(name)
    for name, chain in after.chains.items():
        edit.set_chain(name, chain)
    for map_name, old, new in ((QOS_EGRESS, before.egress, after.egress), (QOS_INGRESS, before.ingress, after.ingress)):
        if new:
            edit.set_mapping(map_name, interface, new)
        elif old:
            edit.remove_mapping(map_name, interface)
    for old, new in ((before.egress_gate, after.egress_gate), (before.ingress_gate, after.ingress_gate)):
        if old and not new:
            edit.remove_chain(f"{old}/in")


def _rates(limits: Limits) -> tuple[Rule, ...]:
    if not limits.packets_per_s:
        return ()
    over = RateOver(limits.packets_per_s, limits.packet_burst or DEFAULT_PACKET_BURST)
    return (Rule(Goto(DROPPED), (over,), counter=True, comment="packet rate"),)


def _gate(limits: Limits) -> tuple[Rule, ...]:
    if not limits.connections:
        return ()
    over = (StateIs((State.NEW,)), ConnectionsOver(limits.connections))
    return (Rule(Goto(DENY), over, counter=True, comment="number of connections"),)
