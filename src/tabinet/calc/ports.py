"""What of a port of Neutron's its host needs to know to program it, from the annotation that its endpoint carries (``model.openstack``).

In: annotations of a workload endpoint. Out: ``PortNeeds``, and what is wrong with them. An annotation that cannot be read is as if it
were not there, and is reported: then the interface of a subport is not made, and nothing passes. Pure; linear in the annotation.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tabinet.calc.messages import Trunk
from tabinet.errors import DataError, Problem
from tabinet.model.openstack import PORT_ANNOTATION, PortFacts, parse_port_facts

TAGS = range(1, 4095)
"""What a subport can have (IEEE 802.1Q; 0 and 4095 are reserved)."""


class PortNeeds(msgspec.Struct, frozen=True):
    """What the annotation asks for."""

    trunk: Trunk | None = None
    problems: tuple[Problem, ...] = ()


NOTHING = PortNeeds()


def port_needs(annotations: Mapping[str, str], source: str) -> PortNeeds:
    """What the annotations ask for. ``source`` names the endpoint in problems."""
    text = annotations.get(PORT_ANNOTATION)
    if text is None:
        return NOTHING
    try:
        facts = parse_port_facts(text, source)
    except DataError as error:
        return PortNeeds(problems=tuple(error.problems))
    problems: list[Problem] = []
    return PortNeeds(_trunk(facts, source, problems), tuple(problems))


def _trunk(facts: PortFacts, source: str, problems: list[Problem]) -> Trunk | None:
    if not facts.trunk_parent:
        return None
    if facts.vlan not in TAGS:
        path = f"metadata.annotations.{PORT_ANNOTATION}.vlan"
        problems.append(Problem(path=path, value=str(facts.vlan), allowed="1 to 4094; without, it has no interface", source=source))
        return None
    return Trunk(facts.trunk_parent, facts.vlan)
