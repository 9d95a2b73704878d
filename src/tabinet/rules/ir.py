"""The packet filter as data: chains, rules, sets and maps that no particular datapath owns.

A ``Table`` is everything that the kernel of one host shall hold. ``rules.builder`` makes it, ``rules.evaluate`` interprets it,
``dataplane.nft`` encodes it. All records are frozen and compare by content, so that equal meaning is equal data.

What a flow is judged by is the basis of its chain. The *flow tuple* is the one that the flow began with, as connection tracking keeps
it: source of the original direction, destination and destination port after any translation of the destination. Before translation
(preDNAT) and without connections (doNotTrack) there are other bases. Matches that are named ``Header...`` look at the packet itself in
every chain; the fixed part needs them before connection tracking has seen the packet.

The matches are in ``rules.matches``, and can be imported from here too.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from tabinet.calc.messages import PortMember
from tabinet.lib.ip import Prefix
from tabinet.rules.matches import (
    Address as Address,
)
from tabinet.rules.matches import (
    AddressIn as AddressIn,
)
from tabinet.rules.matches import (
    AddressPortIn as AddressPortIn,
)
from tabinet.rules.matches import (
    ArpProbe as ArpProbe,
)
from tabinet.rules.matches import (
    ArpSaid as ArpSaid,
)
from tabinet.rules.matches import (
    Basis as Basis,
)
from tabinet.rules.matches import (
    BytesOver as BytesOver,
)
from tabinet.rules.matches import (
    ConnectionsOver as ConnectionsOver,
)
from tabinet.rules.matches import (
    Decided as Decided,
)
from tabinet.rules.matches import (
    Family as Family,
)
from tabinet.rules.matches import (
    HardwareIn as HardwareIn,
)
from tabinet.rules.matches import (
    HeaderAddress as HeaderAddress,
)
from tabinet.rules.matches import (
    HeaderAddressIn as HeaderAddressIn,
)
from tabinet.rules.matches import (
    HeaderIcmp6 as HeaderIcmp6,
)
from tabinet.rules.matches import (
    HeaderUdp as HeaderUdp,
)
from tabinet.rules.matches import (
    Icmp as Icmp,
)
from tabinet.rules.matches import (
    InterfaceIn as InterfaceIn,
)
from tabinet.rules.matches import (
    InterfaceIs as InterfaceIs,
)
from tabinet.rules.matches import (
    InterfacePrefix as InterfacePrefix,
)
from tabinet.rules.matches import (
    Ir as Ir,
)
from tabinet.rules.matches import (
    Match as Match,
)
from tabinet.rules.matches import (
    NoInterface as NoInterface,
)
from tabinet.rules.matches import (
    OriginalDirection as OriginalDirection,
)
from tabinet.rules.matches import (
    PairedIn as PairedIn,
)
from tabinet.rules.matches import (
    Port as Port,
)
from tabinet.rules.matches import (
    PortIn as PortIn,
)
from tabinet.rules.matches import (
    Protocol as Protocol,
)
from tabinet.rules.matches import (
    RateOver as RateOver,
)
from tabinet.rules.matches import (
    RateWithin as RateWithin,
)
from tabinet.rules.matches import (
    RelatedIn as RelatedIn,
)
from tabinet.rules.matches import (
    Remember as Remember,
)
from tabinet.rules.matches import (
    ReplyDirection as ReplyDirection,
)
from tabinet.rules.matches import (
    RoutedBack as RoutedBack,
)
from tabinet.rules.matches import (
    Side as Side,
)
from tabinet.rules.matches import (
    SourceIn as SourceIn,
)
from tabinet.rules.matches import (
    State as State,
)
from tabinet.rules.matches import (
    StateIs as StateIs,
)
from tabinet.rules.matches import (
    Tuple as Tuple,
)
from tabinet.rules.matches import (
    Untracked as Untracked,
)
from tabinet.rules.matches import (
    Via as Via,
)

# --- verdicts -------------------------------------------------------------------------------------------------------


class Accept(Ir, frozen=True):
    """This base chain lets the packet go on."""


class Drop(Ir, frozen=True):
    """The packet ends here."""


class Reject(Ir, frozen=True):
    """The packet ends here, and its sender is told: by a TCP reset, or by "administratively prohibited" (RFC 1812, RFC 4443)."""

    reset: bool
    """Only beside Protocol 6."""


class Return(Ir, frozen=True):
    """Back to the rule after the last Jump."""


class Decide(Ir, frozen=True):
    """Return, and remember in the packet that it was allowed (``Decided``), for whoever jumped and for whoever jumped there."""


class Undecide(Ir, frozen=True):
    """Forget that the packet was allowed, and go on with the next rule."""


class Jump(Ir, frozen=True):
    """Go on in ``chain``; what matches nothing there comes back to the next rule."""

    chain: str


class Goto(Ir, frozen=True):
    """Go on in ``chain``; what matches nothing there returns to the rule after the last Jump."""

    chain: str


class Dispatch(Ir, frozen=True):
    """Goto the chain that a CHAINS map holds for the interface; the next rule when it holds none."""

    map_name: str
    via: Via


class DispatchAddress(Ir, frozen=True):
    """Goto the chain that an ADDRESS_CHAINS map holds for the header's address; the next rule when it holds none."""

    map_name: str
    family: int
    side: Side


