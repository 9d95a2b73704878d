"""What a workload endpoint says by annotations of what its host needs to know to program it: those of ``model.openstack`` and
``model.annotations``.

In: annotations of a workload endpoint. Out: ``PortNeeds``, and what is wrong with them. An annotation that cannot be read is reported, and
counts as what allows less: the interface of a subport is not made, every packet is judged by itself. Pure; linear in the annotations.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tabinet.calc.messages import Trunk
from tabinet.errors import DataError, Problem
from tabinet.model.annotations import STATELESS
from tabinet.model.openstack import PORT_ANNOTATION, PortFacts, parse_port_facts

TAGS = range(1, 4095)
"""What a subport can have (IEEE 802.1Q; 0 and 4095 are reserved)."""


class PortNeeds(msgspec.Struct, frozen=True):
    """What the annotations ask for."""

    trunk: Trunk | None = None
    stateless: bool = False
    """Policy is asked about every packet by itself."""
    problems: tuple[Problem, ...] = ()


_TRUE, _FALSE = "true", "false"
NOTHING = PortNeeds()


def port_needs(annotations: Mapping[str, str], source: str) -> PortNeeds:
    """What the annotations ask for. ``source`` names the endpoint in problems."""
    problems: list[Problem] = []
    stateless = _stateless(annotations.get(STATELESS, _FALSE), source, problems)
    text = annotations.get(PORT_ANNOTATION)
    if text is None:
        return PortNeeds(None, stateless, tuple(problems)) if stateless else NOTHING
    try:
        facts = parse_port_facts(text, source)
    except DataError as error:
        return PortNeeds(None, stateless, (*problems, *error.problems))
    return PortNeeds(_trunk(facts, source, problems), stateless, tuple(problems))


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
