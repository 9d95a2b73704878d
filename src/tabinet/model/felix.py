"""The parameters of FelixConfiguration: name on the wire to type and format.

The view keeps the specification as a plain ``dict``, because most parameters steer machinery that does not exist here; the table
is for checking what an operator writes. Which of them have an effect is the agent's business.
"""

from __future__ import annotations

from typing import Annotated, Any

from tabinet.model.formats import (
    Address4,
    Address6,
    Cidr,
    Duration,
    Interface,
    LogLevel,
    Port,
    PortNumber,
    PortOrNone,
    one_of,
    within,
)

_Switch = Annotated[str, one_of("Enabled", "Disabled")]
_Accept = Annotated[str, one_of("Accept", "Return", "ACCEPT", "RETURN")]
_Deny = Annotated[str, one_of("Drop", "Reject", "DROP", "REJECT")]
_Mtu = Annotated[int, within(0, 65535)]
_Word = Annotated[int, within(0, 0xFFFFFFFF)]

_BY_TYPE: tuple[tuple[Any, str], ...] = (
    (
        bool,
        """allowIPIPPacketsFromWorkloads allowVXLANPacketsFromWorkloads bpfConnectTimeLoadBalancingEnabled bpfDisableUnprivileged
        bpfEnabled bpfHostConntrackBypass bpfKubeProxyEndpointSlicesEnabled bpfKubeProxyIptablesCleanupEnabled
        bpfPolicyDebugEnabled debugDisableLogDropping disableConntrackInvalidCheck endpointReportingEnabled genericXDPEnabled
        healthEnabled ipipEnabled ipv6Support prometheusGoMetricsEnabled prometheusMetricsEnabled
        prometheusProcessMetricsEnabled prometheusWireGuardMetricsEnabled removeExternalRoutes requireMTUFile routeSyncDisabled
        sidecarAccelerationEnabled usageReportingEnabled useInternalDataplaneDriver vxlanEnabled wireguardEnabled
        wireguardEnabledV6 wireguardHostEncryptionEnabled wireguardThreadingEnabled xdpEnabled""",
    ),
    (
        Duration,
        """bpfConntrackCleanupInterval bpfKubeProxyMinSyncPeriod dataplaneWatchdogTimeout debugSimulateCalcGraphHangAfter
        debugSimulateDataplaneApplyDelay debugSimulateDataplaneHangAfter endpointReportingDelay flowLogsFlushInterval
        interfaceRefreshInterval ipsetsRefreshInterval iptablesLockProbeInterval iptablesLockTimeout
        iptablesPostWriteCheckInterval iptablesRefreshInterval liveMigrationRouteConvergenceTime netlinkTimeout
        nftablesRefreshInterval reportingInterval reportingTTL routeRefreshInterval usageReportingInitialDelay
        usageReportingInterval wireguardKeepAlive xdpRefreshInterval""",
    ),
    (
        int,
        """bpfMapSizeConntrack bpfMapSizeConntrackCleanupQueue bpfMapSizeIPSets bpfMapSizeIfState bpfMapSizeNATAffinity
        bpfMapSizeNATBackend bpfMapSizeNATFrontend bpfMapSizePerCpuConntrack bpfMapSizeRoute goGCThreshold goMaxProcs
        goMemoryLimitMB maxIpsetSize wireguardRoutingRulePriority ipv4ElevatedRoutePriority ipv4NormalRoutePriority
        ipv6ElevatedRoutePriority ipv6NormalRoutePriority logActionRateLimitBurst""",
    ),
    (Annotated[int, within(0, 255)], "deviceRouteProtocol"),
    (Annotated[int, within(0, 0xFFFFFF)], "vxlanVNI"),
    (_Word, "bpfExtToServiceConnmark iptablesMarkMask nftablesMarkMask"),
    (_Mtu, "ipipMTU vxlanMTU vxlanMTUV6 wireguardMTU wireguardMTUV6"),
    (PortNumber, "healthPort metadataPort prometheusMetricsPort vxlanPort wireguardListeningPort wireguardListeningPortV6"),
    (PortOrNone, "debugPort"),
    (Port, "bpfPSNATPorts natPortRange"),
    (tuple[Port, ...], "kubeNodePortRanges"),
    (Interface, "wireguardInterfaceName wireguardInterfaceNameV6"),
    (Address4, "deviceRouteSourceAddress natOutgoingAddress"),
    (Address6, "deviceRouteSourceAddressIPv6"),
    (tuple[Cidr, ...], "bpfDSROptoutCIDRs bpfExcludeCIDRsFromNAT externalNodesList"),
    (tuple[str, ...], "bpfForceTrackPacketsFromIfaces"),
    (LogLevel, "logSeverityFile logSeverityScreen logSeveritySys"),
    (_Accept, "iptablesFilterAllowAction iptablesMangleAllowAction nftablesFilterAllowAction nftablesMangleAllowAction"),
    (_Deny, "iptablesFilterDenyAction nftablesFilterDenyAction"),
    (
        _Switch,
        """bpfHostNetworkedNATWithoutCTLB bpfProfiling floatingIPs ipForwarding nftablesMode programClusterRoutes
        windowsManageFirewallRules""",
    ),
    (Annotated[str, one_of("Drop", "Accept", "Return", "DROP", "ACCEPT", "RETURN")], "defaultEndpointToHostAction"),
    (Annotated[str, one_of("Insert", "Append", "insert", "append")], "chainInsertMode"),
    (Annotated[str, one_of("Auto", "Legacy", "NFT", "auto", "legacy", "nft")], "iptablesBackend"),
    (Annotated[str, one_of("Off", "Info", "Debug")], "bpfLogLevel"),
    (Annotated[str, one_of("TCP", "Enabled", "Disabled")], "bpfConnectTimeLoadBalancing"),
    (Annotated[str, one_of("TC", "TCX")], "bpfAttachType"),
    (Annotated[str, one_of("Tunnel", "DSR")], "bpfExternalServiceMode"),
    (Annotated[str, one_of("Disabled", "Strict", "Loose")], "bpfEnforceRPF"),
    (Annotated[str, one_of("Enabled", "Disabled", "L2Only")], "bpfRedirectToPeer"),
    (Annotated[str, one_of("Auto", "Userspace", "BPFProgram")], "bpfConntrackCleanupMode"),
    (Annotated[str, one_of("WorkloadIPs", "CalicoIPAM")], "routeSource"),
    (Annotated[str, one_of("DoNothing", "Enable", "Disable")], "awsSrcDstCheck"),
    (Annotated[str, one_of("Drop", "Reject", "Disabled")], "serviceLoopPrevention"),
    (Annotated[str, one_of("Disabled", "Any")], "workloadSourceSpoofing"),
    (int | str, "istioDSCPMark"),
    (dict[str, str], "bpfLogFilters"),
    (
        str,
        """bpfCTLBLogFilter bpfDataIfacePattern bpfDisableGROForIfaces bpfJITHardening bpfL3IfacePattern dataplaneDriver debugHost
        debugMemoryProfilePath endpointStatusPathPrefix featureDetectOverride featureGates flowLogsGoldmaneServer
        flowLogsLocalReporter flowLogsPolicyEvaluationMode healthHost interfaceExclude interfacePrefix iptablesLockFilePath
        iptablesNATOutgoingInterfaceFilter istioAmbientMode logDebugFilenameRegex logActionRateLimit logFilePath logPrefix
        metadataAddr mtuIfacePattern natOutgoingExclusions openstackRegion policySyncPathPrefix prometheusMetricsHost""",
    ),
    (
        Any,
        "bpfConntrackTimeouts failsafeInboundHostPorts failsafeOutboundHostPorts healthTimeoutOverrides routeTableRange routeTableRanges",
    ),
)

FIELDS: dict[str, Any] = {name: annotation for annotation, names in _BY_TYPE for name in names.split()}
"""Name to annotated type."""
