"""What ``tabinet get`` shows of each kind: columns as pure functions of the document."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Document = Mapping[str, object]


def at(document: object, path: str, default: str = "") -> str:
    """The value at a dotted path as text; lists with commas; ``default`` where there is none."""
    value = document
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    if value is None:
        return default
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    return str(value)


def _path(path: str, default: str = "") -> Callable[[Document], str]:
    return lambda document: at(document, path, default)


def _count(path: str) -> Callable[[Document], str]:
    def count(document: Document) -> str:
        text = at(document, path)
        return str(len(text.split(","))) if text else "0"

    return count


def _rules(document: Document) -> str:
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        return ""
    return "/".join(str(len(rules)) if isinstance(rules := spec.get(side), list) else "0" for side in ("ingress", "egress"))


Column = tuple[str, Callable[[Document], str]]

NAME: Column = ("NAME", _path("metadata.name"))
NAMESPACE: Column = ("NAMESPACE", _path("metadata.namespace"))
LABELS: Column = ("LABELS", _path("metadata.labels"))

_POLICY: tuple[tuple[Column, ...], tuple[Column, ...]] = (
    (("TIER", _path("spec.tier", "default")), ("ORDER", _path("spec.order")), ("SELECTOR", _path("spec.selector", "all()"))),
    (("TYPES", _path("spec.types")), ("RULES IN/OUT", _rules)),
)

COLUMNS: dict[str, tuple[tuple[Column, ...], tuple[Column, ...]]] = {
    "WorkloadEndpoint": (
        (
            ("WORKLOAD", _path("spec.workload", "")),
            ("NODE", _path("spec.node")),
            ("NETWORKS", _path("spec.ipNetworks")),
            ("INTERFACE", _path("spec.interfaceName")),
        ),
        (("PROFILES", _path("spec.profiles")), LABELS),
    ),
    "NetworkPolicy": _POLICY,
    "GlobalNetworkPolicy": _POLICY,
    "Tier": ((("ORDER", _path("spec.order")), ("DEFAULT ACTION", _path("spec.defaultAction", "Deny"))), ()),
    "Profile": ((("RULES IN/OUT", _rules),), (("LABELS TO APPLY", _path("spec.labelsToApply")),)),
    "NetworkSet": ((("NETS", _count("spec.nets")),), (LABELS,)),
    "GlobalNetworkSet": ((("NETS", _count("spec.nets")),), (LABELS,)),
    "IPPool": (
        (("CIDR", _path("spec.cidr")), ("SELECTOR", _path("spec.nodeSelector", "all()"))),
        (
            ("BLOCK SIZE", _path("spec.blockSize")),
            ("NAT", _path("spec.natOutgoing", "False")),
            ("DISABLED", _path("spec.disabled", "False")),
        ),
    ),
    "Node": (
        (("AS", _path("spec.bgp.asNumber")), ("IPV4", _path("spec.bgp.ipv4Address")), ("IPV6", _path("spec.bgp.ipv6Address"))),
        (LABELS,),
    ),
    "BGPPeer": (
        (("PEER", _path("spec.peerIP", "")), ("NODE", _path("spec.node", "(all)")), ("AS", _path("spec.asNumber"))),
        (("NODE SELECTOR", _path("spec.nodeSelector")), ("PEER SELECTOR", _path("spec.peerSelector"))),
    ),
    "BGPConfiguration": (
        (("MESH", _path("spec.nodeToNodeMeshEnabled")), ("AS", _path("spec.asNumber"))),
        (),
    ),
    "ClusterInformation": ((("GUID", _path("spec.clusterGUID")), ("READY", _path("spec.datastoreReady"))), ()),
}


def columns_of(kind: str, *, namespaced: bool, wide: bool) -> list[Column]:
    """The columns of a kind, in order."""
    short, more = COLUMNS.get(kind, ((), ()))
    return [*((NAMESPACE,) if namespaced else ()), NAME, *short, *(more if wide else ())]
