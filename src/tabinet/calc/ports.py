"""What a workload endpoint says by annotations of what its host needs to know to program it: those of ``model.openstack`` and
``model.annotations``.

In: annotations of a workload endpoint. Out: ``PortNeeds``, and what is wrong with them. An annotation that cannot be read is reported, and
counts as what allows less: the interface of a subport is not made, every packet is judged by itself. Pure; linear in the annotations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from tabinet.calc.addresslimits import read_address_limits
from tabinet.calc.forwards import read_forwards
from tabinet.calc.messages import AddressQos, Forward, ForwardElsewhere, Pair, Trunk
from tabinet.errors import DataError, Problem
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.annotations import ADDRESS_LIMITS, PORT_FORWARDS, STATELESS
from tabinet.model.openstack import PORT_ANNOTATION, PortFacts, parse_port_facts

TAGS = range(1, 4095)
"""What a subport can have (IEEE 802.1Q; 0 and 4095 are reserved)."""


class PortNeeds(msgspec.Struct, frozen=True):
    """What the annotations ask for."""

    trunk: Trunk | None = None
    pairs: tuple[Pair, ...] = ()
    """Sorted."""
    any_mac: bool = False
    stateless: bool = False
    """Policy is asked about every packet by itself."""
    forwards: tuple[Forward, ...] = ()
    """One for each port."""
    elsewhere: tuple[ForwardElsewhere, ...] = ()
    """Sorted, without addresses of hosts."""
    address_qos: tuple[AddressQos, ...] = ()
    """Sorted, each address once."""
    problems: tuple[Problem, ...] = ()


_ANYWHERE = (parse_prefix("0.0.0.0/0"), parse_prefix("::/0"))
_TRUE, _FALSE = "true", "false"
NOTHING = PortNeeds()


def port_needs(annotations: Mapping[str, str], source: str) -> PortNeeds:
    """What the annotations ask for. ``source`` names the endpoint in problems."""
    problems: list[Problem] = []
    stateless = _stateless(annotations.get(STATELESS, _FALSE), source, problems)
    forwards, elsewhere = read_forwards(annotations.get(PORT_FORWARDS), source, problems)
    address_qos = read_address_limits(annotations.get(ADDRESS_LIMITS), source, problems)
    text = annotations.get(PORT_ANNOTATION)
    if text is None:
        needs = PortNeeds(stateless=stateless, forwards=forwards, elsewhere=elsewhere, address_qos=address_qos, problems=tuple(problems))
        return NOTHING if needs == NOTHING else needs
    try:
        facts = parse_port_facts(text, source)
    except DataError as error:
        problems += error.problems
        return PortNeeds(stateless=stateless, forwards=forwards, elsewhere=elsewhere, address_qos=address_qos, problems=tuple(problems))
    return PortNeeds(
        trunk=_trunk(facts, source, problems),
        pairs=_pairs(facts, source, problems),
        any_mac=not facts.port_security,
        stateless=stateless,
        forwards=forwards,
        elsewhere=elsewhere,
        address_qos=address_qos,
        problems=tuple(problems),
    )


def routed_prefixes(pairs: Iterable[Pair], own: Collection[Prefix]) -> tuple[Prefix, ...]:
    """What of the pairs is routed to the endpoint besides its own addresses.

    Everything, and a prefix that holds one of its own addresses (its own network), may be sent from, but is not behind the endpoint.
    """
    nets = {pair.net for pair in pairs if pair.net.length and not pair.net.is_host}
    return tuple(sorted(net for net in nets if not any(net.contains(address) for address in own)))


def _pairs(facts: PortFacts, source: str, problems: list[Problem]) -> tuple[Pair, ...]:
    pairs = set()
    for index, pair in enumerate(facts.pairs):
        try:
            net = parse_prefix(pair.net)
        except ValueError:
            path = f"metadata.annotations.{PORT_ANNOTATION}.pairs[{index}].net"
            problems.append(Problem(path=path, value=repr(pair.net)[:80], allowed="an address or prefix; it is left out", source=source))
            continue
        pairs.add(Pair(net, pair.mac.lower().replace("-", ":")))
    if not facts.port_security:
        pairs |= {Pair(net, "") for net in _ANYWHERE}
    return tuple(sorted(pairs))


def _stateless(text: str, source: str, problems: list[Problem]) -> bool:
    if text not in (_TRUE, _FALSE):
        path = f"metadata.annotations.{STATELESS}"
        problems.append(Problem(path=path, value=repr(text)[:80], allowed="true or false; it counts as true", source=source))
    return text != _FALSE


def _trunk(facts: PortFacts, source: str, problems: list[Problem]) -> Trunk | None:
    if not facts.trunk_parent:
        return None
    if facts.vlan not in TAGS:
        path = f"metadata.annotations.{PORT_ANNOTATION}.vlan"
        problems.append(Problem(path=path, value=str(facts.vlan), allowed="1 to 4094; without, it has no interface", source=source))
        return None
    return Trunk(facts.trunk_parent, facts.vlan)
