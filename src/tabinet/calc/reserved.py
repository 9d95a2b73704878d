"""``ReservedSets``: the sets with fixed names, of all pools and all hosts, which every host has whatever its rules say.

In: pools and nodes. Out: members of the reserved sets of ``messages``, told to the outbox. Members are counted, because two pools may
have one CIDR. What is no prefix is left out; ``routing`` reports it. Pure; O(1) for each change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tabinet.calc.endpoints import readable, readable_addresses
from tabinet.calc.messages import ALL_HOSTS, ALL_POOLS, NAT_POOLS, Member, SetKind
from tabinet.calc.outbox import Outbox
from tabinet.lib.ip import Prefix
from tabinet.model.resources import IPPool, Node

Memberships = dict[str, frozenset[Prefix]]
"""By set id: what one resource brings to it."""


def pool_memberships(pool: IPPool | None) -> Memberships:
    """What a pool brings."""
    if pool is None:
        return {}
    cidr = frozenset(readable((pool.spec.cidr,)))
    return {ALL_POOLS: cidr, NAT_POOLS: cidr} if pool.spec.nat_outgoing else {ALL_POOLS: cidr}


def node_memberships(node: Node | None) -> Memberships:
    """What a host brings: its addresses of BGP, and ``spec.addresses`` of every type."""
    if node is None:
        return {}
    texts = [address.address for address in node.spec.addresses]
    if node.spec.bgp is not None:
        texts += (node.spec.bgp.ipv4_address, node.spec.bgp.ipv6_address)
    return {ALL_HOSTS: frozenset(readable_addresses(texts))}


@dataclass(slots=True)
class ReservedSets:
    """The members of the reserved sets."""

    outbox: Outbox
    _members: dict[str, dict[Member, int]] = field(default_factory=lambda: {set_id: {} for set_id in (ALL_POOLS, NAT_POOLS, ALL_HOSTS)})
    """With how many resources bring each."""
    _brought: dict[tuple[str, str], Memberships] = field(default_factory=dict)
    """By kind and name of the resource."""

    def start(self) -> None:
        """The sets exist, if empty."""
        for set_id, members in self._members.items():
            self.outbox.on_set_activated(set_id, SetKind.NETS, members)

    def on_pool_update(self, name: str, pool: IPPool | None) -> None:
        self._update("IPPool", name, pool_memberships(pool))

    def on_node_update(self, name: str, node: Node | None) -> None:
        self._update("Node", name, node_memberships(node))

    def _update(self, kind: str, name: str, now: Memberships) -> None:
        before = self._brought.pop((kind, name), {})
        if now:
            self._brought[kind, name] = now
        if before == now:
            return
        for set_id in self._members:
            old, new = before.get(set_id, frozenset()), now.get(set_id, frozenset())
            self._count(set_id, new - old, 1)
            self._count(set_id, old - new, -1)

    def _count(self, set_id: str, changed: Iterable[Prefix], step: int) -> None:
        members = self._members[set_id]
        for member in changed:
            count = members.get(member, 0) + step
            if not count:
                del members[member]
                self.outbox.on_member_removed(set_id, member)
            else:
                members[member] = count
                if step == count == 1:
                    self.outbox.on_member_added(set_id, member)
