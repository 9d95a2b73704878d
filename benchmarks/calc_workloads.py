"""The fabrics that ``benchmarks calc`` calculates: streams of resources, in the order in which a store would tell them.

Names and shapes of ``tag``, ``netset`` and ``isolated`` are those of the benchmarks of Felix's calculation graph, so that figures can be
set side by side. Labels go through JSON once, as they do on their way from a store, so that no two endpoints share a text by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random

import msgspec

from tabinet.model.keys import Key, ResourceKey
from tabinet.model.resources import (
    EndpointPort,
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    GlobalNetworkSet,
    Metadata,
    NetworkPolicy,
    NetworkPolicySpec,
    NetworkSetSpec,
    Profile,
    ProfileSpec,
    Rule,
    WorkloadEndpoint,
    WorkloadEndpointSpec,
)

Item = tuple[Key, object]
HOST = "localhost"
ELSEWHERE = "remotehost"
LOCAL = 200
"""Local endpoints of the tag and netset workloads, at every scale."""
SET_SIZES = (1, 1, 1, 1, 2, 3, 4, 5, 100, 1000)

_PLAIN = (
    "FOO_BAR",
    "BIFF_BOP",
    *(f"calico/{name}" for name in ("FizzBuzz", "BoffBip", "Bazzle", "Razzle", "DoopDeeDoo", "SOME_LABEL", "BORED_NOW")),
)
MARKERS = (
    "FOO_BAR",
    *_PLAIN,
    "MyMarkerLabel",
    *(f"x{name}" for name in _PLAIN),
    "yxMyMarkerLabel",
    *(f"yx{name}" for name in _PLAIN),
    "yxMyMarkerLabel",
)
"""31 label keys, of which 29 differ."""


def decoded(labels: dict[str, str]) -> dict[str, str]:
    """The labels with texts of their own."""
    return msgspec.json.decode(msgspec.json.encode(labels), type=dict[str, str])


def address(number: int) -> str:
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def endpoint(name: str, number: int, host: str, namespace: str, labels: dict[str, str], ports: tuple[EndpointPort, ...] = ()) -> Item:
    spec = WorkloadEndpointSpec(
        node=host,
        orchestrator="k8s",
        ip_networks=(f"{address(0x0A000001 + number)}/32",),
        interface_name=f"cali{number}",
        profiles=(f"kns.{namespace}",),
        ports=ports,
    )
    return ResourceKey("WorkloadEndpoint", name, namespace), WorkloadEndpoint(metadata=Metadata(labels=decoded(labels)), spec=spec)


def profile(namespace: str, labels: dict[str, str]) -> Item:
    applied = {f"pcns.{key}": value for key, value in labels.items()}
    return ResourceKey("Profile", f"kns.{namespace}"), Profile(spec=ProfileSpec(labels_to_apply=decoded(applied)))


def global_policy(name: str, selector: str, *sources: str) -> Item:
    rules = tuple([Rule(action="Allow", source=EntityRule(selector=source)) for source in sources])
    return ResourceKey("GlobalNetworkPolicy", name), GlobalNetworkPolicy(spec=GlobalNetworkPolicySpec(selector=selector, ingress=rules))


# --- tag and netset -------------------------------------------------------------------------------------------------


def tagged_endpoints(count: int, host: str, first: int) -> Iterator[Item]:
    for number in range(first, first + count):
        labels = {f"one-in-{n}": f"value-{number % n}" for n in (10, 11, 20, 30, 40)}
        labels[MARKERS[number % len(MARKERS)]] = "true"
        yield endpoint(f"wep-{number}", number, host, f"namespace-{number % 100}", labels)


def tag(endpoints: int, policies: int) -> Iterator[Item]:
    """Policies for carriers of a marker, letting in carriers of five markers."""
    for number in range(policies):
        marked = [f"has({MARKERS[(number + offset) % len(MARKERS)]})" for offset in range(5)]
        yield global_policy(f"tag-pol-{number}", f"has({MARKERS[number % len(MARKERS)]})", *marked)
    yield from (profile(f"namespace-{number}", {"projectcalico.org/name": f"namespace-{number}"}) for number in range(100))
    yield from tagged_endpoints(endpoints, ELSEWHERE, 0)
    yield from tagged_endpoints(LOCAL, HOST, endpoints)


def netset(endpoints: int, sets: int) -> Iterator[Item]:
    """A network set and a policy for everybody each."""
    yield from (profile(f"namespace-{number}", {"projectcalico.org/name": f"namespace-{number}"}) for number in range(100))
    yield from tagged_endpoints(endpoints, ELSEWHERE, 0)
    following = 0x0B000001
    for number in range(sets):
        name, size = f"network-set-{number}", SET_SIZES[number % len(SET_SIZES)]
        nets = tuple([f"{address(following + index)}/32" for index in range(size)])
        following += size
        labels = decoded({"network-set-name": name})
        yield ResourceKey("GlobalNetworkSet", name), GlobalNetworkSet(metadata=Metadata(labels=labels), spec=NetworkSetSpec(nets=nets))
        yield global_policy(f"network-set-pol-{number}", "all()", f"network-set-name == '{name}'")
    yield from tagged_endpoints(LOCAL, HOST, endpoints)


# --- isolated -------------------------------------------------------------------------------------------------------


def word(number: int, length: int) -> str:
    """A text of hexadecimal digits that looks random and is the same always."""
    return f"{number * 0x9E3779B97F4A7C15 + 1 & (1 << 80) - 1:020x}"[-length:]


def customer_labels(number: int) -> dict[str, str]:
    """15 labels: five that only this pod has, four of two values, four of few, one of all, one of 5,000 values."""
    return {
        "pod-id": word(number * 5, 20),
        "instance-id": word(number * 5 + 1, 20),
        "short-id": word(number * 5 + 2, 10),
        "config-hash": word(number * 5 + 3, 20),
        "version-tag": word(number * 5 + 4, 8),
        "enabled": str(number % 2),
        "debug": str(number // 2 % 2),
        "canary": str(number // 4 % 2),
        "managed": str(number // 8 % 2),
        "environment": ("dev", "staging", "prod")[number % 3],
        "tier": ("frontend", "backend", "middleware", "data")[number % 4],
        "region": ("us-east", "us-west", "eu-west", "ap-south")[number % 4],
        "team": ("platform", "payments", "identity", "growth", "infra")[number % 5],
        "managed-by": "saas-controller",
        "tenant-id": word(number % 5000, 10),
    }


def isolated(customers: int) -> Iterator[Item]:
    """Each customer has a namespace, a pod, and a policy that lets the namespace talk to itself and to the name server."""
    stride = max(1, customers // 100)
    for number in range(customers):
        namespace = f"customer-{number}"
        inside = EntityRule(namespace_selector=f"projectcalico.org/name == '{namespace}'")
        names = EntityRule(nets=("10.96.0.10/32",), ports=(53,))
        spec = NetworkPolicySpec(
            selector=f"pcns.projectcalico.org/name == '{namespace}'",
            types=("Ingress", "Egress"),
            ingress=(Rule(action="Allow", source=inside),),
            egress=(Rule(action="Allow", destination=inside), Rule(action="Allow", protocol="UDP", destination=names)),
        )
        yield ResourceKey("NetworkPolicy", "isolation", namespace), NetworkPolicy(spec=spec)
    for number in range(customers):
        labels = {"projectcalico.org/name": f"customer-{number}", "namespace-id": word(number, 20), "production": str(number % 2 == 0)}
        yield profile(f"customer-{number}", labels)
    for number in range(customers):
        host = HOST if number % stride == 0 and number // stride < 100 else ELSEWHERE
        yield endpoint(f"app-{number * 7 + 3:09x}", number, host, f"customer-{number}", customer_labels(number))


# --- mix ------------------------------------------------------------------------------------------------------------

PORTS = (EndpointPort(name="http", protocol="TCP", port=8080), EndpointPort(name="dns", protocol="UDP", port=53))


def varied_policy(random: Random, number: int, namespaces: int) -> Item:
    app, other = f"app-{random.randrange(12)}", f"app-{random.randrange(12)}"
    selector = random.choice((f"app == '{app}'", f"app in {{'{app}', '{other}'}}", "has(app)", f"app == '{app}' && tier != 'db'", "all()"))
    peers = random.choice(
        (
            EntityRule(selector=f"app == '{other}'"),
            EntityRule(selector=f"app == '{other}' || tier == 'api'"),
            EntityRule(namespace_selector=f"team == 'team-{random.randrange(40)}'"),
            EntityRule(namespace_selector="env == 'prod'", selector=f"app == '{other}'"),
            EntityRule(nets=(f"192.0.{random.randrange(256)}.0/24",)),
            EntityRule(selector=f"feed == 'f{random.randrange(50)}'", namespace_selector="global()"),
        )
    )
    ingress = (Rule(action="Allow", protocol="TCP", source=peers, destination=EntityRule(ports=random.choice(((80, 443), ("http",), ())))),)
    egress = (Rule(action="Allow", destination=peers),) if random.random() < 0.3 else ()
    if random.random() < 0.05:
        team = f"team == 'team-{random.randrange(40)}'"
        spec = GlobalNetworkPolicySpec(
            selector=selector, namespace_selector=team, ingress=ingress, egress=egress, order=float(number % 100)
        )
        return ResourceKey("GlobalNetworkPolicy", f"p{number}"), GlobalNetworkPolicy(spec=spec)
    own = NetworkPolicySpec(selector=selector, ingress=ingress, egress=egress, order=float(number % 100))
    return ResourceKey("NetworkPolicy", f"p{number}", f"ns-{number % namespaces}"), NetworkPolicy(spec=own)


def mix(endpoints: int, policies: int, sets: int, namespaces: int) -> Iterator[Item]:
    """A bit of everything."""
    random = Random(1)
    for number in range(policies):
        yield varied_policy(random, number, namespaces)
    for number in range(namespaces):
        yield profile(f"ns-{number}", {"team": f"team-{number % 40}", "env": ("prod", "dev", "stage")[number % 3]})
    for number in range(sets):
        nets = tuple([f"198.{number >> 8}.{number & 255}.{net}/32" for net in range(20)])
        labels = decoded({"feed": f"f{number % 50}"})
        yield (
            ResourceKey("GlobalNetworkSet", f"s{number}"),
            GlobalNetworkSet(metadata=Metadata(labels=labels), spec=NetworkSetSpec(nets=nets)),
        )
    stride = max(1, endpoints // 100)
    for number in range(endpoints):
        labels = {
            "app": f"app-{random.randrange(12)}",
            "tier": random.choice(("web", "api", "db", "cache")),
            "version": f"v{random.randrange(3)}",
            "release": f"rel-{random.randrange(50)}",
            "pod": f"pod-{number}",
        }
        host = HOST if number % stride == 0 and number // stride < 100 else ELSEWHERE
        yield endpoint(f"w{number}", number, host, f"ns-{number * 31 // 7 % namespaces}", labels, PORTS if number % 5 == 0 else ())


def scaled(number: int, scale: float) -> int:
    return max(1, round(number * scale))


Workload = Callable[[float], Iterator[Item]]
"""Makes the resources of a workload at a fraction of its size."""


def _tag(scale: float) -> Iterator[Item]:
    return tag(scaled(250_000, scale), scaled(10_000, scale))


def _netset(sets: int, scale: float) -> Iterator[Item]:
    return netset(scaled(10_000, scale), scaled(sets, scale))


def _isolated(customers: int, scale: float) -> Iterator[Item]:
    return isolated(scaled(customers, scale))


def _mix(scale: float) -> Iterator[Item]:
    return mix(scaled(100_000, scale), scaled(10_000, scale), scaled(1_000, scale), scaled(500, scale))


WORKLOADS: dict[str, Workload] = {
    "tag250k": _tag,
    "netset1k": partial(_netset, 1_000),
    "netset10k": partial(_netset, 10_000),
    "isolated1k": partial(_isolated, 1_000),
    "isolated10k": partial(_isolated, 10_000),
    "isolated100k": partial(_isolated, 100_000),
    "mix": _mix,
}
BASELINE_SCALE = {
    "tag250k": 0.003,
    "netset1k": 0.02,
    "netset10k": 0.005,
    "isolated1k": 0.3,
    "isolated10k": 0.03,
    "isolated100k": 0.003,
    "mix": 0.01,
}
"""The fraction at which the naive recomputation takes about a second."""
