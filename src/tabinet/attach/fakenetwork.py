"""``FakeNetwork``: a host and its workloads' network namespaces in memory, for tests. Keeps the promises of ``Network``.

A veth whose other end is put into a namespace appears there; deleting the host's end, or the namespace, takes both. Everything else is
``FakeRtnetlink`` and ``FakeSysctl``.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from tabinet.errors import KernelError
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import (
    MAIN_TABLE,
    AddVeth,
    DeleteLink,
    Forwarding,
    InterfaceAddress,
    InterfaceRule,
    Link,
    Neighbour,
    PortRule,
    Route,
    Rtnetlink,
    RtOp,
)
from tabinet.kernel.sysctl import FakeSysctl, Sysctl

T = TypeVar("T")
_FIRST_DESCRIPTOR = 1000
_OUTSIDE = "~host"
"""How the far end of a veth is called in the fake of a namespace, where it is not shown."""


@dataclass(slots=True)
class FakeNamespace:
    """A workload's network namespace."""

    rtnetlink: FakeRtnetlink = field(default_factory=FakeRtnetlink)
    sysctl: FakeSysctl = field(default_factory=FakeSysctl)


@dataclass(slots=True)
class FakeNetwork:
    """Implements ``Network``. Namespaces are made and removed by the test."""

    host: FakeRtnetlink = field(default_factory=FakeRtnetlink)
    namespaces: dict[str, FakeNamespace] = field(default_factory=dict)
    pairs: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Interface of the host -> (namespace, interface inside)."""
    _descriptors: dict[int, str] = field(default_factory=dict)

    def create(self, namespace: str) -> FakeNamespace:
        """The namespace exists, with nothing but its loopback interface."""
        made = self.namespaces[namespace] = FakeNamespace()
        return made

    def remove(self, namespace: str) -> None:
        """The namespace is gone, and with it every veth that led into it."""
        for host_name in [name for name, (where, _) in self.pairs.items() if where == namespace]:
            self.host.stranger(DeleteLink(host_name))
            del self.pairs[host_name]
        del self.namespaces[namespace]

    # --- Network

    def on_host(self, work: Callable[[Rtnetlink], T]) -> T:
        return work(_Host(self))

    def inside(self, namespace: str, work: Callable[[Rtnetlink, Sysctl], T]) -> T:
        found = self._find(namespace)
        try:
            return work(_Inside(self, namespace, found.rtnetlink), found.sysctl)
        finally:
            self._drop_halves(namespace)

    @contextlib.contextmanager
    def opened(self, namespace: str) -> Iterator[int]:
        self._find(namespace)
        descriptor = _FIRST_DESCRIPTOR + len(self._descriptors)
        self._descriptors[descriptor] = namespace
        yield descriptor

    def remove_interface(self, name: str) -> None:
        outcome = self.execute_on_host(DeleteLink(name))
        if outcome is not None and outcome.errno != errno.ENODEV:
            raise outcome

    # --- inside

    def _find(self, namespace: str) -> FakeNamespace:
        found = self.namespaces.get(namespace)
        if found is None:
            raise KernelError(errno.ENOENT, f"open namespace {namespace}")
        return found

    def _drop_halves(self, namespace: str) -> None:
        """An interface that was deleted inside takes its other end along."""
        left = {link.name for link in self.namespaces[namespace].rtnetlink.links()}
        for host_name, (where, interface) in list(self.pairs.items()):
            if where == namespace and interface not in left:
                del self.pairs[host_name]
                self.host.stranger(DeleteLink(host_name))

    def execute_on_host(self, operation: RtOp) -> KernelError | None:
        """The outcome of an operation on the host, with what it does to the far ends."""
        if isinstance(operation, AddVeth) and operation.peer_namespace is not None:
            namespace = self._descriptors[operation.peer_namespace]
            inside = self._find(namespace).rtnetlink
            if any(link.name == operation.peer_name for link in inside.links()):
                return KernelError(errno.EEXIST, f"add veth {operation.name} with peer {operation.peer_name}")
            (outcome,) = self.host.execute([operation])
            if outcome is None:
                inside.stranger(AddVeth(name=_OUTSIDE, peer_name=operation.peer_name, peer_mac=operation.peer_mac, mtu=operation.mtu))
                self.pairs[operation.name] = (namespace, operation.peer_name)
            return outcome
        (outcome,) = self.host.execute([operation])
        if isinstance(operation, DeleteLink) and outcome is None and operation.name in self.pairs:
            namespace, interface = self.pairs.pop(operation.name)
            self._find(namespace).rtnetlink.stranger(DeleteLink(interface))
        return outcome


@dataclass(slots=True)
class _Host:
    network: FakeNetwork

    @property
    def port(self) -> int:
        return self.network.host.port

    def close(self) -> None:
        self.network.host.close()

    def execute(self, operations: Sequence[RtOp]) -> list[KernelError | None]:
        return [self.network.execute_on_host(operation) for operation in operations]

    def links(self) -> list[Link]:
        return [self._with_peer(link) for link in self.network.host.links()]

    def link(self, name: str) -> Link | None:
        link = self.network.host.link(name)
        return None if link is None else self._with_peer(link)

    def _with_peer(self, link: Link) -> Link:
        if link.name not in self.network.pairs:
            return link
        namespace, interface = self.network.pairs[link.name]
        peer = self.network.namespaces[namespace].rtnetlink.index_of(interface)
        return msgspec.structs.replace(link, peer_index=peer)

    def addresses(self) -> list[InterfaceAddress]:
        return self.network.host.addresses()

    def neighbours(self) -> list[Neighbour]:
        return self.network.host.neighbours()

    def forwarding(self, index: int) -> list[Forwarding]:
        return self.network.host.forwarding(index)

    def routes(self, *, protocol: int = 0, table: int = MAIN_TABLE) -> list[Route]:
        return self.network.host.routes(protocol=protocol, table=table)

    def interface_rules(self, table: int) -> list[InterfaceRule]:
        return self.network.host.interface_rules(table)

    def port_rules(self) -> list[PortRule]:
        return self.network.host.port_rules()


@dataclass(slots=True)
class _Inside:
    network: FakeNetwork
    namespace: str
    rtnetlink: FakeRtnetlink

    @property
    def port(self) -> int:
        return self.rtnetlink.port

    def close(self) -> None:
        self.rtnetlink.close()

    def execute(self, operations: Sequence[RtOp]) -> list[KernelError | None]:
        return self.rtnetlink.execute(operations)

    def links(self) -> list[Link]:
        hosts = {inside: name for name, inside in self.network.pairs.items()}
        shown = []
        for link in self.rtnetlink.links():
            host_name = hosts.get((self.namespace, link.name))
            if host_name is not None:
                link = msgspec.structs.replace(link, peer_index=self.network.host.index_of(host_name))
            if link.name != _OUTSIDE:
                shown.append(link)
        return shown

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links() if link.name == name), None)

    def addresses(self) -> list[InterfaceAddress]:
        return self.rtnetlink.addresses()

    def neighbours(self) -> list[Neighbour]:
        return self.rtnetlink.neighbours()

    def forwarding(self, index: int) -> list[Forwarding]:
        return self.rtnetlink.forwarding(index)

    def routes(self, *, protocol: int = 0, table: int = MAIN_TABLE) -> list[Route]:
        return self.rtnetlink.routes(protocol=protocol, table=table)

    def interface_rules(self, table: int) -> list[InterfaceRule]:
        return self.rtnetlink.interface_rules(table)

    def port_rules(self) -> list[PortRule]:
        return self.rtnetlink.port_rules()
