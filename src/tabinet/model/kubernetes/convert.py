"""Documents of Kubernetes to documents of our own model.

NetworkPolicy, ClusterNetworkPolicy and the older AdminNetworkPolicy and BaselineAdminNetworkPolicy become policies (see ``policies``).
A Namespace becomes the profile that its pods name: it allows everything, as Kubernetes does where no policy applies, and gives them
the namespace's labels as ``pcns.<label>``. A ServiceAccount becomes a profile with labels ``pcsa.<label>`` only. A Pod that runs becomes
the endpoint that Calico's CNI plugin would make of it, so that policies can be tried without a cluster.

Of metadata, name, namespace and labels of policies are kept; uid, times and revisions are those of Kubernetes' own store and left behind.
Pure; linear in the size of the result.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from tabinet.errors import InputError, Problem
from tabinet.lib.ip import parse_address
from tabinet.model.documents import Document
from tabinet.model.kubernetes import records as k
from tabinet.model.kubernetes.constraints import NAME_LABEL
from tabinet.model.kubernetes.kinds import (
    ACCOUNT_PROFILE_PREFIX,
    DEFAULT_NAMESPACE,
    NAMESPACE_PROFILE_PREFIX,
    ORCHESTRATOR,
    POD_ENDPOINT,
    ForeignKind,
    converted_name,
    endpoint_name,
    foreign_kind,
)
from tabinet.model.kubernetes.policies import admin_network_policy, cluster_network_policy, network_policy
from tabinet.model.kubernetes.validate import examine_foreign
from tabinet.model.names import MAX_LABEL
from tabinet.model.resources import API_VERSION, Resource

_NAME = "projectcalico.org/name"


def convert_foreign(document: Document) -> list[Document] | None:
    """The documents of our own model that mean what a document of Kubernetes means; ``None`` for every other document.

    What comes out has no problems and stands at the same place (``source``, ``line``, ``index``, ``within``) as what went in. Whoever
    reads documents of operators calls this before ``validate_all`` and ``with_defaults``::

        documents = [each for document in documents for each in convert_foreign(document) or [document]]

    Raises:
        InputError: it is a document of Kubernetes, but wrong, or not expressible; says everything that is wrong, and where.
    """
    kind = foreign_kind(document.data)
    if kind is None:
        return None
    record, problems = examine_foreign(kind, document.data)
    if record is None:
        raise InputError([placed(problem, document) for problem in problems])
    return [msgspec.structs.replace(document, data=_converted(kind, record))]


def foreign_problems(document: Document) -> list[Problem] | None:
    """Everything that is wrong with a document of Kubernetes; ``None`` for every other document."""
    kind = foreign_kind(document.data)
    if kind is None:
        return None
    return [placed(problem, document) for problem in examine_foreign(kind, document.data)[1]]


def placed(problem: Problem, document: Document) -> Problem:
    """The problem with the place of its document."""
    path = ".".join(part for part in (document.within, problem.path) if part)
    return msgspec.structs.replace(problem, path=path, source=document.source, document=document.index, line=document.line)


def _converted(kind: ForeignKind, record: Resource) -> dict[str, Any]:
    metadata = record.metadata
    namespace = metadata.namespace or DEFAULT_NAMESPACE
    tier = ""
    match record:
        case k.NetworkPolicy(spec=spec):
            target, body = "NetworkPolicy", network_policy(spec)
        case k.ClusterNetworkPolicy(spec=cluster):
            target, body = "GlobalNetworkPolicy", cluster_network_policy(cluster)
            tier = body["tier"]
        case k.AdminNetworkPolicy(spec=admin):
            target, body = "GlobalNetworkPolicy", admin_network_policy(admin)
        case k.BaselineAdminNetworkPolicy(spec=baseline):
            target, body = "GlobalNetworkPolicy", admin_network_policy(baseline)
        case k.Namespace():
            target, body = "Profile", _namespace_profile(metadata.name, metadata.labels)
        case k.ServiceAccount():
            target, body = "Profile", {"labelsToApply": _inherited("pcsa.", metadata.name, metadata.labels)}
        case k.Pod():
            return _endpoint(record, namespace)
        case _:
            raise AssertionError(kind)
    kept: dict[str, Any] = {"name": converted_name(kind.name, metadata.name, namespace, tier)}
    if target == "NetworkPolicy":
        kept["namespace"] = namespace
    if target != "Profile" and metadata.labels:
        kept["labels"] = dict(metadata.labels)
    return {"apiVersion": API_VERSION, "kind": target, "metadata": kept, "spec": body}


# --- whom policies are about ----------------------------------------------------------------------------------------


def _namespace_profile(name: str, labels: dict[str, str]) -> dict[str, Any]:
    # Kubernetes itself labels each namespace with its name, so that policies can ask for it; files rarely say so.
    inherited = _inherited("pcns.", name, {NAME_LABEL: name, **labels})
    return {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}], "labelsToApply": inherited}


def _inherited(prefix: str, name: str, labels: dict[str, str]) -> dict[str, str]:
    return {f"{prefix}{key}": value for key, value in {**labels, _NAME: name}.items()}


def _endpoint(pod: k.Pod, namespace: str) -> dict[str, Any]:
    name, node, account = pod.metadata.name, pod.spec.node_name, pod.spec.service_account_name
    profiles = [f"{NAMESPACE_PROFILE_PREFIX}{namespace}"]
    labels = {**pod.metadata.labels, "projectcalico.org/namespace": namespace, "projectcalico.org/orchestrator": ORCHESTRATOR}
    spec: dict[str, Any] = {
        "orchestrator": ORCHESTRATOR,
        "node": node,
        "pod": name,
        "endpoint": POD_ENDPOINT,
        "interfaceName": _interface(namespace, name),
        "ipNetworks": [str(parse_address(text)) for text in [each.ip for each in pod.status.pod_ips] or [pod.status.pod_ip]],
    }
    if account:
        profiles.append(f"{ACCOUNT_PROFILE_PREFIX}{namespace}.{account}")
        if len(account) <= MAX_LABEL:
            labels["projectcalico.org/serviceaccount"] = account
        spec["serviceAccountName"] = account
    spec["profiles"] = profiles
    ports = [port for container in (*pod.spec.containers, *pod.spec.init_containers) for port in _ports(container)]
    if ports:
        spec["ports"] = ports
    metadata = {"name": endpoint_name(node, name), "namespace": namespace, "labels": labels}
    return {"apiVersion": API_VERSION, "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}


def _interface(namespace: str, pod: str) -> str:
    """The interface that Calico's CNI plugin makes for a pod: part of a hash, for names of interfaces are short."""
    return "cali" + hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()[:11]


def _ports(container: k.Container) -> list[dict[str, Any]]:
    found = []
    for port in container.ports:
        if port.name or port.host_port:
            entry: dict[str, Any] = {"name": port.name, "protocol": port.protocol, "port": port.container_port}
            if port.host_port:
                entry["hostPort"] = port.host_port
                entry["hostIP"] = port.host_ip
            found.append({key: value for key, value in entry.items() if value})
    return found
