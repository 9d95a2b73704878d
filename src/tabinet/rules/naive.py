"""Policy decided straight from the calculation's messages, without chains: what the tables are checked against.

Written from the order of evaluation alone: tiers in order; in a tier, policies in order; Allow and Deny end it, Pass goes to the next
tier, Log goes on; a tier without a match does its default action; without any tier, or after the last was passed, the profiles decide;
no match there is Deny. A policy that is missing, or names a set that is missing or of the wrong kind, denies; a missing profile says
nothing. No indices and no sharing: every question walks everything that it concerns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import (
    ALL_HOSTS,
    Action,
    Endpoint,
    EndpointRemove,
    EndpointUpdate,
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    Icmp,
    Member,
    Policy,
    PolicyRemove,
    PolicyUpdate,
    PortMember,
    ProfileRemove,
    ProfileUpdate,
    Rule,
    SetDelta,
    SetKind,
    SetRemove,
    SetUpdate,
    Side,
    TierPolicies,
    Tunnel,
    TunnelRemove,
    TunnelUpdate,
    Update,
)
from tabinet.lib.ip import IPV4, Prefix, parse_prefix
from tabinet.model.extended import DCCP
from tabinet.model.keys import ResourceKey
from tabinet.rules.evaluate import Packet, begins_flow
from tabinet.rules.options import CONTROL_PORTS, IPIP, UDP, HostAction, ProtoPort, TableOptions
from tabinet.rules.pairs import may_send

_UNSPECIFIED, _LINK_LOCAL = parse_prefix("0.0.0.0/32"), parse_prefix("fe80::/10")
DISCOVERY = (130, 143)
"""Types of ICMPv6 that no policy of hosts is asked about."""
_WITH_PORTS = {6, 17, 132, 136}


@dataclass(slots=True)
class World:
    """Everything that was announced."""

    sets: dict[str, tuple[SetKind, set[Member]]] = field(default_factory=dict)
    policies: dict[ResourceKey, Policy] = field(default_factory=dict)
    profiles: dict[str, Policy] = field(default_factory=dict)
    endpoints: dict[ResourceKey, Endpoint] = field(default_factory=dict)
    hosts: dict[ResourceKey, HostEndpoint] = field(default_factory=dict)
    interfaces: dict[str, frozenset[Prefix]] = field(default_factory=dict)
    """The host's, with their addresses."""
    options: TableOptions = field(default_factory=TableOptions)
    tunnels: set[Tunnel] = field(default_factory=set)
    """Those that pools want the host to have."""

    def on_update(self, update: Update) -> None:
        """The update is part of the world."""
        match update:
            case SetUpdate(set_id=set_id, kind=kind, members=members):
                self.sets[set_id] = (kind, set(members))
            case SetDelta(set_id=set_id, added=added, removed=removed):
                if set_id in self.sets:
                    kind, present = self.sets[set_id]
                    self.sets[set_id] = (kind, (present - removed) | added)
            case SetRemove(set_id=set_id):
                self.sets.pop(set_id, None)
            case PolicyUpdate(key=key, policy=policy):
                self.policies[key] = policy
            case PolicyRemove(key=key):
                self.policies.pop(key, None)
            case ProfileUpdate(name=name, policy=policy):
                self.profiles[name] = policy
            case ProfileRemove(name=name):
                self.profiles.pop(name, None)
            case EndpointUpdate(key=key, endpoint=endpoint):
                self.endpoints[key] = endpoint
            case EndpointRemove(key=key):
                self.endpoints.pop(key, None)
            case HostEndpointUpdate(key=key, endpoint=host_endpoint):
                self.hosts[key] = host_endpoint
            case HostEndpointRemove(key=key):
                self.hosts.pop(key, None)
            case TunnelUpdate(tunnel=tunnel, local=local) if local.wanted:
                self.tunnels.add(tunnel)
            case TunnelUpdate(tunnel=tunnel) | TunnelRemove(tunnel=tunnel):
                self.tunnels.discard(tunnel)
            case _:
                pass

    def forwards(self, packet: Packet) -> bool:
        """True when a host with these endpoints forwards the first packet of the flow, or one that belongs to none."""
        ours_in, ours_out = self._ours(packet.in_interface), self._ours(packet.out_interface)
        untracked = None
        if not ours_in:
            untracked = self.without_connection(packet, ingress=True)
        if not self.is_own_source(packet) or untracked is Action.DENY:
            return False
        if untracked is Action.ALLOW:
            return not ours_out
        if not begins_flow(packet.protocol, packet.icmp_type) and self._minds_flows(packet):
            return False
        if not self._may_leave(packet):
            return False
        if ours_out:
            receiver = self._at(packet.out_interface)
            return receiver is not None and self._allows(receiver.ingress, receiver.profiles, packet, ingress=True)
        host = self.host_at(packet.out_interface)
        return host is None or self._tiers(host.forward_egress, packet, ingress=False) is not Action.DENY

    def _minds_flows(self, packet: Packet) -> bool:
        """True when an end on this host takes only packets of flows: all with policy but stateless endpoints."""
        for interface in (packet.in_interface, packet.out_interface):
            endpoint = self._at(interface) if self._ours(interface) else None
            if self.host_at(interface) is not None or (endpoint is not None and not endpoint.stateless):
                return True
        return False

    def receives(self, packet: Packet) -> bool:
        """True when the host itself gets the first packet of the flow."""
        if not self.is_own_source(packet):
            return False
        untracked = None if self._ours(packet.in_interface) else self.without_connection(packet, ingress=True)
        if untracked is not Action.DENY and self.is_in_tunnel(packet):
            return self.is_host(packet.source)
        if self._ours(packet.in_interface):
            sender = self._at(packet.in_interface)
            if is_dhcp(packet) or is_discovery(packet) or self._is_service(packet):
                return True
            if self.is_tunnelled(packet):
                return False
            allowed = sender is not None and self._allows(sender.egress, sender.profiles, packet, ingress=False)
            return allowed and self.options.endpoint_to_host is not HostAction.DROP
        host = self.host_at(packet.in_interface)
        if untracked is not None or host is None:
            return untracked is not Action.DENY
        if is_discovery(packet):
            return True
        before = self._pre_dnat(host, packet)
        if before is not None:
            return before is Action.ALLOW
        if is_failsafe(self.options.failsafe_inbound, packet.protocol, packet.destination_port, packet.source):
            return True
        return self._allows(host.ingress, host.profiles, packet, ingress=True)

    def sends(self, packet: Packet) -> bool:
        """True when the host itself may send the first packet of the flow."""
        host = self.host_at(packet.out_interface)
        if self._ours(packet.out_interface) or host is None:
            return True
        untracked = self.without_connection(packet, ingress=False)
        if untracked is not None:
            return untracked is Action.ALLOW
        if self.is_in_tunnel(packet) and self.is_host(packet.destination):
            return True
        if is_discovery(packet) or any(packet.destination in endpoint.nets_here for endpoint in self._owners()):
            return True  # the latter: translated to a workload, and not yet routed there
        if is_failsafe(self.options.failsafe_outbound, packet.protocol, packet.destination_port, packet.destination):
            return True
        return self._allows(host.egress, host.profiles, packet, ingress=False)

    def _may_leave(self, packet: Packet) -> bool:
        """Where it came from allows the packet to go on."""
        if self._ours(packet.in_interface):
            if self.is_tunnelled(packet):
                return False
            sender = self._at(packet.in_interface)
            return sender is not None and self._allows(sender.egress, sender.profiles, packet, ingress=False)
        host = self.host_at(packet.in_interface)
        if host is None:
            return True
        before = self._pre_dnat(host, packet)
        if before is not None:
            return before is Action.ALLOW
        return self._tiers(host.forward_ingress, packet, ingress=True) is not Action.DENY

    def is_own_source(self, packet: Packet) -> bool:
        """True when the packet may have its source where it comes from."""
        if not self._ours(packet.in_interface):
            return not any(packet.source in endpoint.nets_here for endpoint in self._owners())
        sender = self._at(packet.in_interface)
        if sender is None:
            return False
        if is_dhcp(packet) and has_no_address(packet):
            return not packet.mac or not sender.mac or packet.mac == sender.mac or sender.any_mac
        return may_send(sender, packet.source, packet.mac)

    def _ours(self, interface: str) -> bool:
        return interface.startswith(self.options.interface_prefixes)

    def host_at(self, interface: str) -> HostEndpoint | None:
        """The host endpoint that judges at the interface."""
        if interface in ("", "lo") or self._ours(interface):
            return None
        own = [
            key
            for key, host in self.hosts.items()
            if host.interface == interface or (not host.interface and self.interfaces.get(interface, frozenset()) & set(host.addresses))
        ]
        others = [key for key, host in self.hosts.items() if host.interface == "*"]
        return self.hosts[min(own or others)] if own or others else None

    def without_connection(self, packet: Packet, *, ingress: bool) -> Action | None:
        """What doNotTrack policy says of the packet; None: nothing, so that it is tracked."""
        packet = as_sent(packet)
        host = self.host_at(packet.in_interface if ingress else packet.out_interface)
        if host is None or (ingress and any(packet.destination in endpoint.nets_here for endpoint in self._owners())):
            return None
        peer = packet.source if ingress else packet.destination
        inbound, outbound = self.options.failsafe_inbound, self.options.failsafe_outbound
        requests, answers = (inbound, outbound) if ingress else (outbound, inbound)
        if is_failsafe(requests, packet.protocol, packet.destination_port, peer):
            return None
        if is_failsafe(answers, packet.protocol, packet.source_port, peer):
            return None
        return self._tiers(host.untracked_ingress if ingress else host.untracked_egress, packet, ingress=ingress, defaults=False)

    def _pre_dnat(self, host: HostEndpoint, packet: Packet) -> Action | None:
        packet = as_sent(packet)
        if is_failsafe(self.options.failsafe_inbound, packet.protocol, packet.destination_port, packet.source):
            return None
        return self._tiers(host.pre_dnat, packet, ingress=True, defaults=False)

    def _is_service(self, packet: Packet) -> bool:
        """What a workload may always ask of the host."""
        return any(
            (port.protocol, port.port) == (packet.protocol, packet.destination_port)
            and (port.net is None or port.net.contains(packet.destination))
            for port in self.options.host_services
        )

    def is_tunnelled(self, packet: Packet) -> bool:
        """It is a tunnel packet such as no workload may send."""
        if packet.protocol == IPIP:
            return not self.options.workloads_send_ipip
        return (packet.protocol, packet.destination_port) == (UDP, self.options.vxlan_port) and not self.options.workloads_send_vxlan

    def is_in_tunnel(self, packet: Packet) -> bool:
        """It is a packet of a tunnel that the host has, whose ends are hosts of the fabric."""
        if ALL_HOSTS not in self.sets:
            return False
        kinds = {(IPIP, IPV4) if tunnel is Tunnel.IPIP else (UDP, tunnel.family) for tunnel in self.tunnels - self.options.tunnels_off}
        is_for_tunnels = packet.protocol == IPIP or packet.destination_port == self.options.vxlan_port
        return is_for_tunnels and (packet.protocol, packet.family) in kinds

    def is_host(self, address: Prefix) -> bool:
        """A host of the fabric has the address."""
        return self._in_set(ALL_HOSTS, address)

    def _owners(self) -> list[Endpoint]:
        found = [self._at(endpoint.interface) for endpoint in self.endpoints.values()]
        return [endpoint for endpoint in found if endpoint is not None]

    def _at(self, interface: str) -> Endpoint | None:
        claims = [key for key, endpoint in self.endpoints.items() if endpoint.interface == interface]
        return self.endpoints[min(claims)] if claims else None

    def _allows(self, tiers: tuple[TierPolicies, ...], profiles: tuple[str, ...], packet: Packet, *, ingress: bool) -> bool:
        decided = self._tiers(tiers, packet, ingress=ingress)
        if decided is not None:
            return decided is Action.ALLOW
        for name in profiles:
            profile = self.profiles.get(name)
            if profile is None:
                continue
            action_or_none = self._policy(profile, packet, ingress=ingress)
            if action_or_none is not None:
                return action_or_none is Action.ALLOW
        return False

    def _tiers(self, tiers: tuple[TierPolicies, ...], packet: Packet, *, ingress: bool, defaults: bool = True) -> Action | None:
        """ALLOW or DENY; None when every tier was passed."""
        for tier in tiers:
            action = self._tier(tier, packet, ingress=ingress, defaults=defaults)
            if action is not Action.PASS:
                return action
        return None

    def _tier(self, tier: TierPolicies, packet: Packet, *, ingress: bool, defaults: bool) -> Action:
        for key in tier.policies:
            policy = self.policies.get(key)
            if policy is None:
                return Action.DENY
            action = self._policy(policy, packet, ingress=ingress)
            if action is not None:
                return action
        return tier.default_action if defaults else Action.PASS

    def _policy(self, policy: Policy, packet: Packet, *, ingress: bool) -> Action | None:
        """The action that ends the policy; None when it says nothing."""
        rules = policy.ingress if ingress else policy.egress
        for rule in rules:
            for side in (rule.source, rule.destination):
                nets_known = all(self._kind(set_id) is SetKind.NETS for set_id in (*side.sets, *side.not_sets))
                ports_known = all(self._kind(set_id) is SetKind.PORTS for set_id in (*side.port_sets, *side.not_port_sets))
                if not nets_known or not ports_known:
                    return Action.DENY
        for rule in rules:
            if rule.action is not Action.LOG and self._matches(rule, packet):
                return rule.action
        return None

    def _kind(self, set_id: str) -> SetKind | None:
        return self.sets[set_id][0] if set_id in self.sets else None

    def _matches(self, rule: Rule, packet: Packet) -> bool:
        if rule.ip_version is not None and rule.ip_version != packet.family:
            return False
        if rule.protocol is not None and rule.protocol != packet.protocol:
            return False
        if rule.protocol == 1 and packet.family != IPV4:
            return False
        if rule.protocol == 58 and packet.family == IPV4:
            return False
        if rule.not_protocol is not None and rule.not_protocol == packet.protocol:
            return False
        if rule.icmp is not None or rule.not_icmp is not None:
            if packet.protocol != (1 if packet.family == IPV4 else 58):
                return False
            if rule.icmp is not None and not _is_icmp(rule.icmp, packet):
                return False
            if rule.not_icmp is not None and _is_icmp(rule.not_icmp, packet):
                return False
        if packet.protocol == DCCP and rule.protocol != DCCP and any(map(_asks_ports, (rule.source, rule.destination))):
            return False
        return self._side(rule.source, packet, packet.source, packet.source_port) and self._side(
            rule.destination, packet, packet.destination, packet.destination_port
        )

    def _side(self, side: Side, packet: Packet, address: Prefix, port: int) -> bool:
        if side.nets and not any(net.contains(address) for net in side.nets):
            return False
        if any(net.contains(address) for net in side.not_nets):
            return False
        if not all(self._in_set(set_id, address) for set_id in side.sets):
            return False
        if any(self._in_set(set_id, address) for set_id in side.not_sets):
            return False
        if not (side.ports or side.port_sets or side.not_ports or side.not_port_sets):
            return True
        if packet.protocol not in _WITH_PORTS and (packet.protocol != DCCP or side.not_ports or side.not_port_sets):
            return False
        member = PortMember(address, packet.protocol, port)
        if (side.ports or side.port_sets) and not (
            any(item.first <= port <= item.last for item in side.ports) or any(member in self.sets[name][1] for name in side.port_sets)
        ):
            return False
        if any(item.first <= port <= item.last for item in side.not_ports):
            return False
        return not any(member in self.sets[name][1] for name in side.not_port_sets)

    def _in_set(self, set_id: str, address: Prefix) -> bool:
        return any(isinstance(member, Prefix) and member.contains(address) for member in self.sets[set_id][1])


