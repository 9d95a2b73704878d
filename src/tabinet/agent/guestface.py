"""``GuestFace``: what the guest service shows of itself: ``/metrics``, ``/readiness`` (also as ``/health``) and ``/liveness``.

In: the service, once there is one. Out: responses. Everything is state that the service holds anyway; O(kinds of outcomes), not of ports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tabinet.agent.http import Response, Routes
from tabinet.guest.service import GuestService
from tabinet.store.syncer import SyncState

METADATA = "metadata"


@dataclass(slots=True, eq=False)
class GuestFace:
    """Of one service; there is none yet while it starts."""

    service: GuestService | None = None
    metadata: Counter[str] = field(default_factory=Counter)
    """What became of requests for metadata."""

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        service = self.service
        if service is None:
            return
        in_sync = service.state is SyncState.IN_SYNC
        yield _gauge("tabinet_guest_store_in_sync", "1 while the guest service has seen everything in the store", float(in_sync))
        yield _gauge("tabinet_guest_ports", "Interfaces whose guests are answered", service.directory.count())
        yield _gauge("tabinet_guest_problems", "Values in the store that cannot be read", len(service.directory.problems))
        messages = CounterMetricFamily(
            "tabinet_guest_messages", "What guests sent, by protocol and what became of it", labels=["protocol", "outcome"]
        )
        shut = GaugeMetricFamily("tabinet_guest_shut_off", "Guests that sent too much and are not listened to now", labels=["protocol"])
        for protocol, responder in service.responders.items():
            shut.add_metric([protocol], len(responder.inbox.limiter.shut()))
            for outcome, number in responder.inbox.counts.items():
                messages.add_metric([protocol, outcome], number)
        for outcome, number in self.metadata.items():
            messages.add_metric([METADATA, outcome], number)
        yield messages
        yield shut

    async def show_metrics(self) -> Response:
        """All of them."""
        registry = CollectorRegistry()
        registry.register(self)
        return Response(200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))

    async def show_readiness(self) -> Response:
        """200 when the service knows its guests: from the store, or from what it remembers while that is away."""
        ready, store, error = False, "", ""
        if self.service is not None:
            ready, store, error = self.service.knows, self.service.state.value, self.service.error
        body = {"ready": ready, "store": store, "error": error}
        return Response(200 if ready else 503, "application/json", msgspec.json.encode(body))

    async def show_life(self) -> Response:
        """The process answers."""
        return Response(200, "application/json", b'{"live":true}')

    def routes(self) -> Routes:
        """By path."""
        return {
            "/metrics": self.show_metrics,
            "/health": self.show_readiness,
            "/readiness": self.show_readiness,
            "/liveness": self.show_life,
        }


def _gauge(name: str, text: str, value: float) -> Metric:
    gauge = GaugeMetricFamily(name, text)
    gauge.add_metric([], value)
    return gauge
