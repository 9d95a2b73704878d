"""Limits of floating addresses, from the annotation ``tabinet.io/address-limits`` (``model.addresslimits``).

In: the annotation. Out: ``AddressQos`` for each address, and what is wrong. What cannot be read or followed is left out and reported:
nothing of the address's traffic is stopped because of it. Pure; linear in the number of addresses.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.calc.messages import NO_LIMITS, NO_QOS, AddressQos, Limits, Qos
from tabinet.calc.qos import build_qos, qos_problems
from tabinet.errors import DataError, Problem
from tabinet.lib.ip import Prefix, parse_address
from tabinet.model.addresslimits import AddressLimits, parse_address_limits
from tabinet.model.annotations import ADDRESS_LIMITS


def read_address_limits(text: str | None, source: str, problems: list[Problem]) -> tuple[AddressQos, ...]:
    """What the annotation says, sorted, each address once; ``source`` names the endpoint in problems, which are added to the list."""
    if text is None:
        return ()
    try:
        written = parse_address_limits(text, source)
    except DataError as error:
        problems += error.problems
        return ()
    found: dict[Prefix, Qos] = {}
    for index, each in enumerate(written):
        path = f"metadata.annotations.{ADDRESS_LIMITS}[{index}]"
        problems += _problems(each, path, source)
        try:
            external = parse_address(each.external_ip)
        except ValueError as error:
            problems.append(Problem(path=f"{path}.externalIP", value=each.external_ip[:80], allowed=str(error), source=source))
            continue
        qos = build_qos(each.qos_controls)
        qos = Qos(_of_packets(qos.ingress), _of_packets(qos.egress), qos.dscp)
        if external in found:
            allowed = "each address once; the first counts"
            problems.append(Problem(path=f"{path}.externalIP", value=each.external_ip[:80], allowed=allowed, source=source))
        elif qos != NO_QOS:
            found[external] = qos
    return tuple(AddressQos(external, found[external]) for external in sorted(found))


def _of_packets(limits: Limits) -> Limits:
    """What can be asked of single packets."""
    known = msgspec.structs.replace(limits, peak_bit_s=0, peak_burst_bytes=0, connections=0)
    return known if known.bandwidth_bit_s or known.packets_per_s else NO_LIMITS


def _problems(each: AddressLimits, path: str, source: str) -> Iterator[Problem]:
    controls = each.qos_controls
    for problem in qos_problems(controls, source):
        yield msgspec.structs.replace(problem, path=problem.path.replace("spec", path, 1))
    for direction in ("ingress", "egress"):
        for attribute, word in (("peakrate", "Peakrate"), ("minburst", "Minburst"), ("max_connections", "MaxConnections")):
            value = getattr(controls, f"{direction}_{attribute}")
            if value > 0:
                allowed = "nothing: floating addresses have bandwidth, packet rate and code point; it is left out"
                yield Problem(path=f"{path}.qosControls.{direction}{word}", value=str(value), allowed=allowed, source=source)