def _asks_ports(side: Side) -> bool:
    return bool(side.ports or side.port_sets or side.not_ports or side.not_port_sets)


def _is_icmp(icmp: Icmp, packet: Packet) -> bool:
    return packet.icmp_type == icmp.type and icmp.code in (None, packet.icmp_code)


def as_sent(packet: Packet) -> Packet:
    """The packet before its destination was translated."""
    port = packet.destination_port if packet.original_destination_port is None else packet.original_destination_port
    return msgspec.structs.replace(packet, destination=packet.original_destination or packet.destination, destination_port=port)


def is_failsafe(ports: tuple[ProtoPort, ...], protocol: int, port: int, peer: Prefix) -> bool:
    """No host endpoint closes the port to the peer."""
    found = [item for item in (*ports, *CONTROL_PORTS) if (item.protocol, item.port) == (protocol, port)]
    return any(item.net is None or item.net.contains(peer) for item in found)


def is_discovery(packet: Packet) -> bool:
    """Neighbour discovery and MLD, and what is numbered among them: hosts send and take it whatever policy says."""
    return packet.protocol == 58 and packet.family != IPV4 and DISCOVERY[0] <= packet.icmp_type <= DISCOVERY[1]


def is_dhcp(packet: Packet) -> bool:
    """A client asks a DHCP server, in either family."""
    ports = (68, 67) if packet.family == IPV4 else (546, 547)
    return packet.protocol == 17 and (packet.source_port, packet.destination_port) == ports


def has_no_address(packet: Packet) -> bool:
    """It comes from where a client without an address asks from."""
    return _UNSPECIFIED.contains(packet.source) or _LINK_LOCAL.contains(packet.source)