class DispatchPort(Ir, frozen=True):
    """Jump to the chain that a PORT_CHAINS map holds for the flow's destination port. Only beside a Protocol that has ports."""

    map_name: str


class CheckGeneration(Ir, frozen=True):
    """A flow that was accepted in the current generation goes on; others, and errors about flows: the next rule."""

    map_name: str


class MarkFlow(Ir, frozen=True):
    """Remembers in the flow that it was accepted in the current generation, and goes on with the next rule."""


class AcceptUntracked(Ir, frozen=True):
    """Accept in a raw chain; the packet gets no connection, and the filter chains know it again (``Untracked``)."""


class TranslateDestination(Ir, frozen=True):
    """The flow goes to this address instead (chains of PREROUTING_NAT and OUTPUT_NAT), and port where it is not 0."""

    address: Prefix
    port: int = 0


class TranslateSource(Ir, frozen=True):
    """The flow comes from this address instead, or from that of the outgoing interface (chains of POSTROUTING_NAT)."""

    address: Prefix | None
    first_port: int = 0
    last_port: int = 0
    """Ports to choose from; 0: keep the port if it is free."""


class SetDscp(Ir, frozen=True):
    """Writes the header's differentiated services code point (RFC 2474), and goes on with the next rule."""

    family: int
    value: int


class CountFor(Ir, frozen=True):
    """Counts the packet for its interface, if the COUNTED set has that, and goes on with the next rule."""

    set_name: str
    via: Via


class Next(Ir, frozen=True):
    """Nothing: the rule only counts or logs."""


Verdict = (
    Accept
    | Drop
    | Reject
    | Return
    | Decide
    | Undecide
    | Jump
    | Goto
    | Dispatch
    | DispatchAddress
    | DispatchPort
    | CheckGeneration
    | MarkFlow
    | AcceptUntracked
    | TranslateDestination
    | TranslateSource
    | SetDscp
    | CountFor
    | Next
)


class Log(Ir, frozen=True):
    """A copy of the packet's head to user space (nfnetlink_log), not more often than ``per_second``."""

    prefix: str
    """At most 127 bytes."""
    group: int
    per_second: int
    burst: int


class Origin(Ir, frozen=True):
    """The policy rule that an IR rule was made from, or several of them that it decides at once."""

    owner: str
    """``str(ResourceKey)`` of the policy or profile."""
    ingress: bool
    index: int
    """Position in the policy, from 0; -1 for the policy as a whole."""
    action: str
    last: int = -1
    """Where a rule stands for several: the position of the last of them, and not all in between need be among them. Else -1."""


class Rule(Ir, frozen=True):
    """When all matches hold: count, log, verdict."""

    verdict: Verdict
    matches: tuple[Match, ...] = ()
    counter: bool = False
    log: Log | None = None
    comment: str = ""
    """For people and for traces; at most 120 bytes."""
    origin: Origin | None = None


class HookPoint(enum.Enum):
    """Where a base chain sits (nft(8), ADDRESS FAMILIES)."""

    PREROUTING_RAW = "prerouting"
    """Before connection tracking."""
    PREROUTING_QOS = "prerouting-qos"
    """After PREROUTING_RAW, still before connection tracking."""
    PREROUTING_NAT = "prerouting-nat"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT_RAW = "output-raw"
    OUTPUT_NAT = "output-nat"
    OUTPUT = "output"
    POSTROUTING_QOS = "postrouting-qos"
    """Before POSTROUTING_NAT."""
    POSTROUTING_NAT = "postrouting-nat"
    POSTROUTING_LAST = "postrouting-last"
    """After POSTROUTING_NAT: packets have the addresses that they are sent with."""
    ARP_INPUT = "arp-input"
    """ARP to the host, which no other hook sees; names of all chains and sets that it leads to begin with ``arp_``."""
    ARP_OUTPUT = "arp-output"
    """ARP from the host; the same of names."""


