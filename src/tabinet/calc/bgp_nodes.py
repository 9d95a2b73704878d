"""What BGP needs to know about nodes: settings, AS numbers, addresses, who reflects routes, who is drained.

In: ``RoutingFacts``. Out: values; what is wrong is collected in ``problems``, each as often as it is met. Pure; each question O(1).

- AS number: of the node, else of ``BGPConfiguration/node.<host>``, else of ``default``, else 64512. Other parameters: ``node.<host>`` over
  ``default``; but whether there is a mesh, and with which password and restart time, says ``default`` only, because both ends of a session
  must agree.
- Node annotation ``tabinet.io/drain``: ``true`` or ``withdrawn`` (see ``intents.Drain``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from tabinet.calc.intents import Drain
from tabinet.errors import Problem
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address
from tabinet.model.annotations import DRAIN
from tabinet.model.asn import parse_as_number
from tabinet.model.formats import parse_duration_s
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import BGPConfigurationSpec, BGPFilterSpec, BGPPeer, IPPoolSpec, Node, WorkloadEndpoint

DEFAULT_AS = 64512
DEFAULT_PORT = 179


@dataclass(slots=True)
class RoutingFacts:
    """The resources that routing depends on, by name."""

    nodes: dict[str, Node] = field(default_factory=dict)
    configurations: dict[str, BGPConfigurationSpec] = field(default_factory=dict)
    peers: dict[str, BGPPeer] = field(default_factory=dict)
    filters: dict[str, BGPFilterSpec] = field(default_factory=dict)
    pools: dict[str, IPPoolSpec] = field(default_factory=dict)
    blocks: dict[str, set[Prefix]] = field(default_factory=dict)
    """By host: its confirmed blocks."""
    endpoints: dict[str, dict[ResourceKey, WorkloadEndpoint]] = field(default_factory=dict)
    """By host: its workload endpoints."""
    profiles: dict[str, dict[str, str]] = field(default_factory=dict)
    """Labels that endpoints inherit, by profile; those without any may be missing."""


class Cluster:
    """Answers about nodes."""

    __slots__ = ("facts", "problems")

    def __init__(self, facts: RoutingFacts) -> None:
        self.facts = facts
        self.problems: list[Problem] = []

    def report(self, source: str, path: str, value: object, allowed: str) -> None:
        """Something is wrong with a resource."""
        self.problems.append(Problem(path=path, value=repr(value)[:80], allowed=allowed, source=source))

    def default(self) -> BGPConfigurationSpec:
        """``BGPConfiguration/default``."""
        return self.facts.configurations.get("default", BGPConfigurationSpec())

    def configuration(self, host: str) -> BGPConfigurationSpec:
        """``default`` overlaid by ``node.<host>``."""
        default = self.default()
        own = self.facts.configurations.get(f"node.{host}")
        if own is None:
            return default
        unset = BGPConfigurationSpec()
        return BGPConfigurationSpec(
            **{
                name: getattr(default if getattr(own, name) == getattr(unset, name) else own, name)
                for name in BGPConfigurationSpec.__struct_fields__
            }
        )

    def as_number(self, host: str) -> int:
        """The AS that a node is in."""
        node = self.facts.nodes[host]
        places = (
            (f"Node/{host}", "spec.bgp.asNumber", node.spec.bgp.as_number if node.spec.bgp else None),
            (f"BGPConfiguration/node.{host}", "spec.asNumber", self._configured_as(f"node.{host}")),
            ("BGPConfiguration/default", "spec.asNumber", self._configured_as("default")),
        )
        for source, path, value in places:
            if value is not None:
                number = self.readable_as(source, path, value)
                if number:
                    return number
        return DEFAULT_AS

    def _configured_as(self, name: str) -> int | str | None:
        configuration = self.facts.configurations.get(name)
        return configuration.as_number if configuration else None

    def readable_as(self, source: str, path: str, value: int | str) -> int:
        """The number, or 0 when it is none, which is reported."""
        try:
            return parse_as_number(value)
        except ValueError as error:
            self.report(source, path, value, str(error))
            return 0

    def addresses_of(self, host: str) -> dict[int, Prefix]:
        """The addresses that a node speaks BGP from, by family."""
        node = self.facts.nodes.get(host)
        found: dict[int, Prefix] = {}
        if node is None or node.spec.bgp is None:
            return found
        for family, text in ((IPV4, node.spec.bgp.ipv4_address), (IPV6, node.spec.bgp.ipv6_address)):
            if not text:
                continue
            try:
                address = parse_address(text.partition("/")[0])
            except ValueError:
                address = None
            if address is None or address.family != family:
                self.report(f"Node/{host}", f"spec.bgp.ipv{family}Address", text, f"an IPv{family} address with the length of its subnet")
            else:
                found[family] = address
        return found

    def listen_port(self, host: str) -> int:
        """The port that a node's BGP listens on."""
        return self.configuration(host).listen_port or DEFAULT_PORT

    def cluster_id(self, host: str) -> str:
        """The cluster of which a node is a route reflector; empty when it is none."""
        bgp = self.facts.nodes[host].spec.bgp
        text = bgp.route_reflector_cluster_id if bgp is not None else ""
        if not text:
            return ""
        try:
            address = parse_address(text)
        except ValueError:
            address = None
        if address is None or address.family != IPV4:
            self.report(f"Node/{host}", "spec.bgp.routeReflectorClusterID", text, "a cluster id written as an IPv4 address")
            return ""
        return address.address

    def drain(self, host: str) -> Drain:
        """How far a node is drained."""
        text = self.facts.nodes[host].metadata.annotations.get(DRAIN, "")
        if text == "false":
            return Drain.NONE
        try:
            return Drain(text)
        except ValueError:
            self.report(f"Node/{host}", f"metadata.annotations.{DRAIN}", text, "true, withdrawn or false")
            return Drain.NONE

    def seconds(self, source: str, path: str, text: str, default: int) -> int:
        """Whole seconds of a duration, at least one."""
        if not text:
            return default
        try:
            return max(1, round(parse_duration_s(text)))
        except ValueError:
            self.report(source, path, text, "a duration, as in 90s or 1m30s")
            return default


def router_id(host: str) -> str:
    """A router id for a host without an IPv4 address: the same always, and not in 0.0.0.0/8."""
    digest = hashlib.blake2b(host.encode(), digest_size=4).digest()
    return ".".join(str(octet) for octet in (digest[0] or 1, *digest[1:]))
