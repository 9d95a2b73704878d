"""How fast routes travel: from an endpoint to the farthest kernel, 10,000 of them at once, and 100 peerings changed at once.

- ``far``: an endpoint with an address of another host's block is attached; until the route is in the kernel of a host in the other rack.
  In a lab of its own, the example ``clos``, with FRR and with BIRD as top-of-rack routers. Baseline: ``ip route add`` on the host,
  without agent and etcd, until the same moment.
- ``bulk``: the agent's routes driver puts so many routes into the kernel of one host; until the kernel of the host next to it has all of
  them, learned by BGP; and until none is left after they were removed. Baselines: ``ip -batch`` puts as many into one kernel; BIRD's static
  protocol announces as many from its configuration.
- ``peers``: 100 of 110 sessions get another export filter; until every neighbour has the routes as the new filter tells them. No
  session may go down. Baseline: the rendering and BIRD's own check of the same configuration (``bird -p``).

Real BIRD, kernels and routes, in namespaces of their own. Medians in ms. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.convergence import NAME, topology_with
from benchmarks.fabric import Figures, summarize
from tabinet.attach.names import Workload
from tabinet.attach.netns import AttachRequest, attach, detach
from tabinet.attach.network import LinuxNetwork
from tabinet.bgp.control import BirdControl
from tabinet.bgp.driver import BgpDriver, check_with
from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress, SessionState
from tabinet.bgp.render import render_config
from tabinet.bgp.restart import bird_command
from tabinet.calc.bgp import bgp_intent
from tabinet.calc.bgp_nodes import RoutingFacts
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.errors import BirdError
from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import RouteEvent, Watch
from tabinet.kernel.rtsocket import open_events, open_rtnetlink
from tabinet.lab.build import SYSCTLS
from tabinet.lab.build import run as run_command
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.launches import AGENT
from tabinet.lab.plan import namespace_of
from tabinet.lab.up import lab_up
from tabinet.lib.ip import IPV4, Prefix, parse_address, parse_prefix
from tabinet.model import resources as r
from tabinet.store.api import Datastore

BIRD_ROUTES = 12
"""Protocol number of BIRD's routes (rtnetlink(7))."""
NEAR, FAR = "host11", "host22"
NEIGHBOUR = "web2"
"""A workload of another host in the rack of NEAR."""
ROUTES = 10_000
PEERS, OTHERS = 100, 10
"""Sessions that are changed, and those of the same host that are not."""
WITHIN_S = 30.0
CLOCKS_DIFFER_S = 0.1
"""BIRD works out anew with every question when, by the wall's clock, a session came up."""


def wait(condition: Callable[[], bool], what: str, pause_s: float = 0.002) -> None:
    """The condition holds.

    Raises:
        TimeoutError: not within ``WITHIN_S``.
    """
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {WITHIN_S:g} s")
        time.sleep(pause_s)


# --- from an endpoint to the farthest kernel --------------------------------------------------------------------------


@dataclass(slots=True)
class Arrival:
    """Watches one kernel for routes of BIRD's."""

    namespace: str

    async def after(self, destination: Prefix, change: Callable[[], Awaitable[object]]) -> float:
        """Milliseconds from the beginning of the change until the kernel has the route."""
        events = netns.run_in(self.namespace, lambda: open_events(Watch.ROUTES, route_protocols=(BIRD_ROUTES,)))
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[float] = loop.create_future()

        def on_news() -> None:
            for event in events.read():
                if isinstance(event, RouteEvent) and not event.gone and event.route.destination == destination and not arrived.done():
                    arrived.set_result(time.monotonic())

        loop.add_reader(events.fileno(), on_news)
        try:
            begin = time.monotonic()
            await change()
            return (await asyncio.wait_for(arrived, WITHIN_S) - begin) * 1000
        finally:
            loop.remove_reader(events.fileno())
            events.close()


async def measure_far(software: str, runs: int) -> dict[str, Figures]:
    """Endpoints and single routes of NEAR, seen by FAR."""
    await lab_down(NAME)
    lab = await lab_up(topology_with(software), progress=lambda step: print(f"{software}: {step}", file=sys.stderr))
    try:
        async with lab.store() as store:
            endpoint = [await endpoint_travels(lab, store, run) for run in range(runs)]
        await lab.stop(NEAR, AGENT)
        bare = [await route_travels(lab, run) for run in range(runs)]
    finally:
        await lab_down(NAME)
    return {
        f"far, {software}: endpoint to the farthest kernel": summarize(endpoint),
        f"far, {software}: baseline: ip route add to the farthest kernel": summarize(bare),
    }


