"""Names by which Neutron's objects are known in the store: those of networking-calico, so that hosts that still run Felix understand them.

In: identifiers and texts of Neutron, in any script and length. Out: names, labels, keys that are legal. Pure.
"""

from __future__ import annotations

import re

import msgspec

from tabinet.lib.ip import parse_prefix
from tabinet.model.endpoint_names import WorkloadEndpointName
from tabinet.model.keys import ResourceKey

ORCHESTRATOR = "openstack"
GROUP_LABEL = "sg.projectcalico.org/openstack-"
GROUP_NAME_LABEL = "sg-name.projectcalico.org/"
ADDRESS_GROUP_LABEL = "ag.tabinet/openstack-"
PROJECT_LABEL = "projectcalico.org/openstack-project-id"
KEYSTONE_LABELS = ("projectcalico.org/openstack-project-name", "projectcalico.org/openstack-project-parent-id")
"""What only Keystone knows of the project."""
OPEN_LABEL = "openstack.tabinet/port-security"
OPEN_VALUE = "off"
POLICY_PREFIX = "ossg.default."
"""Of policies that stand for security groups."""
OPEN_POLICY = "osps.default.off"
"""The policy of ports whose port security is off."""
ADDRESS_GROUP_PREFIX = "osag.default."
PAIRS_PREFIX = "ospairs.default."
"""Of network sets that hold the prefixes among a port's allowed address pairs."""
ROUTES_PREFIX = "osroutes.default."
"""Of network sets that hold the destinations of routers' routes by way of a port."""
NETWORK_LABEL = "openstack.tabinet/network"
TIER = "openstack-networks"
NETWORK_POLICY_PREFIX = f"{TIER}.net."
ROUTER_POLICY_PREFIX = f"{TIER}.router."
_LABEL = 63
_NOT_LABEL = re.compile(r"[^A-Za-z0-9_.-]")
_SAFE_DEVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
_SAFE_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_NOT_REGION = re.compile(r"[^a-z0-9-]+")


class Region(msgspec.Struct, frozen=True, gc=False):
    """Which OpenStack region's objects these are; several may share a store."""

    name: str = ""
    isolated: bool = False
    """Networks reach each other only through routers."""

    @property
    def namespace(self) -> str:
        """Of all resources of the region."""
        return f"{ORCHESTRATOR}-{sanitize_region(self.name)}" if self.name else ORCHESTRATOR

    @property
    def part(self) -> str:
        """Of paths: ``no-region`` or ``region-<name>``."""
        return f"region-{self.name}" if self.name else "no-region"


def sanitize_region(name: str) -> str:
    """As part of a namespace."""
    return _NOT_REGION.sub("-", name.lower()).strip("-")[: _LABEL - len(ORCHESTRATOR) - 1].strip("-")


def sanitize_label(text: str, room: int = _LABEL) -> str:
    """What of a text can be a label's value, at most ``room`` characters: the rest becomes ``_``; empty when nothing is left."""
    return _NOT_LABEL.sub("_", text).strip("_.-")[:room].rstrip("_.-")


def workload_of(device_id: str, port_id: str) -> str:
    """The workload that an endpoint belongs to: Neutron's device, or the port itself where there is none or its name cannot stand in a
    key."""
    return device_id if _SAFE_DEVICE.fullmatch(device_id) else port_id


def is_host(name: str) -> bool:
    """True: hosts can be called so."""
    return bool(_SAFE_HOST.fullmatch(name)) and len(name) <= _LABEL + _LABEL


def endpoint_key(region: Region, host: str, device_id: str, port_id: str) -> ResourceKey:
    """Of a port's endpoint on a host.

    Raises:
        ValueError: there can be no host of this name.
    """
    name = WorkloadEndpointName(host, ORCHESTRATOR, workload_of(device_id, port_id), port_id)
    return ResourceKey("WorkloadEndpoint", str(name), region.namespace)


def migration_key(endpoint: ResourceKey) -> ResourceKey:
    """Of the migration to an endpoint."""
    return ResourceKey("LiveMigration", endpoint.name, endpoint.namespace)


def group_key(region: Region, group_id: str) -> ResourceKey:
    """Of the policy that stands for a security group."""
    return ResourceKey("NetworkPolicy", f"{POLICY_PREFIX}{group_id}", region.namespace)


def open_key(region: Region) -> ResourceKey:
    """Of the policy of ports whose port security is off."""
    return ResourceKey("NetworkPolicy", OPEN_POLICY, region.namespace)


def address_group_key(region: Region, group_id: str) -> ResourceKey:
    """Of the network set that stands for an address group."""
    return ResourceKey("NetworkSet", f"{ADDRESS_GROUP_PREFIX}{group_id}", region.namespace)


def pairs_key(region: Region, port_id: str) -> ResourceKey:
    """Of the network set that holds the prefixes among a port's allowed address pairs."""
    return ResourceKey("NetworkSet", f"{PAIRS_PREFIX}{port_id}", region.namespace)


def routes_key(region: Region, port_id: str) -> ResourceKey:
    """Of the network set that holds the destinations of routers' routes by way of a port."""
    return ResourceKey("NetworkSet", f"{ROUTES_PREFIX}{port_id}", region.namespace)


def profile_key(network_id: str) -> ResourceKey:
    """Of the profile that gives a network's endpoints their labels."""
    return ResourceKey("Profile", f"osnet.{network_id}")


def network_policy_key(region: Region, network_id: str) -> ResourceKey:
    """Of the policy that passes on what comes from the same network."""
    return ResourceKey("NetworkPolicy", f"{NETWORK_POLICY_PREFIX}{network_id}", region.namespace)


def router_policy_key(region: Region, router_id: str) -> ResourceKey:
    """Of the policy that passes on what comes from networks with the same router."""
    return ResourceKey("NetworkPolicy", f"{ROUTER_POLICY_PREFIX}{router_id}", region.namespace)


def others_key(region: Region) -> ResourceKey:
    """Of the policy that denies what comes from other networks."""
    return ResourceKey("NetworkPolicy", f"{TIER}.others", region.namespace)


def router_label(router_id: str) -> str:
    """The label of endpoints whose network is attached to a router."""
    return f"openstack.tabinet/router-{router_id}"


def subnet_path(region: Region, subnet_id: str) -> str:
    """Where the DHCP options of a subnet are."""
    return f"{subnets_prefix(region)}{subnet_id}"


def subnets_prefix(region: Region) -> str:
    """Below it are the DHCP options of all subnets."""
    return f"/calico/dhcp/v2/{region.part}/subnet/"


def election_path(region: Region) -> str:
    """Who of the Neutron processes leads."""
    return f"/calico/openstack/v2/{region.part}/neutron_election"


def comparison_path(region: Region) -> str:
    """What the latest comparison of Neutron and the store found."""
    return f"/tabinet/v1/openstack/{region.part}/comparison"


def interface_of(port_id: str) -> str:
    """The name of a port's interface on its host, as Nova makes it: at most 14 characters."""
    return f"tap{port_id}"[:14]


def group_label(group_id: str) -> str:
    """The label of endpoints in a security group."""
    return f"{GROUP_LABEL}{group_id}"


def address_group_label(group_id: str) -> str:
    """The label of the network set of an address group."""
    return f"{ADDRESS_GROUP_LABEL}{group_id}"


def canonical_net(text: str) -> str:
    """A prefix without host bits.

    Raises:
        ValueError: it is none.
    """
    return str(parse_prefix(text))
