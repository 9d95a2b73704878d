"""Random resources from a small world: few names, labels and addresses, so that things meet, match and collide."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import msgspec

from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.addresslimits import AddressLimits, render_address_limits
from tabinet.model.annotations import ADDRESS_LIMITS, PORT_FORWARDS
from tabinet.model.arrivals import Arrival
from tabinet.model.forwards import PortForward, render_forwards
from tabinet.model.holders import Holder
from tabinet.model.ipam import Affinity, AffinityState
from tabinet.model.keys import AffinityKey, ArrivalKey, HolderKey, Key, ResourceKey
from tabinet.model.resources import (
    AutoHostEndpointConfig,
    BGPConfiguration,
    BGPConfigurationSpec,
    BGPPeer,
    BGPPeerSpec,
    ClusterInformation,
    ClusterInformationSpec,
    ControllersConfig,
    EndpointPort,
    EntityRule,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    GlobalNetworkSet,
    HostEndpoint,
    HostEndpointPort,
    HostEndpointSpec,
    HostEndpointTemplate,
    HttpMatch,
    IpNat,
    IPPool,
    IPPoolSpec,
    KubeControllersConfiguration,
    KubeControllersConfigurationSpec,
    LabelSelector,
    LiveMigration,
    LiveMigrationSource,
    LiveMigrationSpec,
    LiveMigrationTarget,
    Metadata,
    NetworkPolicy,
    NetworkPolicySpec,
    NetworkSet,
    NetworkSetSpec,
    Node,
    NodeAddress,
    NodeBgp,
    NodeControllerConfig,
    NodeInterface,
    NodeSpec,
    Profile,
    ProfileSpec,
    QosControls,
    Rule,
    ServiceAccountMatch,
    ServiceMatch,
    StagedGlobalNetworkPolicy,
    StagedGlobalNetworkPolicySpec,
    StagedKubernetesNetworkPolicy,
    StagedKubernetesNetworkPolicySpec,
    StagedNetworkPolicy,
    StagedNetworkPolicySpec,
    Tier,
    TierSpec,
    WorkloadEndpoint,
    WorkloadEndpointIdentifier,
    WorkloadEndpointSpec,
)

HOSTS = ("h1", "h2", "h3")
KEYS, VALUES = ("a", "b", "pcns.a"), ("x", "y")
NAMESPACES = ("n1", "n2")
PROFILES = ("kns.n1", "kns.n2", "p1", "projectcalico-default-allow")
ADDRESSES = ("10.0.0.1/32", "10.0.0.1", "10.0.0.2/32", "10.0.0.3", "fd00::1/128", "fd00:0::2")
EXTERNALS = ("192.0.2.1", "192.0.2.2/32", "fd03::1", "nonsense", "192.0.2.0/24")
NETS = ("10.0.0.1/32", "10.0.0.0/24", "fd00::/64", "192.0.2.0/24")


MOVING = ("h1-cni-w-eth0", "h2-cni-w-eth0")
"""Names of endpoints that migrations can name."""


@dataclass
class World:
    """Draws resources; the same random numbers give the same ones."""

    random: Random

    def one(self, *choices: object) -> object:
        return self.random.choice(choices)

    def some(self, choices: tuple[str, ...], most: int = 2) -> tuple[str, ...]:
        return tuple(self.random.sample(choices, self.random.randint(0, most)))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def labels(self) -> dict[str, str]:
        return {key: self.random.choice(VALUES) for key in KEYS if self.chance(0.5)}

    def selector(self, depth: int = 0) -> str:
        if depth < 2 and self.chance(0.3):
            inner = self.one(" && ", " || ").join((self.selector(depth + 1), self.selector(depth + 1)))  # type: ignore[attr-defined]  # a text
            return f"{self.one('', '!')}({inner})"
        key, value = self.random.choice(KEYS), self.random.choice(VALUES)
        return str(
            self.one(
                f"{key} == '{value}'",
                f"{key} == '{value}'",
                f"{key} != '{value}'",
                f"has({key})",
                f"!has({key})",
                f"{key} in {{'{value}', 'z'}}",
                f"{key} not in {{'{value}', 'z'}}",
                f"{key} starts with '{value}'",
                "all()",
                "projectcalico.org/namespace == 'n1'",
            )
        )

    def maybe(self, probability: float) -> str:
        return self.selector() if self.chance(probability) else ""

    def side(self) -> EntityRule:
        if self.chance(0.3):
            return EntityRule()
        accounts = ServiceAccountMatch(names=self.some(("sa1", "sa2")), selector=self.maybe(0.3)) if self.chance(0.1) else None
        return EntityRule(
            nets=self.some(NETS) if self.chance(0.2) else (),
            not_nets=self.some(NETS) if self.chance(0.1) else (),
            selector="broken ==" if self.chance(0.03) else self.maybe(0.7),
            not_selector=self.maybe(0.2),
            namespace_selector=str(self.one("", "", "", "all()", "global()", "a == 'x'")),
            services=ServiceMatch(name="svc") if self.chance(0.04) else None,
            service_accounts=accounts,
            ports=(self.random.choice((80, "8000:8080", "http", "dns")),) if self.chance(0.3) else (),
            not_ports=(self.random.choice((22, "http")),) if self.chance(0.1) else (),
        )

    def rules(self) -> tuple[Rule, ...]:
        return tuple(
            Rule(
                action=str(self.one("Allow", "Deny", "Pass", "Log")),
                protocol=self.random.choice((None, "TCP", "UDP", 47)),
                source=self.side(),
                destination=self.side(),
                http=HttpMatch(methods=("GET",)) if self.chance(0.05) else None,
            )
            for _ in range(self.random.randint(0, 2))
        )

    def policy_fields(self) -> dict[str, object]:
        return {
            "tier": self.one("default", "default", "t1", "t2"),
            "order": self.one(None, 1.0, 2.0),
            "selector": "broken ==" if self.chance(0.03) else self.maybe(0.6),
            "types": self.one((), ("Ingress",), ("Egress",), ("Ingress", "Egress")),
            "ingress": self.rules(),
            "egress": self.rules(),
            "service_account_selector": self.maybe(0.1),
        }

    def name(self, kind: str, *names: str, namespaced: bool = False) -> ResourceKey:
        return ResourceKey(kind, self.random.choice(names), self.random.choice(NAMESPACES) if namespaced else "")

    # --- resources --------------------------------------------------------------------------------------------------

    def endpoint(self) -> tuple[Key, object]:
        key = self.name("WorkloadEndpoint", "w1", "w2", "w3", *MOVING, namespaced=True)
        spec = WorkloadEndpointSpec(
            node=self.random.choice(HOSTS),
            orchestrator=str(self.one("", "k8s")),
            ip_networks=self.some(ADDRESSES),
            allowed_ips=self.some(ADDRESSES) if self.chance(0.4) else (),
            profiles=(*self.some(PROFILES), *self.some(("missing",), 1)),
            interface_name=str(self.one("", f"cali{key.namespace}{key.name}", f"cali{key.namespace}{key.name}", "cali1")),
            mac=str(self.one("", "02-00-5E-10-00-01")),
            ports=tuple(
                EndpointPort(
                    name=str(self.one("http", "dns")),
                    protocol=self.random.choice(("TCP", "UDP", 17)),
                    port=self.random.choice((53, 80)),
                )
                for _ in range(self.random.randint(0, 2))
            ),
            allow_spoofed_source_prefixes=self.some(NETS, 1),
            service_account_name=str(self.one("", "sa1")),
            ip_nats=tuple(
                IpNat(internal_ip=self.random.choice(ADDRESSES), external_ip=self.random.choice(EXTERNALS))
                for _ in range(self.random.randint(0, 2))
            ),
            qos_controls=QosControls(ingress_bandwidth=self.random.choice((0, -1, 1000)), dscp=self.random.choice((None, "ef", 99)))
            if self.chance(0.2)
            else None,
        )
        return key, WorkloadEndpoint(metadata=Metadata(labels=self.labels(), annotations=self.forwards()), spec=spec)

    def forwards(self) -> dict[str, str]:
        """Ports that lead to the endpoint or to another host, and limits of the address."""
        if not self.chance(0.2):
            return {}
        internal, external = self.random.choice(ADDRESSES).partition("/")[0], self.random.choice(EXTERNALS).partition("/")[0]
        port = PortForward(external_ip=external, protocol=6, external_port=80, internal_ip=internal, internal_port=80)
        limits = AddressLimits(external_ip=external, qos_controls=QosControls(ingress_bandwidth=1000))
        forwards = (msgspec.structs.replace(port, node=str(self.one("", *HOSTS))),)
        return {PORT_FORWARDS: render_forwards(forwards), ADDRESS_LIMITS: render_address_limits((limits,))}

    def holder(self) -> tuple[Key, object]:
        """Who holds an address that others may have too."""
        key = self.endpoint()[0]
        assert isinstance(key, ResourceKey)
        return HolderKey(parse_address(self.random.choice(ADDRESSES).partition("/")[0])), Holder(namespace=key.namespace, name=key.name)

    def move(self) -> tuple[Key, object]:
        """A migration, or that its machine has arrived."""
        namespace, name, uid = str(self.one(*NAMESPACES)), str(self.one(*MOVING)), str(self.one("u1", "u2"))
        if self.chance(0.4):
            return ArrivalKey(namespace, name), Arrival(migration=uid, running=self.chance(0.7))
        ends = [
            WorkloadEndpointIdentifier(
                hostname=str(self.one(*HOSTS[:2])),
                orchestrator_id="cni",
                workload_id=f"{self.one(namespace, namespace, '')}/w",
                endpoint_id="eth0",
            )
            for _ in range(2)
        ]
        spec = LiveMigrationSpec(
            source=LiveMigrationSource(workload_endpoint=ends[0]), target=LiveMigrationTarget(workload_endpoint=ends[1])
        )
        return ResourceKey("LiveMigration", name, namespace), LiveMigration(metadata=Metadata(uid=uid), spec=spec)

    def policy(self) -> tuple[Key, object]:
        if self.chance(0.5):
            key = self.name("NetworkPolicy", "q1", "q2", namespaced=True)
            return key, NetworkPolicy(spec=NetworkPolicySpec(**self.policy_fields()))  # type: ignore[arg-type]  # by name
        scope = {
            "namespace_selector": self.one("", "", "", "all()", "global()", "a == 'x'"),
            "do_not_track": self.chance(0.15),
            "pre_dnat": self.chance(0.15),
            "apply_on_forward": self.chance(0.4),
        }
        spec = GlobalNetworkPolicySpec(**self.policy_fields(), **scope)  # type: ignore[arg-type]  # by name
        return self.name("GlobalNetworkPolicy", "g1", "g2"), GlobalNetworkPolicy(spec=spec)

    def staged(self) -> tuple[Key, object]:
        action = str(self.one("", "Set", "Delete", "Learn", "Ignore"))
        sort = self.random.randrange(3)
        if sort == 0:
            spec = StagedNetworkPolicySpec(**self.policy_fields(), staged_action=action)  # type: ignore[arg-type]  # by name
            return self.name("StagedNetworkPolicy", "q1", "q2", namespaced=True), StagedNetworkPolicy(spec=spec)
        if sort == 1:
            fields = self.policy_fields() | {"do_not_track": self.chance(0.1)}
            everywhere = StagedGlobalNetworkPolicySpec(**fields, staged_action=action)  # type: ignore[arg-type]  # by name
            return self.name("StagedGlobalNetworkPolicy", "g1", "g2"), StagedGlobalNetworkPolicy(spec=everywhere)
        pods = StagedKubernetesNetworkPolicySpec(staged_action=action, pod_selector=LabelSelector(match_labels=self.labels()))
        key = self.name("StagedKubernetesNetworkPolicy", "q1", namespaced=True)
        return key, StagedKubernetesNetworkPolicy(spec=pods)

    def host_endpoint(self) -> tuple[Key, object]:
        spec = HostEndpointSpec(
            node=self.random.choice(HOSTS),
            interface_name=str(self.one("", "eth0", "eth0", "eth1", "*")),
            expected_ips=self.some(("172.16.0.1", "172.16.0.2", "fd01::1", "bad")),
            profiles=self.some(PROFILES),
            ports=(HostEndpointPort(name="http", protocol="TCP", port=8000),) if self.chance(0.3) else (),
        )
        key = self.name("HostEndpoint", "e1", "e2", "h1-auto-hep")
        return key, HostEndpoint(metadata=Metadata(labels=self.labels()), spec=spec)

    def controllers(self) -> tuple[Key, object]:
        template = HostEndpointTemplate(
            generate_name="t",
            interface_cidrs=("172.16.0.0/24",) if self.chance(0.7) else (),
            interface_pattern=str(self.one("", "eth.*", "(")),
            labels=self.labels(),
            node_selector=self.maybe(0.3),
        )
        config = AutoHostEndpointConfig(
            auto_create=str(self.one("Enabled", "Enabled", "Disabled")),
            create_default_host_endpoint=str(self.one("", "Disabled")),
            templates=(template,) if self.chance(0.5) else (),
        )
        spec = KubeControllersConfigurationSpec(controllers=ControllersConfig(node=NodeControllerConfig(host_endpoint=config)))
        return self.name("KubeControllersConfiguration", "default", "other"), KubeControllersConfiguration(spec=spec)

    def profile(self) -> tuple[Key, object]:
        applied = {key: self.random.choice(VALUES) for key in (*KEYS, "pcsa.a") if self.chance(0.5)}
        return self.name("Profile", *PROFILES), Profile(spec=ProfileSpec(ingress=self.rules(), labels_to_apply=applied))

    def tier(self) -> tuple[Key, object]:
        spec = TierSpec(order=self.random.choice((None, 1.0, 2.0)), default_action=str(self.one("Deny", "Pass")))
        return self.name("Tier", "t1", "t2", "default"), Tier(spec=spec)

    def network_set(self) -> tuple[Key, object]:
        metadata, spec = Metadata(labels=self.labels()), NetworkSetSpec(nets=self.some(NETS, 3))
        if self.chance(0.5):
            return self.name("NetworkSet", "s1", namespaced=True), NetworkSet(metadata=metadata, spec=spec)
        return self.name("GlobalNetworkSet", "s1", "s2"), GlobalNetworkSet(metadata=metadata, spec=spec)

    def routing(self) -> tuple[Key, object]:
        return self.random.choice((self.node, self.node, self.bgp_configuration, self.bgp_peer, self.bgp_peer, self.pool, self.affinity))()

    def node(self) -> tuple[Key, object]:
        key = self.name("Node", *HOSTS)
        bgp = NodeBgp(
            ipv4_address=str(self.one("", f"172.16.0.{key.name[1]}/24", f"172.16.1.{key.name[1]}/24", "172.16.0.9", "nonsense")),
            ipv6_address=str(self.one("", f"fd01::{key.name[1]}/64")),
            as_number=self.random.choice((None, 65001, "1.10", "x")),
            route_reflector_cluster_id=str(self.one("", "", "224.0.0.1")),
            ipv4_ipip_tunnel_addr=str(self.one("", "10.0.0.9")),
        )
        spec = NodeSpec(
            bgp=bgp if self.chance(0.8) else None,
            addresses=tuple(NodeAddress(address=text, type=str(self.one("", "InternalIP"))) for text in self.some(("172.16.0.7", "bad"))),
            interfaces=(NodeInterface(name="eth0", addresses=("172.16.0.8/24",)),) if self.chance(0.4) else (),
            ipv4_vxlan_tunnel_addr=str(self.one("", f"10.0.0.1{key.name[1]}", "10.0.0.70", "10.0.0.1", "bad")),
            ipv6_vxlan_tunnel_addr=str(self.one("", f"fd00::1{key.name[1]}")),
            vxlan_tunnel_mac_addr=str(self.one("", "02-00-00-00-00-0A")),
        )
        return key, Node(metadata=Metadata(labels=self.labels()), spec=spec)

    def bgp_configuration(self) -> tuple[Key, object]:
        spec = BGPConfigurationSpec(
            node_to_node_mesh_enabled=self.random.choice((None, True, False)),
            as_number=self.random.choice((None, 64999)),
            listen_port=self.random.choice((0, 1179)),
        )
        return self.name("BGPConfiguration", "default", "node.h1"), BGPConfiguration(spec=spec)

    def bgp_peer(self) -> tuple[Key, object]:
        if self.chance(0.3):
            inside = BGPPeerSpec(local_workload_selector=self.selector(), as_number=65300)
            return self.name("BGPPeer", "b1", "b2"), BGPPeer(spec=inside)
        explicit = self.chance(0.5)
        spec = BGPPeerSpec(
            node=str(self.one("", "", "h1")),
            node_selector=self.maybe(0.3),
            peer_ip=str(self.one("192.0.2.1", "[fd02::1]:1179", "172.16.0.1", "bad")) if explicit else "",
            as_number=65100 if explicit else None,
            peer_selector="" if explicit and self.chance(0.9) else self.selector(),
            reverse_peering=str(self.one("", "", "Manual")),
            max_restart_time=str(self.one("", "90s")),
        )
        return self.name("BGPPeer", "b1", "b2"), BGPPeer(spec=spec)

    def pool(self) -> tuple[Key, object]:
        return self.name("IPPool", "i1", "i2"), IPPool(
            spec=IPPoolSpec(
                cidr=str(self.one("10.0.0.0/16", "10.0.0.0/26", "fd00::/48", "x")),
                nat_outgoing=self.chance(0.5),
                vxlan_mode=str(self.one("", "Never", "Always", "CrossSubnet")),
                ipip_mode=str(self.one("", "Never", "Always", "CrossSubnet")),
                allowed_uses=self.some(("Workload", "Tunnel")),
                disabled=self.chance(0.2),
            )
        )

    def affinity(self) -> tuple[Key, object]:
        block = parse_prefix(str(self.one("10.0.0.0/26", "10.0.0.64/26", "10.0.0.70/32", "10.0.0.0/19", "fd00::/122")))
        state = self.random.choice((AffinityState.CONFIRMED, AffinityState.CONFIRMED, *AffinityState))
        return AffinityKey(self.random.choice(HOSTS), block), Affinity(state=state, deleted=self.chance(0.1))

    def configuration(self) -> tuple[Key, object]:
        if self.chance(0.3):
            ready = ClusterInformationSpec(datastore_ready=self.random.choice((None, True, False)))
            return self.name("ClusterInformation", "default"), ClusterInformation(spec=ready)
        spec: dict[str, object] = {name: self.random.randint(0, 2) for name in self.some(("mtu", "log"))}
        return self.name("FelixConfiguration", "default", "node.h1"), FelixConfiguration(spec=spec)