class Chain(Ir, frozen=True):
    """Rules in order. What matches none is accepted in a base chain and returns in another."""

    rules: tuple[Rule, ...]
    hook: HookPoint | None = None
    basis: Basis = Basis.FLOW


# --- sets -----------------------------------------------------------------------------------------------------------


class SetType(enum.Enum):
    """What a set or map holds, and therefore which element type."""

    ADDRESSES = "addresses"
    """``Prefix`` of full length."""
    NETS = "nets"
    """``Range`` of addresses; disjoint, never adjacent."""
    PORTS = "ports"
    """``Range`` of ports; disjoint, never adjacent."""
    ADDRESS_PORTS = "address-ports"
    """``PortMember``."""
    SOURCES = "sources"
    """``Source``."""
    SOURCE_NETS = "source-nets"
    """``SourceRange``; disjoint for one interface."""
    HARDWARE = "hardware"
    """``Hardware``."""
    PAIRS = "pairs"
    """``Paired``; disjoint for one interface and MAC."""
    INTERFACES = "interfaces"
    """``Interface``."""
    COUNTED = "counted"
    """``Interface``, each with a count of packets and bytes, which is the kernel's."""
    CHAINS = "chains"
    """Map: interface name to chain name."""
    ADDRESS_CHAINS = "address-chains"
    """Map: address, as text, to chain name."""
    PORT_CHAINS = "port-chains"
    """Map: ports, as ``first-last``, to chain name; disjoint."""
    GENERATION = "generation"
    """Map of (state, generation) to verdict; its elements belong to the datapath."""
    RELATED_GENERATION = "related-generation"
    """Set of (state, generation); its elements belong to the datapath, too."""
    SENDERS = "senders"
    """Set of (interface, address) that packets fill (``Remember``) and that forgets; nothing here knows its elements."""
    RATES = "rates"
    """Set of interfaces with the rate of their packets (``RateWithin``), which packets fill, too."""


class SetDef(Ir, frozen=True):
    type: SetType
    family: int = 0
    """4, 6, or 0 where it does not apply."""


class Range(Ir, frozen=True, order=True):
    first: int
    last: int


class Source(Ir, frozen=True, order=True):
    interface: str
    address: Prefix


class SourceRange(Ir, frozen=True, order=True):
    interface: str
    first: int
    last: int


class Hardware(Ir, frozen=True, order=True):
    interface: str
    mac: str
    """``aa:bb:cc:dd:ee:ff``."""


class Paired(Ir, frozen=True, order=True):
    """Addresses that an interface sends from with this hardware address."""

    interface: str
    mac: str
    first: int
    last: int


class Interface(Ir, frozen=True, order=True):
    name: str


Element = Prefix | Range | PortMember | Source | SourceRange | Hardware | Paired | Interface


# --- the whole and its changes --------------------------------------------------------------------------------------


def parse_ports(key: str) -> Range:
    """The ports of a key of a PORT_CHAINS map."""
    first, _, last = key.partition("-")
    return Range(int(first), int(last))


@dataclass(slots=True)
class Table:
    """All that one host's kernel shall hold. Changed only by its builder's ``flush``; everybody else reads."""

    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, SetDef] = field(default_factory=dict)
    elements: dict[str, set[Element]] = field(default_factory=dict)
    """By set name; every set that is no map has an entry, which is empty for those that packets fill."""
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """By name of a CHAINS, ADDRESS_CHAINS or PORT_CHAINS map: interface, address or ports to chain."""


@dataclass(slots=True)
class TableDelta:
    """What changed from one flush to the next. Applied as one transaction."""

    chains: dict[str, Chain] = field(default_factory=dict)
    """New or different."""
    chains_removed: set[str] = field(default_factory=set)
    sets: dict[str, SetDef] = field(default_factory=dict)
    """New."""
    sets_removed: set[str] = field(default_factory=set)
    added: dict[str, set[Element]] = field(default_factory=dict)
    """By set; for a new set all of its elements."""
    removed: dict[str, set[Element]] = field(default_factory=dict)
    """By set; not for sets that are removed."""
    map_set: dict[str, dict[str, str]] = field(default_factory=dict)
    """By map: keys that are new or lead to another chain."""
    map_removed: dict[str, set[str]] = field(default_factory=dict)
    """By map: keys that are gone or lead to another chain; to be deleted before ``map_set`` is added."""
    revokes: bool = False
    """A permission may have gone: flows that were accepted before must be judged again."""

    @property
    def empty(self) -> bool:
        """True when there is nothing to do."""
        return not (
            self.revokes
            or self.chains
            or self.chains_removed
            or self.sets
            or self.sets_removed
            or self.added
            or self.removed
            or self.map_set
            or self.map_removed
        )
