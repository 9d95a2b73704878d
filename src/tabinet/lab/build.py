"""Makes and removes the network namespaces of a lab, with their cables, addresses and sysctls.

In: a ``Plan``. Out: kernel objects, all of them in namespaces named ``tl-<lab>-<node>``: the machine's own namespace gets no interface,
route or rule. What to run is rendered by pure functions as batches of ip(8); ``build`` runs them, a few namespaces at a time. O(n) in nodes
and cables: about 20 ms of CPU for each namespace, most of it the kernel's.

Order matters: namespaces and their sysctls first, so that every interface is born with them (``keep_addr_on_down`` and ``accept_dad`` are
copied from ``default`` when an interface appears).
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tabinet.errors import LabError
from tabinet.lab.kinds import port
from tabinet.lab.kinds.facts import TAP, VM
from tabinet.lab.plan import BRIDGE, MANAGEMENT, End, NodeKind, NodePlan, Plan, etcd_address, namespace_prefix
from tabinet.lab.together import together
from tabinet.lab.vm import tap_of

NETNS_DIRECTORY = Path("/run/netns")
"""Where ip-netns(8) keeps namespaces by name."""
_AT_ONCE = 4
_COMMAND_TIMEOUT_S = 30.0

SYSCTLS: dict[str, str] = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/fib_multipath_hash_policy": "1",
    "net/ipv6/fib_multipath_hash_policy": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/ignore_routes_with_linkdown": "1",
    "net/ipv4/conf/default/ignore_routes_with_linkdown": "1",
    "net/ipv6/conf/all/ignore_routes_with_linkdown": "1",
    "net/ipv6/conf/default/ignore_routes_with_linkdown": "1",
    "net/ipv6/conf/all/keep_addr_on_down": "1",
    "net/ipv6/conf/default/keep_addr_on_down": "1",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
}
"""Of routers and hosts. Without the linkdown ones a dead link black-holes; without ``keep_addr_on_down`` an IPv6 address goes with the
carrier; hash policy 1 spreads flows by their ports; duplicate address detection would delay every start by a second."""


_FIRST_INDEX = 10


def namespace_batch(plan: Plan) -> str:
    """ip(8) batch, for the machine's own namespace: all namespaces of the lab, but for those that container runtimes make."""
    return _lines(f"netns add {node.namespace}" for node in plan.nodes if node.kind is not NodeKind.CONTAINER)


def cable_batch(plan: Plan) -> str:
    """ip(8) batch: every cable, from namespace to namespace without ever being in the machine's own.

    No two ends have the same interface index: the kernel takes a pair with equal ones for one interface, and announces a loss of its
    carrier up to a second late.
    """
    where = {node.name: node.namespace for node in plan.nodes}
    return _lines(
        f"link add name {cable.a.interface} index {index} netns {where[cable.a.node]} type veth"
        f" peer name {cable.b.interface} index {index + 1} netns {where[cable.b.node]}"
        for index, cable in zip(itertools.count(_FIRST_INDEX, 2), plan.cables, strict=False)
    )


def node_batch(plan: Plan, node: NodePlan) -> str:
    """ip(8) batch, for the node's namespace: loopbacks, addresses, bridge ports, all up."""
    return _lines(_node_commands(plan, node))


def _node_commands(plan: Plan, node: NodePlan) -> Iterator[str]:
    yield "link set dev lo up"
    for address in node.loopbacks:
        yield f"addr add {address} dev lo"
    if node.kind is NodeKind.SEGMENT:
        # Without snooping, neighbour discovery works from the first packet on.
        yield f"link add name {BRIDGE} type bridge stp_state 0 mcast_snooping 0"
        yield f"link set dev {BRIDGE} up"
        if node.name == MANAGEMENT:
            yield f"addr add {etcd_address()}/24 dev {BRIDGE}"
    for end in ends_of(plan, node.name):
        for item in end.addresses:
            yield f"addr add {item} dev {end.interface}" + (" nodad" if item.address.family == 6 else "")
        master = f" master {BRIDGE}" if node.kind is NodeKind.SEGMENT else ""
        yield f"link set dev {end.interface}{master} up"
    for workload in plan.topology.workloads:
        if workload.kind == VM and workload.host == node.name:
            yield f"tuntap add dev {tap_of(workload.name)} mode tap"
        if workload.kind == TAP and workload.host == node.name:
            yield f"tuntap add dev {port.interface(plan.topology, workload)} mode tap"
        if workload.kind == TAP and workload.name == node.name:
            yield "tuntap add dev eth0 mode tap"
            yield f"link set dev eth0 address {port.mac(plan.topology, workload)} up"
    for subnet, gateway in node.ways:
        yield f"route add {subnet} via {gateway.address}"


