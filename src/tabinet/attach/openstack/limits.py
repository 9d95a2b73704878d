"""QoS rules of Neutron to the limits and the code point of an endpoint.

In: the rules of one policy. Out: ``qosControls``. Ingress is to the port, egress from it, in both worlds. Units: Neutron has kbit/s, kbit
and thousands of packets/s; an endpoint has bit/s, bits and packets/s. Pure.

A burst that is not given (0) is four fifths of what a second may hold, as Neutron's own drivers have it. What an endpoint cannot be
limited to is never asked for: ``SUPPORTED`` tells Neutron what can be, and Neutron refuses the rest where a rule meets a port.
"""

from __future__ import annotations

from collections.abc import Sequence

from tabinet.attach.openstack.neutron import QosRule

MAX_KBPS = 10**12
MAX_BURST_KBIT = 34_359_738
MAX_KPPS = 10
"""Of an endpoint's packet rate: 10,000 packets/s."""
_MIN_BURST_BITS = 1000
_BURST_PERCENT = 80
DIRECTIONS = ("ingress", "egress")
CODE_POINTS = range(64)
"""Those that an endpoint can have; Neutron's API takes fewer."""

SUPPORTED: dict[str, dict[str, tuple[int, int]]] = {
    "bandwidth_limit": {"max_kbps": (1, MAX_KBPS), "max_burst_kbps": (0, MAX_BURST_KBIT)},
    "packet_rate_limit": {"max_kpps": (1, MAX_KPPS), "max_burst_kpps": (0, MAX_KPPS)},
}
"""Types of rules that have numbers, each with the least and the most that an endpoint can be limited to. ``dscp_marking`` has one of
``CODE_POINTS``. Minimum bandwidth and minimum packet rate would need admission control along the way through the fabric: not supported."""


def unsupported(rule: QosRule) -> str:
    """Why an endpoint or address cannot be limited by this rule; empty when it can."""
    if rule.type == "dscp_marking":
        return "" if rule.dscp_mark in CODE_POINTS else f"no code point is {rule.dscp_mark}"
    known = SUPPORTED.get(rule.type)
    if known is None:
        return f"{rule.type} would have to be kept free on every way through the fabric, and nobody does that"
    for name, (least, most) in known.items():
        value = getattr(rule, name)
        if value is not None and not least <= value <= most:
            return f"{name} {value} is not from {least} to {most}"
    return ""


def translate_limits(rules: Sequence[QosRule]) -> dict[str, int]:
    """``qosControls`` of an endpoint under these rules; empty without."""
    controls: dict[str, int] = {}
    for rule in rules:
        if rule.direction not in DIRECTIONS:
            continue
        if rule.type == "bandwidth_limit" and rule.max_kbps:
            controls |= _bandwidth(rule.direction, rule.max_kbps, rule.max_burst_kbps or 0)
        elif rule.type == "packet_rate_limit" and rule.max_kpps:
            controls |= _packets(rule.direction, rule.max_kpps, rule.max_burst_kpps or 0)
        elif rule.type == "dscp_marking" and rule.dscp_mark is not None:
            controls["dscp"] = rule.dscp_mark
    return dict(sorted(controls.items()))


def _bandwidth(direction: str, kbps: int, burst_kbit: int) -> dict[str, int]:
    rate = min(kbps, MAX_KBPS) * 1000
    burst = burst_kbit * 1000 or rate * _BURST_PERCENT // 100
    return {f"{direction}Bandwidth": rate, f"{direction}Burst": max(_MIN_BURST_BITS, min(burst, MAX_BURST_KBIT * 1000))}


def _packets(direction: str, kpps: int, burst_kpps: int) -> dict[str, int]:
    made = {f"{direction}PacketRate": min(kpps, MAX_KPPS) * 1000}
    if burst_kpps:
        made[f"{direction}PacketBurst"] = min(burst_kpps, MAX_KPPS) * 1000
    return made
