"""The kinds of resources: one table row each, and the spellings under which people ask for them.

Everything that differs only by kind is looked up here: path in the store, record type, names on the command line. A new kind is a
new row (and its record in ``resources``).
"""

from __future__ import annotations

import difflib

import msgspec

from tabinet.model import resources


class Kind(msgspec.Struct, frozen=True):
    """One kind of resource."""

    name: str
    """As in ``kind:`` of a document."""
    plural: str
    """As in the path in the store and on the command line; lower case."""
    record: type[resources.Resource]
    """The typed view."""
    namespaced: bool = False
    aliases: tuple[str, ...] = ()
    """Short names on the command line; lower case."""
    view: bool = False
    """Only shown: what is stored is a value of the address management (see ``views``), which alone may write it."""


KINDS: tuple[Kind, ...] = (
    Kind("BGPConfiguration", "bgpconfigurations", resources.BGPConfiguration, aliases=("bgpconfig", "bgpconfigs")),
    Kind("BGPFilter", "bgpfilters", resources.BGPFilter, aliases=("bgpf", "bgpfs")),
    Kind("BGPPeer", "bgppeers", resources.BGPPeer, aliases=("bgpp", "bgpps")),
    Kind("BlockAffinity", "blockaffinities", resources.BlockAffinity, aliases=("affinity", "affinities"), view=True),
    Kind("CalicoNodeStatus", "caliconodestatuses", resources.CalicoNodeStatus, aliases=("nodestatus", "nodestatuses")),
    Kind("ClusterInformation", "clusterinformations", resources.ClusterInformation, aliases=("clusterinfo", "clusterinfos")),
    Kind("FelixConfiguration", "felixconfigurations", resources.FelixConfiguration, aliases=("felixconfig", "felixconfigs")),
    Kind("GlobalNetworkPolicy", "globalnetworkpolicies", resources.GlobalNetworkPolicy, aliases=("gnp", "gnps")),
    Kind("GlobalNetworkSet", "globalnetworksets", resources.GlobalNetworkSet, aliases=("gns",)),
    Kind("HostEndpoint", "hostendpoints", resources.HostEndpoint, aliases=("hep", "heps")),
    Kind("IPAMBlock", "ipamblocks", resources.IPAMBlock, aliases=("block", "blocks"), view=True),
    Kind("IPAMConfiguration", "ipamconfigurations", resources.IPAMConfiguration, aliases=("ipamconfig", "ipamconfigs")),
    Kind("IPAMHandle", "ipamhandles", resources.IPAMHandle, aliases=("handle", "handles"), view=True),
    Kind("IPPool", "ippools", resources.IPPool, aliases=("ipp", "ipps", "pool", "pools")),
    Kind("IPReservation", "ipreservations", resources.IPReservation, aliases=("ipr", "reservation", "reservations")),
    Kind(
        "KubeControllersConfiguration",
        "kubecontrollersconfigurations",
        resources.KubeControllersConfiguration,
        aliases=("kubecontrollersconfig", "kubecontrollersconfigs", "kcc", "kccs"),
    ),
    Kind("LiveMigration", "livemigrations", resources.LiveMigration, namespaced=True, aliases=("lm", "lms")),
    Kind("NetworkPolicy", "networkpolicies", resources.NetworkPolicy, namespaced=True, aliases=("np", "nps", "policy", "policies")),
    Kind("NetworkSet", "networksets", resources.NetworkSet, namespaced=True, aliases=("netset", "netsets")),
    Kind("Node", "nodes", resources.Node, aliases=("no", "host", "hosts")),
    Kind("Profile", "profiles", resources.Profile, aliases=("pro", "pros")),
    Kind("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", resources.StagedGlobalNetworkPolicy, aliases=("sgnp", "sgnps")),
    Kind(
        "StagedKubernetesNetworkPolicy",
        "stagedkubernetesnetworkpolicies",
        resources.StagedKubernetesNetworkPolicy,
        namespaced=True,
        aliases=("sknp", "sknps"),
    ),
    Kind("StagedNetworkPolicy", "stagednetworkpolicies", resources.StagedNetworkPolicy, namespaced=True, aliases=("snp", "snps")),
    Kind("Tier", "tiers", resources.Tier),
    Kind("WorkloadEndpoint", "workloadendpoints", resources.WorkloadEndpoint, namespaced=True, aliases=("wep", "weps")),
)

BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}
BY_PLURAL: dict[str, Kind] = {kind.plural: kind for kind in KINDS}
_BY_WORD: dict[str, Kind] = {word: kind for kind in KINDS for word in (kind.name.lower(), kind.plural, *kind.aliases)}


def find_kind(word: str) -> Kind | None:
    """The kind that a word on the command line means: name, plural or short name, in any case; ``None`` when there is none."""
    return _BY_WORD.get(word.lower())


def nearest_kind(word: str) -> str:
    """The name of the kind that was probably meant by ``word``; empty when nothing is near."""
    near = difflib.get_close_matches(word.lower(), _BY_WORD, n=1, cutoff=0.7)
    return _BY_WORD[near[0]].name if near else ""
