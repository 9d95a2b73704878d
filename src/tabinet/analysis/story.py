"""What one host says of the first packet of a flow, told stage by stage, with everything that was looked at on the way.

In: what the calculation announced to the host (``World``), a packet, the hook that it meets. Out: the ``Stage``s in the order in which
they are asked; the first that denies is the last. The verdict is that of ``rules.evaluate`` over the host's table (a property test holds
the two together): the table says what happens, the story says why, in terms of the resources.

Pure. O(rules of the policies that select the endpoints on the way).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from tabinet.analysis.mismatch import Mismatch, find_mismatch, unreadable_set
from tabinet.calc.messages import Action, Endpoint, HostEndpoint, Policy, TierPolicies
from tabinet.model.keys import ResourceKey
from tabinet.rules.evaluate import Packet, answer_to
from tabinet.rules.naive import World, as_sent, has_no_address, is_dhcp, is_discovery, is_failsafe
from tabinet.rules.options import HostAction, ProtoPort
from tabinet.rules.pairs import may_send

PROFILE = "Profile"


class Subject(enum.Enum):
    """What a stage is about."""

    SOURCE = "source check"
    EGRESS = "egress policy of the workload"
    INGRESS = "ingress policy of the workload"
    UNTRACKED = "doNotTrack policy of the host endpoint"
    PRE_DNAT = "preDNAT policy of the host endpoint"
    FORWARD_IN = "applyOnForward ingress policy of the host endpoint"
    FORWARD_OUT = "applyOnForward egress policy of the host endpoint"
    HOST_IN = "ingress policy of the host endpoint"
    HOST_OUT = "egress policy of the host endpoint"
    TO_HOST = "workload to its own host"
    TUNNEL = "tunnel between hosts"


class Outcome(enum.Enum):
    """What a stage says."""

    ALLOW = "allow"
    DENY = "deny"


class RuleLook(msgspec.Struct, frozen=True):
    """A rule that was looked at."""

    index: int
    """Position in the policy's message of the direction."""
    action: Action
    mismatch: Mismatch | None
    """None: it matched."""


class PolicyLook(msgspec.Struct, frozen=True):
    """A policy or profile that was looked at; rules after the one that decided were not."""

    key: ResourceKey
    ingress: bool
    rules: tuple[RuleLook, ...]
    action: Action | None
    """None: no rule matched."""
    trouble: str = ""
    """Why it denies as a whole."""


class TierLook(msgspec.Struct, frozen=True):
    """A tier that was looked at."""

    tier: str
    policies: tuple[PolicyLook, ...]
    action: Action
    """ALLOW, DENY or PASS."""
    by_default: bool
    """No policy of it decided."""


class Stage(msgspec.Struct, frozen=True):
    """One thing that a host asks of a packet."""

    subject: Subject
    endpoint: ResourceKey | None
    """Whose."""
    outcome: Outcome
    reason: str
    """In words, without names of policies: those are in the looks."""
    tiers: tuple[TierLook, ...] = ()
    profiles: tuple[PolicyLook, ...] = ()
    final: bool = False
    """Nothing more is asked on this host."""


def tell(world: World, packet: Packet, hook: str) -> tuple[Stage, ...]:
    """The stages that the host asks; empty when it has nothing to say, which allows.

    Raises:
        ValueError: no such hook (``forward``, ``input``, ``output``).
    """
    teller = _Teller(world, packet)
    ways = {"forward": teller.forward, "input": teller.receive, "output": teller.send}
    if hook not in ways:
        raise ValueError(f"no hook {hook!r}; there are {', '.join(ways)}")
    told: list[Stage] = []
    for stage in ways[hook]():
        told.append(stage)
        if stage.outcome is Outcome.DENY or stage.final:
            break
    return tuple(told)


def tell_answer(world: World, packet: Packet) -> tuple[Stage, ...]:
    """The stages that stateless endpoints add when the answer to a forwarded packet comes; empty when it passes with its flow."""
    answer = answer_to(packet)
    teller = _Teller(world, answer)
    return tuple(
        teller.workload(interface, ingress=ingress)
        for interface, ingress in ((answer.in_interface, False), (answer.out_interface, True))
        if teller.is_stateless(interface)
    )


def allows(stages: tuple[Stage, ...]) -> bool:
    """True when nothing denies."""
    return all(stage.outcome is Outcome.ALLOW for stage in stages)


_DISCOVERY = "ICMPv6 for finding neighbours, which hosts always send and take"


