"""The WorkloadEndpoint document of an attachment. Pure.

In: what is attached, and the document that is stored, if any. Out: the document to store; of an existing one everything that an
attachment does not decide survives (other fields, labels and annotations of others, identity).
"""

from __future__ import annotations

from typing import Any

import msgspec

from tabinet.attach.names import Workload
from tabinet.lib.ip import Prefix
from tabinet.model.resources import API_VERSION, EndpointPort, IpNat, QosControls

NAMESPACE_LABEL = "projectcalico.org/namespace"
ORCHESTRATOR_LABEL = "projectcalico.org/orchestrator"


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an attachment decides about its endpoint."""

    workload: Workload
    interface: str
    mac: str
    addresses: tuple[Prefix, ...]
    labels: dict[str, str] = {}
    profiles: tuple[str, ...] = ()
    ports: tuple[EndpointPort, ...] = ()
    container: str = ""
    """What the container runtime calls it; empty: not told, or it is none."""
    annotations: dict[str, str] = {}
    qos: QosControls | None = None
    """Its limits; None leaves those that it has."""
    floating: tuple[Prefix, ...] = ()
    """Addresses outside that lead to the endpoint's first address of their family."""


def endpoint_document(facts: EndpointFacts, stored: dict[str, Any] | None, uid: str, created: str) -> dict[str, Any]:
    """The document of the endpoint.

    ``uid`` and ``created`` (RFC 3339, UTC) are for an endpoint that did not exist; ``stored`` keeps its own.
    """
    before = stored or {}
    metadata: dict[str, Any] = {"uid": uid, "creationTimestamp": created} | (before.get("metadata") or {})
    metadata |= {"name": facts.workload.key.name, "namespace": facts.workload.namespace}
    if facts.annotations:
        metadata["annotations"] = (metadata.get("annotations") or {}) | facts.annotations
    metadata["labels"] = (metadata.get("labels") or {}) | facts.labels | _own_labels(facts.workload)
    spec: dict[str, Any] = dict(before.get("spec") or {}) | _identity(facts.workload)
    spec |= {
        "ipNetworks": [str(address) for address in facts.addresses],
        "interfaceName": facts.interface,
        "mac": facts.mac,
        "profiles": list(facts.profiles),
    }
    spec.pop("ports", None)
    if facts.ports:
        spec["ports"] = msgspec.to_builtins(facts.ports)
    if facts.container:
        spec["containerID"] = facts.container
    if facts.qos is not None:
        spec["qosControls"] = msgspec.to_builtins(facts.qos)
    if facts.floating:
        spec["ipNATs"] = msgspec.to_builtins(_translations(facts))
    return before | {"kind": "WorkloadEndpoint", "apiVersion": API_VERSION, "metadata": metadata, "spec": spec}


def _translations(facts: EndpointFacts) -> list[IpNat]:
    first: dict[int, Prefix] = {}
    for address in facts.addresses:
        first.setdefault(address.family, address)
    return [
        IpNat(internal_ip=str(first[outside.family]), external_ip=str(outside)) for outside in facts.floating if outside.family in first
    ]


def _own_labels(workload: Workload) -> dict[str, str]:
    return {NAMESPACE_LABEL: workload.namespace, ORCHESTRATOR_LABEL: workload.orchestrator}


def _identity(workload: Workload) -> dict[str, str]:
    """The fields that the endpoint's name is made of."""
    identity = {"node": workload.node, "orchestrator": workload.orchestrator, "endpoint": workload.endpoint}
    match workload.orchestrator:
        case "k8s":
            identity["pod"] = workload.workload
        case "cni":
            identity["containerID"] = workload.workload
        case _:
            identity["workload"] = workload.workload
    return identity
