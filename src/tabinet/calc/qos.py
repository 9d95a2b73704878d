"""Quality of service as written to quality of service as enforced: names become numbers, absence becomes zero.

In: ``qosControls`` of a workload endpoint. Out: ``messages.Qos``, and what cannot be followed. A limit that is no limit (negative) and a
code point that nobody knows are left out and reported: nothing of a workload's traffic is stopped because of them. Pure; O(1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tabinet.calc.messages import NO_LIMITS, NO_QOS, Limits, Qos
from tabinet.errors import Problem
from tabinet.model.resources import QosControls

CODE_POINTS: Mapping[str, int] = {
    "DF": 0,
    "LE": 1,
    "EF": 46,
    "VA": 44,
    **{f"CS{selector}": 8 * selector for selector in range(8)},
    **{f"AF{group}{drop}": 8 * group + 2 * drop for group in range(1, 5) for drop in range(1, 4)},
}
"""Names of code points: RFC 2474, RFC 2597 (AF), RFC 3246 (EF), RFC 5865 (VA), RFC 8622 (LE)."""

_FIELDS = (
    ("bandwidth_bit_s", "bandwidth", "Bandwidth"),
    ("burst_bits", "burst", "Burst"),
    ("peak_bit_s", "peakrate", "Peakrate"),
    ("peak_burst_bytes", "minburst", "Minburst"),
    ("packets_per_s", "packet_rate", "PacketRate"),
    ("packet_burst", "packet_burst", "PacketBurst"),
    ("connections", "max_connections", "MaxConnections"),
)
"""Field of ``Limits``; end of the attribute of ``QosControls``; end of its name in documents."""


def parse_code_point(value: int | str) -> int:
    """The number of a code point (RFC 2474): 0 to 63, as a number or its digits, or a name in any case.

    Raises:
        ValueError: none of these.
    """
    if isinstance(value, str):
        named = CODE_POINTS.get(value.upper())
        if named is not None:
            return named
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"{value!r} is not a code point")
    number = int(value)
    if not 0 <= number <= 63:
        raise ValueError(f"{value!r} is not a code point")
    return number


def build_qos(controls: QosControls | None) -> Qos:
    """What of the controls can be followed."""
    if controls is None:
        return NO_QOS
    dscp: int | None = None
    if controls.dscp is not None:
        try:
            dscp = parse_code_point(controls.dscp)
        except ValueError:
            dscp = None
    return Qos(ingress=_limits(controls, "ingress"), egress=_limits(controls, "egress"), dscp=dscp)


def _limits(controls: QosControls, direction: str) -> Limits:
    values = {name: max(0, getattr(controls, f"{direction}_{attribute}")) for name, attribute, _ in _FIELDS}
    return Limits(**values) if any(values.values()) else NO_LIMITS


def qos_problems(controls: QosControls | None, source: str) -> Iterator[Problem]:
    """What cannot be followed."""
    if controls is None:
        return
    for direction in ("ingress", "egress"):
        for _, attribute, word in _FIELDS:
            value = getattr(controls, f"{direction}_{attribute}")
            if value < 0:
                path = f"spec.qosControls.{direction}{word}"
                yield Problem(path=path, value=str(value), allowed="0 (no limit) or more; it is taken for no limit", source=source)
    if controls.dscp is not None:
        try:
            parse_code_point(controls.dscp)
        except ValueError:
            allowed = "0 to 63, or a name such as EF or AF11; packets are left as they are"
            yield Problem(path="spec.qosControls.dscp", value=repr(controls.dscp)[:80], allowed=allowed, source=source)
