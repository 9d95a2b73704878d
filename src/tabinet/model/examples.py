"""A sound document of each kind, for the reference: short, and such as somebody would really write."""

from __future__ import annotations

from tabinet.model.records.base import API_VERSION


def _example(kind: str, metadata: str, spec: str) -> str:
    body = "\n".join(f"  {line}" if line else "" for line in spec.strip("\n").splitlines())
    return f"apiVersion: {API_VERSION}\nkind: {kind}\nmetadata: {metadata}\nspec:\n{body}\n"


EXAMPLES: dict[str, str] = {
    kind: _example(kind, metadata, spec)
    for kind, metadata, spec in (
        (
            "BGPConfiguration",
            "{name: default}",
            """
asNumber: 64512
nodeToNodeMeshEnabled: false
communities: [{name: internal, value: "64512:100"}]
prefixAdvertisements: [{cidr: 10.0.0.0/16, communities: [internal]}]
""",
        ),
        (
            "BGPFilter",
            "{name: pools-only}",
            """
exportV4:
- {action: Accept, cidr: 10.0.0.0/16, matchOperator: In}
- {action: Reject}
""",
        ),
        (
            "BGPPeer",
            "{name: rack-1}",
            """
nodeSelector: rack == 'rack-1'
peerIP: 10.0.0.1
asNumber: 64520
filters: [pools-only]
""",
        ),
        (
            "BlockAffinity",
            "{name: host-1-10-0-0-0-26}",
            """
cidr: 10.0.0.0/26
node: host-1
type: host
state: confirmed
deleted: "false"
""",
        ),
        (
            "CalicoNodeStatus",
            "{name: host-1}",
            """
node: host-1
classes: [Agent, BGP]
updatePeriodSeconds: 10
""",
        ),
        (
            "ClusterInformation",
            "{name: default}",
            """
clusterGUID: e3719d5d169a4407a2ed6d07e560fb23
clusterType: openstack
datastoreReady: true
""",
        ),
        (
            "FelixConfiguration",
            "{name: default}",
            """
interfacePrefix: cali,tap
reportingInterval: 30s
failsafeInboundHostPorts:
- {protocol: TCP, port: 22, net: 10.0.0.0/8}
""",
        ),
        (
            "GlobalNetworkPolicy",
            "{name: allow-dns}",
            """
order: 100
selector: all()
types: [Egress]
egress:
- {action: Allow, protocol: UDP, destination: {ports: [53]}}
- {action: Pass}
""",
        ),
        (
            "GlobalNetworkSet",
            "{name: monitoring, labels: {role: monitoring}}",
            """
nets: [192.0.2.10, "2001:db8:1::/64"]
""",
        ),
        (
            "HostEndpoint",
            "{name: host-1-eth0, labels: {role: gateway}}",
            """
node: host-1
interfaceName: eth0
expectedIPs: [192.0.2.1]
""",
        ),
        (
            "IPAMBlock",
            "{name: 10-0-0-0-30}",
            """
cidr: 10.0.0.0/30
affinity: host:host-1
allocations: [0, null, null, null]
unallocated: [1, 2, 3]
attributes: [{handle_id: web-1, secondary: {node: host-1}}]
sequenceNumber: 7
""",
        ),
        (
            "IPAMConfiguration",
            "{name: default}",
            """
strictAffinity: false
autoAllocateBlocks: true
maxBlocksPerHost: 20
""",
        ),
        (
            "IPAMHandle",
            "{name: web-1}",
            """
handleID: web-1
block: {10.0.0.0/30: 1}
""",
        ),
        (
            "IPPool",
            "{name: machines}",
            """
cidr: 10.0.0.0/16
blockSize: 26
natOutgoing: true
nodeSelector: all()
""",
        ),
        (
            "IPReservation",
            "{name: appliances}",
            """
reservedCIDRs: [10.0.0.1, 10.0.255.0/24]
""",
        ),
        (
            "KubeControllersConfiguration",
            "{name: default}",
            """
logSeverityScreen: Info
controllers:
  node: {reconcilerPeriod: 5m, hostEndpoint: {autoCreate: Enabled}}
""",
        ),
        (
            "LiveMigration",
            "{name: host--2-openstack-vm--1-port--1, namespace: openstack}",
            """
source:
  workloadEndpoint: {hostname: host-1, orchestratorID: openstack, workloadID: openstack/vm-1, endpointID: port-1}
target:
  workloadEndpoint: {hostname: host-2, orchestratorID: openstack, workloadID: openstack/vm-1, endpointID: port-1}
""",
        ),
        (
            "NetworkPolicy",
            "{name: web, namespace: shop}",
            """
selector: role == 'web'
types: [Ingress]
ingress:
- action: Allow
  protocol: TCP
  source: {selector: role == 'proxy'}
  destination: {ports: [80, 443, "8000:8010"]}
""",
        ),
        (
            "NetworkSet",
            "{name: partners, namespace: shop, labels: {role: partner}}",
            """
nets: [198.51.100.0/24]
""",
        ),
        (
            "Node",
            "{name: host-1, labels: {rack: rack-1}}",
            """
bgp: {ipv4Address: 192.0.2.1/24, asNumber: 64512}
""",
        ),
        (
            "Profile",
            "{name: ns.shop}",
            """
labelsToApply: {environment: production}
ingress: [{action: Allow, source: {selector: environment == 'production'}}]
egress: [{action: Allow}]
""",
        ),
        (
            "StagedGlobalNetworkPolicy",
            "{name: allow-dns}",
            """
stagedAction: Set
order: 100
selector: all()
egress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}]
""",
        ),
        (
            "StagedKubernetesNetworkPolicy",
            "{name: web, namespace: shop}",
            """
stagedAction: Set
podSelector: {matchLabels: {role: web}}
ingress: [{from: [{podSelector: {matchLabels: {role: proxy}}}], ports: [{protocol: TCP, port: 80}]}]
""",
        ),
        (
            "StagedNetworkPolicy",
            "{name: web, namespace: shop}",
            """
stagedAction: Delete
""",
        ),
        (
            "Tier",
            "{name: security}",
            """
order: 100
defaultAction: Pass
""",
        ),
        (
            "WorkloadEndpoint",
            "{name: host--1-openstack-vm--1-port--1, namespace: openstack, labels: {role: web}}",
            """
orchestrator: openstack
node: host-1
workload: vm-1
endpoint: port-1
interfaceName: tap145be8b3-67
mac: fa:16:3e:f9:de:15
ipNetworks: [10.0.0.5/32]
ports: [{name: http, protocol: TCP, port: 80}]
""",
        ),
    )
}
"""Kind to document, as YAML."""
