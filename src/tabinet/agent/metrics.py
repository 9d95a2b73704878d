"""What the agent counts, as Prometheus metrics in a registry of its own (no global one)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tabinet.agent.dataplane import EndpointStatus
from tabinet.calc.staged import StagedEffect
from tabinet.dataplane.drift import DriftKind
from tabinet.dataplane.nft.counters import Count, TableCounters
from tabinet.model.keys import ResourceKey


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
        self._counted = _Counted()
        self.registry.register(self._counted)
        self.staged_endpoints = Gauge(
            "tabinet_staged_endpoints", "Local endpoints that a staged policy would police", ["policy", "action"], registry=self.registry
        )

    def set_counts(self, counters: TableCounters, effects: list[StagedEffect]) -> None:
        """What the kernel has counted, and what the staged policies would come to. O(rules); on any thread."""
        with self._whole:
            self._counted.counters = counters
            self._set_staged(effects)

    def set_endpoints(self, generation: int, endpoints: Mapping[ResourceKey, EndpointStatus]) -> None:
        """What the kernel holds of each endpoint. O(endpoints)."""
        held = {str(key): status.revision for key, status in endpoints.items() if status.ready}
        with self._whole:
            self._counted.generation, self._counted.revisions = generation, held

    def _set_staged(self, effects: list[StagedEffect]) -> None:
        self.staged_endpoints.clear()
        for effect in effects:
            self.staged_endpoints.labels(str(effect.key), effect.action).set(len(effect.endpoints))

    def render(self) -> bytes:
        """The exposition text. O(rules); on any thread."""
        with self._whole:
            return generate_latest(self.registry)


@dataclass(slots=True, eq=False)
class _Counted:
    """What the kernel has counted, and what it holds of endpoints, in the form that the registry asks for."""

    counters: TableCounters = field(default_factory=lambda: TableCounters({}, {}))
    generation: int = 0
    revisions: dict[str, int] = field(default_factory=dict)
    """Of the endpoints that are ready."""

    def collect(self) -> Iterator[Metric]:
        """All of it. O(rules + endpoints)."""
        yield self._denied("packets", "Packets dropped or refused, by reason", lambda count: count.packets)
        yield self._denied("bytes", "Bytes dropped or refused, by reason", lambda count: count.octets)
        yield self._endpoints("packets", lambda count: count.packets)
        yield self._endpoints("bytes", lambda count: count.octets)
        what = "judged, by policy rule: of accepted flows the first packet in each generation, of denied ones all"
        yield self._rules("packets", f"Packets {what}", lambda count: count.packets)
        yield self._rules("bytes", f"Bytes {what}", lambda count: count.octets)
        generation = GaugeMetricFamily("tabinet_generation", "Generation of accepted flows, in which all endpoints are")
        generation.add_metric([], self.generation)
        yield generation
        revision = GaugeMetricFamily("tabinet_endpoint_revision", "Store revision of an endpoint in the kernel", labels=["endpoint"])
        for endpoint, number in self.revisions.items():
            revision.add_metric([endpoint], number)
        yield revision

    def _denied(self, unit: str, text: str, value: Callable[[Count], int]) -> Metric:
        family = CounterMetricFamily(f"tabinet_denied_{unit}", text, labels=["reason"])
        for reason, count in self.counters.denied.items():
            family.add_metric([reason], value(count))
        return family

    def _endpoints(self, unit: str, value: Callable[[Count], int]) -> Metric:
        text = f"Denied {unit} by endpoint: ingress is what it would have received, egress what it sent"
        family = CounterMetricFamily(f"tabinet_endpoint_denied_{unit}", text, labels=["endpoint", "direction"])
        for half, count in self.counters.endpoints.items():
            family.add_metric([half.endpoint, "ingress" if half.ingress else "egress"], value(count))
        return family

    def _rules(self, unit: str, text: str, value: Callable[[Count], int]) -> Metric:
        family = CounterMetricFamily(f"tabinet_policy_{unit}", text, labels=["policy", "direction", "rule", "action"])
        for rule, count in self.counters.rules.items():
            place = str(rule.index) if rule.last < 0 else f"{rule.index}-{rule.last}"
            family.add_metric([rule.owner, "ingress" if rule.ingress else "egress", place, rule.action], value(count))
        return family