async def endpoint_travels(lab: Lab, store: Datastore, run: int) -> float:
    """An endpoint is attached with an address of its neighbour's block, so that it has a route of its own, and goes again."""
    neighbours = next(target.addresses[0] for target in await lab.targets() if target.name == NEIGHBOUR)
    address = Prefix(IPV4, (neighbours.value | 63) - 2 - run, 32)
    namespace = namespace_of(lab.name, f"bench{run}")
    request = AttachRequest(
        workload=Workload(node=NEAR, workload=f"bench{run}", orchestrator="lab", namespace="shop"),
        netns=namespace,
        count4=1,
        count6=0,
        addresses=(address,),
        profiles=("shop",),
    )
    network = LinuxNetwork(namespace_of(lab.name, NEAR))
    netns.create(namespace)
    try:
        arrival = Arrival(namespace_of(lab.name, FAR))
        took = await arrival.after(address, lambda: attach(request, store, network=network))
        await detach(request.workload, store, network=network)
    finally:
        netns.delete(namespace)
    return took


async def route_travels(lab: Lab, run: int) -> float:
    """The route alone, out of an interface that has one already; no agent runs there to remove it again."""
    address = parse_address(f"10.65.202.{run + 1}")
    where = ["ip", "-n", namespace_of(lab.name, NEAR)]
    known = json.loads(await run_command([*where, "-j", "-4", "route", "show", "proto", "84"]))
    route = ["route", "add", str(address), "dev", known[0]["dev"], "proto", "84"]
    took = await Arrival(namespace_of(lab.name, FAR)).after(address, lambda: run_command([*where, *route]))
    await run_command([*where, "route", "del", str(address)])
    return took


# --- BIRDs beside each other ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Side:
    """A namespace with a BIRD."""

    namespace: str
    home: Path
    address: Prefix
    """On ``eth0``, in a /16."""
    process: subprocess.Popen[bytes] | None = None
    driver: BgpDriver = field(init=False)

    def __post_init__(self) -> None:
        self.driver = BgpDriver(self.home / "bird.conf", BirdControl(self.home / "bird.ctl"), BgpOptions(), check_with())

    def start(self, text: str = "router id 192.0.2.9;\nprotocol device tb_device { scan time 10; }\n") -> None:
        """BIRD runs with this configuration."""
        (self.home / "bird.conf").write_text(text)
        argv = bird_command("/usr/sbin/bird", self.home / "bird.conf", self.home / "bird.ctl", self.home / "bird.pid", recover=False)
        with (self.home / "bird.log").open("ab") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", self.namespace, *argv], stdout=log, stderr=log)
        wait(self.driver.control.is_running, "BIRD starts")

    def stop(self) -> None:
        """No BIRD runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def established(self) -> dict[str, float]:
        """Since when, in seconds of the epoch, by session; only of those that are up."""
        try:
            sessions = self.driver.control.sessions()
        except BirdError:
            return {}
        up = [session for session in sessions if session.state is SessionState.ESTABLISHED]
        return {session.name: datetime.fromisoformat(session.since).timestamp() for session in up}

    def facts(self) -> HostFacts:
        """What an agent would read of this namespace."""
        return HostFacts((InterfaceAddress("eth0", self.address, 16),))


@contextmanager
def two_sides() -> Iterator[tuple[Side, Side]]:
    """Two namespaces with a cable, and in each an interface ``tb0`` for routes to workloads."""
    tag = f"tbrt{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix=tag) as directory:
        sides = []
        for number in (1, 2):
            home = Path(directory) / str(number)
            home.mkdir()
            sides.append(Side(f"{tag}-{number}", home, parse_address(f"10.9.{number}.1")))
        one, two = sides
        try:
            for side in sides:
                netns.create(side.namespace)
                script = "".join(f"echo {value} > /proc/sys/{path}\n" for path, value in SYSCTLS.items())
                subprocess.run(["ip", "netns", "exec", side.namespace, "sh", "-ec", script], check=True)
            pair = f"link add eth0 index 10 netns {one.namespace} type veth peer name eth0 index 11 netns {two.namespace}"
            subprocess.run(["ip", *pair.split()], check=True)
            for side in sides:
                workloads = "link add tb0 type veth peer name tb1\nlink set tb0 up\nlink set tb1 up\n"
                ip_batch(side.namespace, f"link set lo up\naddr add {side.address.address}/16 dev eth0\nlink set eth0 up\n{workloads}")
            yield one, two
        finally:
            for side in sides:
                side.stop()
                if netns.exists(side.namespace):
                    netns.delete(side.namespace)


def ip_batch(namespace: str, commands: str) -> None:
    """ip(8) in the namespace."""
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=commands, text=True, check=True)


def many(count: int) -> list[Prefix]:
    """So many addresses in no host's block."""
    first = parse_address("10.65.128.0").value
    return [Prefix(IPV4, first + number, 32) for number in range(count)]


