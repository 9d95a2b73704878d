"""What ``tabinet get`` shows of each kind: columns as pure functions of the document.

Headings are those of calicoctl where it has the column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import click

Document = Mapping[str, object]


class Column(NamedTuple):
    """A heading and what stands below it."""

    title: str
    cell: Callable[[Document], str]


def value_at(document: object, path: str) -> object:
    """What stands at a dotted path (``spec.ingress[0].action``, ``metadata.labels.app\\.name``); None where there is nothing."""
    value = document
    for step in _steps(path):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _steps(path: str) -> list[str]:
    escaped = path.replace("\\.", "\0").replace("[", ".").replace("]", "")
    return [step.replace("\0", ".") for step in escaped.split(".") if step]


def text_of(value: object, default: str = "") -> str:
    """A value as the text of a cell: lists with commas, mappings as ``key=value``, switches as YAML writes them."""
    match value:
        case None | "":
            return default
        case bool():
            return "true" if value else "false"
        case list():
            return ",".join(text_of(item) for item in value)
        case Mapping():
            return ",".join(f"{key}={text_of(item)}" for key, item in sorted(value.items()))
        case _:
            return str(value)


def at(document: object, path: str, default: str = "") -> str:
    """The value at a dotted path as text; ``default`` where there is none."""
    return text_of(value_at(document, path), default)


def _path(title: str, path: str, default: str = "") -> Column:
    return Column(title, lambda document: at(document, path, default))


def _count(title: str, path: str) -> Column:
    def count(document: Document) -> str:
        value = value_at(document, path)
        return str(len(value)) if isinstance(value, list) else "0"

    return Column(title, count)


def _sizes(title: str, *paths: str) -> Column:
    """How long several lists are, as in ``2/0``."""

    def sizes(document: Document) -> str:
        values = [value_at(document, path) for path in paths]
        return "/".join(str(len(value)) if isinstance(value, list) else "0" for value in values)

    return Column(title, sizes)


def _first(title: str, *paths: str, default: str = "") -> Column:
    """The first of several paths where something stands."""
    return Column(title, lambda document: next((text for path in paths if (text := at(document, path))), default))


def _nats(document: Document) -> str:
    value = value_at(document, "spec.ipNATs")
    return ",".join(f"{at(item, 'externalIP')}->{at(item, 'internalIP')}" for item in value) if isinstance(value, list) else ""


def _in_use(document: Document) -> str:
    value = value_at(document, "spec.allocations")
    return f"{sum(item is not None for item in value)}/{len(value)}" if isinstance(value, list) else ""


NAME = _path("NAME", "metadata.name")
NAMESPACE = _path("NAMESPACE", "metadata.namespace")
LABELS = _path("LABELS", "metadata.labels")
CREATED = _path("CREATED", "metadata.creationTimestamp")

_RULES = _sizes("RULES IN/OUT", "spec.ingress", "spec.egress")
_NODE_OF = _first("NODE", "spec.node", "spec.nodeSelector", default="(global)")

_POLICY: tuple[tuple[Column, ...], tuple[Column, ...]] = (
    (_path("TIER", "spec.tier", "default"), _path("ORDER", "spec.order"), _path("SELECTOR", "spec.selector", "all()")),
    (_path("TYPES", "spec.types"), _RULES),
)
_STAGED = (_POLICY[0], (_path("ACTION", "spec.stagedAction", "Set"), *_POLICY[1]))
_NETS = ((_count("NETS", "spec.nets"),), (LABELS,))

COLUMNS: dict[str, tuple[tuple[Column, ...], tuple[Column, ...]]] = {
    "WorkloadEndpoint": (
        (
            _first("WORKLOAD", "spec.workload", "spec.pod"),
            _path("NODE", "spec.node"),
            _path("NETWORKS", "spec.ipNetworks"),
            _path("INTERFACE", "spec.interfaceName"),
        ),
        (_path("PROFILES", "spec.profiles"), Column("NATS", _nats), LABELS),
    ),
    "HostEndpoint": (
        (_path("NODE", "spec.node"), _path("INTERFACE", "spec.interfaceName")),
        (_path("IPS", "spec.expectedIPs"), _path("PROFILES", "spec.profiles"), LABELS),
    ),
    "NetworkPolicy": _POLICY,
    "GlobalNetworkPolicy": _POLICY,
    "StagedNetworkPolicy": _STAGED,
    "StagedGlobalNetworkPolicy": _STAGED,
    "StagedKubernetesNetworkPolicy": (
        (_path("ACTION", "spec.stagedAction", "Set"),),
        (_path("TYPES", "spec.policyTypes"), _RULES),
    ),
    "Tier": ((_path("ORDER", "spec.order"), _path("DEFAULT ACTION", "spec.defaultAction", "Deny")), ()),
    "Profile": ((_RULES,), (_path("LABELS TO APPLY", "spec.labelsToApply"),)),
    "NetworkSet": _NETS,
    "GlobalNetworkSet": _NETS,
    "IPPool": (
        (_path("CIDR", "spec.cidr"), _path("SELECTOR", "spec.nodeSelector", "all()")),
        (
            _path("NAT", "spec.natOutgoing", "false"),
            _path("IPIPMODE", "spec.ipipMode", "Never"),
            _path("VXLANMODE", "spec.vxlanMode", "Never"),
            _path("BLOCK SIZE", "spec.blockSize"),
            _path("DISABLED", "spec.disabled", "false"),
            _path("DISABLEBGPEXPORT", "spec.disableBGPExport", "false"),
        ),
    ),
    "IPReservation": ((_path("CIDRS", "spec.reservedCIDRs"),), ()),
    "IPAMConfiguration": (
        (
            _path("STRICT AFFINITY", "spec.strictAffinity", "false"),
            _path("AUTO ALLOCATE", "spec.autoAllocateBlocks", "true"),
            _path("MAX BLOCKS", "spec.maxBlocksPerHost"),
        ),
        (),
    ),
    "BlockAffinity": ((_path("NODE", "spec.node"), _path("CIDR", "spec.cidr"), _path("STATE", "spec.state")), ()),
    "IPAMBlock": ((_path("CIDR", "spec.cidr"), _path("AFFINITY", "spec.affinity"), Column("IN USE", _in_use)), ()),
    "IPAMHandle": ((_path("BLOCKS", "spec.block"),), ()),
    "Node": (
        (_path("ASN", "spec.bgp.asNumber"), _path("IPV4", "spec.bgp.ipv4Address"), _path("IPV6", "spec.bgp.ipv6Address")),
        (LABELS,),
    ),
    "BGPPeer": (
        (_path("PEERIP", "spec.peerIP"), _NODE_OF, _path("ASN", "spec.asNumber")),
        (_path("PEER SELECTOR", "spec.peerSelector"), _path("FILTERS", "spec.filters")),
    ),
    "BGPFilter": (
        (_sizes("IMPORT V4/V6", "spec.importV4", "spec.importV6"), _sizes("EXPORT V4/V6", "spec.exportV4", "spec.exportV6")),
        (),
    ),
    "BGPConfiguration": (
        (
            _path("LOGSEVERITY", "spec.logSeverityScreen"),
            _path("MESHENABLED", "spec.nodeToNodeMeshEnabled", "true"),
            _path("ASNUMBER", "spec.asNumber", "64512"),
        ),
        (),
    ),
    "FelixConfiguration": (
        (_path("LOGSEVERITY", "spec.logSeverityScreen"),),
        (Column("SETTINGS", lambda document: text_of(sorted(spec)) if isinstance(spec := document.get("spec"), dict) else ""),),
    ),
    "KubeControllersConfiguration": ((_path("LOGSEVERITY", "spec.logSeverityScreen"),), ()),
    "CalicoNodeStatus": (
        (_path("NODE", "spec.node"), _path("CLASSES", "spec.classes"), _path("UPDATED", "status.lastUpdated")),
        (
            _path("ESTABLISHEDV4", "status.bgp.numberEstablishedV4"),
            _path("DOWNV4", "status.bgp.numberNotEstablishedV4"),
            _path("ESTABLISHEDV6", "status.bgp.numberEstablishedV6"),
            _path("DOWNV6", "status.bgp.numberNotEstablishedV6"),
        ),
    ),
    "LiveMigration": (
        (
            _path("FROM", "spec.source.workloadEndpoint.hostname"),
            _path("TO", "spec.target.workloadEndpoint.hostname"),
            _path("WORKLOAD", "spec.target.workloadEndpoint.workloadID"),
        ),
        (),
    ),
    "ClusterInformation": (
        (
            _path("CLUSTERGUID", "spec.clusterGUID"),
            _path("CLUSTERTYPE", "spec.clusterType"),
            _path("CALICOVERSION", "spec.calicoVersion"),
            _path("DATASTOREREADY", "spec.datastoreReady"),
        ),
        (),
    ),
}


def columns_of(kind: str, *, namespaced: bool, wide: bool) -> list[Column]:
    """The columns of a kind, in order."""
    short, more = COLUMNS.get(kind, ((CREATED,), ()))
    return [*((NAMESPACE,) if namespaced else ()), NAME, *short, *(more if wide else ())]


def custom_columns(kind: str, words: str) -> list[Column]:
    """The columns that ``-o custom-columns=WORDS`` asks for: ``HEADING:path`` as kubectl has it, or a kind's own ``HEADING``.

    Raises:
        click.UsageError: a heading that the kind does not have.
    """
    own = {_flat(column.title): column for column in (NAME, NAMESPACE, LABELS, CREATED, *columns_of(kind, namespaced=True, wide=True))}
    found: list[Column] = []
    for word in words.split(","):
        title, colon, path = word.partition(":")
        if colon:
            found.append(_path(title, path.strip("{}").lstrip("."), "<none>"))
        elif column := own.get(_flat(title)):
            found.append(column)
        else:
            raise click.UsageError(
                f"{kind} has no column {title!r}; there are {', '.join(own)}; or write HEADING:path, as AS:spec.asNumber"
            )
    return found


def _flat(title: str) -> str:
    return title.replace(" ", "").upper()
