"""Which addresses an endpoint sends from with which MAC: its own, and Neutron's allowed address pairs. Pure; linear in both.

Where MACs are not checked (the endpoint's is not known, port security is off, or an option says so), a pair's MAC says nothing.
An address that is paired with other MACs only is not sent with the endpoint's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from tabinet.calc.messages import Endpoint, Pair
from tabinet.lib.ip import Prefix


def other_pairs(endpoint: Endpoint, *, checked: bool = True) -> tuple[Pair, ...]:
    """The pairs with other MACs than the endpoint's own. ``checked``: MACs are, where that is possible."""
    if not checked or not endpoint.mac or endpoint.any_mac:
        return ()
    return tuple(pair for pair in endpoint.pairs if pair.mac not in ("", endpoint.mac))


def own_sources(endpoint: Endpoint, *, checked: bool = True, spoofing: bool = True) -> Iterator[Prefix]:
    """What it sends from with its own MAC, or with any. ``spoofing``: allowSpoofedSourcePrefixes counts."""
    others = other_pairs(endpoint, checked=checked)
    own = {pair.net for pair in endpoint.pairs if pair not in others}
    only_others = {pair.net for pair in others} - own
    spoofed = endpoint.spoof_nets if spoofing else ()
    yield from (net for net in (*endpoint.nets, *spoofed) if net not in only_others)
    yield from own


def may_send(endpoint: Endpoint, source: Prefix, mac: str, *, spoofing: bool = True) -> bool:
    """True when it may send from this address with this MAC; empty: not known, so any that the address goes with."""
    if any(pair.net.contains(source) and mac in ("", pair.mac) for pair in other_pairs(endpoint)):
        return True
    wrong = mac and endpoint.mac and mac != endpoint.mac and not endpoint.any_mac
    return not wrong and any(net.contains(source) for net in own_sources(endpoint, spoofing=spoofing))
