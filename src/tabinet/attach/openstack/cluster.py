"""What the store says of the cluster as a whole: made when it is missing, completed where hosts could not do their work without.

In: the stored documents or None. Out: the documents as they should be. What an operator has set stays as he set it. Pure.
"""

from __future__ import annotations

from typing import Any

from tabinet.attach.openstack.groups import open_policy
from tabinet.attach.openstack.isolation import translate_isolation
from tabinet.attach.openstack.names import Region, open_key
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.records.base import API_VERSION

Document = dict[str, Any]
CLUSTER = ResourceKey("ClusterInformation", "default")
FELIX = ResourceKey("FelixConfiguration", "default")
INTERFACE_PREFIX = "tap"
FELIX_DEFAULTS: Document = {
    "endpointReportingEnabled": True,
    "interfacePrefix": INTERFACE_PREFIX,
    # Only our own endpoints carry prefixes that may be sent from: address pairs, and ports without port security.
    "workloadSourceSpoofing": "Any",
}


def cluster_paths(region: Region) -> list[str]:
    """Where these documents are."""
    return [*(path_of(key) for key in (CLUSTER, FELIX, open_key(region))), *translate_isolation(region)]


def complete_cluster(stored: dict[str, Document | None], region: Region, new_guid: str) -> dict[str, Document | None]:
    """Every document of ``cluster_paths`` as it should be; None where there should be none."""
    cluster, felix = (stored.get(path_of(key)) or _empty(key) for key in (CLUSTER, FELIX))
    spec = {"clusterGUID": new_guid, "clusterType": "openstack", "datastoreReady": True} | _spec(cluster)
    settings = FELIX_DEFAULTS | _spec(felix)
    prefixes = str(settings["interfacePrefix"]).split(",")
    if INTERFACE_PREFIX not in prefixes:
        settings["interfacePrefix"] = ",".join([*prefixes, INTERFACE_PREFIX])
    return {
        path_of(CLUSTER): {**cluster, "spec": spec},
        path_of(FELIX): {**felix, "spec": settings},
        path_of(open_key(region)): open_policy(region),
        **translate_isolation(region),
    }


def _empty(key: ResourceKey) -> Document:
    return {"apiVersion": API_VERSION, "kind": key.kind, "metadata": {"name": key.name}}


def _spec(document: Document) -> Document:
    spec = document.get("spec")
    return spec if isinstance(spec, dict) else {}
