"""Denied packets by endpoint: two sets of interfaces with a count each, one for where packets came from and one for where they were going.

Endpoints of a class share its rules, so a rule's counter cannot tell them apart. The chains in which packets end (``roles.DENIALS``)
therefore look up the packet's interfaces first, in rules without a verdict. The elements lead to no chain: that they come and go with
the endpoints makes the kernel look at no chains again, and packets that are not denied never come here.

In: who owns which interface, from ``bindings`` and ``hosts``. Out: elements, and for whoever reads the counts the owner of each interface.
The endpoint for all interfaces (``*``) has none of its own, so that what it denies is not counted for it. O(1) for each change.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from tabinet.model.keys import ResourceKey
from tabinet.rules.edit import TableEdit
from tabinet.rules.ir import CountFor, Interface, Rule, Via

DENIED = {Via.IN: "denied_in", Via.OUT: "denied_out"}
"""Sets of interfaces with counts of the packets that came in through them, or should have left through them, and were denied."""


class Owner(msgspec.Struct, frozen=True, gc=False):
    """Whose interface it is."""

    key: ResourceKey
    is_host: bool
    """A host endpoint, which receives what comes in; a workload sent that."""

    def is_ingress(self, via: Via) -> bool:
        """True when the packets of this side are those that the endpoint would have received."""
        return (via is Via.IN) is self.is_host


def count_denied() -> tuple[Rule, ...]:
    """Counts the packet for the endpoints that it came from and was going to."""
    return tuple(Rule(CountFor(name, via)) for via, name in DENIED.items())


@dataclass(slots=True)
class CountedInterfaces:
    """Who owns which of the interfaces in the sets."""

    owners: dict[str, Owner] = field(default_factory=dict)
    _left: dict[str, Owner] = field(default_factory=dict)

    def put(self, interface: str, owner: Owner | None, edit: TableEdit) -> None:
        """The interface is this owner's; None: it is nobody's, and not in the sets."""
        before = self.owners.get(interface)
        if owner == before:
            return
        if before is not None:
            self._left.setdefault(interface, before)
        if owner is not None:
            self.owners[interface] = owner
        else:
            del self.owners[interface]
        for name in DENIED.values():
            (edit.add_element if owner is not None else edit.remove_element)(name, Interface(interface))

    def take_left(self) -> dict[str, Owner]:
        """By interface, the owner that it had when this was asked before and has not any more; told once."""
        left, self._left = self._left, {}
        return left
