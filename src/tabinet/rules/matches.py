"""What rules ask of packets: the matches of ``rules.ir``, which says what they mean together.

A match that names a family never matches a packet of the other family, negated or not.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.lib.ip import Prefix


class Ir(msgspec.Struct, frozen=True, gc=False):
    """Base of the records."""


class Side(enum.Enum):
    """Which end of a flow or packet."""

    SOURCE = "source"
    DESTINATION = "destination"


class Via(enum.Enum):
    """Which interface of a packet."""

    IN = "in"
    OUT = "out"


class State(enum.Enum):
    """What connection tracking says about a packet (nft(8), CONNTRACK EXPRESSIONS)."""

    INVALID = "invalid"
    UNTRACKED = "untracked"
    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"


class Tuple(enum.Enum):
    """Where a source address comes from."""

    HEADER = "header"
    ORIGINAL = "original"
    REPLY = "reply"
    ARP = "arp"
    """The sender's of an ARP message, in chains of ARP hooks."""


class Basis(enum.Enum):
    """What Address, AddressIn, Port, PortIn, AddressPortIn and Icmp look at."""

    FLOW = "flow"
    """The flow's first packet with its destination translated."""
    ORIGINAL = "original"
    """The flow's first packet as it was sent."""
    HEADER = "header"
    """This packet, before anything of it is translated."""
    PACKET = "packet"
    """This packet where it is forwarded: its destination is translated, its source is not."""


# --- matches --------------------------------------------------------------------------------------------------------


class InterfacePrefix(Ir, frozen=True):
    """The interface's name begins with ``prefix``. A packet without that interface has the empty name."""

    via: Via
    prefix: str
    negated: bool = False


class InterfaceIs(Ir, frozen=True):
    """The interface has this name."""

    via: Via
    name: str
    negated: bool = False


class NoInterface(Ir, frozen=True):
    """The packet has no such interface: it is for this host (no OUT) or from this host (no IN)."""

    via: Via


class Family(Ir, frozen=True):
    """4 or 6."""

    family: int


class StateIs(Ir, frozen=True):
    """The packet's state is one of these."""

    states: tuple[State, ...]


class ReplyDirection(Ir, frozen=True):
    """The packet goes against the direction that its flow began in."""


class OriginalDirection(Ir, frozen=True):
    """The packet goes in the direction that its flow began in."""


class Protocol(Ir, frozen=True):
    """The transport protocol's number, 0 to 255."""

    number: int
    negated: bool = False


class Address(Ir, frozen=True):
    """The flow's address is in ``first`` to ``last``, both included."""

    side: Side
    family: int
    first: int
    last: int
    negated: bool = False


class AddressIn(Ir, frozen=True):
    """The flow's address is in an ADDRESSES or NETS set of the same family."""

    side: Side
    family: int
    set_name: str
    negated: bool = False


class Port(Ir, frozen=True):
    """The flow's port is in ``first`` to ``last``, both included. Only beside a Protocol that has ports."""

    side: Side
    first: int
    last: int
    negated: bool = False


class PortIn(Ir, frozen=True):
    """The flow's port is in a PORTS set. Only beside a Protocol that has ports."""

    side: Side
    set_name: str
    negated: bool = False


class AddressPortIn(Ir, frozen=True):
    """The flow's (address, protocol, port) is in an ADDRESS_PORTS set of the same family."""

    side: Side
    family: int
    set_name: str
    negated: bool = False


class Icmp(Ir, frozen=True):
    """Type and code (any when None) of the flow's first message. Only beside Protocol 1 or 58."""

    type: int
    code: int | None = None
    negated: bool = False


class SourceIn(Ir, frozen=True):
    """(incoming interface, source address) is in a SOURCES, SOURCE_NETS or SENDERS set; the address is the header's, the flow's, or in
    chains of ARP hooks the ARP message's."""

    family: int
    set_name: str
    source: Tuple = Tuple.HEADER


class HardwareIn(Ir, frozen=True):
    """(incoming interface, source hardware address) is in a HARDWARE set. A packet without such a header never matches."""

    set_name: str


class PairedIn(Ir, frozen=True):
    """(incoming interface, source hardware address, source address) is in a PAIRS set; the address is the header's or the flow's."""

    family: int
    set_name: str
    source: Tuple = Tuple.HEADER


class InterfaceIn(Ir, frozen=True):
    """The interface is in an INTERFACES set."""

    set_name: str
    via: Via = Via.IN


class Untracked(Ir, frozen=True):
    """The packet was accepted by ``AcceptUntracked`` before."""


class Decided(Ir, frozen=True):
    """``Decide`` was the verdict of a rule, and no ``Undecide`` since."""


class RelatedIn(Ir, frozen=True):
    """The packet is an error about a flow (state RELATED) that was accepted in the current generation."""

    set_name: str


class RateOver(Ir, frozen=True):
    """More packets than these came here. Counted for each rule by itself."""

    per_second: int
    burst: int


class BytesOver(Ir, frozen=True):
    """More bytes of packets, headers of the network layer included, than these came here. Counted for each rule by itself.

    What may come at once is ``burst_bytes`` and what a second holds (nft_limit_init in linux/net/netfilter/nft_limit.c).
    """

    per_second: int
    burst_bytes: int


class ConnectionsOver(Ir, frozen=True):
    """The packet's flow is one more than these that came here and still exist. Counted for each rule by itself."""

    count: int


class HeaderAddress(Ir, frozen=True):
    """The header's address is in ``net``."""

    side: Side
    net: Prefix


class HeaderAddressIn(Ir, frozen=True):
    """The header's address is in an ADDRESSES set."""

    side: Side
    family: int
    set_name: str


class RoutedBack(Ir, frozen=True):
    """The host itself would send to the packet's source through an interface whose name begins with ``prefix``."""

    prefix: str


class ArpProbe(Ir, frozen=True):
    """An ARP message whose sender has no address yet (RFC 5227 section 2.1.1). Only in chains of ARP hooks."""


class ArpSaid(Ir, frozen=True):
    """(outgoing interface, the sender's address of an ARP message) is in a SOURCES set. Only in chains of ARP hooks."""

    set_name: str


class RateWithin(Ir, frozen=True):
    """Not more packets than these came here through the interface. Counted for each interface, in a RATES set."""

    set_name: str
    per_second: int
    burst: int


class Remember(Ir, frozen=True):
    """(incoming interface, source address) is in a SENDERS set from now on; false when there is no room."""

    family: int
    set_name: str
    source: Tuple = Tuple.HEADER


class HeaderUdp(Ir, frozen=True):
    """UDP from this port to that port."""

    source_port: int
    destination_port: int


class HeaderIcmp6(Ir, frozen=True):
    """ICMPv6 of a type from ``first`` to ``last``, both included."""

    first: int
    last: int


Match = (
    InterfacePrefix
    | InterfaceIs
    | NoInterface
    | Family
    | StateIs
    | ReplyDirection
    | OriginalDirection
    | Protocol
    | Address
    | AddressIn
    | Port
    | PortIn
    | AddressPortIn
    | Icmp
    | SourceIn
    | HardwareIn
    | PairedIn
    | InterfaceIn
    | Untracked
    | Decided
    | RelatedIn
    | RateOver
    | BytesOver
    | ConnectionsOver
    | HeaderAddress
    | HeaderAddressIn
    | RoutedBack
    | ArpProbe
    | ArpSaid
    | RateWithin
    | Remember
    | HeaderUdp
    | HeaderIcmp6
)
