"""The QoS driver: which rules ports of ours can have, and that their endpoints follow when a policy changes.

In: Neutron's QoS policies. Out: ports to publish. Rules that an endpoint cannot be limited to (``limits.SUPPORTED`` names those that it
can) are refused by Neutron when a port with such a policy is made or a policy in use gets such a rule.
"""

from __future__ import annotations

from typing import Any

from neutron_lib.api.definitions import portbindings
from neutron_lib.services.qos import base
from neutron_lib.services.qos import constants as qos

from tabinet.attach.openstack import limits
from tabinet.attach.openstack.ml2 import finding
from tabinet.attach.openstack.ml2.notices import Outlet
from tabinet.attach.openstack.publisher import PORT


class TabinetQos(base.DriverBase):
    """Registers itself with Neutron's QoS plugin when that has been loaded."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__("tabinet", [portbindings.VIF_TYPE_TAP], [portbindings.VNIC_NORMAL], supported_rules())
        self._outlet = outlet

    def update_policy(self, context: Any, policy: Any) -> None:
        """Rules of the policy changed: the ports that have it, by themselves or through their network, are published."""
        ids = set(policy.get_bound_ports())
        networks = sorted(policy.get_bound_networks())
        if networks:
            ids |= set(finding.ports_in_networks(networks))
        self._outlet.publish_later(PORT, sorted(ids))


def supported_rules() -> dict[str, dict[str, dict[str, Any]]]:
    """In the words of Neutron's validators."""
    direction = {qos.DIRECTION: {"type:values": list(limits.DIRECTIONS)}}
    numbers = {
        kind: {name: {"type:range": list(bounds)} for name, bounds in parameters.items()} | direction
        for kind, parameters in limits.SUPPORTED.items()
    }
    return numbers | {qos.RULE_TYPE_DSCP_MARKING: {qos.DSCP_MARK: {"type:values": list(limits.CODE_POINTS)}}}
