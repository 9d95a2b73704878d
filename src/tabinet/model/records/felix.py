"""Structured parameters of FelixConfiguration."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from tabinet.model.formats import Cidr, ConntrackTimeout, Duration, PortNumber, TransportProtocol, pattern, within
from tabinet.model.records.base import Record


class ProtoPort(Record, frozen=True, kw_only=True):
    """A port that stays open whatever policy says."""

    protocol: TransportProtocol = ""
    """TCP, UDP or SCTP, in any case. Default: TCP."""
    port: PortNumber
    """Number of the port, 1 to 65535."""
    net: Cidr = ""
    """Only for addresses within this prefix. Default: all addresses."""


class HealthTimeoutOverride(Record, frozen=True, kw_only=True):
    """How long a part of Felix may be silent before it counts as hung."""

    name: Annotated[str, pattern("name", r"[a-zA-Z0-9_ -]+", "allowed: letters, digits, '_', '-' and spaces")]
    """Name of the part, as Felix logs it."""
    timeout: Duration
    """The time, such as 90s."""


class RouteTableRange(Record, frozen=True, kw_only=True):
    """Numbers of routing tables, of those that fit in 8 bits."""

    min: Annotated[int, within(1, 250)]
    """First number, 1 to 250."""
    max: Annotated[int, within(1, 250)]
    """Last number, 1 to 250."""


class RouteTableIDRange(Record, frozen=True, kw_only=True):
    """Numbers of routing tables."""

    min: Annotated[int, within(1, 0xFFFFFFFF)]
    """First number, 1 to 4294967295."""
    max: Annotated[int, within(1, 0xFFFFFFFF)]
    """Last number, 1 to 4294967295."""


class BpfConntrackTimeouts(Record, frozen=True, kw_only=True):
    """How long idle connections are remembered by the eBPF dataplane: a duration, or Auto for the kernel's own value."""

    creation_grace_period: ConntrackTimeout = ""
    """Connections that were just made. Default: 10s."""
    tcp_syn_sent: ConntrackTimeout = field(default="", name="tcpSynSent")
    """TCP connections that wait for an answer. Default: 20s."""
    tcp_established: ConntrackTimeout = ""
    """TCP connections that are up. Default: 1h."""
    tcp_fins_seen: ConntrackTimeout = ""
    """TCP connections that both sides have closed. Default: Auto."""
    tcp_reset_seen: ConntrackTimeout = ""
    """TCP connections that were reset. Default: 40s."""
    udp_timeout: ConntrackTimeout = ""
    """UDP. Default: 60s."""
    generic_timeout: ConntrackTimeout = ""
    """Other protocols. Default: 10m."""
    icmp_timeout: ConntrackTimeout = ""
    """ICMP. Default: 5s."""
