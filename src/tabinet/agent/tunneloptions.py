"""From the agent's parameters to what tunnels depend on. Pure."""

from __future__ import annotations

from tabinet.agent.parameters import Parameters
from tabinet.calc.messages import Tunnel
from tabinet.dataplane.tunnels.plan import TunnelOptions

_MTUS = {Tunnel.VXLAN4: "vxlan_mtu", Tunnel.VXLAN6: "vxlan_mtu_v6", Tunnel.IPIP: "ipip_mtu"}
_SWITCHES = {Tunnel.VXLAN4: "vxlan_enabled", Tunnel.VXLAN6: "vxlan_enabled", Tunnel.IPIP: "ipip_enabled"}


def disabled_tunnels(parameters: Parameters) -> frozenset[Tunnel]:
    """Tunnels that this host takes no part in, whatever pools say."""
    disabled = {tunnel for tunnel, name in _SWITCHES.items() if parameters.text("felix", name) == "false"}
    if not parameters.switch("felix", "ipv6_support"):
        disabled.add(Tunnel.VXLAN6)
    return frozenset(disabled)


def checksum_broken(parameters: Parameters) -> bool | None:
    """What ``ChecksumOffloadBroken`` in ``featureDetectOverride`` says; ``None``: nothing."""
    for item in parameters.text("felix", "feature_detect_override").split(","):
        name, _, value = item.strip().partition("=")
        if name == "ChecksumOffloadBroken":
            return value.lower() == "true"
    return None


def is_checksum_tested(parameters: Parameters) -> bool:
    """A test decides whether checksums inside of VXLAN are left to network cards."""
    return checksum_broken(parameters) is None and Tunnel.VXLAN4 not in disabled_tunnels(parameters)


def tunnel_options(parameters: Parameters) -> TunnelOptions:
    """The part of the parameters that tunnels depend on."""
    return TunnelOptions(
        vni=parameters.integer("felix", "vxlan_vni"),
        port=parameters.integer("felix", "vxlan_port"),
        mtus={tunnel: parameters.integer("felix", name) for tunnel, name in _MTUS.items()},
        disabled=disabled_tunnels(parameters),
        checksum_broken=checksum_broken(parameters),
        uplink_pattern=parameters.text("felix", "mtu_iface_pattern"),
        interface_prefixes=parameters.items("felix", "interface_prefix"),
    )
