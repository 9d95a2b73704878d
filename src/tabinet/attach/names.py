"""Names that follow from which workload is attached: endpoint, interface, handle. Pure.

In: a ``Workload``. Out: names that are the same on every call and in every process, so that whoever attaches, repeats or detaches
needs no memory. Different workloads have different names (interface names: but for a collision of 44 bits of a hash).
"""

from __future__ import annotations

import hashlib

import msgspec

from tabinet.model.endpoint_names import WorkloadEndpointName
from tabinet.model.keys import ResourceKey
from tabinet.model.status import EndpointStatusKey, endpoint_status_key

INTERFACE_PREFIX = "cali"
_HASH_DIGITS = 11


class Workload(msgspec.Struct, frozen=True, kw_only=True, order=True, gc=False):
    """Which workload, and which of its interfaces."""

    node: str
    """The host, as its Node resource is called."""
    workload: str
    """What the orchestrator calls it: pod (k8s), container ID (cni), ID of the domain..."""
    orchestrator: str = "cni"
    endpoint: str = "eth0"
    namespace: str = "default"
    """Of policies and profiles; nothing to do with network namespaces."""

    @property
    def endpoint_name(self) -> WorkloadEndpointName:
        """The name of its WorkloadEndpoint, in parts."""
        # libnetwork's endpoint IDs are unique by themselves, so its endpoints carry a constant where others have the workload.
        workload = "libnetwork" if self.orchestrator == "libnetwork" else self.workload
        return WorkloadEndpointName(self.node, self.orchestrator, workload, self.endpoint)

    @property
    def key(self) -> ResourceKey:
        """The key of its WorkloadEndpoint.

        Raises:
            ValueError: a part cannot stand in such a name.
        """
        return ResourceKey("WorkloadEndpoint", str(self.endpoint_name), self.namespace)

    @property
    def status_key(self) -> EndpointStatusKey:
        """Where the agent reports what has become of it."""
        return endpoint_status_key(self.namespace, self.endpoint_name)

    @property
    def handle(self) -> str:
        """The owner of its addresses. Names the node, so that a late detach on one host spares the same workload on another.

        Raises:
            ValueError: a part cannot stand in such a name.
        """
        return f"{self.namespace.replace('-', '--')}-{self.endpoint_name}"

    @property
    def attributes(self) -> dict[str, str]:
        """What is stored beside its addresses, in the words that Calico's garbage collection looks for."""
        return {"namespace": self.namespace, "pod" if self.orchestrator == "k8s" else "workload": self.workload}


def interface_name(workload: Workload, prefix: str = INTERFACE_PREFIX) -> str:
    """The name of the host's side: ``prefix`` and eleven hexadecimal digits, at most 15 characters (IFNAMSIZ).

    Raises:
        ValueError: the prefix is empty, longer than four characters, or none that an interface name can begin with.
    """
    if not 0 < len(prefix.encode()) <= 4 or "/" in prefix or ":" in prefix or any(character.isspace() for character in prefix):
        raise ValueError(f"{prefix!r} cannot begin an interface name: one to four characters, no '/', ':' or space")
    name = workload.endpoint_name
    digest = hashlib.sha1(f"{workload.namespace}.{name.workload}.{name.endpoint}".encode(), usedforsecurity=False).hexdigest()
    return prefix + digest[:_HASH_DIGITS]
