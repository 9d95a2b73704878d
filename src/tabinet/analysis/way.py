"""The way of the first packet of a flow through the fabric: which hosts see it, and with which addresses.

In: a fabric, two places, what kind of packet. Out: the passes that ``rules.reach`` makes of it, and what is translated on the way. Whoever
explains a packet and whoever sends one to see what becomes of it ask the same question here. Pure; O(pools) for each question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from tabinet.analysis.fabric import Fabric, HostView, Place
from tabinet.analysis.routes import sent_from
from tabinet.lib.ip import Prefix
from tabinet.model.protocols import ICMP, ICMPV6
from tabinet.rules.reach import End, Flow, Pass, passes

ECHO_REQUEST = {4: 8, 6: 128}
CLIENT_PORT = 40_000
"""Source port where none is given: one that nobody listens on."""


class Question(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The first packet of a flow between addresses of one family. ICMP without a type: an echo request."""

    source: Place
    destination: Place
    protocol: int
    source_port: int = CLIENT_PORT
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0


class Way(msgspec.Struct, frozen=True):
    """What becomes of a packet that nobody denies."""

    passes: tuple[Pass, ...]
    sent_as: Prefix
    """The source address with which it leaves its host."""
    translations: tuple[str, ...]
    """In words."""


def find_way(fabric: Fabric, views: dict[str, HostView], question: Question, uplink: Callable[[str], str] | None = None) -> Way:
    """The way of the packet. ``uplink`` names a host's interface towards the others, where it is known better than from host endpoints.

    Raises:
        KeyError: a host on the way is not in ``views``.
        ValueError: both places are outside.
    """
    source, destination = question.source, question.destination
    sent_as = source.address
    if source.host and source.host != destination.host:
        sent_as = sent_from(fabric, source, destination, views[source.host])
    is_icmp = question.protocol in (ICMP, ICMPV6)
    flow = Flow(
        source=_end(source),
        destination=_end(destination),
        protocol=question.protocol,
        source_port=0 if is_icmp else question.source_port,
        destination_port=0 if is_icmp else question.destination_port,
        icmp_type=question.icmp_type,
        icmp_code=question.icmp_code,
    )
    return Way(passes(flow, uplink or fabric.uplink, sent_as), sent_as, tuple(_translations(question, sent_as)))


def _end(place: Place) -> End:
    return End(place.address, place.host, place.interface if place.kind == "workload" else "", place.external, place.port)


def _translations(question: Question, sent_as: Prefix) -> Iterator[str]:
    source, destination = question.source, question.destination
    if sent_as != source.address:
        yield f"{source.host}: source {source.address.address} becomes {sent_as.address}"
    if destination.external is not None and destination.port:
        here = f"{destination.external.address} port {question.destination_port}"
        yield f"{destination.host}: destination {here} becomes {destination.address.address} port {destination.port}"
    elif destination.external is not None:
        yield f"{destination.host}: destination {destination.external.address} becomes {destination.address.address}"
