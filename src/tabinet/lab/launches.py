"""What runs in a lab: for each node its components, their files and command lines.

In: a ``Plan`` and the lab's directory. Out: ``Component`` records in the order in which they are to be started. Pure, O(nodes). Nothing is
written or started here (see ``tabinet.lab.lab``). What runs for a workload is its kind's affair (``tabinet.lab.kinds``).
"""

from __future__ import annotations

import sys

import msgspec

from tabinet.lab.component import Component
from tabinet.lab.frr import FRR_DIRECTORY
from tabinet.lab.kinds.kind import Site
from tabinet.lab.kinds.known import KINDS, asks_guest_service
from tabinet.lab.plan import ETCD_PORT, MANAGEMENT, HostPlan, Plan, etcd_address, namespace_of
from tabinet.lab.processes import Launch
from tabinet.lab.routers import BIRD_PROGRAM, RouterFile, RouterSpec, Software, daemons, render_router
from tabinet.lab.state import LabDirectory

ETCD = "etcd"
BIRD = "bird"
AGENT = "agent"
GUEST = "guest"
"""The guest service; only on hosts whose workloads ask it for their addresses."""
REPORT_INTERVAL_S = 5.0
REPORT_TTL_S = 15.0
ETCD_PROGRAM = "/usr/bin/etcd"


def components(plan: Plan, directory: LabDirectory) -> tuple[Component, ...]:
    """All components of a lab: etcd, the routers' daemons, the hosts' BIRDs, the agents, then what runs for workloads."""
    routers = [component for spec in plan.routers for component in _router(plan, spec, directory)]
    birds = [_bird(plan, host, directory) for host in plan.hosts]
    agents = [_agent(plan, host, directory) for host in plan.hosts]
    return (_etcd(plan, directory), *routers, *birds, *agents, *_for_workloads(plan, directory))


def components_of(plan: Plan, directory: LabDirectory, node: str) -> tuple[Component, ...]:
    """The components of one node, in start order."""
    return tuple(component for component in components(plan, directory) if component.node == node)


def _launch(plan: Plan, directory: LabDirectory, node: str, component: str, argv: tuple[str, ...]) -> Launch:
    return Launch(
        node=node,
        component=component,
        argv=argv,
        namespace=namespace_of(plan.name, node),
        directory=directory.node(node),
        log=directory.log(node, component),
    )


def _etcd(plan: Plan, directory: LabDirectory) -> Component:
    """etcd serves the hosts over the management segment, and commands on this machine over a unix socket in the lab's directory."""
    url = f"http://{etcd_address()}:{ETCD_PORT}"
    argv = (
        ETCD_PROGRAM,
        *("--name", plan.name, "--data-dir", str(directory.node(MANAGEMENT) / "etcd")),
        *("--listen-client-urls", f"{url},unix://{directory.etcd_socket.name}", "--advertise-client-urls", url),
        *("--logger", "zap", "--log-outputs", "stderr"),
    )
    launch = msgspec.structs.replace(_launch(plan, directory, MANAGEMENT, ETCD, argv), directory=directory.path)
    return Component(launch=launch, restart_argv=argv, socket=str(directory.etcd_socket))


def _router(plan: Plan, spec: RouterSpec, directory: LabDirectory) -> list[Component]:
    found = []
    files = render_router(spec)
    for command in daemons(spec, directory.node(spec.name)):
        launch = _launch(plan, directory, spec.name, command.name, command.argv)
        found.append(Component(launch=launch, restart_argv=command.restart_argv, socket=command.socket, files=files))
        files = ()
    return found


def _bird(plan: Plan, host: HostPlan, directory: LabDirectory) -> Component:
    node = directory.node(host.name)
    argv = (
        BIRD_PROGRAM,
        "-f",
        *("-c", str(node / "bird.conf"), "-s", str(node / "bird.ctl"), "-P", str(node / "bird.pid")),
    )
    launch = _launch(plan, directory, host.name, BIRD, argv)
    return Component(launch=launch, restart_argv=(*argv, "-R"), socket=str(node / "bird.ctl"), files=(_first_bird_file(host),))


