"""Published ports: ``docker run -p``. What Docker says of them, forwards of ours, and sockets that keep the host's ports for them.

In: the options of a call, which have the port bindings of the container. Out: the ports; forwards of an endpoint (``model.forwards``), by
which the host's table translates; and the ports are taken on the host, so that neither a program there nor a second container can have
one that is published, as with Docker's own proxy. Packets never come to these sockets: they are translated before.

A port of the host that Docker leaves open (``-P``, ``-p 80``) is refused: there is no way to tell Docker which one it has become. Source:
libnetwork's ``types.PortBinding``; Docker passes a container's bindings with ``Join``.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tabinet.errors import AttachError, DataError, InputError, Problem
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address
from tabinet.model.codec import decode_document
from tabinet.model.forwards import PortForward
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.protocols import protocol_name
from tabinet.model.records.nodes import NodeSpec
from tabinet.store.api import Datastore

PORT_MAP = "com.docker.network.portmap"
_KINDS = {6: socket.SOCK_STREAM, 17: socket.SOCK_DGRAM, 132: socket.SOCK_STREAM}
_FAMILIES = {IPV4: socket.AF_INET, IPV6: socket.AF_INET6}
_ANY = {"": (IPV4, IPV6), "0.0.0.0": (IPV4,), "::": (IPV6,)}
"""Families of "all addresses of the host"."""


class _Binding(msgspec.Struct, frozen=True, kw_only=True):
    proto: int = msgspec.field(default=6, name="Proto")
    port: int = msgspec.field(default=0, name="Port")
    host_ip: str = msgspec.field(default="", name="HostIP")
    host_port: int = msgspec.field(default=0, name="HostPort")
    host_port_end: int = msgspec.field(default=0, name="HostPortEnd")


class PublishedPort(msgspec.Struct, frozen=True, gc=False):
    """A port of the host that leads to one of the container."""

    protocol: int
    """Number."""
    host_ip: str
    """Empty: all addresses of the host; ``0.0.0.0``, ``::``: those of one family."""
    host_port: int
    port: int


def parse_published(options: Mapping[str, Any]) -> tuple[PublishedPort, ...]:
    """The ports that the options of a call publish.

    Raises:
        InputError: one that cannot be had; says what to write in its place.
    """
    try:
        bindings = msgspec.convert(options.get(PORT_MAP) or [], tuple[_Binding, ...])
    except msgspec.ValidationError as error:
        raise InputError([Problem(path=PORT_MAP, value=str(error), allowed="port bindings, as Docker has them")]) from None
    problems = [Problem(path="-p", value=_shown(each), allowed=allowed) for each in bindings if (allowed := _refusal(each))]
    if problems:
        raise InputError(problems)
    return tuple(PublishedPort(each.proto, each.host_ip, each.host_port, each.port) for each in bindings)


def _shown(binding: _Binding) -> str:
    host = f"{binding.host_ip}:" if binding.host_ip else ""
    outside = f"{host}{binding.host_port or ''}:" if host or binding.host_port else ""
    return f"{outside}{binding.port}/{protocol_name(binding.proto).lower()}"


def _refusal(binding: _Binding) -> str:
    """What is allowed in its place; empty: it is."""
    if binding.host_port == 0 or binding.host_port_end not in (0, binding.host_port):
        return "one port of the host, as in 8080:80 (Docker could not be told which one of several was taken)"
    if binding.proto not in _KINDS:
        return "tcp, udp or sctp"
    if binding.host_ip in _ANY:
        return ""
    try:
        address = parse_address(binding.host_ip)
    except ValueError:
        return "an IP address of the host"
    loopback = address == parse_address("::1") or (address.family == IPV4 and address.value >> 24 == 127)
    return "an address of the host that others reach, or none; loopback addresses are the host's alone" if loopback else ""


def forwards_of(published: tuple[PublishedPort, ...], inside: tuple[Prefix, ...], host: tuple[Prefix, ...]) -> tuple[PortForward, ...]:
    """Each port at each address of the host that it is for. ``inside`` are the container's addresses, ``host`` those of its host.

    Raises:
        InputError: a port that is at no address, because container or host have none of the family.
    """
    own: dict[int, Prefix] = {}
    for address in inside:
        own.setdefault(address.family, address)
    found: list[PortForward] = []
    for each in published:
        families = _ANY.get(each.host_ip)
        places = (parse_address(each.host_ip),) if families is None else tuple(place for place in host if place.family in families)
        made = [
            PortForward(
                external_ip=place.address,
                protocol=each.protocol,
                external_port=each.host_port,
                internal_ip=own[place.family].address,
                internal_port=each.port,
                host=True,
            )
            for place in places
            if place.family in own
        ]
        if not made:
            allowed = "an address of the host in its Node (tabinet node init), of a family that the container has"
            raise InputError([Problem(path=f"-p {each.host_port}:{each.port}", value=each.host_ip or "any address", allowed=allowed)])
        found += made
    return tuple(sorted(found))


async def host_addresses(store: Datastore, host: str) -> tuple[Prefix, ...]:
    """The addresses by which others reach the host, as its Node has them; none without a Node that can be read.

    Raises:
        StoreError: the store does not answer.
    """
    path = path_of(ResourceKey("Node", host))
    stored = await store.get(path)
    try:
        spec = msgspec.convert(decode_document(stored.value, path).get("spec") or {}, NodeSpec) if stored is not None else NodeSpec()
    except (DataError, msgspec.ValidationError):
        return ()
    texts = [] if spec.bgp is None else [spec.bgp.ipv4_address, spec.bgp.ipv6_address]
    texts += [address.address for address in spec.addresses if address.type in ("InternalIP", "ExternalIP")]
    return tuple(dict.fromkeys(parse_address(text.partition("/")[0]) for text in texts if text))


@dataclass(slots=True)
class HeldPorts:
    """Ports of the host that are taken, by the endpoint for which they are."""

    _held: dict[str, tuple[tuple[PortForward, ...], list[socket.socket]]] = field(default_factory=dict)

    def hold(self, endpoint: str, forwards: tuple[PortForward, ...]) -> None:
        """The endpoint has all these ports of the host, and no others.

        Raises:
            AttachError: somebody has one of them, or the host has no such address; then it has none.
        """
        if forwards == self._held.get(endpoint, ((), []))[0]:
            return
        self.release(endpoint)
        sockets: list[socket.socket] = []
        try:
            for each in forwards:
                sockets += _bound(each)
        except AttachError:
            for one in sockets:
                one.close()
            raise
        self._held[endpoint] = forwards, sockets

    def release(self, endpoint: str) -> None:
        """The endpoint has no port of the host."""
        for each in self._held.pop(endpoint, ((), []))[1]:
            each.close()

    def close(self) -> None:
        for endpoint in list(self._held):
            self.release(endpoint)


def _bound(forward: PortForward) -> list[socket.socket]:
    """A socket at the port; none, where the kernel has no such protocol, so that nobody else can be there either."""
    family = _FAMILIES[parse_address(forward.external_ip).family]
    protocol = forward.protocol if forward.protocol == 132 else 0
    try:
        made = socket.socket(family, _KINDS[forward.protocol] | socket.SOCK_CLOEXEC, protocol)
    except OSError:
        return []
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((forward.external_ip, forward.external_port))
    except OSError as error:
        with contextlib.suppress(OSError):
            made.close()
        name = protocol_name(forward.protocol).lower()
        raise AttachError(f"port {forward.external_port}/{name} of {forward.external_ip}: {(error.strerror or '').lower()}") from None
    return [made]
