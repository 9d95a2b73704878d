"""Published ports of Docker: what is asked for, what it becomes, and who has a port of the host. And what is remembered of networks."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tabinet.attach.docker.daemon import DockerNetwork, Endpoint
from tabinet.attach.docker.memory import KnownNetworks
from tabinet.attach.docker.ports import PORT_MAP, HeldPorts, PublishedPort, forwards_of, host_addresses, parse_published
from tabinet.calc.forwards import read_forwards
from tabinet.errors import AttachError, InputError
from tabinet.lib.ip import parse_address
from tabinet.model.forwards import PortForward, parse_forwards, render_forwards
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import PutOp
from tabinet.store.memory import MemoryStore

INSIDE = (parse_address("10.65.0.9"), parse_address("fd00:65::9"))
HOST = (parse_address("192.0.2.1"), parse_address("2001:db8::1"))


def binding(port: int = 80, host_port: int = 8080, **more: Any) -> dict[str, Any]:
    return {"Proto": 6, "IP": "", "Port": port, "HostIP": "", "HostPort": host_port, "HostPortEnd": host_port} | more


def forward(outside: str, inside: str, port: int = 8080) -> PortForward:
    return PortForward(external_ip=outside, protocol=6, external_port=port, internal_ip=inside, internal_port=80, host=True)


@pytest.mark.parametrize(
    ("host_ip", "places"),
    [
        ("", [("192.0.2.1", "10.65.0.9"), ("2001:db8::1", "fd00:65::9")]),
        ("0.0.0.0", [("192.0.2.1", "10.65.0.9")]),
        ("::", [("2001:db8::1", "fd00:65::9")]),
        ("192.0.2.7", [("192.0.2.7", "10.65.0.9")]),
    ],
)
def test_a_port_is_published_at_addresses_of_the_host(host_ip: str, places: list[tuple[str, str]]) -> None:
    published = parse_published({PORT_MAP: [binding(HostIP=host_ip)]})
    assert published == (PublishedPort(6, host_ip, 8080, 80),)
    found = forwards_of(published, INSIDE, HOST)
    assert found == tuple(forward(*place) for place in places)
    assert parse_forwards(render_forwards(found)) == found
    own, elsewhere = read_forwards(render_forwards(found), "", [])
    assert [each.own for each in own] == [True] * len(places)
    assert elsewhere == ()


def test_nothing_is_published_without_bindings() -> None:
    assert parse_published({}) == parse_published({PORT_MAP: None}) == ()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (binding(host_port=0), "got 80/tcp; one port of the host, as in 8080:80"),
        (binding(HostPortEnd=8090), "got 8080:80/tcp; one port"),
        (binding(HostIP="127.0.0.1"), "got 127.0.0.1:8080:80/tcp; an address of the host that others reach"),
        (binding(HostIP="::1"), "loopback"),
        (binding(HostIP="here"), "an IP address of the host"),
        (binding(Proto=1), "tcp, udp or sctp"),
        ({"Port": "http"}, "port bindings, as Docker has them"),
    ],
)
def test_what_cannot_be_published_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_published({PORT_MAP: [given]})
    assert told in str(caught.value)


def test_a_port_without_any_address_is_refused() -> None:
    with pytest.raises(InputError, match="node init"):
        forwards_of((PublishedPort(6, "::", 8080, 80),), INSIDE[:1], HOST)
    with pytest.raises(InputError, match="node init"):
        forwards_of((PublishedPort(6, "", 8080, 80),), INSIDE, ())


async def test_addresses_of_a_host_are_those_of_its_node() -> None:
    store = MemoryStore()
    assert await host_addresses(store, "h") == ()
    spec = {"bgp": {"ipv4Address": "192.0.2.1/24", "ipv6Address": "2001:db8::1/64"}}
    spec |= {"addresses": [{"address": "192.0.2.1", "type": "InternalIP"}, {"address": "198.51.100.1", "type": "ExternalIP"}]}
    node = {"kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "h"}, "spec": spec}
    await store.txn([], [PutOp(path_of(ResourceKey("Node", "h")), msgspec.json.encode(node))])
    assert await host_addresses(store, "h") == (*HOST, parse_address("198.51.100.1"))


def test_a_port_of_the_host_has_one_owner() -> None:
    ports = HeldPorts()
    with contextlib.closing(ports), socket.create_server(("127.0.0.1", 0)) as busy:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            number = free.getsockname()[1]
        wanted = (forward("127.0.0.1", "10.65.0.9", number),)
        ports.hold("one", wanted)
        ports.hold("one", wanted)
        with pytest.raises(AttachError, match=rf"port {number}/tcp of 127.0.0.1: address already in use"):
            ports.hold("two", wanted)
        ports.release("one")
        both = (*wanted, forward("127.0.0.1", "10.65.0.9", busy.getsockname()[1]))
        with pytest.raises(AttachError, match="already in use"):
            ports.hold("two", both)
        ports.hold("two", wanted)


def test_networks_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "docker" / "networks"
    network = DockerNetwork(id="n", name="fabric", driver="tabinet", options={"tabinet.labels": "a=b"})
    known = KnownNetworks(path)
    assert known.get("n") is None
    known.remember(msgspec.structs.replace(network, containers={"c": Endpoint(id="e")}))
    assert KnownNetworks(path).get("n") == network
    KnownNetworks(path).forget("n")
    assert KnownNetworks(path).get("n") is None
    path.write_bytes(b"nonsense")
    assert KnownNetworks(path).get("n") is None
    path.unlink()
    path.mkdir()
    (path / "in-the-way").touch()
    with pytest.raises(AttachError, match="networks cannot be written"):
        KnownNetworks(path).remember(network)
