"""The parameters of FelixConfiguration: name, type and format, default, meaning.

The view keeps the specification as a plain ``dict``, because many parameters steer machinery that does not exist here; the table
is for checking what an operator writes, and for the reference. Which of them have an effect is the agent's business. Names, limits and
defaults are those of Felix.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from tabinet.model.formats import (
    Address4,
    Address6,
    Cidr,
    Cidr4,
    ClusterRoutes,
    Dscp,
    Duration,
    Interface,
    InterfaceFilter,
    LogLevel,
    NumericPort,
    PortNumber,
    PortOrNone,
    Regex,
    Switch,
    any_case,
    pattern,
    within,
)
from tabinet.model.records.felix import BpfConntrackTimeouts, HealthTimeoutOverride, ProtoPort, RouteTableIDRange, RouteTableRange


class Parameter(NamedTuple):
    """One parameter."""

    name: str
    """On the wire."""
    kind: Any
    """Annotated type, as in a record."""
    default: str
    """Felix's default in words; empty where there is none."""
    meaning: str
    """What it does, in one sentence."""


_INT64 = (1 << 63) - 1

Bool = bool
AllowAction = Annotated[str, any_case("Accept", "Return")]
DenyAction = Annotated[str, any_case("Drop", "Reject")]
Count = Annotated[int, within(0, _INT64)]
Mtu = Annotated[int, within(0, 65535)]
Word = Annotated[int, within(0, 0xFFFFFFFF)]
Priority = Annotated[int, within(1, 2_147_483_646)]
PortList = tuple[ProtoPort, ...]
Host = Annotated[str, pattern("host", r"[a-zA-Z0-9:._+-]{1,64}", "allowed: an address or host name, 1 to 64 characters")]
KeyValues = Annotated[str, pattern("list", r"([^=,]+=[^,]*,?)*", "allowed: name=value, several with commas")]
LogPrefix = Annotated[str, pattern("text", r"[a-zA-Z0-9%: /_-]*", "allowed: letters, digits, '%', ':', '/', '_', '-' and spaces")]
LogRate = Annotated[
    str, pattern("rate", r"[1-9]\d{0,3}/(second|minute|hour|day)", "allowed: 1 to 9999, '/' and second, minute, hour or day")
]
MetadataAddress = Annotated[str, pattern("host", r"[a-zA-Z0-9_.:-]+", "allowed: an address, a host name or none")]
Prefixes = Annotated[
    str,
    pattern("list", r"[a-zA-Z0-9_-]{1,15}(,[a-zA-Z0-9_-]{1,15})*", "allowed: 1 to 15 letters, digits, '_' and '-', several with commas"),
]
Region = Annotated[
    str, pattern("name", r"[a-z0-9]([-a-z0-9]{0,44}[a-z0-9])?", "allowed: lower-case letters, digits and '-' inside, at most 46")
]

