"""The kernel's part of an attachment: a veth pair from the host into a network namespace, and the inside of it.

Plain synchronous functions over ``Network``. Each is idempotent: what is there and right stays, what is there and wrong is replaced. The
host's side is up, with the address ee:ee:ee:ee:ee:ee; routes to it, its sysctls and its policy are the agent's, and until the agent has
programmed them nothing passes. Sources: veth(4), rtnetlink(7).
"""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Iterator, Sequence

import msgspec

from tabinet.attach.inside import HOST_MAC, plan_inside, plan_parameters
from tabinet.attach.network import Network
from tabinet.errors import AttachError, KernelError
from tabinet.kernel.rtnetlink import AddSourceRule, AddVeth, Link, Rtnetlink, RtOp, SetLink, execute_all
from tabinet.kernel.sysctl import Sysctl, ensure
from tabinet.lib.ip import Prefix


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A pair from the host into a namespace."""

    made: bool
    """It was not there before."""
    mac: str
    """Of the end inside."""


def connect(network: Network, host_name: str, namespace: str, interface: str, mtu: int = 0, mac: str = "") -> Pair:
    """``host_name`` is up on the host and leads to ``interface`` in the namespace.

    ``mtu`` is that of both ends, in bytes; 0 leaves what there is. Both or none: an end drops without a word what is larger than itself.
    ``mac`` is that of the end inside; empty: a random one for a new pair.

    Raises:
        AttachError: there is no such namespace, or it has another interface of that name.
        KernelError: the kernel refused.
    """
    with _existing(network, namespace) as descriptor:
        inner = _inner_end(network, host_name, namespace, interface, mac)
        if inner is not None:
            if mtu and inner.mtu != mtu:
                network.inside(namespace, lambda rtnetlink, _: execute_all(rtnetlink, [SetLink(index=inner.index, mtu=mtu)]))
            network.on_host(lambda rtnetlink: _set_up(rtnetlink, host_name, mtu))
            return Pair(made=False, mac=inner.mac)
        mac = mac or random_mac()
        pair = AddVeth(name=host_name, peer_name=interface, peer_namespace=descriptor, mac=HOST_MAC, peer_mac=mac, mtu=mtu)

        def make(rtnetlink: Rtnetlink) -> None:
            (outcome,) = rtnetlink.execute([pair])
            if outcome is not None and outcome.errno == errno.EEXIST:
                raise AttachError(f"network namespace {namespace} has an interface {interface} that is not ours") from outcome
            if outcome is not None:
                raise outcome
            try:
                _set_up(rtnetlink, host_name, mtu)
            except KernelError:
                disconnect(network, host_name)
                raise

        network.on_host(make)
        return Pair(made=True, mac=mac)


def _inner_end(network: Network, host_name: str, namespace: str, interface: str, mac: str) -> Link | None:
    """The end inside, if there is a pair and it is the right one; a wrong one is gone."""
    host_link = network.on_host(lambda rtnetlink: rtnetlink.link(host_name))
    if host_link is None:
        return None
    inner = network.inside(namespace, lambda rtnetlink, _: rtnetlink.link(interface))
    other = inner is not None and mac and inner.mac != mac
    if inner is not None and not other and (host_link.peer_index, inner.peer_index) == (inner.index, host_link.index):
        return inner
    disconnect(network, host_name)
    return None


def random_mac() -> str:
    """A hardware address for one interface that is administered locally (IEEE 802: the second bit; the first would make it a group's)."""
    first, *others = random.randbytes(6)
    return ":".join(f"{byte:02x}" for byte in (first & 0xFC | 0x02, *others))


def make_pair(network: Network, outer: str, inner: str, mtu: int, mac: str) -> None:
    """A pair is on the host, both ends, for others to move ``inner`` to where it belongs; one that was there before is gone.

    Raises:
        KernelError: the kernel refused.
    """
    disconnect(network, outer)
    pair = AddVeth(name=outer, peer_name=inner, mac=HOST_MAC, peer_mac=mac, mtu=mtu)
    network.on_host(lambda rtnetlink: execute_all(rtnetlink, [pair]))


def configure(network: Network, namespace: str, interface: str, addresses: Sequence[Prefix], *, forwarding: bool = False) -> None:
    """The inside has the addresses, routes and neighbours.

    Raises:
        AttachError: namespace or interface is gone.
        KernelError: the kernel refused.
    """

    def work(rtnetlink: Rtnetlink, sysctl: Sysctl) -> None:
        links = rtnetlink.links()
        link = next((link for link in links if link.name == interface), None)
        if link is None:
            raise AttachError(f"interface {interface} is gone from network namespace {namespace}")
        for key, value in plan_parameters(interface, addresses, forwarding=forwarding):
            ensure(sysctl, key, value)
        operations = plan_inside(links, link, rtnetlink.addresses(), addresses, rtnetlink.routes())
        for operation, outcome in zip(operations, rtnetlink.execute(operations), strict=True):
            if outcome is not None and not (isinstance(operation, AddSourceRule) and outcome.errno == errno.EEXIST):
                raise outcome

    with _existing(network, namespace):
        network.inside(namespace, work)


@contextlib.contextmanager
def _existing(network: Network, namespace: str) -> Iterator[int]:
    """A file descriptor of the namespace, which exists."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(network.opened(namespace))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                raise AttachError(f"there is no network namespace {namespace}") from error
            raise
        yield descriptor


def disconnect(network: Network, host_name: str) -> None:
    """The pair is gone, both ends, and so is every route through it; nothing happens when it was gone already.

    Raises:
        KernelError: the kernel refused.
    """
    network.remove_interface(host_name)


def take_up(network: Network, name: str) -> None:
    """An interface of the host that others made is up.

    Raises:
        AttachError: there is none of this name.
        KernelError: the kernel refused.
    """

    def work(rtnetlink: Rtnetlink) -> None:
        link = rtnetlink.link(name)
        if link is None:
            raise AttachError(f"there is no interface {name} on this host")
        if not link.up:
            execute_all(rtnetlink, [SetLink(index=link.index, up=True)])

    network.on_host(work)


def drops_packets(network: Network, host_name: str) -> bool:
    """The host's end does not send what it is given yet, as a veth that has just got its other end, without a word."""

    def work(rtnetlink: Rtnetlink) -> bool:
        link = rtnetlink.link(host_name)
        return link is not None and not link.running

    return network.on_host(work)


def _set_up(rtnetlink: Rtnetlink, name: str, mtu: int) -> None:
    link = rtnetlink.link(name)
    if link is None:
        raise KernelError(errno.ENODEV, f"set {name} up")
    if not link.up or link.mac != HOST_MAC or (mtu and link.mtu != mtu):
        operations: list[RtOp] = [SetLink(index=link.index, up=True, mac="" if link.mac == HOST_MAC else HOST_MAC, mtu=mtu)]
        execute_all(rtnetlink, operations)
