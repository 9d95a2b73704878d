"""Which of Neutron's notifications concern which subjects. What many ports depend on (names, QoS policies, subnets) has them published
later.

Neutron's registry wants methods or functions that it can refer to weakly, so the receivers are methods of an object that the driver holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from neutron.services.portforwarding import constants
from neutron_lib.callbacks import events, registry, resources

from tabinet.attach.openstack.ml2 import finding
from tabinet.attach.openstack.publisher import ADDRESS_GROUP, GROUP, NETWORK, PORT, ROUTER, SUBNET

_AFTER = (events.AFTER_CREATE, events.AFTER_UPDATE, events.AFTER_DELETE)


class Outlet(Protocol):
    """The driver, as far as notifications need it."""

    def publish(self, kind: str, identifier: str, places: Sequence[tuple[str, str]] = ()) -> None: ...

    def publish_rule(self, group: str, rule: str) -> None: ...

    def publish_later(self, kind: str, identifiers: Sequence[str]) -> None: ...


class Notices:
    """Receives notifications for an outlet."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._beside: dict[str, list[str]] = {}
        """Ports that are about to be deleted: which others their floating IPs are forwarded to. Their own forwardings go without a word."""
        self._referring: dict[str, list[str]] = {}
        """Groups that are about to be deleted: which others have rules about their members. Such rules go with them, and nobody tells."""

    def on_group(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A security group."""
        self._outlet.publish(GROUP, payload.resource_id)
        if event == events.AFTER_DELETE:
            self._outlet.publish_later(GROUP, self._referring.pop(payload.resource_id, []))
        if event == events.AFTER_UPDATE and _changed(payload, "name"):
            self._outlet.publish_later(PORT, finding.ports_in_group(payload.resource_id))

    def before_group_is_deleted(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A security group, before it is deleted."""
        self._referring[payload.resource_id] = finding.groups_about(payload.resource_id)

    def on_rule(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A rule of a security group."""
        if event == events.AFTER_CREATE:
            self._outlet.publish_rule(payload.latest_state["security_group_id"], payload.resource_id)
        else:
            self._outlet.publish(GROUP, payload.metadata["security_group_id"])

    def on_address_group(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """An address group."""
        self._outlet.publish(ADDRESS_GROUP, payload.resource_id)

    def on_subnet(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A subnet. Its gateway is that of all its ports."""
        self._outlet.publish(SUBNET, payload.resource_id)
        if event == events.AFTER_UPDATE and _changed(payload, "gateway_ip"):
            self._outlet.publish_later(PORT, finding.ports_in_subnet(payload.resource_id))

    def on_isolated(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A network or router came or went, where networks are isolated."""
        self._outlet.publish(NETWORK if resource == resources.NETWORK else ROUTER, payload.resource_id)

    def on_network(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A network."""
        if _changed(payload, "name", "mtu", "admin_state_up", "qos_policy_id"):
            self._outlet.publish_later(PORT, finding.ports_in_networks([payload.resource_id]))
        if _changed(payload, "qos_policy_id"):
            self._outlet.publish_later(PORT, finding.ports_of_floating(finding.floating_of([payload.resource_id])))

    def before_port_is_deleted(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A port, before it is deleted."""
        beside = finding.forwarded_beside(payload.resource_id)
        if beside:
            self._beside[payload.resource_id] = beside

    def on_port_deleted(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A port is gone."""
        self._outlet.publish_later(PORT, self._beside.pop(payload.resource_id, []))

    def on_forwarding(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A port forwarding: the ports it leads or led to, and those beside, the first of which tells the address's home of the others."""
        ports = {state.internal_port_id for state in payload.states if state}
        beside = finding.forwarded_from({state.floatingip_id for state in payload.states if state})
        for port in sorted(ports):
            self._outlet.publish(PORT, port)
        self._outlet.publish_later(PORT, sorted(set(beside) - ports))

    def on_floating_ip(self, resource: str, event: str, trigger: Any, payload: Any = None) -> None:
        """A floating IP: the port that had it, and the one that has it; where only ports of it are forwarded, those that they lead to."""
        ports = {state.get("port_id") for state in payload.states if state}
        for port in sorted(filter(None, ports)):
            self._outlet.publish(PORT, port)
        if event == events.AFTER_UPDATE and "qos_policy_id" in payload.request_body["floatingip"]:
            self._outlet.publish_later(PORT, finding.forwarded_from([payload.resource_id]))


def subscribe(outlet: Outlet, isolated: bool) -> Notices:
    """Notifications reach the outlet for as long as the result is kept."""
    notices = Notices(outlet)
    for event in _AFTER:
        registry.subscribe(notices.on_group, resources.SECURITY_GROUP, event)
        registry.subscribe(notices.on_address_group, resources.ADDRESS_GROUP, event)
        registry.subscribe(notices.on_subnet, resources.SUBNET, event)
        registry.subscribe(notices.on_floating_ip, resources.FLOATING_IP, event)
        registry.subscribe(notices.on_forwarding, constants.PORT_FORWARDING, event)
    for event in (events.AFTER_CREATE, events.AFTER_DELETE):
        registry.subscribe(notices.on_rule, resources.SECURITY_GROUP_RULE, event)
    for event in (events.AFTER_CREATE, events.AFTER_DELETE) if isolated else ():
        registry.subscribe(notices.on_isolated, resources.NETWORK, event)
        registry.subscribe(notices.on_isolated, resources.ROUTER, event)
    registry.subscribe(notices.before_port_is_deleted, resources.PORT, events.BEFORE_DELETE)
    registry.subscribe(notices.on_port_deleted, resources.PORT, events.AFTER_DELETE)
    registry.subscribe(notices.before_group_is_deleted, resources.SECURITY_GROUP, events.BEFORE_DELETE)
    registry.subscribe(notices.on_network, resources.NETWORK, events.AFTER_UPDATE)
    return notices


def _changed(payload: Any, *names: str) -> bool:
    """True: one of these members is not what it was."""
    states: Sequence[Any] = payload.states or ()
    if len(states) < 2:
        return True
    before, after = states[0], states[-1]
    return any(before.get(name) != after.get(name) for name in names)