PARAMETERS: tuple[Parameter, ...] = (
    # What workloads may do, and what happens to their packets
    Parameter("allowIPIPPacketsFromWorkloads", Bool, "false", "True: workloads may send IP-in-IP packets themselves."),
    Parameter("allowVXLANPacketsFromWorkloads", Bool, "false", "True: workloads may send VXLAN packets themselves."),
    Parameter(
        "defaultEndpointToHostAction",
        Annotated[str, any_case("Drop", "Return", "Accept")],
        "Drop",
        "What happens to a workload's packets to its own host once its egress policy has allowed them.",
    ),
    Parameter(
        "workloadSourceSpoofing",
        Annotated[str, any_case("Disabled", "Any")],
        "Disabled",
        "Any: workloads may send from the prefixes in allowSpoofedSourcePrefixes of their endpoints.",
    ),
    Parameter(
        "failsafeInboundHostPorts",
        PortList,
        "tcp 22, udp 68, tcp 179, 2379, 2380, 5473, 6443, 6666, 6667",
        "Ports of the host that stay reachable whatever policy says; an empty list: none.",
    ),
    Parameter(
        "failsafeOutboundHostPorts",
        PortList,
        "udp 53, 67, tcp 179, 2379, 2380, 5473, 6443, 6666, 6667",
        "Ports elsewhere that the host may reach whatever policy says; an empty list: none.",
    ),
    Parameter("disableConntrackInvalidCheck", Bool, "false", "True: packets that connection tracking finds invalid are not dropped."),
    Parameter(
        "serviceLoopPrevention",
        Annotated[str, any_case("Drop", "Reject", "Disabled")],
        "Drop",
        "What happens to packets for service addresses that no service uses, so that they do not circle.",
    ),
    Parameter(
        "externalNodesList",
        tuple[Cidr4, ...],
        "",
        "IPv4 prefixes of tunnel endpoints that are no hosts of the cluster; packets of others in tunnels are dropped.",
    ),
    Parameter(
        "logPrefix",
        LogPrefix,
        "calico-packet",
        "Prefix of packets in the kernel's log; %t, %k, %n and %p stand for tier, kind, policy, policy with namespace.",
    ),
    Parameter(
        "logActionRateLimit",
        LogRate,
        "",
        "Most packets that rules with action Log log, as number/unit, such as 10/second; second, minute, hour or day.",
    ),
    Parameter(
        "logActionRateLimitBurst", Annotated[int, within(0, 9999)], "5", "Packets that may be logged at once beyond logActionRateLimit."
    ),
    # Interfaces and addresses of the host
    Parameter("interfacePrefix", Prefixes, "cali", "Interfaces whose names begin so are workloads'; several with commas."),
    Parameter(
        "interfaceExclude",
        str,
        "kube-ipvs0",
        "Interfaces that are never host endpoints: names, or regular expressions between slashes, with commas.",
    ),
    Parameter("interfaceRefreshInterval", Duration, "90s", "Time between looks at all interfaces; 0: none."),
    Parameter(
        "mtuIfacePattern", Regex, "names of physical interfaces", "Regular expression: interfaces that the host's MTU is taken from."
    ),
    Parameter("requireMTUFile", Bool, "false", "True: Felix does not start without the file that tells the MTU."),
    Parameter("ipv6Support", Bool, "true", "False: IPv6 is not programmed."),
    Parameter(
        "ipForwarding",
        Switch,
        "Enabled",
        "Enabled: the host's sysctls for forwarding are set; Disabled only where nothing but hosts is protected.",
    ),
    Parameter("floatingIPs", Switch, "Disabled", "Enabled: addresses in ipNATs are programmed; those of OpenStack always are."),
    # Routes
    Parameter(
        "deviceRouteProtocol", Annotated[int, within(0, 255)], "3", "Protocol number on routes to workloads, by which they are recognised."
    ),
    Parameter("deviceRouteSourceAddress", Address4, "", "Source address on IPv4 routes to workloads, for the host's own packets."),
    Parameter("deviceRouteSourceAddressIPv6", Address6, "", "Source address on IPv6 routes to workloads, for the host's own packets."),
    Parameter("removeExternalRoutes", Bool, "true", "False: routes to workloads' interfaces that others have added are left alone."),
    Parameter("routeRefreshInterval", Duration, "90s", "Time between looks at all routes; 0: none."),
    Parameter(
        "routeSource",
        Annotated[str, any_case("CalicoIPAM", "WorkloadIPs")],
        "CalicoIPAM",
        "Where routes to other hosts' workloads come from: blocks of the address management, or the endpoints themselves.",
    ),
    Parameter("routeSyncDisabled", Bool, "false", "True: no routes are programmed, only policy."),
    Parameter(
        "routeTableRange",
        RouteTableRange,
        "",
        "Numbers of routing tables that may be used, within 1 to 250; older form of routeTableRanges.",
    ),
    Parameter("routeTableRanges", tuple[RouteTableIDRange, ...], "", "Numbers of routing tables that may be used; 65535 in all at most."),
    Parameter("ipv4NormalRoutePriority", Priority, "1024", "Metric of IPv4 routes to workloads, lower wins."),
    Parameter(
        "ipv4ElevatedRoutePriority",
        Priority,
        "512",
        "Metric of IPv4 routes to workloads that move here; lower than ipv4NormalRoutePriority.",
    ),
    Parameter("ipv6NormalRoutePriority", Priority, "1024", "Metric of IPv6 routes to workloads, lower wins."),
    Parameter(
        "ipv6ElevatedRoutePriority",
        Priority,
        "512",
        "Metric of IPv6 routes to workloads that move here; lower than ipv6NormalRoutePriority.",
    ),
    Parameter(
        "liveMigrationRouteConvergenceTime", Duration, "30s", "How long routes of a workload that has moved keep their better metric."
    ),
    Parameter(
        "programClusterRoutes",
        ClusterRoutes,
        "Disabled",
        "Which routes between hosts Felix programs rather than BIRD. Tabinet's hosts always have all of them.",
    ),
    Parameter("netlinkTimeout", Duration, "10s", "How long to wait for the kernel's answer."),
    # Outgoing NAT
    Parameter("natOutgoingAddress", Address4, "", "Address that packets leaving the pools are sent from; absent: that of the interface."),
    Parameter(
        "natOutgoingExclusions",
        Annotated[str, any_case("IPPoolsOnly", "IPPoolsAndHostIPs")],
        "IPPoolsOnly",
        "Destinations whose packets keep their source: addresses of pools, or those of hosts too.",
    ),
    Parameter(
        "natPortRange", NumericPort, "the kernel's own", 'Ports that packets leaving the pools are sent from: a number or a range "a:b".'
    ),
    Parameter(
        "iptablesNATOutgoingInterfaceFilter",
        InterfaceFilter,
        "",
        "Only packets leaving through interfaces of this name are translated; + at the end stands for anything.",
    ),
    # Tunnels
    Parameter("vxlanEnabled", Bool, "as the pools say", "True or false: VXLAN for IPv4 on or off whatever the pools say."),
    Parameter("vxlanMTU", Mtu, "0", "MTU of the VXLAN interface for IPv4; 0: from the host's interfaces."),
    Parameter("vxlanMTUV6", Mtu, "0", "MTU of the VXLAN interface for IPv6; 0: from the host's interfaces."),
    Parameter("vxlanPort", PortNumber, "4789", "UDP port of VXLAN."),
    Parameter("vxlanVNI", Annotated[int, within(0, 0xFFFFFF)], "4096", "Network identifier of VXLAN, 24 bits."),
    Parameter("ipipEnabled", Bool, "as the pools say", "True or false: IP-in-IP on or off whatever the pools say."),
    Parameter("ipipMTU", Mtu, "0", "MTU of the IP-in-IP interface; 0: from the host's interfaces."),
    Parameter("wireguardEnabled", Bool, "false", "True: IPv4 between hosts is encrypted with WireGuard."),
    Parameter("wireguardEnabledV6", Bool, "false", "True: IPv6 between hosts is encrypted with WireGuard."),
    Parameter("wireguardHostEncryptionEnabled", Bool, "false", "True: packets between the hosts themselves are encrypted too."),
    Parameter("wireguardInterfaceName", Interface, "wireguard.cali", "Name of the WireGuard interface for IPv4."),
    Parameter("wireguardInterfaceNameV6", Interface, "wg-v6.cali", "Name of the WireGuard interface for IPv6."),
    Parameter("wireguardKeepAlive", Duration, "0s", "Time between WireGuard's signs of life; 0: none."),
    Parameter("wireguardListeningPort", PortNumber, "51820", "UDP port of WireGuard for IPv4."),
    Parameter("wireguardListeningPortV6", PortNumber, "51821", "UDP port of WireGuard for IPv6."),
    Parameter("wireguardMTU", Mtu, "0", "MTU of the WireGuard interface for IPv4; 0: from the host's interfaces."),
    Parameter("wireguardMTUV6", Mtu, "0", "MTU of the WireGuard interface for IPv6; 0: from the host's interfaces."),
    Parameter(
        "wireguardRoutingRulePriority", Annotated[int, within(1, 32765)], "99", "Priority of the routing rule that leads into WireGuard."
    ),
    Parameter(
        "wireguardThreadingEnabled", Bool, "false", "True: WireGuard's packets are worked on in threads of their own (threaded NAPI)."
    ),
    # OpenStack, and what is reported
    Parameter(
        "openstackRegion", Region, "", "Name of the OpenStack region that the host belongs to: a DNS label of at most 46 characters."
    ),
    Parameter("metadataAddr", MetadataAddress, "127.0.0.1", "Server that answers virtual machines at 169.254.169.254; none: nobody."),
    Parameter("metadataPort", PortOrNone, "8775", "TCP port of the server at metadataAddr."),
    Parameter("reportingInterval", Duration, "30s", "Time between reports of the host's own status; 0: none."),
    Parameter("reportingTTL", Duration, "90s", "How long the host's status outlives a dead agent."),
    Parameter("endpointReportingEnabled", Bool, "false", "True: the status of each endpoint is written to the store."),
    Parameter("endpointReportingDelay", Duration, "1s", "How long a change of an endpoint's status waits before it is written."),
    Parameter(
        "endpointStatusPathPrefix",
        str,
        "/var/run/calico",
        "Directory in which the status of endpoints is written as files; empty: nowhere.",
    ),
    # Logs, metrics, health
    Parameter("logSeverityScreen", LogLevel, "Info", "Least severity that is logged to standard output."),
    Parameter("logSeverityFile", LogLevel, "Info", "Least severity that is logged to the file."),
    Parameter("logSeveritySys", LogLevel, "Info", "Least severity that is logged to syslog."),
    Parameter("logFilePath", str, "/var/log/calico/felix.log", "File that is logged to; none: no file."),
    Parameter("logDebugFilenameRegex", Regex, "", "Regular expression: source files whose debugging messages are logged."),
    Parameter("prometheusMetricsEnabled", Bool, "false", "True: metrics for Prometheus are served."),
    Parameter("prometheusMetricsHost", Host, "all addresses", "Address that metrics are served at."),
    Parameter("prometheusMetricsPort", PortOrNone, "9091", "TCP port of the metrics."),
    Parameter(
        "prometheusMetricsCAFile", str, "", "File with the certificate authorities that clients' certificates must be signed by (PEM)."
    ),
    Parameter(
        "prometheusMetricsCertFile", str, "", "File with the certificate of the metrics' server (PEM); with it metrics are served over TLS."
    ),
    Parameter("prometheusMetricsKeyFile", str, "", "File with the key of that certificate (PEM)."),
    Parameter(
        "prometheusMetricsClientAuth",
        Annotated[str, any_case("NoClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")],
        "NoClientCert",
        "Which certificates are asked of clients of the metrics.",
    ),
    Parameter("prometheusGoMetricsEnabled", Bool, "true", "False: without the metrics of the Go runtime."),
    Parameter("prometheusProcessMetricsEnabled", Bool, "true", "False: without the metrics of the process."),
    Parameter("prometheusWireGuardMetricsEnabled", Bool, "true", "False: without the metrics of WireGuard."),
    Parameter("healthEnabled", Bool, "false", "True: questions about health are answered over HTTP."),
    Parameter("healthHost", Host, "localhost", "Address that health is served at."),
    Parameter("healthPort", PortOrNone, "9099", "TCP port of the answers about health."),
    Parameter("healthTimeoutOverrides", tuple[HealthTimeoutOverride, ...], "", "Times after which silent parts count as hung."),
    Parameter(
        "dataplaneWatchdogTimeout",
        Duration,
        "90s",
        "Time after which a silent dataplane counts as hung; older form of healthTimeoutOverrides.",
    ),
    Parameter("usageReportingEnabled", Bool, "true", "True: Felix tells projectcalico.org version and size of the cluster."),
    Parameter("usageReportingInitialDelay", Duration, "300s", "How long after its start Felix does that first."),
    Parameter("usageReportingInterval", Duration, "86400s", "Time between those messages."),
    # Flow logs
    Parameter("flowLogsFlushInterval", Duration, "300s", "Time between exports of flow logs."),
    Parameter("flowLogsGoldmaneServer", str, "", "Address of the server that flow logs are sent to."),
    Parameter("flowLogsLocalReporter", Switch, "Disabled", "Enabled: flow logs are told at a local socket."),
    Parameter(
        "flowLogsPolicyEvaluationMode",
        Annotated[str, any_case("Continuous", "None")],
        "Continuous",
        "Continuous: running flows are judged again after changes of policy, for the logs.",
    ),
    Parameter("flowLogsCollectorDebugTrace", Bool, "false", "True: everything that is collected is logged."),
    # The dataplane in general
    Parameter(
        "chainInsertMode",
        Annotated[str, any_case("Insert", "Append")],
        "Insert",
        "Where the jump to Felix's chains stands in the kernel's own: in front or at the end.",
    ),
    Parameter("useInternalDataplaneDriver", Bool, "true", "False: an external program programs the kernel."),
    Parameter("dataplaneDriver", str, "calico-iptables-plugin", "That program."),
    Parameter("featureDetectOverride", KeyValues, "", "Kernel features taken as given or missing: name=true or name=false, with commas."),
    Parameter("featureGates", KeyValues, "", "Features on trial: name=value, with commas."),
    Parameter("policySyncPathPrefix", str, "", "Directory of the sockets at which policy is told to other programs on the host."),
    Parameter("sidecarAccelerationEnabled", Bool, "false", "True: shortcut between a workload and its sidecar; on trial."),
    Parameter("istioAmbientMode", Switch, "Disabled", "Enabled: works together with Istio in ambient mode."),
    Parameter("istioDSCPMark", Dscp, "23", "Code point by which Istio's packets are recognised: 0 to 63, or a name such as AF11."),
    Parameter("cgroupV2Path", str, "", "Where the cgroup hierarchy is mounted; absent: where the system has it."),
    Parameter("windowsManageFirewallRules", Switch, "Disabled", "Enabled: Felix opens its ports in the firewall of Windows."),
    Parameter(
        "awsSrcDstCheck",
        Annotated[str, any_case("DoNothing", "Enable", "Disable")],
        "DoNothing",
        "What Felix does about the check of sources and destinations of EC2 instances.",
    ),
    # nftables
    Parameter(
        "nftablesMode", Annotated[str, any_case("Auto", "Enabled", "Disabled")], "Auto", "Whether nftables are used rather than iptables."
    ),
    Parameter(
        "nftablesFilterAllowAction",
        AllowAction,
        "Accept",
        "What allowed packets do in the filter table: end there, or return to other rules.",
    ),
    Parameter("nftablesFilterDenyAction", DenyAction, "Drop", "What happens to denied packets."),
    Parameter(
        "nftablesMangleAllowAction",
        AllowAction,
        "Accept",
        "What allowed packets do in the mangle table: end there, or return to other rules.",
    ),
    Parameter("nftablesMarkMask", Word, "4294901760", "Bits of the packet mark that may be used, at least 2 of 32."),
    Parameter("nftablesRefreshInterval", Duration, "180s", "Time between looks at all tables; 0: none."),
    # iptables
    Parameter("iptablesBackend", Annotated[str, any_case("Auto", "Legacy", "NFT")], "Auto", "Which iptables are used."),
    Parameter(
        "iptablesFilterAllowAction",
        AllowAction,
        "Accept",
        "What allowed packets do in the filter table: end there, or return to other rules.",
    ),
    Parameter("iptablesFilterDenyAction", DenyAction, "Drop", "What happens to denied packets."),
    Parameter(
        "iptablesMangleAllowAction",
        AllowAction,
        "Accept",
        "What allowed packets do in the mangle table: end there, or return to other rules.",
    ),
    Parameter("iptablesMarkMask", Word, "4294901760", "Bits of the packet mark that may be used, at least 2 of 32."),
    Parameter("iptablesRefreshInterval", Duration, "180s", "Time between looks at all chains; 0: none."),
    Parameter("iptablesPostWriteCheckInterval", Duration, "5s", "How long after a change the chains are read again."),
    Parameter("iptablesLockFilePath", str, "/run/xtables.lock", "File of the lock that iptables use."),
    Parameter("iptablesLockTimeout", Duration, "0s", "How long to wait for that lock; 0: it is not taken."),
    Parameter("iptablesLockProbeInterval", Duration, "50ms", "Time between attempts to take that lock."),
    Parameter("ipsetsRefreshInterval", Duration, "90s", "Time between looks at all IP sets; 0: none."),
    Parameter("maxIpsetSize", Count, "1048576", "Most members of an IP set."),
    Parameter(
        "kubeNodePortRanges", tuple[NumericPort, ...], "30000:32767", 'Ports of services on hosts: at most 7 numbers or ranges "a:b".'
    ),
    # XDP
    Parameter("xdpEnabled", Bool, "true", "False: untracked policy that denies is not offloaded to XDP."),
    Parameter("xdpRefreshInterval", Duration, "90s", "Time between looks at all XDP programs; 0: none."),
    Parameter("genericXDPEnabled", Bool, "false", "True: XDP also where the network card does not support it."),
    # eBPF
    Parameter("bpfEnabled", Bool, "false", "True: the dataplane is made of eBPF programs."),
    Parameter(
        "bpfAttachType", Annotated[str, any_case("TC", "TCX")], "TCX", "How programs are attached to interfaces; TCX falls back to TC."
    ),
    Parameter(
        "bpfConnectTimeLoadBalancing",
        Annotated[str, any_case("TCP", "Enabled", "Disabled")],
        "TCP",
        "Whether services are resolved when a program connects: for TCP only, always, never.",
    ),
    Parameter("bpfConnectTimeLoadBalancingEnabled", Bool, "", "Older form of bpfConnectTimeLoadBalancing."),
    Parameter(
        "bpfConntrackLogLevel", Annotated[str, any_case("Off", "Debug")], "Off", "What the program that forgets idle connections logs."
    ),
    Parameter("bpfConntrackMode", Annotated[str, any_case("Auto", "Userspace", "BPFProgram")], "Auto", "What forgets idle connections."),
    Parameter("bpfConntrackTimeouts", BpfConntrackTimeouts, "", "How long idle connections are remembered."),
    Parameter(
        "bpfCTLBLogFilter",
        Annotated[str, any_case("all")],
        "",
        "What is logged when programs connect, where bpfLogFilters is set; all: everything.",
    ),
    Parameter(
        "bpfDataIfacePattern",
        Regex,
        "names of physical interfaces",
        "Regular expression: interfaces to the network, to which programs are attached.",
    ),
    Parameter("bpfDisableGROForIfaces", Regex, "", "Regular expression: interfaces whose generic receive offload is switched off."),
    Parameter("bpfDisableUnprivileged", Bool, "true", "True: unprivileged users may not use eBPF."),
    Parameter(
        "bpfDSROptoutCIDRs",
        tuple[Cidr, ...],
        "",
        "Clients within these prefixes get answers through the host that they asked, also with mode DSR.",
    ),
    Parameter(
        "bpfEnforceRPF",
        Annotated[str, any_case("Disabled", "Strict", "Loose")],
        "Loose",
        "How the path back to a packet's source is checked.",
    ),
    Parameter("bpfExcludeCIDRsFromNAT", tuple[Cidr, ...], "", "Prefixes of service addresses that are left to the host."),
    Parameter("bpfExportBufferSizeMB", Count, "1", "Size of the buffer for events, in MB."),
    Parameter(
        "bpfExternalServiceMode",
        Annotated[str, any_case("Tunnel", "DSR")],
        "Tunnel",
        "How answers of services go back to clients outside: through the first host, or directly.",
    ),
    Parameter("bpfExtToServiceConnmark", Word, "0", "Mark of connections from outside to services, 32 bits."),
    Parameter(
        "bpfForceTrackPacketsFromIfaces",
        tuple[InterfaceFilter, ...],
        "docker+",
        "Interfaces whose packets the kernel's connection tracking still sees; + at the end stands for anything.",
    ),
    Parameter("bpfHostConntrackBypass", Bool, "false", "True: packets of workloads and services go past the kernel's connection tracking."),
    Parameter(
        "bpfHostNetworkedNATWithoutCTLB", Switch, "Enabled", "Enabled: services are resolved for the host's own programs packet by packet."
    ),
    Parameter(
        "bpfJITHardening",
        Annotated[str, any_case("Auto", "Strict")],
        "Auto",
        "Auto: the kernel's hardening of compiled programs is lowered to 1 where it is 2.",
    ),
    Parameter("bpfKubeProxyEndpointSlicesEnabled", Bool, "", "No longer used."),
    Parameter("bpfKubeProxyHealthzPort", PortOrNone, "10256", "TCP port of the health of services, for load balancers; 0: none."),
    Parameter("bpfKubeProxyIptablesCleanupEnabled", Bool, "true", "True: chains of kube-proxy are removed."),
    Parameter("bpfKubeProxyMinSyncPeriod", Duration, "1s", "Least time between updates of services."),
    Parameter("bpfL3IfacePattern", Regex, "", "Regular expression: further tunnel interfaces to the network."),
    Parameter("bpfLogFilters", dict[str, str], "", "Packets that are logged, as interface (or all, weps, heps) to filter of pcap."),
    Parameter("bpfLogLevel", Annotated[str, any_case("Off", "Info", "Debug")], "Off", "What programs log to the kernel's trace."),
    Parameter("bpfMaglevMaxEndpointsPerService", Annotated[int, within(1, 3000)], "100", "Most endpoints of a service with Maglev."),
    Parameter("bpfMaglevMaxServices", Annotated[int, within(1, 3000)], "100", "Most services with Maglev."),
    Parameter("bpfMapSizeConntrack", Count, "512000", "Most connections that are remembered."),
    Parameter("bpfMapSizeConntrackCleanupQueue", Count, "100000", "Most connections that wait to be forgotten."),
    Parameter(
        "bpfMapSizeConntrackScaling",
        Annotated[str, any_case("Disabled", "DoubleIfFull")],
        "DoubleIfFull",
        "Whether room for connections grows when it is full.",
    ),
    Parameter("bpfMapSizeIfState", Count, "1000", "Most interfaces."),
    Parameter("bpfMapSizeIPSets", Count, "1048576", "Most members of all sets together."),
    Parameter("bpfMapSizeNATAffinity", Count, "65536", "Most clients that stay with one endpoint of a service."),
    Parameter("bpfMapSizeNATBackend", Count, "262144", "Most endpoints of all services together."),
    Parameter("bpfMapSizeNATFrontend", Count, "65536", "Most addresses and ports of all services together."),
    Parameter("bpfMapSizePerCpuConntrack", Count, "0", "Most connections for each processor; not 0: instead of bpfMapSizeConntrack."),
    Parameter("bpfMapSizeRoute", Count, "262144", "Most routes."),
    Parameter("bpfPolicyDebugEnabled", Bool, "true", "True: details of compiled policy are kept for debugging."),
    Parameter("bpfProfiling", Switch, "Disabled", "Enabled: programs are measured."),
    Parameter("bpfPSNATPorts", NumericPort, "20000:29999", 'Ports that replace source ports that are taken: a range "a:b".'),
    Parameter(
        "bpfRedirectToPeer",
        Annotated[str, any_case("Enabled", "Disabled", "L2Only")],
        "Enabled",
        "Whether packets go straight to the workload's end of its interface, past tools such as tcpdump on the host's end.",
    ),
    # Debugging
    Parameter("debugDisableLogDropping", Bool, "false", "True: messages are never left out when too many come."),
    Parameter("debugHost", Host, "localhost", "Address of the debugging server."),
    Parameter("debugMemoryProfilePath", str, "", "File that the memory profile is written to on a signal."),
    Parameter("debugPort", PortOrNone, "", "TCP port of the debugging server; absent: none."),
    Parameter("debugSimulateCalcGraphHangAfter", Duration, "0s", "For tests: the calculation hangs after this time."),
    Parameter("debugSimulateDataplaneApplyDelay", Duration, "0s", "For tests: every change of the kernel takes so much longer."),
    Parameter("debugSimulateDataplaneHangAfter", Duration, "0s", "For tests: the dataplane hangs after this time."),
    # The Go runtime
    Parameter(
        "goGCThreshold", Annotated[int, within(-1, _INT64)], "40", "Growth of memory in percent before Felix collects garbage; -1: never."
    ),
    Parameter("goMaxProcs", Annotated[int, within(-1, _INT64)], "-1", "Most processors that Felix uses; -1: all."),
    Parameter("goMemoryLimitMB", Annotated[int, within(-1, _INT64)], "-1", "Memory that Felix tries to stay below, in MB; -1: no limit."),
)

FIELDS: dict[str, Any] = {parameter.name: parameter.kind for parameter in PARAMETERS}
"""Name to annotated type."""