def _first_bird_file(host: HostPlan) -> RouterFile:
    """BIRD runs before the agent knows what it should do: with no session and no route.

    Router id and device protocol are as the agent will write them: a new device protocol would look at the interfaces only when its scan
    time has passed, ten seconds later (BIRD 2.0), and a changed router id would restart everything.
    """
    router_id = host.addresses[0].address.address
    return RouterFile("bird.conf", f"log stderr all;\nrouter id {router_id};\nprotocol device tb_device {{ scan time 10; }}\n")


def _agent(plan: Plan, host: HostPlan, directory: LabDirectory) -> Component:
    node = directory.node(host.name)
    # The agent with its companions, so that container runtimes can be used on a lab's host.
    argv = (sys.executable, "-m", "tabinet.cli.main", "agent", "--config", str(node / "agent.toml"))
    files = (RouterFile("agent.toml", render_agent_file(plan, host, directory)),)
    return Component(
        launch=_launch(plan, directory, host.name, AGENT, argv), restart_argv=argv, socket=str(node / "http.sock"), files=files
    )


def _for_workloads(plan: Plan, directory: LabDirectory) -> list[Component]:
    found = []
    for site in _sites(plan, directory):
        if asks_guest_service(site):
            argv = (sys.executable, "-m", "tabinet.cli.main", "guest", "--config", str(site.node / "agent.toml"))
            found.append(site.component(GUEST, argv, late=True))
        found += [component for kind in KINDS.values() for component in kind.components(site)]
    return found


def _sites(plan: Plan, directory: LabDirectory) -> list[Site]:
    return [Site(plan, directory, host.name) for host in plan.hosts]


def render_agent_file(plan: Plan, host: HostPlan, directory: LabDirectory) -> str:
    """The agent's configuration (TOML)."""
    node = directory.node(host.name)
    bfd = plan.topology.bfd
    site = Site(plan, directory, host.name)
    return (
        f"[agent]\nhost = {_quoted(host.name)}\nrun_dir = {_quoted(node)}\nhttp_address = {_quoted(f'unix:{node}/http.sock')}\n\n"
        f'[store]\nkind = "etcd"\nendpoints = ["http://{etcd_address()}:{ETCD_PORT}"]\n\n'
        f"[bird]\nconfig = {_quoted(node / 'bird.conf')}\nsocket = {_quoted(node / 'bird.ctl')}\n"
        f"bfd_interval_ms = {bfd.interval_ms}\nbfd_multiplier = {bfd.multiplier}\n\n"
        f"[cni]\ndeletions = {_quoted(node / 'deletions')}\n\n[clerk]\nenabled = false\n\n"
        # Here and not in FelixConfiguration, whose change would make every agent start anew in the middle of the lab's own start.
        f"[felix]\nreporting_interval_s = {REPORT_INTERVAL_S}\nreporting_ttl_s = {REPORT_TTL_S}\n"
        + "".join(kind.settings(site) for kind in KINDS.values())
    )


def render_client_file(directory: LabDirectory) -> str:
    """The configuration (TOML) with which ``tabinet get`` and the others find the lab's store."""
    return f'[store]\nkind = "etcd"\nendpoints = [{_quoted(f"unix://{directory.etcd_socket}")}]\n'


def _quoted(value: object) -> str:
    """A basic string of TOML; paths and names of a lab have no characters to escape but these."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def programs_needed(plan: Plan) -> tuple[str, ...]:
    """Absolute paths, or names to be found in PATH, of all programs that the lab runs."""
    frr = {spec.name for spec in plan.routers if spec.software is Software.FRR}
    programs = [
        # FRR's daemons are started through another program.
        f"{FRR_DIRECTORY}/{component.name}" if component.node in frr else component.launch.argv[0]
        for component in components(plan, LabDirectory(plan.name))
    ]
    return tuple(dict.fromkeys(["ip", "nsenter", "nft", *programs]))