def resources(*sides: Side) -> RoutingFacts:
    """A mesh of the sides."""
    found = RoutingFacts()
    found.pools["v4"] = r.IPPoolSpec(cidr="10.65.0.0/16")
    for number, side in enumerate(sides, 1):
        found.nodes[f"h{number}"] = r.Node(spec=r.NodeSpec(bgp=r.NodeBgp(ipv4_address=f"{side.address.address}/16")))
        found.blocks[f"h{number}"] = {parse_prefix(f"10.65.{number}.0/26")}
    return found


def configure(side: Side, name: str, facts: RoutingFacts) -> None:
    """The side's BIRD does what the resources say.

    Raises:
        BirdError: it does not.
    """
    intent, _ = bgp_intent(name, facts)
    if error := side.driver.apply(intent, side.facts()).error:
        raise BirdError(error)
    # As the agent does. BIRD 2.0 does ten pieces of pending work at a time and may then sleep until a timer or a question wakes it.
    side.driver.sessions()
    side.driver.control.status()


def measure_bulk(count: int, runs: int) -> dict[str, Figures]:
    """Routes come and go between two hosts of a mesh."""
    with two_sides() as (one, two):
        facts = resources(one, two)
        for number, side in enumerate((one, two), 1):
            side.start()
            configure(side, f"h{number}", facts)
        wait(lambda: len(one.established()) == len(two.established()) == 1, "the session comes up")
        near, far = (netns.run_in(side.namespace, open_rtnetlink) for side in (one, two))
        index = next(link.index for link in near.links() if link.name == "tb0")
        driver = RouteDriver(near)
        driver.apply()
        steady = len(far.routes(protocol=BIRD_ROUTES))
        announced, withdrawn, own = [], [], []
        for _ in range(runs):
            begin = time.monotonic()
            for destination in many(count):
                driver.want(destination, index)
            driver.apply()
            own.append((time.monotonic() - begin) * 1000)
            wait(lambda: len(far.routes(protocol=BIRD_ROUTES)) == steady + count, "all routes arrive", 0.02)
            announced.append((time.monotonic() - begin) * 1000)
            begin = time.monotonic()
            for destination in many(count):
                driver.unwant(destination)
            driver.apply()
            wait(lambda: len(far.routes(protocol=BIRD_ROUTES)) == steady, "all routes go", 0.02)
            withdrawn.append((time.monotonic() - begin) * 1000)
        batch = [measure_batch(one, count) for _ in range(runs)]
        static = [measure_static(one, two, count) for _ in range(runs)]
        near.close()
        far.close()
    return {
        f"bulk: {count} routes, agent's driver to its own kernel": summarize(own),
        f"bulk: {count} routes announced and installed": summarize(announced),
        f"bulk: {count} routes withdrawn and removed": summarize(withdrawn),
        f"bulk: baseline: ip -batch adds {count} routes": summarize(batch),
        f"bulk: baseline: BIRD static, {count} announced and installed": summarize(static),
    }


def measure_batch(side: Side, count: int) -> float:
    """ip(8) adds the routes to one kernel, which nobody announces; they are removed again."""
    lines = [f"{destination} dev tb0 proto 99\n" for destination in many(count)]
    begin = time.monotonic()
    ip_batch(side.namespace, "".join(f"route add {line}" for line in lines))
    took = (time.monotonic() - begin) * 1000
    ip_batch(side.namespace, "route flush proto 99\n")
    return took


def measure_static(one: Side, two: Side, count: int) -> float:
    """BIRD has the routes in its configuration and tells them to the other; without any intent before and after."""
    text = (one.home / "bird.conf").read_text()
    statics = "".join(f"  route {destination} unreachable;\n" for destination in many(count))
    far = netns.run_in(two.namespace, open_rtnetlink)
    steady = len(far.routes(protocol=BIRD_ROUTES))
    try:
        # Named as the services' protocol: announced and not installed.
        (one.home / "bird.conf").write_text(f"{text}protocol static tb_services4 {{\n  ipv4;\n{statics}}}\n")
        begin = time.monotonic()
        one.driver.control.configure()
        wait(lambda: len(far.routes(protocol=BIRD_ROUTES)) == steady + count, "all static routes arrive", 0.02)
        took = (time.monotonic() - begin) * 1000
        (one.home / "bird.conf").write_text(text)
        one.driver.control.configure()
        wait(lambda: len(far.routes(protocol=BIRD_ROUTES)) == steady, "all static routes go", 0.02)
    finally:
        far.close()
    return took


# --- many peerings ------------------------------------------------------------------------------------------------------


def peer_address(number: int) -> str:
    return f"10.9.3.{number + 1}"


