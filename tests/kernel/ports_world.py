"""For tests of Neutron's ports: a host with what an agent does about interfaces, routes and policy, and guests with a subnet's mask."""

from __future__ import annotations

import contextlib
import select
import subprocess
import time
import uuid

from tabinet.calc import messages as m
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.links.vlans import VlanDriver
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.kernel import netns
from tabinet.kernel.nftsocket import open_nftables
from tabinet.kernel.rtnetlink import Watch
from tabinet.kernel.rtsocket import open_events, open_rtnetlink
from tabinet.kernel.sysctl import ProcSysctl
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder
from tabinet.rules.options import TableOptions

PARENT, SUBPORT, OTHER = "10.65.0.1", "10.66.7.1", "10.65.0.2"
GATEWAY, SUBPORTS_GATEWAY = "10.65.0.254", "10.66.7.254"
MACS = {"p": "fa:16:3e:00:00:01", "s": "fa:16:3e:00:00:07", "o": "fa:16:3e:00:00:02"}
OPEN = m.Policy((m.Rule(m.Action.ALLOW),), (m.Rule(m.Action.ALLOW),))
DEADLINE_S = 60.0


class World:
    """Namespaces, and what an agent does on the host."""

    def __init__(self) -> None:
        self.tag = uuid.uuid4().hex[:6]
        self.places = {place: f"tbs-{self.tag}-{place}" for place in ("host", "guest", "other")}
        for name in self.places.values():
            netns.create(name)
        host = self.places["host"]
        self.rt, self.nft = netns.run_in(host, open_rtnetlink), netns.run_in(host, open_nftables)
        self.events = netns.run_in(host, lambda: open_events(Watch.LINKS | Watch.ADDRESSES | Watch.NEIGHBOURS, route_protocols=(84,)))
        self.manager = WorkloadManager(LinkDriver(self.rt, ProcSysctl()), RouteDriver(self.rt), VlanDriver(self.rt))
        self.builder = TableBuilder(TableOptions(interface_prefixes=("tap",)))
        self.driver = NftDriver(self.nft)
        self.driver.resync(self.builder.table)

    def ip(self, place: str, *lines: str) -> None:
        self.run(place, "ip", "-batch", "-", text="\n".join(lines) + "\n")

    def run(self, place: str, *argv: str, text: str = "") -> None:
        command = ["nsenter", f"--net=/run/netns/{self.places[place]}", *argv]
        subprocess.run(command, check=True, input=text, text=True, capture_output=True, timeout=DEADLINE_S)

    def pings(self, place: str, *options: str, wait_s: int = 30) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run(place, "ping", "-c1", f"-W{wait_s}", *options)
            return True
        return False

    def plug(self, place: str, tap: str, mac: str, address: str, gateway: str) -> None:
        """A guest with a subnet's mask, which looks for its gateway by ARP."""
        self.ip("host", f"link add {tap} type veth peer name eth0 netns {self.places[place]}")
        self.ip(place, f"link set dev eth0 address {mac}", f"addr add {address}/24 dev eth0", "link set dev lo up", "link set dev eth0 up")
        self.ip(place, f"route add default via {gateway}")

    def plug_parent(self) -> None:
        self.plug("guest", "tapp", MACS["p"], PARENT, GATEWAY)

    def plug_subport(self) -> None:
        # Of both its networks each answers by its own way.
        self.ip("guest", "link add link eth0 name eth0.7 type vlan id 7", f"link set dev eth0.7 address {MACS['s']}")
        self.ip("guest", f"addr add {SUBPORT}/24 dev eth0.7", "link set dev eth0.7 up")
        self.ip("guest", f"route add default via {SUBPORTS_GATEWAY} table 7", f"rule add from {SUBPORT} table 7")

    def endpoint(self, name: str, addresses: str, gateway: str = "", **more: object) -> m.EndpointUpdate:
        nets = tuple(sorted(map(parse_address, addresses.split())))
        gateway4 = parse_address(gateway) if gateway else None
        made = m.Endpoint("h", f"tap{name}", MACS[name], nets, (), (), (), ("open",), gateway4=gateway4, **more)
        return m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "openstack"), 1, made)

    def tell(self, *updates: m.EndpointUpdate | m.EndpointRemove) -> None:
        """The host has what these say."""
        self.builder.on_update(m.ProfileUpdate("open", OPEN))
        for update in updates:
            self.builder.on_update(update)
            if isinstance(update, m.EndpointUpdate):
                self.manager.on_endpoint_update(update)
            else:
                self.manager.on_endpoint_remove(update)
        self.driver.apply(self.builder.flush())
        self.manager.begin()

    def settle(self, *ready: str) -> None:
        """The kernel has everything, and these endpoints are ready."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            for event in self.events.read():
                self.manager.on_event(event)
            result = netns.run_in(self.places["host"], self.manager.apply)
            assert not result.failed, result.errors
            states = {name: self.manager.status(ResourceKey("WorkloadEndpoint", name, "openstack")) for name in ready}
            if not result.operations and all(state.ready for state in states.values()):
                return
            assert time.monotonic() < deadline, states
            select.select([self.events.fileno()], [], [], 0.1)

    def vlans(self) -> set[tuple[str, int]]:
        return {(link.name, link.vlan) for link in self.rt.links() if link.kind == "vlan"}

    def close(self) -> None:
        self.events.close()
        self.rt.close()
        self.nft.close()
        for name in self.places.values():
            netns.delete(name)
