"""Rules, selectors and mismatches in the words of the resources. Pure; O(size of what is put into words)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tabinet.analysis.fabric import Fabric
from tabinet.analysis.labels import effective_labels
from tabinet.analysis.mismatch import Mismatch
from tabinet.calc.carriers import ORIGIN_KEYS
from tabinet.calc.policyfacts import describe_policy
from tabinet.calc.profiles import BUILT_IN_PROFILES
from tabinet.calc.specs import SetSpec
from tabinet.calc.translate import translate
from tabinet.lib.ip import Prefix
from tabinet.model import resources as written
from tabinet.model.keys import ResourceKey
from tabinet.selector import Selector


@dataclass(slots=True)
class Words:
    """Knows which rule of which resource a rule of the calculation was, and which selector a set stands for."""

    fabric: Fabric
    _specs: dict[str, SetSpec] = field(default_factory=dict)
    _places: dict[tuple[ResourceKey, bool], tuple[tuple[int, str], ...]] = field(default_factory=dict)

    def rule(self, key: ResourceKey, ingress: bool, index: int) -> tuple[str, str]:
        """Path in the resource (``spec.ingress[2]``) and text of the rule that came to be number ``index`` of the calculation's."""
        places = self._places.get((key, ingress))
        if places is None:
            places = self._places[key, ingress] = tuple(self._read(key, ingress))
        number, text = places[index]
        return f"spec.{'ingress' if ingress else 'egress'}[{number}]", text

    def mismatch(self, mismatch: Mismatch) -> str:
        """What the rule wants and the packet is not."""
        wanted, got = mismatch.wanted, mismatch.got
        if mismatch.set_id:
            wanted = ", ".join(part for part in (wanted, self.set_text(mismatch.set_id)) if part)
        if mismatch.address is not None:
            got += f" ({self._of_interest(mismatch.address, mismatch.set_id)})"
        side, _, what = mismatch.path.rpartition(".")
        return f"{side} {what}".lstrip() + f" {'excludes' if mismatch.negated else 'wants'} {wanted}, it is {got}"

    def set_text(self, set_id: str) -> str:
        """The selector that the set stands for; of a named port, the name and whose it is."""
        spec = self._specs.get(set_id)
        if spec is None:
            return set_id
        return f"port {spec.port_name} of {spec.selector.text}" if spec.port_name else spec.selector.text

    def selector_of(self, set_id: str) -> Selector | None:
        """Of a set of a rule that was put into words."""
        spec = self._specs.get(set_id)
        return spec.selector if spec is not None else None

    def _of_interest(self, address: Prefix, set_id: str) -> str:
        """Of the labels that the set's selector looks at, those of whoever has the address."""
        spec = self._specs.get(set_id)
        keys = sorted(spec.selector.keys) if spec is not None else []
        shown = []
        for place in self.fabric.places_of(address):
            if place.endpoint is not None:
                labels = self.labels(place.endpoint)
                texts = [f"{key}={labels[key]}" if key in labels else f"no {key}" for key in keys]
                shown.append(f"{workload_name(self.fabric.workloads[place.endpoint])}: {', '.join(texts) or 'it looks at no labels'}")
        return "; ".join(shown) or "no workload has this address"

    def labels(self, key: ResourceKey) -> dict[str, str]:
        """The labels of a workload endpoint, those of its profiles included."""
        return effective_labels(self.fabric.resources, key, self.fabric.workloads[key])

    def _read(self, key: ResourceKey, ingress: bool) -> list[tuple[int, str]]:
        found = []
        for number, rule in enumerate(self._rules(key, ingress)):
            translation = translate([rule], [], key.namespace, str(key))
            self._specs |= translation.specs
            found += [(number, rule_text(rule))] * len(translation.policy.ingress)
        return found

    def _rules(self, key: ResourceKey, ingress: bool) -> tuple[written.Rule, ...]:
        value, _ = self.fabric.resources.get(key, (None, 0))
        if isinstance(value, written.NetworkPolicy | written.GlobalNetworkPolicy):
            facts = describe_policy(key, value)
            if not (facts.ingress if ingress else facts.egress):
                return ()
            return value.spec.ingress if ingress else value.spec.egress
        profile = value.spec if isinstance(value, written.Profile) else BUILT_IN_PROFILES.get(key.name)
        if profile is None:
            return ()
        return profile.ingress if ingress else profile.egress


def workload_name(endpoint: written.WorkloadEndpoint) -> str:
    """The name that people know a workload by."""
    spec = endpoint.spec
    return spec.pod or spec.workload or spec.container_id or endpoint.metadata.name


def own_labels(labels: dict[str, str]) -> dict[str, str]:
    """Without those that say only what kind of endpoint it is."""
    return {key: value for key, value in sorted(labels.items()) if key not in ORIGIN_KEYS}


def address_text(address: Prefix) -> str:
    """A host prefix as an address."""
    return address.address if address.is_host else str(address)


def rule_text(rule: written.Rule) -> str:
    """A rule on one line, with everything that it says."""
    parts = [str(rule.action)]
    if rule.ip_version is not None:
        parts.append(f"IPv{rule.ip_version}")
    if rule.protocol is not None:
        parts.append(str(rule.protocol))
    if rule.not_protocol is not None:
        parts.append(f"not {rule.not_protocol}")
    for word, icmp in (("", rule.icmp), ("not ", rule.not_icmp)):
        if icmp is not None:
            parts.append(f"{word}type {icmp.type}" + ("" if icmp.code is None else f" code {icmp.code}"))
    if rule.http is not None:
        parts.append("HTTP")
    for word, side in (("from", rule.source), ("to", rule.destination)):
        text = _side_text(side)
        if text:
            parts.append(f"{word} {text}")
    return " ".join(parts)


def _side_text(side: written.EntityRule) -> str:
    parts = []
    if side.selector:
        parts.append(f"[{side.selector}]")
    if side.namespace_selector:
        parts.append(f"namespaces [{side.namespace_selector}]")
    if side.service_accounts is not None:
        accounts = side.service_accounts
        parts.append(f"service accounts {', '.join(accounts.names)}{f'[{accounts.selector}]' if accounts.selector else ''}")
    if side.services is not None:
        parts.append(f"service {side.services.name}")
    if side.nets:
        parts.append(", ".join(side.nets))
    if side.ports:
        parts.append(f"port{'s' if len(side.ports) > 1 else ''} {', '.join(map(str, side.ports))}")
    if side.not_selector:
        parts.append(f"not [{side.not_selector}]")
    if side.not_nets:
        parts.append(f"not {', '.join(side.not_nets)}")
    if side.not_ports:
        parts.append(f"not port{'s' if len(side.not_ports) > 1 else ''} {', '.join(map(str, side.not_ports))}")
    return " ".join(parts)
