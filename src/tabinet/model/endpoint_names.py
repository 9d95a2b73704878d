"""Names of workload endpoints: ``<node>-<orchestrator>-<workload>-<endpoint>``, each part with its dashes doubled.

What stands in third place depends on the orchestrator: the pod (k8s), the container ID (cni), the word ``libnetwork`` (libnetwork), the
workload (openstack and everything else). Parts neither begin nor end with a dash, so that a single dash always separates.
"""

from __future__ import annotations

import re

import msgspec

from tabinet.model.resources import WorkloadEndpointSpec

_SEPARATOR = re.compile(r"(?<!-)-(?!-)")
_PARTS = 4


class WorkloadEndpointName(msgspec.Struct, frozen=True, order=True, gc=False):
    """The four parts of a workload endpoint's name, as they are without escaping."""

    node: str
    orchestrator: str
    workload: str
    """Pod, container ID, ``libnetwork`` or workload, see above."""
    endpoint: str

    def __str__(self) -> str:
        """The name.

        Raises:
            ValueError: a part is empty, begins or ends with a dash, or holds a slash.
        """
        parts = (self.node, self.orchestrator, self.workload, self.endpoint)
        for part in parts:
            if not part or part[0] == "-" or part[-1] == "-" or "/" in part:
                raise ValueError(f"{part!r} cannot be part of a workload endpoint's name")
        return "-".join(part.replace("-", "--") for part in parts)


def parse_endpoint_name(name: str) -> WorkloadEndpointName:
    """The parts of a name.

    Raises:
        ValueError: not four parts, or a part that no name can have.
    """
    parts = [part.replace("--", "\0") for part in _SEPARATOR.split(name)]
    if len(parts) != _PARTS or any(not part or "-" in part or part[0] == "\0" or part[-1] == "\0" for part in parts):
        raise ValueError(f"{name!r} is not <node>-<orchestrator>-<workload>-<endpoint> with the dashes inside parts doubled")
    return WorkloadEndpointName(*(part.replace("\0", "-") for part in parts))


def endpoint_name_of(spec: WorkloadEndpointSpec) -> WorkloadEndpointName:
    """The name that an endpoint with this specification must have."""
    match spec.orchestrator:
        case "k8s":
            workload = spec.pod
        case "cni":
            workload = spec.container_id
        case "libnetwork":
            workload = "libnetwork"
        case _:
            workload = spec.workload
    return WorkloadEndpointName(spec.node, spec.orchestrator, workload, spec.endpoint)
