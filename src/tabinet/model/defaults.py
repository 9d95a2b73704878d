"""What a writer fills in before it stores a document, so that every reader, of whatever version, sees the same.

Only what is absent is filled in; names, order and unknown members are left alone. In: a document that ``validate`` accepts. Out: a new
document. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tabinet.lib.ip import parse_prefix
from tabinet.model.kinds import BY_NAME
from tabinet.model.protected import FIXED_TIERS

DEFAULT_NAMESPACE = "default"
_BLOCK_SIZES = {4: 26, 6: 122}


def with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """The document with the defaults of its kind; the argument is not changed. Idempotent."""
    kind = BY_NAME.get(str(data.get("kind")))
    if kind is None:
        return data
    metadata = dict(data.get("metadata") or {})
    if kind.namespaced and not metadata.get("namespace"):
        metadata["namespace"] = DEFAULT_NAMESPACE
    spec = dict(data.get("spec") or {})
    filler = _FILLERS.get(kind.name)
    if filler is not None:
        filler(metadata, spec)
    return {**data, "metadata": metadata, "spec": spec}


def _absent(spec: dict[str, Any], **values: Any) -> None:
    """Sets what is absent, null or empty."""
    for name, value in values.items():
        if spec.get(name) in (None, "", []):
            spec[name] = value


def _fill_pool(_metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    family = parse_prefix(spec["cidr"]).family
    if not spec.get("blockSize"):
        spec["blockSize"] = _BLOCK_SIZES[family]
    _absent(
        spec,
        ipipMode="Never",
        vxlanMode="Never",
        allowedUses=["Workload", "Tunnel"],
        nodeSelector="all()",
        assignmentMode="Automatic",
    )


def _fill_policy(_metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    # A policy without types is for the directions that it has rules for, without any for ingress: said openly, so that a later
    # change of the rules does not change it.
    ingress, egress = bool(spec.get("ingress")), bool(spec.get("egress"))
    _absent(spec, tier="default", types=(["Ingress"] if ingress or not egress else []) + (["Egress"] if egress else []))


def _fill_tier(metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    fixed = FIXED_TIERS.get(str(metadata.get("name")))
    _absent(spec, defaultAction=fixed.default_action if fixed else "Deny")
    if fixed is not None:
        _absent(spec, order=fixed.order)


def _fill_endpoint(metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    # Every endpoint carries its namespace and orchestrator as labels, for selectors.
    labels = dict(metadata.get("labels") or {})
    labels["projectcalico.org/namespace"] = metadata["namespace"]
    if spec.get("orchestrator"):
        labels["projectcalico.org/orchestrator"] = spec["orchestrator"]
    metadata["labels"] = labels


def _fill_ipam_configuration(_metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    # Calico's programs read an absent autoAllocateBlocks as false.
    _absent(spec, strictAffinity=False, autoAllocateBlocks=True)


def _fill_staged(metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    _absent(spec, stagedAction="Set")
    if spec["stagedAction"] == "Delete":
        _absent(spec, tier="default")
    else:
        _fill_policy(metadata, spec)


def _fill_staged_kubernetes(_metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    _absent(spec, stagedAction="Set")
    if spec["stagedAction"] != "Delete":
        _absent(spec, policyTypes=["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def _fill_node_status(_metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    _absent(spec, updatePeriodSeconds=10)


_FILLERS: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "CalicoNodeStatus": _fill_node_status,
    "IPAMConfiguration": _fill_ipam_configuration,
    "IPPool": _fill_pool,
    "NetworkPolicy": _fill_policy,
    "GlobalNetworkPolicy": _fill_policy,
    "StagedGlobalNetworkPolicy": _fill_staged,
    "StagedKubernetesNetworkPolicy": _fill_staged_kubernetes,
    "StagedNetworkPolicy": _fill_staged,
    "Tier": _fill_tier,
    "WorkloadEndpoint": _fill_endpoint,
}
