"""Address pools, reservations, and what the address management has stored."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from tabinet.model.formats import Cidr, Net, SelectorText, Switch, one_of, within
from tabinet.model.records.base import Record


class IPPoolSpec(Record, frozen=True, kw_only=True):
    """Addresses that may be assigned, and how they are reached."""

    cidr: Net
    """The prefix; cannot be changed later, and must not overlap another pool."""
    block_size: Annotated[int, within(0, 128, stored=True)] | None = None
    """Prefix length of the blocks that hosts get: 20 to 32, or 116 to 128 for IPv6; cannot be changed later. Default: 26, or 122 for
    IPv6."""
    ipip_mode: Annotated[str, one_of("Never", "Always", "CrossSubnet")] = ""
    """Whether packets between hosts travel in IP-in-IP; CrossSubnet: only between hosts of different subnets. IPv4 only. Default: Never."""
    vxlan_mode: Annotated[str, one_of("Never", "Always", "CrossSubnet")] = ""
    """Whether packets between hosts travel in VXLAN; CrossSubnet: only between hosts of different subnets. Default: Never."""
    nat_outgoing: bool = False
    """True: what leaves for addresses outside of all pools is sent from the host's address."""
    node_selector: SelectorText = ""
    """Hosts that may have blocks of the pool, by their labels. Default: all()."""
    namespace_selector: SelectorText = ""
    """Namespaces whose workloads may have addresses of the pool, by their labels. Default: all()."""
    allowed_uses: tuple[Annotated[str, one_of("Workload", "Tunnel", "LoadBalancer")], ...] = ()
    """What addresses may be used for; LoadBalancer stands alone. Default: Workload, Tunnel."""
    assignment_mode: Annotated[str, one_of("Automatic", "Manual")] = ""
    """Manual: addresses only for requests that name the pool. Default: Automatic."""
    disabled: bool = False
    """True: no new addresses; those that are assigned stay."""
    disable_bgp_export: bool = field(default=False, name="disableBGPExport")
    """True: routes to the pool's addresses are not told to BGP peers."""


class IPReservationSpec(Record, frozen=True, kw_only=True):
    """Addresses that are never assigned automatically."""

    reserved_cidrs: tuple[Cidr, ...] = field(default=(), name="reservedCIDRs")
    """Prefixes and addresses that are kept free; what is assigned already stays."""


class IPAMConfigurationSpec(Record, frozen=True, kw_only=True):
    """How addresses are assigned."""

    strict_affinity: bool = False
    """True: a host assigns only addresses of its own blocks, never of another host's."""
    auto_allocate_blocks: bool = True
    """False: hosts get no new blocks by themselves. Default: true."""
    max_blocks_per_host: Annotated[int, within(0, 1_000_000)] = 0
    """Most blocks that a host may have: 0 to 1000000. Default: 20."""
    kube_virt_vm_address_persistence: Switch = field(default="", name="kubeVirtVMAddressPersistence")
    """Enabled: virtual machines of KubeVirt keep their addresses when their pods are made anew. Default: Enabled."""
    ip_cooldown_seconds: Annotated[int, within(0, 0x7FFFFFFF)] | None = None
    """Seconds that a released address rests before it is assigned again. Default: 0."""


class AllocationAttributeSpec(Record, frozen=True, kw_only=True):
    """Who holds addresses of a block."""

    handle_id: str | None = field(default=None, name="handle_id")
    """Handle of the owner."""
    secondary: dict[str, str] = field(default_factory=dict)
    """What is noted of the owner: node, namespace, pod, timestamp and others."""
    released_at: str | None = None
    """When the addresses were released, while they rest: RFC 3339, UTC."""


class IPAMBlockSpec(Record, frozen=True, kw_only=True):
    """A block of addresses: which are taken, and by whom."""

    cidr: Net
    """Prefix of the block."""
    affinity: str | None = None
    """Whom the block belongs to: ``host:<name>`` or ``virtual:<name>``; absent: nobody."""
    affinity_claim_time: str | None = None
    """When the block was given to its owner: RFC 3339, UTC."""
    allocations: tuple[int | None, ...] = ()
    """For each address of the block the index in attributes, or null when it is free."""
    unallocated: tuple[int, ...] = ()
    """Positions of free addresses; the first is assigned next."""
    attributes: tuple[AllocationAttributeSpec, ...] = ()
    """Who holds the addresses that point here."""
    sequence_number: int = 0
    """Counts the writes of the block."""
    sequence_number_for_allocation: dict[str, int] = field(default_factory=dict)
    """For each assigned position the sequence number of the write that assigned it."""
    deleted: bool = False
    """True while the block is being deleted."""
    strict_affinity: bool = False
    """No longer used."""


class IPAMHandleSpec(Record, frozen=True, kw_only=True):
    """The addresses of one owner, so that all can be released at once."""

    handle_id: str = field(default="", name="handleID")
    """Name that the owner gave."""
    block: dict[str, int] = field(default_factory=dict)
    """Prefix of each block to the number of addresses in it."""
    deleted: bool = False
    """True while the handle is being deleted."""


class BlockAffinitySpec(Record, frozen=True, kw_only=True):
    """The claim of a host on a block."""

    state: Annotated[str, one_of("pending", "confirmed", "pendingDeletion")] = ""
    """How far the claim has got; only a confirmed one counts for routing."""
    node: str = ""
    """Name of the owner: a host, or load-balancer for type virtual."""
    type: Annotated[str, one_of("host", "virtual")] = ""
    """Kind of owner. Default: host."""
    cidr: Net
    """Prefix of the block."""
    deleted: Annotated[str, one_of("true", "false")] = ""
    """The text true while the claim is being deleted. Default: false."""
