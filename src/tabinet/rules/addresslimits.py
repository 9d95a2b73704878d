"""Limits of floating addresses in the packet filter: bandwidth, packet rate and code point of what has the address in its header.

What comes for a floating address is looked at before it is translated, what goes from it after: there the header says the address whichever
way the connection began, and what the endpoint does by its own address is not concerned. What the host itself says to a floating address
of its own endpoints passes neither place.

What is above the rate is dropped, not kept waiting (as Neutron's own agents police): no queue that could wait is passed by exactly these
packets. The kernel's bucket holds what a second brings, and the burst besides; so of a burst only what is above that is asked for, and a
smaller one than that of a second cannot be had.

Each limited address is, for each direction, a map element, a chain and up to three rules; a packet is one lookup. The chains are a function
of the limits alone, so that no other change begins the counting again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tabinet.calc.messages import AddressQos, Limits, Qos
from tabinet.lib.ip import IPV4, IPV6, Prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.edit import TableEdit
from tabinet.rules.ir import Basis, BytesOver, Chain, DispatchAddress, Goto, HookPoint, RateOver, Rule, SetDscp, Side
from tabinet.rules.limits import DEFAULT_PACKET_BURST
from tabinet.rules.roles import DROPPED

ADDRESS_INGRESS = {IPV4: "address_ingress4", IPV6: "address_ingress6"}
"""Maps from a floating address to the chain that what comes for it passes."""
ADDRESS_EGRESS = {IPV4: "address_egress4", IPV6: "address_egress6"}
LARGEST_PACKET_BYTES = 65_536
"""Of packets that are put together on their way (GRO) and judged as one: a smaller bucket would never let one pass."""
_MOST_BURST_BYTES = (1 << 32) - 1
FAMILIES = (IPV4, IPV6)


def address_limit_chains() -> dict[str, Chain]:
    """The base chains, while any floating address has limits."""
    come = tuple(Rule(DispatchAddress(ADDRESS_INGRESS[family], family, Side.DESTINATION)) for family in FAMILIES)
    go = tuple(Rule(DispatchAddress(ADDRESS_EGRESS[family], family, Side.SOURCE)) for family in FAMILIES)
    return {
        "address_in": Chain(come, HookPoint.PREROUTING_QOS, Basis.HEADER),
        "address_out": Chain(go, HookPoint.POSTROUTING_LAST, Basis.HEADER),
    }


def bytes_over(limits: Limits) -> BytesOver | None:
    """What is above the bandwidth; None without one."""
    if not limits.bandwidth_bit_s:
        return None
    rate = max(1, limits.bandwidth_bit_s // 8)
    bucket = max(limits.burst_bits // 8, LARGEST_PACKET_BYTES)
    return BytesOver(rate, min(max(0, bucket - rate), _MOST_BURST_BYTES))


@dataclass(slots=True)
class LimitedAddresses:
    """The limits of the floating addresses of all bound endpoints."""

    _claims: dict[Prefix, dict[ResourceKey, Qos]] = field(default_factory=dict)
    """By address: who asks for what."""
    _placed: dict[Prefix, Qos] = field(default_factory=dict)
    """As in the table."""
    _dirty: dict[Prefix, None] = field(default_factory=dict)

    @property
    def in_use(self) -> bool:
        """True when there is one. As of the last ``settle``."""
        return bool(self._placed)

    def change(self, key: ResourceKey, before: tuple[AddressQos, ...], after: tuple[AddressQos, ...]) -> None:
        """The endpoint asks for these instead of those."""
        if before == after:
            return
        for each in before:
            self._claims[each.external].pop(key, None)
            self._dirty[each.external] = None
        for each in after:
            self._claims.setdefault(each.external, {})[key] = each.qos
            self._dirty[each.external] = None

    def settle(self, edit: TableEdit) -> None:
        """Maps and chains are those of the limits; of several for one address those of the smallest key."""
        dirty, self._dirty = self._dirty, {}
        for external in dirty:
            claims = self._claims.get(external, {})
            if not claims:
                self._claims.pop(external, None)
            before, after = self._placed.pop(external, None), claims[min(claims)] if claims else None
            if after is not None:
                self._placed[external] = after
            if before != after:
                _replace(edit, external, before, after)


def _replace(edit: TableEdit, external: Prefix, before: Qos | None, after: Qos | None) -> None:
    old, new = _chains(external, before), _chains(external, after)
    for map_name in old.keys() - new.keys():
        edit.remove_mapping(map_name, external.address)
        edit.remove_chain(old[map_name][0])
    for map_name, (name, chain) in new.items():
        edit.set_chain(name, chain)
        edit.set_mapping(map_name, external.address, name)


def _chains(external: Prefix, qos: Qos | None) -> dict[str, tuple[str, Chain]]:
    """By map: the chain that it leads to, with its name; none without need."""
    if qos is None:
        return {}
    family, word = external.family, f"{external.family}-{external.value:x}"
    mark = () if qos.dscp is None else (Rule(SetDscp(family, qos.dscp), comment=f"DSCP {qos.dscp}"),)
    found = {ADDRESS_INGRESS[family]: (f"ai{word}", _over(qos.ingress)), ADDRESS_EGRESS[family]: (f"ae{word}", (*_over(qos.egress), *mark))}
    return {map_name: (name, Chain(rules, basis=Basis.HEADER)) for map_name, (name, rules) in found.items() if rules}


def _over(limits: Limits) -> tuple[Rule, ...]:
    rules = []
    if limits.packets_per_s:
        over = RateOver(limits.packets_per_s, limits.packet_burst or DEFAULT_PACKET_BURST)
        rules.append(Rule(Goto(DROPPED), (over,), counter=True, comment="packet rate of the address"))
    much = bytes_over(limits)
    if much is not None:
        rules.append(Rule(Goto(DROPPED), (much,), counter=True, comment="bandwidth of the address"))
    return tuple(rules)
