"""Automatic host endpoints: those that ``KubeControllersConfiguration`` asks for, made here where no kube-controllers make them.

With ``spec.controllers.node.hostEndpoint.autoCreate: Enabled`` every host has, as Calico's controllers would write it, the endpoint
``<host>-auto-hep`` for all of its interfaces (unless ``createDefaultHostEndpoint`` is Disabled), and for each template that selects it
``<host>-<generateName>-auto-hep`` for those of its addresses and interfaces that the template names. They carry the labels of the host
(a template's win) and ``projectcalico.org/created-by``, and the profile that allows everything, so that a host without policy is open.

A HostEndpoint resource of the same name stands in the place of an automatic one: where the controllers run, theirs count.
Pure; O(templates x addresses of the host).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tabinet.calc.endpoints import EVERY_INTERFACE, readable, readable_addresses
from tabinet.errors import Problem
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import (
    AutoHostEndpointConfig,
    HostEndpoint,
    HostEndpointSpec,
    HostEndpointTemplate,
    KubeControllersConfiguration,
    Metadata,
    Node,
)
from tabinet.selector import SelectorError, parse

CREATED_BY = "projectcalico.org/created-by"
CREATOR = "calico-kube-controllers"
ALLOW_PROFILE = "projectcalico-default-allow"
SUFFIX = "auto-hep"
SOURCE = "KubeControllersConfiguration/default"


def host_addresses(node: Node) -> dict[Prefix, None]:
    """The addresses that a host has by its resource, in order: BGP, tunnels, then those of type InternalIP."""
    spec = node.spec
    texts: list[str] = []
    if spec.bgp is not None:
        texts += (spec.bgp.ipv4_address, spec.bgp.ipv6_address, spec.bgp.ipv4_ipip_tunnel_addr)
    texts += (spec.ipv4_vxlan_tunnel_addr, spec.ipv6_vxlan_tunnel_addr)
    if spec.wireguard is not None:
        texts += (spec.wireguard.interface_ipv4_address, spec.wireguard.interface_ipv6_address)
    texts += [address.address for address in spec.addresses if address.type == "InternalIP"]
    return dict.fromkeys(readable_addresses(texts))


def wanted(configuration: KubeControllersConfiguration | None) -> AutoHostEndpointConfig | None:
    """What is asked for; None: nothing."""
    node = configuration.spec.controllers.node if configuration is not None else None
    asked = node.host_endpoint if node is not None else None
    return asked if asked is not None and asked.auto_create == "Enabled" else None


def auto_host_endpoints(asked: AutoHostEndpointConfig | None, host: str, node: Node) -> dict[str, HostEndpoint]:
    """By name: the automatic endpoints of a host."""
    made: dict[str, HostEndpoint] = {}
    if asked is None:
        return made
    if asked.create_default_host_endpoint != "Disabled":
        made[f"{host}-{SUFFIX}"] = _endpoint(host, node, {}, EVERY_INTERFACE, host_addresses(node))
    for template in asked.templates:
        try:
            selected = parse(template.node_selector).evaluate(node.metadata.labels)
            if selected:
                made |= _from_template(host, node, template)
        except (SelectorError, re.error):
            # ``template_problems`` tells.
            continue
    return made


def template_problems(asked: AutoHostEndpointConfig | None) -> Iterator[Problem]:
    """Templates that cannot be understood; no endpoint is made from them."""
    for index, template in enumerate(asked.templates if asked is not None else ()):
        path = f"spec.controllers.node.hostEndpoint.templates[{index}]"
        try:
            parse(template.node_selector)
        except SelectorError as error:
            yield Problem(path=f"{path}.nodeSelector", value=repr(error.text)[:80], allowed=str(error), source=SOURCE)
        try:
            re.compile(template.interface_pattern)
        except re.error as error:
            value = repr(template.interface_pattern)[:80]
            yield Problem(path=f"{path}.interfacePattern", value=value, allowed=f"a regular expression ({error})", source=SOURCE)


def _from_template(host: str, node: Node, template: HostEndpointTemplate) -> dict[str, HostEndpoint]:
    name = f"{host}-{template.generate_name}-{SUFFIX}"
    if template.interface_pattern:
        pattern = re.compile(template.interface_pattern)
        return {
            f"{host}-{interface.name}-{template.generate_name}-{SUFFIX}": _endpoint(
                host, node, template.labels, interface.name, _within(template, dict.fromkeys(readable_addresses(interface.addresses)))
            )
            for interface in node.spec.interfaces
            if interface.name and pattern.search(interface.name)
        }
    addresses = _within(template, host_addresses(node))
    return {name: _endpoint(host, node, template.labels, "", addresses)} if addresses else {}


def _within(template: HostEndpointTemplate, addresses: dict[Prefix, None]) -> dict[Prefix, None]:
    if not template.interface_cidrs:
        return addresses
    cidrs = list(readable(template.interface_cidrs))
    return {address: None for address in addresses if any(cidr.contains(address) for cidr in cidrs)}


def _endpoint(host: str, node: Node, labels: Mapping[str, str], interface: str, addresses: Mapping[Prefix, None]) -> HostEndpoint:
    return HostEndpoint(
        metadata=Metadata(labels={**node.metadata.labels, **labels, CREATED_BY: CREATOR}),
        spec=HostEndpointSpec(
            node=host,
            interface_name=interface,
            expected_ips=tuple([address.address for address in addresses]),
            profiles=(ALLOW_PROFILE,),
        ),
    )


@dataclass(slots=True)
class HostEndpointIndex:
    """The host endpoints that count: resources, and automatic ones where no resource has their name."""

    asked: AutoHostEndpointConfig | None = None
    _nodes: dict[str, tuple[Node, int]] = field(default_factory=dict)
    _written: dict[str, tuple[HostEndpoint, int]] = field(default_factory=dict)
    _made: dict[str, dict[str, tuple[HostEndpoint, int]]] = field(default_factory=dict)
    """By name, then by host: the automatic ones."""
    _names: dict[str, list[str]] = field(default_factory=dict)
    """By host: the names of its automatic ones."""

    def on_configuration_update(self, configuration: KubeControllersConfiguration | None) -> list[ResourceKey]:
        """Gives the endpoints that may have changed. O(hosts) where it asks for other ones than before."""
        asked = wanted(configuration)
        if asked == self.asked:
            return []
        self.asked = asked
        return [key for host in self._nodes for key in self._make(host)]

    def on_node_update(self, host: str, node: Node | None, revision: int) -> list[ResourceKey]:
        """Gives the endpoints that may have changed."""
        if node is None:
            self._nodes.pop(host, None)
        else:
            self._nodes[host] = (node, revision)
        return self._make(host)

    def on_endpoint_update(self, name: str, endpoint: HostEndpoint | None, revision: int) -> None:
        """The resource is this now (None: gone)."""
        if endpoint is None:
            self._written.pop(name, None)
        else:
            self._written[name] = (endpoint, revision)

    def get(self, name: str) -> tuple[HostEndpoint, int] | None:
        """The endpoint of this name that counts, with its revision; for an automatic one the revision of its Node."""
        written = self._written.get(name)
        if written is not None:
            return written
        made = self._made.get(name)
        # Two hosts make endpoints of one name only where names and templates conspire.
        return made[min(made)] if made else None

    def _make(self, host: str) -> list[ResourceKey]:
        names = self._names.pop(host, [])
        for name in names:
            made = self._made[name]
            del made[host]
            if not made:
                del self._made[name]
        if host in self._nodes and self.asked is not None:
            node, revision = self._nodes[host]
            endpoints = auto_host_endpoints(self.asked, host, node)
            for name, endpoint in endpoints.items():
                self._made.setdefault(name, {})[host] = (endpoint, revision)
            if endpoints:
                self._names[host] = list(endpoints)
        return [ResourceKey("HostEndpoint", name) for name in dict.fromkeys((*names, *self._names.get(host, ())))]
