"""WorkloadManager: whatever happens in whatever order, the kernel ends as a naive recomputation says, and a restarted agent agrees."""

from __future__ import annotations

import contextlib
import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tabinet.calc.messages import Endpoint, EndpointRemove, EndpointUpdate
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.links.items import GATEWAY_IPV6
from tabinet.dataplane.links.vlans import VlanDriver
from tabinet.dataplane.routes.driver import METRICS, RouteDriver, local_route
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.errors import KernelError
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import (
    AddRoute,
    AddVeth,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    InterfaceAddress,
    Neighbour,
    Route,
    RtOp,
    SetLink,
    device_route,
)
from tabinet.kernel.sysctl import FakeSysctl
from tabinet.lib.ip import Prefix, parse_address
from tabinet.model.keys import ResourceKey

KEYS = [ResourceKey("WorkloadEndpoint", name, "ns") for name in "abc"]
INTERFACES = ["cali1", "cali2", "cali3"]
ADDRESSES = [parse_address(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2")]
MACS = ["", "02:00:00:00:00:0a", "02:00:00:00:00:0b"]


class Workloads(RuleBasedStateMachine):
    """Endpoints, interfaces and strangers; one turn of the agent's loop at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere = os.open("/dev/null", os.O_RDONLY)
        self.rt = FakeRtnetlink()
        self.sysctl = FakeSysctl()
        self.endpoints: dict[ResourceKey, Endpoint] = {}
        for name in INTERFACES:
            self.interface_comes(name)
        for key, name, net in zip(KEYS, INTERFACES, ADDRESSES, strict=False):
            self.endpoints[key] = Endpoint("h", name, MACS[1], (net,), (), (), (), ())
        self.restart()

    def teardown(self) -> None:
        self.settles_on_what_the_recomputation_says()
        self.events.close()
        os.close(self.elsewhere)

    def new_manager(self) -> WorkloadManager:
        manager = WorkloadManager(LinkDriver(self.rt, self.sysctl), RouteDriver(self.rt), VlanDriver(self.rt))
        for key, endpoint in self.endpoints.items():
            manager.on_endpoint_update(EndpointUpdate(key, 1, endpoint))
        manager.begin()
        return manager

    @rule()
    def restart(self) -> None:
        self.events = self.rt.events()
        self.manager = self.new_manager()

    @rule(
        key=st.sampled_from(KEYS),
        interface=st.sampled_from(INTERFACES),
        mac=st.sampled_from(MACS),
        nets=st.sets(st.sampled_from(ADDRESSES), max_size=3),
    )
    def update(self, key: ResourceKey, interface: str, mac: str, nets: set[Prefix]) -> None:
        self.endpoints[key] = Endpoint("h", interface, mac, tuple(sorted(nets)), (), (), (), ())
        self.manager.on_endpoint_update(EndpointUpdate(key, 1, self.endpoints[key]))

    @rule(key=st.sampled_from(KEYS))
    def remove(self, key: ResourceKey) -> None:
        self.endpoints.pop(key, None)
        self.manager.on_endpoint_remove(EndpointRemove(key))

    @rule(name=st.sampled_from(INTERFACES))
    def interface_comes(self, name: str) -> None:
        """Its sysctls are the kernel's defaults again."""
        with contextlib.suppress(KernelError):
            self.rt.stranger(AddVeth(name, "eth0", self.elsewhere))
            for key in [key for key in self.sysctl.values if f"/{name}/" in key]:
                del self.sysctl.values[key]

    @rule(name=st.sampled_from(INTERFACES), change=st.sampled_from(["down", "down", "up", "down and up", "rename", "delete"]))
    def interface_changes(self, name: str, change: str) -> None:
        index = next((link.index for link in self.rt.links() if link.name == name), 0)
        operations: dict[str, list[RtOp]] = {
            "down": [SetLink(index, up=False)],
            "up": [SetLink(index, up=True)],
            "down and up": [SetLink(index, up=False), SetLink(index, up=True)],
            "rename": [SetLink(index, name="cali2" if name != "cali2" else "other")],
            "delete": [DeleteLink(name)],
        }
        with contextlib.suppress(KernelError):
            self.rt.stranger(*operations[change])

    @rule(which=st.integers(0, 5))
    def stranger_deletes(self, which: int) -> None:
        for route in self.rt.routes(protocol=84)[which : which + 1]:
            self.rt.stranger(DeleteRoute(route))
        for neighbour in self.rt.neighbours()[which : which + 1]:
            self.rt.stranger(DeleteNeighbour(neighbour))

    @rule(net=st.sampled_from(ADDRESSES), name=st.sampled_from(INTERFACES), ours=st.booleans())
    def stranger_adds(self, net: Prefix, name: str, ours: bool) -> None:
        """Another protocol's route with a higher metric, or a leftover that looks like one of ours."""
        for link in self.rt.links():
            if link.name == name:
                route = device_route(net, link.index, metric=METRICS[net.family] if ours else 32, protocol=84 if ours else 12)
                with contextlib.suppress(KernelError):
                    self.rt.stranger(AddRoute(route))

    @rule()
    def events_are_lost(self) -> None:
        self.events.read()
        self.rt.overrun()

    @rule()
    def turn(self) -> None:
        for event in self.events.read():
            self.manager.on_event(event)
        self.manager.apply()

    # --- the naive recomputation

    def expected(self) -> tuple[set[Route], set[Neighbour], set[ResourceKey]]:
        """Routes, neighbours and ready endpoints, from endpoints and interfaces alone."""
        index = {link.name: link.index for link in self.rt.links()}
        serving: dict[str, ResourceKey] = {}
        for key in sorted(self.endpoints, reverse=True):
            serving[self.endpoints[key].interface] = key
        holders: dict[Prefix, ResourceKey] = {}
        for key in sorted(serving.values(), reverse=True):
            holders |= dict.fromkeys(self.endpoints[key].nets, key)
        routes, neighbours = set(), set()
        for net, key in holders.items():
            endpoint = self.endpoints[key]
            if endpoint.interface in index:
                routes.add(local_route(net, index[endpoint.interface]))
                if endpoint.mac:
                    neighbours.add(Neighbour(index[endpoint.interface], net, endpoint.mac))
        ready = {
            key
            for key in serving.values()
            if self.endpoints[key].interface in index and all(holders[net] == key for net in self.endpoints[key].nets)
        }
        return routes, neighbours, ready

    @rule()
    def check(self) -> None:
        self.settles_on_what_the_recomputation_says()

    @rule()
    def check_again(self) -> None:
        """Once more in the draw: half of the steps are worth little without a look."""
        self.settles_on_what_the_recomputation_says()

    def settles_on_what_the_recomputation_says(self) -> None:
        self.turn()
        self.turn()  # what the first one caused has been heard
        routes, neighbours, ready = self.expected()
        index = {link.name: link.index for link in self.rt.links()}
        wanted = {index[e.interface] for e in self.endpoints.values() if e.interface in index}
        assert set(self.rt.routes(protocol=84)) == routes
        assert {n for n in self.rt.neighbours() if n.index in wanted} == neighbours
        assert {key for key in KEYS if self.manager.status(key).ready} == ready
        assert wanted <= {link.index for link in self.rt.links() if link.up}
        assert {InterfaceAddress(i, GATEWAY_IPV6, 64) for i in wanted} <= set(self.rt.addresses())
        assert self.manager.in_sync
        assert self.manager.apply().operations == 0

        # an agent with an empty memory agrees
        assert self.new_manager().apply().operations == 0


TestWorkloads = Workloads.TestCase
TestWorkloads.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