def ends_of(plan: Plan, node: str) -> list[End]:
    """The ends of cables that are in a node."""
    return [end for cable in plan.cables for end in (cable.a, cable.b) if end.node == node]


def _lines(commands: Iterable[str]) -> str:
    return "".join(f"{command}\n" for command in commands)


async def build(plan: Plan) -> None:
    """All namespaces of the plan exist, are cabled, addressed and up.

    Raises:
        LabError: the kernel refused something; what was made so far stays (see ``remove_namespaces``).
    """
    await run(["ip", "-batch", "-"], namespace_batch(plan))
    routing = [node for node in plan.nodes if node.kind in (NodeKind.ROUTER, NodeKind.HOST)]
    await together((_set_sysctls(node.namespace) for node in routing), _AT_ONCE)
    await run(["ip", "-batch", "-"], cable_batch(plan))
    there = [node for node in plan.nodes if node.kind is not NodeKind.CONTAINER]
    await together((run(["ip", "-n", node.namespace, "-batch", "-"], node_batch(plan, node)) for node in there), _AT_ONCE)


async def _set_sysctls(namespace: str) -> None:
    # /proc/sys/net shows the network namespace of whoever looks, so a shell in the namespace writes to the right place.
    # No newline: Linux 6.1 takes only one byte of what is written to ipv6's ignore_routes_with_linkdown, and refuses the rest.
    script = "".join(f"printf {value} > /proc/sys/{path} || exit 1\n" for path, value in SYSCTLS.items())
    await run(in_namespace(namespace, ["sh"]), script)


def in_namespace(namespace: str, argv: list[str]) -> list[str]:
    """The command line that runs ``argv`` in a network namespace, leaving mounts and cgroups as they are; it keeps its process id."""
    return ["nsenter", f"--net={NETNS_DIRECTORY / namespace}", *argv]


async def run(argv: list[str], stdin: str = "", timeout_s: float = _COMMAND_TIMEOUT_S) -> str:
    """Standard output of a command that succeeded.

    Raises:
        LabError: it failed, or took longer than ``timeout_s``.
    """
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate(stdin.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise LabError(f"{' '.join(argv)}: no answer within {timeout_s:g} s") from None
    if process.returncode:
        text = errors.decode(errors="replace").strip() or f"exit code {process.returncode}"
        raise LabError(f"{' '.join(argv)}: {text}")
    return output.decode(errors="replace")


def lab_namespaces(lab: str) -> list[str]:
    """Names of all namespaces of a lab that exist now, whatever its topology was."""
    try:
        names = os.listdir(NETNS_DIRECTORY)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.startswith(namespace_prefix(lab)))


def known_labs(root: Path) -> list[str]:
    """Names of all labs of which anything is left: a directory below ``root``, or namespaces."""
    directories = {path.parent.name for path in root.glob("*/nodes")} | {path.parent.name for path in root.glob("*/state.json")}
    try:
        names = os.listdir(NETNS_DIRECTORY)
    except FileNotFoundError:
        names = []
    parts = [name.split("-") for name in names if name.startswith("tl-")]
    return sorted(directories | {each[1] for each in parts if len(each) > 2})


def processes_in(namespaces: Iterable[str]) -> list[int]:
    """Ids of all processes whose network namespace is one of these; O(processes of the machine)."""
    inodes = set()
    for name in namespaces:
        try:
            inodes.add((NETNS_DIRECTORY / name).stat().st_ino)
        except OSError:
            continue
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            if os.stat(f"/proc/{entry}/ns/net").st_ino in inodes:
                found.append(int(entry))
        except OSError:  # it ended meanwhile
            continue
    return found


async def remove_namespaces(names: Iterable[str]) -> None:
    """None of these namespaces exists; one that did not is no error."""
    batch = _lines(f"netns del {name}" for name in names if (NETNS_DIRECTORY / name).exists())
    if batch:
        await run(["ip", "-force", "-batch", "-"], batch)
