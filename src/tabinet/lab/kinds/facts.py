"""What parsing and planning need to know of each kind of workload. Pure: only names and facts, nothing that runs.

Invariant: ``FACTS`` has the kinds of ``tabinet.lab.kinds.known``, by the same names.
"""

from __future__ import annotations

import enum

import msgspec

NAMESPACE = "namespace"
VM = "vm"
PODMAN = "podman"
DOCKER = "docker"
LIBVIRT = "libvirt"
TAP = "tap"
HOST = "host"


class Maker(enum.Enum):
    """Who makes a workload's network namespace."""

    LAB = "lab"
    RUNTIME = "runtime"
    """The container runtime; the lab gives it its name when it is there."""
    NOBODY = "nobody"
    """There is none: a machine with a kernel of its own, or the host itself."""


class KindFacts(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One kind."""

    name: str
    namespace_by: Maker
    policy_namespace: str = ""
    """Where its endpoints are for policy, whatever the topology says; empty: where the topology says."""
    has_profiles: bool = True
    """It takes the profiles that the topology names."""
    has_ports: bool = True
    """It can have named ports."""
    asks_guest_service: bool = False
    """It gets its address from ``tabinet guest`` on its host."""


FACTS = {
    facts.name: facts
    for facts in (
        KindFacts(name=NAMESPACE, namespace_by=Maker.LAB),
        KindFacts(name=VM, namespace_by=Maker.NOBODY, asks_guest_service=True),
        KindFacts(name=PODMAN, namespace_by=Maker.RUNTIME, policy_namespace="default", has_ports=False),
        KindFacts(name=DOCKER, namespace_by=Maker.RUNTIME, policy_namespace="default", has_ports=False),
        KindFacts(name=LIBVIRT, namespace_by=Maker.NOBODY, has_ports=False, asks_guest_service=True),
        KindFacts(
            name=TAP, namespace_by=Maker.LAB, policy_namespace="openstack", has_profiles=False, has_ports=False, asks_guest_service=True
        ),
        KindFacts(name=HOST, namespace_by=Maker.NOBODY, policy_namespace="none"),
    )
}
"""By name; the first one is what a workload is that does not say."""