@dataclass(slots=True)
class _Teller:
    world: World
    packet: Packet

    # --- the three ways through a host ---

    def forward(self) -> Iterator[Stage]:
        packet = self.packet
        if not self._ours(packet.in_interface):
            yield from self._untracked(ingress=True)
        yield self._source_check()
        yield from self._leave()
        if self._ours(packet.out_interface):
            yield self.workload(packet.out_interface, ingress=True)
            return
        host = self._host_at(packet.out_interface)
        if host is not None and self.world.hosts[host].forward_egress:
            tiers = self.world.hosts[host].forward_egress
            yield self._host_policy(Subject.FORWARD_OUT, host, tiers, packet, ingress=False)

    def receive(self) -> Iterator[Stage]:
        packet = self.packet
        if self._ours(packet.in_interface):
            yield self._source_check()
            yield from self._from_tunnel()
            yield from self._workload_to_host()
            return
        for stage in self._untracked(ingress=True):
            yield msgspec.structs.replace(stage, final=stage.final and not self.world.is_in_tunnel(packet))
        yield self._source_check()
        yield from self._from_tunnel()
        host = self._host_at(packet.in_interface)
        if host is None:
            return
        if is_discovery(packet):
            yield Stage(Subject.HOST_IN, host, Outcome.ALLOW, _DISCOVERY, final=True)
            return
        yield from self._pre_dnat(host)
        endpoint = self.world.hosts[host]
        if is_failsafe(self.world.options.failsafe_inbound, packet.protocol, packet.destination_port, packet.source):
            yield Stage(Subject.HOST_IN, host, Outcome.ALLOW, "a failsafe port of the host", final=True)
            return
        yield self._policy_stage(Subject.HOST_IN, host, endpoint.ingress, endpoint.profiles, ingress=True)

    def send(self) -> Iterator[Stage]:
        packet = self.packet
        host = None if self._ours(packet.out_interface) else self._host_at(packet.out_interface)
        if host is None:
            return
        yield from self._untracked(ingress=False)
        if self.world.is_in_tunnel(packet) and self.world.is_host(packet.destination):
            yield Stage(
                Subject.TUNNEL,
                None,
                Outcome.ALLOW,
                f"{packet.destination.address} is a host, and packets of tunnels may go to hosts",
                final=True,
            )
            return
        endpoint = self.world.hosts[host]
        if any(packet.destination in owner.nets_here for owner in self._owners()):
            return
        if is_discovery(packet):
            yield Stage(Subject.HOST_OUT, host, Outcome.ALLOW, _DISCOVERY, final=True)
            return
        if is_failsafe(self.world.options.failsafe_outbound, packet.protocol, packet.destination_port, packet.destination):
            yield Stage(Subject.HOST_OUT, host, Outcome.ALLOW, "a failsafe port of others", final=True)
            return
        yield self._policy_stage(Subject.HOST_OUT, host, endpoint.egress, endpoint.profiles, ingress=False)

    # --- stages ---

    def _leave(self) -> Iterator[Stage]:
        packet = self.packet
        if self._ours(packet.in_interface):
            yield self._sent()
            return
        host = self._host_at(packet.in_interface)
        if host is None:
            return
        before = [msgspec.structs.replace(stage, final=False) for stage in self._pre_dnat(host)]
        yield from before
        tiers = self.world.hosts[host].forward_ingress
        if not before and tiers:
            yield self._host_policy(Subject.FORWARD_IN, host, tiers, packet, ingress=True)

    def _from_tunnel(self) -> Iterator[Stage]:
        """What carries others' packets through a tunnel that the host has comes from a host, or is not taken."""
        source = self.packet.source
        if not self.world.is_in_tunnel(self.packet):
            return
        if self.world.is_host(source):
            yield Stage(
                Subject.TUNNEL, None, Outcome.ALLOW, f"{source.address} is a host, and packets of tunnels come from hosts", final=True
            )
        else:
            yield Stage(Subject.TUNNEL, None, Outcome.DENY, f"{source.address} is no host, and packets of tunnels come from hosts only")

    def _workload_to_host(self) -> Iterator[Stage]:
        packet, options = self.packet, self.world.options
        key = self._at(packet.in_interface)
        if is_dhcp(packet):
            yield Stage(Subject.TO_HOST, key, Outcome.ALLOW, "DHCP is always answered", final=True)
            return
        if is_discovery(packet):
            yield Stage(Subject.TO_HOST, key, Outcome.ALLOW, _DISCOVERY, final=True)
            return
        if any(_is_service(port, packet) for port in options.host_services):
            yield Stage(Subject.TO_HOST, key, Outcome.ALLOW, "a service of the host that is always allowed", final=True)
            return
        yield self._sent()
        dropped = options.endpoint_to_host is HostAction.DROP
        yield Stage(
            Subject.TO_HOST,
            key,
            Outcome.DENY if dropped else Outcome.ALLOW,
            f"defaultEndpointToHostAction is {options.endpoint_to_host.value}",
        )

    def _source_check(self) -> Stage:
        packet = self.packet
        if not self._ours(packet.in_interface):
            owner = next((each for each in self._owners() if packet.source in each.nets_here), None)
            if owner is None:
                return Stage(Subject.SOURCE, None, Outcome.ALLOW, "the source is no workload of this host")
            words = f"{packet.source.address} is a workload's of this host ({owner.interface}) and comes in from elsewhere"
            return Stage(Subject.SOURCE, None, Outcome.DENY, words)
        key = self._at(packet.in_interface)
        if key is None:
            return Stage(Subject.SOURCE, None, Outcome.DENY, f"no endpoint has the interface {packet.in_interface}")
        sender = self.world.endpoints[key]
        if may_send(sender, packet.source, packet.mac):
            return Stage(Subject.SOURCE, key, Outcome.ALLOW, f"{packet.source.address} is the endpoint's own")
        if packet.mac and sender.mac and packet.mac != sender.mac and not sender.any_mac:
            return Stage(Subject.SOURCE, key, Outcome.DENY, f"{packet.mac} is not the endpoint's MAC, {sender.mac}")
        if is_dhcp(packet) and has_no_address(packet):
            return Stage(Subject.SOURCE, key, Outcome.ALLOW, "DHCP without an address")
        return Stage(Subject.SOURCE, key, Outcome.DENY, f"{packet.source.address} is not the endpoint's own")

    def _sent(self) -> Stage:
        """What a workload may send."""
        if self.world.is_tunnelled(self.packet):
            words = "no workload may send tunnel packets (FelixConfiguration allowVXLANPacketsFromWorkloads, allowIPIPPacketsFromWorkloads)"
            return Stage(Subject.EGRESS, self._at(self.packet.in_interface), Outcome.DENY, words)
        return self.workload(self.packet.in_interface, ingress=False)

    def workload(self, interface: str, *, ingress: bool) -> Stage:
        """What the policy of the interface's endpoint says."""
        subject = Subject.INGRESS if ingress else Subject.EGRESS
        key = self._at(interface)
        if key is None:
            return Stage(subject, None, Outcome.DENY, f"no endpoint has the interface {interface}")
        endpoint = self.world.endpoints[key]
        return self._policy_stage(subject, key, endpoint.ingress if ingress else endpoint.egress, endpoint.profiles, ingress=ingress)

    def _untracked(self, *, ingress: bool) -> Iterator[Stage]:
        packet = as_sent(self.packet)
        host = self._host_at(packet.in_interface if ingress else packet.out_interface)
        if host is None or (ingress and any(packet.destination in owner.nets_here for owner in self._owners())):
            return
        options = self.world.options
        peer = packet.source if ingress else packet.destination
        requests, answers = options.failsafe_inbound, options.failsafe_outbound
        if not ingress:
            requests, answers = answers, requests
        if is_failsafe(requests, packet.protocol, packet.destination_port, peer):
            return
        if is_failsafe(answers, packet.protocol, packet.source_port, peer):
            return
        endpoint = self.world.hosts[host]
        tiers = endpoint.untracked_ingress if ingress else endpoint.untracked_egress
        looks, action = self._tiers(tiers, packet, ingress=ingress, defaults=False)
        if action is Action.DENY:
            yield Stage(Subject.UNTRACKED, host, Outcome.DENY, "denied before connection tracking", looks)
        elif action is Action.ALLOW and ingress and self._ours(packet.out_interface):
            yield Stage(Subject.UNTRACKED, host, Outcome.DENY, "without a connection nothing goes on to a workload", looks)
        elif action is Action.ALLOW:
            if ingress:
                yield self._source_check()
            yield Stage(Subject.UNTRACKED, host, Outcome.ALLOW, "allowed without a connection", looks, final=True)

    def _pre_dnat(self, host: ResourceKey) -> Iterator[Stage]:
        """At most one stage, and only if preDNAT policy decides."""
        packet = as_sent(self.packet)
        if is_failsafe(self.world.options.failsafe_inbound, packet.protocol, packet.destination_port, packet.source):
            return
        looks, action = self._tiers(self.world.hosts[host].pre_dnat, packet, ingress=True, defaults=False)
        if action is not None:
            yield _decided(Subject.PRE_DNAT, host, action, looks, final=True)

    def _host_policy(self, subject: Subject, key: ResourceKey, tiers: tuple[TierPolicies, ...], packet: Packet, *, ingress: bool) -> Stage:
        """Policy after which profiles are not asked: what nobody decides is allowed."""
        looks, action = self._tiers(tiers, packet, ingress=ingress)
        if action is None:
            return Stage(subject, key, Outcome.ALLOW, "every tier passed it on", looks)
        return _decided(subject, key, action, looks)

    def _policy_stage(
        self, subject: Subject, key: ResourceKey, tiers: tuple[TierPolicies, ...], profiles: tuple[str, ...], *, ingress: bool
    ) -> Stage:
        looks, action = self._tiers(tiers, self.packet, ingress=ingress)
        if action is not None:
            return _decided(subject, key, action, looks)
        asked: list[PolicyLook] = []
        for name in profiles:
            profile = self.world.profiles.get(name)
            if profile is None:
                continue
            look = self._policy(ResourceKey(PROFILE, name), profile, self.packet, ingress=ingress)
            asked.append(look)
            if look.action is not None:
                return msgspec.structs.replace(_decided(subject, key, look.action, looks), profiles=tuple(asked))
        words = "no profile allows it" if profiles else "it has no profile"
        words += ", and every tier passed it on" if tiers else ", and no policy selects it in this direction"
        return Stage(subject, key, Outcome.DENY, words, looks, tuple(asked))

    # --- tiers and policies ---

    def _tiers(
        self, tiers: tuple[TierPolicies, ...], packet: Packet, *, ingress: bool, defaults: bool = True
    ) -> tuple[tuple[TierLook, ...], Action | None]:
        looks: list[TierLook] = []
        for tier in tiers:
            look = self._tier(tier, packet, ingress=ingress, defaults=defaults)
            looks.append(look)
            if look.action is not Action.PASS:
                return tuple(looks), look.action
        return tuple(looks), None

    def _tier(self, tier: TierPolicies, packet: Packet, *, ingress: bool, defaults: bool) -> TierLook:
        looks: list[PolicyLook] = []
        for key in tier.policies:
            policy = self.world.policies.get(key)
            if policy is None:
                looks.append(PolicyLook(key, ingress, (), Action.DENY, "it is not known"))
            else:
                looks.append(self._policy(key, policy, packet, ingress=ingress))
            action = looks[-1].action
            if action is not None:
                return TierLook(tier.tier, tuple(looks), action, by_default=False)
        return TierLook(tier.tier, tuple(looks), tier.default_action if defaults else Action.PASS, by_default=True)

    def _policy(self, key: ResourceKey, policy: Policy, packet: Packet, *, ingress: bool) -> PolicyLook:
        rules = policy.ingress if ingress else policy.egress
        unreadable = unreadable_set(rules, self.world.sets)
        if unreadable:
            return PolicyLook(key, ingress, (), Action.DENY, f"set {unreadable} is not known")
        looks: list[RuleLook] = []
        for index, rule in enumerate(rules):
            mismatch = find_mismatch(rule, packet, self.world.sets)
            looks.append(RuleLook(index, rule.action, mismatch))
            if mismatch is None and rule.action is not Action.LOG:
                return PolicyLook(key, ingress, tuple(looks), rule.action)
        return PolicyLook(key, ingress, tuple(looks), None)

    # --- who is where ---

    def is_stateless(self, interface: str) -> bool:
        """True when the endpoint of the interface is asked about every packet."""
        key = self._at(interface) if self._ours(interface) else None
        return key is not None and self.world.endpoints[key].stateless

    def _ours(self, interface: str) -> bool:
        return interface.startswith(self.world.options.interface_prefixes)

    def _at(self, interface: str) -> ResourceKey | None:
        """Of the endpoints that claim the interface, the one that has it: the smallest key."""
        return min((key for key, endpoint in self.world.endpoints.items() if endpoint.interface == interface), default=None)

    def _owners(self) -> Iterator[Endpoint]:
        for interface in {endpoint.interface for endpoint in self.world.endpoints.values()}:
            key = self._at(interface)
            if key is not None:
                yield self.world.endpoints[key]

    def _host_at(self, interface: str) -> ResourceKey | None:
        if interface in ("", "lo") or self._ours(interface):
            return None
        addresses = self.world.interfaces.get(interface, frozenset())

        def covers(endpoint: HostEndpoint) -> bool:
            return endpoint.interface == interface or (not endpoint.interface and bool(addresses & set(endpoint.addresses)))

        own = [key for key, endpoint in self.world.hosts.items() if covers(endpoint)]
        return min(own or (key for key, endpoint in self.world.hosts.items() if endpoint.interface == "*"), default=None)


def _decided(subject: Subject, key: ResourceKey, action: Action, looks: tuple[TierLook, ...], *, final: bool = False) -> Stage:
    by_default = bool(looks) and looks[-1].by_default and looks[-1].action is action
    reason = f"no policy of tier {looks[-1].tier} matched, and its default action is {action.value}" if by_default else "a rule matched"
    return Stage(subject, key, Outcome.ALLOW if action is Action.ALLOW else Outcome.DENY, reason, looks, final=final)


def _is_service(port: ProtoPort, packet: Packet) -> bool:
    fits = (port.protocol, port.port) == (packet.protocol, packet.destination_port)
    return fits and (port.net is None or port.net.contains(packet.destination))
