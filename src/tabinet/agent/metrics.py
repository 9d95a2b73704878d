"""What the agent counts, as Prometheus metrics in a registry of its own (no global one)."""

from __future__ import annotations

from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tabinet.calc.staged import StagedEffect
from tabinet.dataplane.drift import DriftKind
from tabinet.dataplane.nft.counters import TableCounters


class Metrics:
    """All metrics of one agent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._whole = Lock()
        """Held while what belongs together is set or read."""
        self.store_in_sync = Gauge("tabinet_store_in_sync", "1 while the agent has seen everything in the store", registry=self.registry)
        self.revision = Gauge("tabinet_applied_revision", "Store revision that the kernel holds", registry=self.registry)
        self.endpoints = Gauge("tabinet_endpoints", "Local endpoints by state", ["state"], registry=self.registry)
        self.policies = Gauge("tabinet_active_policies", "Policies that apply to a local endpoint", registry=self.registry)
        self.problems = Gauge("tabinet_problems", "Resources in the store that are broken or cannot be followed", registry=self.registry)
        self.apply_seconds = Histogram(
            "tabinet_apply_seconds",
            "Time from a change of the calculation to the kernel holding it",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self.apply_errors = Counter("tabinet_apply_errors_total", "Applies that the kernel or BIRD refused", registry=self.registry)
        self.operations = Counter("tabinet_kernel_operations_total", "Operations sent to the kernel", ["driver"], registry=self.registry)
        self.drifts = Counter(
            "tabinet_drift_total",
            "Objects in the kernel that somebody else had changed, by kind",
            ["kind"],
            registry=self.registry,
        )
        for kind in DriftKind:
            self.drifts.labels(kind.value)  # there from the start, as 0: an alert on growth needs what it grew from
        self.bgp_sessions = Gauge("tabinet_bgp_sessions", "BGP sessions by state", ["state"], registry=self.registry)
        self.denied_packets = Gauge(
            "tabinet_denied_packets", "Packets dropped, by reason, since the table was made", ["reason"], registry=self.registry
        )
        self.policy_packets = Gauge(
            "tabinet_policy_packets",
            "Packets judged, by policy rule, since the rule was loaded: of accepted flows the first in each generation, all denied ones",
            ["policy", "direction", "rule", "action"],
            registry=self.registry,
        )

        self.staged_endpoints = Gauge(
            "tabinet_staged_endpoints", "Local endpoints that a staged policy would police", ["policy", "action"], registry=self.registry
        )

    def set_counts(self, counters: TableCounters, effects: list[StagedEffect]) -> None:
        """What the kernel has counted, and what the staged policies would come to. O(rules); on any thread."""
        with self._whole:
            self._set_counters(counters)
            self._set_staged(effects)

    def _set_staged(self, effects: list[StagedEffect]) -> None:
        self.staged_endpoints.clear()
        for effect in effects:
            self.staged_endpoints.labels(str(effect.key), effect.action).set(len(effect.endpoints))

    def _set_counters(self, counters: TableCounters) -> None:
        """Rules that are gone are gone."""
        self.denied_packets.clear()
        for reason, count in counters.denied.items():
            self.denied_packets.labels(reason).set(count.packets)
        self.policy_packets.clear()
        for rule, count in counters.rules.items():
            direction = "ingress" if rule.ingress else "egress"
            self.policy_packets.labels(rule.owner, direction, str(rule.index), rule.action).set(count.packets)

    def render(self) -> bytes:
        """The exposition text. O(rules); on any thread."""
        with self._whole:
            return generate_latest(self.registry)
