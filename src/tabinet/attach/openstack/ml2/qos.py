"""The QoS driver: which rules ports of ours can have, and that their endpoints follow when a policy changes.

In: Neutron's QoS policies. Out: ports to publish. Rules that an endpoint cannot be limited to (``limits.SUPPORTED`` names those that it
can) are refused by Neutron when a port or network with such a policy is made or a policy in use gets such a rule. About floating IPs
Neutron asks no driver, so that it is refused here.
"""

from __future__ import annotations

from typing import Any

from neutron.objects.qos.policy import QosPolicy
from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.exceptions import InvalidInput
from neutron_lib.services.qos import base
from neutron_lib.services.qos import constants as qos

from tabinet.attach.openstack import limits
from tabinet.attach.openstack.ml2 import finding
from tabinet.attach.openstack.ml2.notices import Outlet
from tabinet.attach.openstack.neutron import QosRule, parse_fact
from tabinet.attach.openstack.publisher import PORT


class TabinetQos(base.DriverBase):
    """Registers itself with Neutron's QoS plugin when that has been loaded."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__("tabinet", [portbindings.VIF_TYPE_TAP], [portbindings.VNIC_NORMAL], supported_rules())
        self._outlet = outlet
        for event in (events.BEFORE_CREATE, events.BEFORE_UPDATE):
            registry.subscribe(self.before_floating_ip, resources.FLOATING_IP, event)

    def before_floating_ip(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A floating IP is to be made or changed.

        Raises:
            InvalidInput: it is to have a QoS policy that cannot be followed.
        """
        wanted = payload.request_body["floatingip"].get("qos_policy_id")
        policy = QosPolicy.get_object(payload.context.elevated(), id=wanted) if wanted else None
        if policy is not None:  # else Neutron says that there is none
            check_rules(policy)

    def update_policy_precommit(self, context: Any, policy: Any) -> None:
        """Rules of the policy change, within a transaction.

        Raises:
            InvalidInput: floating IPs have the policy, and cannot be limited so.
        """
        if policy.get_bound_floatingips():
            check_rules(policy)

    def update_policy(self, context: Any, policy: Any) -> None:
        """Rules of the policy changed: the ports that have it, by themselves, through their network or a floating IP, are published."""
        ids = set(policy.get_bound_ports())
        floating = set(policy.get_bound_floatingips())
        networks = sorted(policy.get_bound_networks())
        if networks:
            ids |= set(finding.ports_in_networks(networks))
            floating |= set(finding.floating_of(networks))
        ids |= set(finding.ports_of_floating(sorted(floating)))
        self._outlet.publish_later(PORT, sorted(ids))


def check_rules(policy: Any) -> None:
    """What passes through floating IPs can be limited as the policy says.

    Raises:
        InvalidInput: one of its rules cannot be followed.
    """
    for rule in policy.rules:
        problem = limits.unsupported(parse_fact(QosRule, rule.to_dict()))
        if problem:
            raise InvalidInput(error_message=f"QoS policy {policy.id} is of no use to floating IPs: {problem}")


def supported_rules() -> dict[str, dict[str, dict[str, Any]]]:
    """In the words of Neutron's validators."""
    direction = {qos.DIRECTION: {"type:values": list(limits.DIRECTIONS)}}
    numbers = {
        kind: {name: {"type:range": list(bounds)} for name, bounds in parameters.items()} | direction
        for kind, parameters in limits.SUPPORTED.items()
    }
    points = [point for point in constants.VALID_DSCP_MARKS if point in limits.CODE_POINTS]
    return numbers | {qos.RULE_TYPE_DSCP_MARKING: {qos.DSCP_MARK: {"type:values": points}}}
