"""Which documents of Kubernetes can be converted: one table row each, and how they are called afterwards.

Names are those that Calico gives: a NetworkPolicy is ``knp.default.<name>`` in its namespace, a ClusterNetworkPolicy
``kcnp.<tier>.<name>``, the older cluster policies ``kanp.adminnetworkpolicy.<name>`` and ``kbanp.baselineadminnetworkpolicy.<name>``,
profiles ``kns.<namespace>`` and ``ksa.<namespace>.<name>``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tabinet.model.endpoint_names import WorkloadEndpointName
from tabinet.model.kubernetes import records
from tabinet.model.resources import Resource

POLICY_PREFIX = "knp.default."
CLUSTER_POLICY_PREFIX = "kcnp."
ADMIN_POLICY_PREFIX = "kanp.adminnetworkpolicy."
BASELINE_ADMIN_POLICY_PREFIX = "kbanp.baselineadminnetworkpolicy."
NAMESPACE_PROFILE_PREFIX = "kns."
ACCOUNT_PROFILE_PREFIX = "ksa."

ORCHESTRATOR = "k8s"
"""The orchestrator of endpoints that are pods."""
POD_ENDPOINT = "eth0"
"""The interface within a pod."""
DEFAULT_NAMESPACE = "default"


class ForeignKind(msgspec.Struct, frozen=True):
    """One kind of document."""

    version: str
    """As in ``apiVersion:``."""
    name: str
    """As in ``kind:``."""
    record: type[Resource]
    namespaced: bool = False
    whole: bool = True
    """All of its fields are in ``records``, so that others are mistakes."""
    label_name: bool = False
    """Its name must be a DNS label; else a DNS subdomain."""


FOREIGN_KINDS: tuple[ForeignKind, ...] = (
    ForeignKind("networking.k8s.io/v1", "NetworkPolicy", records.NetworkPolicy, namespaced=True),
    ForeignKind("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", records.ClusterNetworkPolicy),
    ForeignKind("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", records.AdminNetworkPolicy),
    ForeignKind("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", records.BaselineAdminNetworkPolicy),
    ForeignKind("v1", "Namespace", records.Namespace, whole=False, label_name=True),
    ForeignKind("v1", "ServiceAccount", records.ServiceAccount, namespaced=True, whole=False),
    ForeignKind("v1", "Pod", records.Pod, namespaced=True, whole=False),
)

_BY_IDENTITY = {(kind.version, kind.name): kind for kind in FOREIGN_KINDS}


def foreign_kind(data: dict[str, Any]) -> ForeignKind | None:
    """The kind of a document of Kubernetes that can be converted; ``None`` for every other document."""
    version, name = data.get("apiVersion"), data.get("kind")
    return _BY_IDENTITY.get((version, name)) if isinstance(version, str) and isinstance(name, str) else None


def converted_name(kind: str, name: str, namespace: str, tier: str) -> str:
    """The name of the resource that a policy, Namespace or ServiceAccount becomes; ``tier`` only counts for ClusterNetworkPolicy."""
    match kind:
        case "NetworkPolicy":
            return f"{POLICY_PREFIX}{name}"
        case "ClusterNetworkPolicy":
            return f"{CLUSTER_POLICY_PREFIX}{tier}.{name}"
        case "AdminNetworkPolicy":
            return f"{ADMIN_POLICY_PREFIX}{name}"
        case "BaselineAdminNetworkPolicy":
            return f"{BASELINE_ADMIN_POLICY_PREFIX}{name}"
        case "Namespace":
            return f"{NAMESPACE_PROFILE_PREFIX}{name}"
        case _:
            return f"{ACCOUNT_PROFILE_PREFIX}{namespace}.{name}"


def endpoint_name(node: str, pod: str) -> str:
    """The name of the endpoint that a pod becomes.

    Raises:
        ValueError: no endpoint can have such a name.
    """
    return str(WorkloadEndpointName(node, ORCHESTRATOR, pod, POD_ENDPOINT))