def neighbours_text() -> str:
    """A BIRD that is PEERS + OTHERS neighbours, each with an address and a table of its own."""
    lines = ["router id 10.9.2.1;", "protocol device { scan time 10; }"]
    for number in range(PEERS + OTHERS):
        lines += [
            f"ipv4 table t{number};",
            # BIRD runs one session with an address and port: those to which nobody connects make the difference.
            f"protocol bgp p{number} {{ local {peer_address(number)} as {65100 + number}; neighbor 10.9.1.1 port {1000 + number} as 64512;",
            "  direct; passive; graceful restart on;",
            f"  ipv4 {{ table t{number}; import all; export none; }};",
            "}",
        ]
    return "\n".join(lines) + "\n"


def measure_peers(runs: int) -> dict[str, Figures]:
    """The filter of PEERS sessions changes to and fro."""
    with two_sides() as (one, two):
        ip_batch(two.namespace, "".join(f"addr add {peer_address(number)}/16 dev eth0\n" for number in range(PEERS + OTHERS)))
        facts = resources(one)
        facts.configurations["default"] = r.BGPConfigurationSpec(node_to_node_mesh_enabled=False)
        for community in (1, 2):
            operation = r.FilterOperation(add_community=r.AddCommunity(value=f"65000:{community}"))
            rule = r.FilterRuleV4(action="Accept", cidr="10.65.0.0/16", match_operator="In", operations=(operation,))
            facts.filters[f"mark{community}"] = r.BGPFilterSpec(export_v4=(rule,))
        set_filters(facts, "mark1")
        two.start(neighbours_text())
        one.start()
        configure(one, "h1", facts)
        wait(lambda: len(one.established()) == PEERS + OTHERS, "the sessions come up", 0.1)
        wait_marked(two, 1)
        before = one.established()
        applied, seen, checked = [], [], []
        for run in range(runs):
            community = 2 - run % 2
            set_filters(facts, f"mark{community}")
            begin = time.monotonic()
            configure(one, "h1", facts)
            applied.append((time.monotonic() - begin) * 1000)
            wait_marked(two, community)
            seen.append((time.monotonic() - begin) * 1000)
            now = one.established()
            if changed := [name for name, since in before.items() if abs(now.get(name, 0.0) - since) > CLOCKS_DIFFER_S]:
                raise BirdError(f"sessions went down although only a filter changed: {changed}")
            checked.append(measure_check(one, facts))
    return {
        f"peers: {PEERS} of {PEERS + OTHERS} sessions, call": summarize(applied),
        f"peers: {PEERS} of {PEERS + OTHERS} sessions, in force at every neighbour": summarize(seen),
        "peers: baseline: rendered and checked by bird -p": summarize(checked),
    }


def set_filters(facts: RoutingFacts, name: str) -> None:
    for number in range(PEERS + OTHERS):
        filters = (name,) if number < PEERS else ()
        spec = r.BGPPeerSpec(peer_ip=peer_address(number), as_number=65100 + number, filters=filters, failure_detection_mode="None")
        facts.peers[f"p{number}"] = r.BGPPeer(spec=spec)


def marked(side: Side, community: int) -> int:
    """How many neighbours have the block with this community."""
    lines = side.driver.control.ask("show route table all where bgp_community ~ [(65000, " + str(community) + ")] count")
    return sum(int(line.text.split()[0]) for line in lines if " of " in line.text and "in table t" in line.text)


def wait_marked(side: Side, community: int) -> None:
    """All changed neighbours have it."""
    wait(lambda: marked(side, community) == PEERS, "the filter is in force", 0.01)


def measure_check(side: Side, facts: RoutingFacts) -> float:
    """The same text once more, without loading it."""
    candidate = side.home / "candidate.conf"
    begin = time.monotonic()
    intent, _ = bgp_intent("h1", facts)
    candidate.write_text(render_config(intent, side.facts(), BgpOptions()))
    check_with()(candidate)
    return (time.monotonic() - begin) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="of single endpoints (default: %(default)s)")
    parser.add_argument("--bulk-runs", type=int, default=5, help="of bulk and of peers (default: %(default)s)")
    parser.add_argument("--routes", type=int, default=ROUTES, help="in bulk (default: %(default)s)")
    parser.add_argument("--part", choices=("far", "bulk", "peers"), action="append", help="only this (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    parts = arguments.part or ["far", "bulk", "peers"]
    results: dict[str, Figures] = {}
    if "bulk" in parts:
        results |= measure_bulk(arguments.routes, arguments.bulk_runs)
    if "peers" in parts:
        results |= measure_peers(arguments.bulk_runs)
    if "far" in parts:
        for software in ("bird", "frr"):
            results |= asyncio.run(measure_far(software, arguments.runs))
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for what, figures in results.items():
        print(f"{what:64} median {figures['median']:9.1f} ms   worst {figures['worst']:9.1f} ms   of {figures['runs']}")


if __name__ == "__main__":
    main()
