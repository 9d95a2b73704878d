"""Policy decided straight from the calculation's messages, without chains: what the tables are checked against.

Written from the order of evaluation alone: tiers in order; in a tier, policies in order; Allow and Deny end it, Pass goes to the next
tier, Log goes on; a tier without a match does its default action; without any tier, or after the last was passed, the profiles decide;
no match there is Deny. A policy that is missing, or names a set that is missing or of the wrong kind, denies; a missing profile says
nothing. No indices and no sharing: every question walks everything that it concerns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tabinet.calc.messages import (
    Action,
    Endpoint,
    EndpointRemove,
    EndpointUpdate,
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
    Update,
)
from tabinet.lib.ip import IPV4, Prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.evaluate import Packet

_WITH_PORTS = {6, 17, 132, 136}


@dataclass(slots=True)
class World:
    """Everything that was announced."""

    sets: dict[str, tuple[SetKind, set[Member]]] = field(default_factory=dict)
    policies: dict[ResourceKey, Policy] = field(default_factory=dict)
    profiles: dict[str, Policy] = field(default_factory=dict)
    endpoints: dict[ResourceKey, Endpoint] = field(default_factory=dict)

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
            case _:
                pass

    def forwards(self, packet: Packet, prefixes: tuple[str, ...] = ("cali", "tap")) -> bool:
        """True when a host with these endpoints forwards the first packet of the flow."""
        sender = self._at(packet.in_interface)
        receiver = self._at(packet.out_interface)
        if packet.in_interface.startswith(prefixes):
            if sender is None or not any(net.contains(packet.source) for net in (*sender.nets, *sender.spoof_nets)):
                return False
            if not self._allows(sender.egress, sender.profiles, packet, ingress=False):
                return False
        elif any(packet.source in endpoint.nets for endpoint in self._owners()):
            return False
        if packet.out_interface.startswith(prefixes):
            return receiver is not None and self._allows(receiver.ingress, receiver.profiles, packet, ingress=True)
        return True

    def _owners(self) -> list[Endpoint]:
        found = [self._at(endpoint.interface) for endpoint in self.endpoints.values()]
        return [endpoint for endpoint in found if endpoint is not None]

    def _at(self, interface: str) -> Endpoint | None:
        claims = [key for key, endpoint in self.endpoints.items() if endpoint.interface == interface]
        return self.endpoints[min(claims)] if claims else None

    def _allows(self, tiers: tuple[TierPolicies, ...], profiles: tuple[str, ...], packet: Packet, *, ingress: bool) -> bool:
        for tier in tiers:
            action = self._tier(tier, packet, ingress=ingress)
            if action is not Action.PASS:
                return action is Action.ALLOW
        for name in profiles:
            profile = self.profiles.get(name)
            if profile is None:
                continue
            action_or_none = self._policy(profile, packet, ingress=ingress)
            if action_or_none is not None:
                return action_or_none is Action.ALLOW
        return False

    def _tier(self, tier: TierPolicies, packet: Packet, *, ingress: bool) -> Action:
        for key in tier.policies:
            policy = self.policies.get(key)
            if policy is None:
                return Action.DENY
            action = self._policy(policy, packet, ingress=ingress)
            if action is not None:
                return action
        return tier.default_action

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
        if packet.protocol not in _WITH_PORTS:
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


def _is_icmp(icmp: Icmp, packet: Packet) -> bool:
    return packet.icmp_type == icmp.type and icmp.code in (None, packet.icmp_code)
