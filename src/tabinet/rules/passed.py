"""Packets that this host passes on to another, which translates them: ports of floating addresses that lead to endpoints there.

They are accepted before connection tracking, without a connection: the answers do not come back this way, so that all but the first packet
of a connection would count as invalid. The other host's policy is asked, not that of this host's own endpoints or host endpoints. Where the
way there is missing (``dataplane.passing``) they come to the endpoint that has the address, and untracked packets are dropped there.

What this host's own workloads send is tracked as ever: its answers do come back. One chain with a rule for each range of ports, which every
packet from the fabric meets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tabinet.calc.messages import ForwardElsewhere
from tabinet.model.keys import ResourceKey
from tabinet.rules.edit import TableEdit
from tabinet.rules.ir import AcceptUntracked, Basis, Chain, HeaderAddress, Port, Protocol, Rule, Side

PASSED = "passed"


@dataclass(slots=True)
class Passed:
    """What all bound endpoints say of ports that lead elsewhere."""

    _wanted: dict[ResourceKey, tuple[ForwardElsewhere, ...]] = field(default_factory=dict)
    _dirty: bool = False
    in_use: bool = False
    """The chain is there. As of the last ``settle``."""

    def change(self, key: ResourceKey, before: tuple[ForwardElsewhere, ...], after: tuple[ForwardElsewhere, ...]) -> None:
        """The endpoint says this instead of that."""
        if before == after:
            return
        self._dirty = True
        self._wanted.pop(key, None)
        if after:
            self._wanted[key] = after

    def settle(self, edit: TableEdit) -> None:
        """The chain has a rule for each range of ports. O(all of them) after a change, else O(1)."""
        if not self._dirty:
            return
        self._dirty = False
        ranges = sorted(
            {(each.external, each.protocol, each.first_port, each.last_port) for wanted in self._wanted.values() for each in wanted}
        )
        rules = tuple(
            Rule(
                AcceptUntracked(),
                (HeaderAddress(Side.DESTINATION, external), Protocol(protocol), Port(Side.DESTINATION, first, last)),
                comment=f"port {protocol}/{first} of {external.address} is passed on",
            )
            for external, protocol, first, last in ranges
        )
        if rules:
            edit.set_chain(PASSED, Chain(rules, basis=Basis.HEADER))
        elif self.in_use:
            edit.remove_chain(PASSED)
        self.in_use = bool(rules)
