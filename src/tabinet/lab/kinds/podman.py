"""A podman container as a workload: ``kind: podman``. Podman attaches it through its CNI backend and our plugins."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tabinet.attach.cni.install import network_list, render_program
from tabinet.attach.cni.protocol import IPAM_PLUGIN, PLUGIN
from tabinet.lab.component import Component
from tabinet.lab.kinds.containers import APPLETS, DIRECTORIES, SLEEP, control_group, lacking, name_namespace, network_of, wait_addresses
from tabinet.lab.kinds.facts import PODMAN
from tabinet.lab.kinds.kind import NAME_LABEL, START_TIMEOUT_S, Endpoint, Session, Site, has_name
from tabinet.lab.kinds.mounts import holder, run_inside
from tabinet.lab.routers import RouterFile
from tabinet.lab.topology import Topology, Workload
from tabinet.lab.vm import BUSYBOX
from tabinet.lib.ip import IPV4, IPV6
from tabinet.model.keys import ResourceKey

_OWN = ("/run", "/var/lib", "/dev/shm")
"""Podman keeps namespaces, state and locks there."""
_PREPARE = """\
chmod 755 {bin}/*
for name in {directories}; do mkdir -p {root}/$name; done
cp {busybox} {root}/bin/busybox
for name in {applets}; do ln -sf busybox {root}/bin/$name; done
"""
_CONTAINERS_CONF = """\
[network]
network_backend = "cni"
cni_plugin_dirs = ["{directory}/bin"]
network_config_dir = "{directory}/net.d"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
conmon_path = ["{conmon}"]
[engine.runtimes]
runc = ["{runc}"]
"""
_STORAGE_CONF = """\
[storage]
driver = "vfs"
runroot = "{directory}/run"
graphroot = "{directory}/graph"
"""


@dataclass(frozen=True, slots=True)
class PodmanKind:
    """Podman has no daemon: what runs beside the containers is only what holds its mounts."""

    def missing(self) -> list[str]:
        found = lacking(("podman", "conmon", "runc"))
        return [f"containers of podman need {', '.join(found)}: run 'scripts/setup-runtimes'"] if found else []

    def settings(self, site: Site) -> str:
        return ""

    def components(self, site: Site) -> Sequence[Component]:
        workloads = site.workloads(PODMAN)
        if not workloads:
            return ()
        directory = _directory(site)
        script = _PREPARE.format(
            bin=directory / "bin", root=directory / "root", directories=" ".join(DIRECTORIES), applets=" ".join(APPLETS), busybox=BUSYBOX
        )
        return [holder(site, PODMAN, _OWN, script, _files(site, workloads))]

    async def attach(self, site: Site, session: Session, workload: Workload) -> None:
        pid_file = _directory(site) / f"{workload.name}.pid"
        argv = [
            *("run", "-d", "--name", workload.name, "--network", network_of(workload), "--pidfile", str(pid_file)),
            *("--cgroup-parent", control_group(site), "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"),
            *("--rootfs", str(_directory(site) / "root"), *SLEEP),
        ]
        labels = ",".join(f"{key}={value}" for key, value in (workload.labels | {NAME_LABEL: workload.name}).items())
        await _podman(site, argv, f"CNI_ARGS=LABELS={labels}")
        await name_namespace(site, workload, pid_file.read_text().strip())

    async def wait(self, site: Site, workload: Workload) -> None:
        await wait_addresses(site, workload, f"{PODMAN}-mounts")

    def is_endpoint(self, site: Site, workload: Workload, key: ResourceKey, endpoint: Endpoint) -> bool:
        return has_name(workload, endpoint)

    def prober_socket(self, site: Site, workload: Workload) -> str:
        return ""


def _directory(site: Site) -> Path:
    return site.node / PODMAN


def _files(site: Site, workloads: Sequence[Workload]) -> list[RouterFile]:
    """Podman's configuration, our plugins, and a network for each workload."""
    directory, plugin = _directory(site), render_program(str(site.node / "deletions"))
    conf = _CONTAINERS_CONF.format(directory=directory, conmon=shutil.which("conmon") or "conmon", runc=shutil.which("runc") or "runc")
    return [
        RouterFile(f"{PODMAN}/containers.conf", conf),
        RouterFile(f"{PODMAN}/storage.conf", _STORAGE_CONF.format(directory=directory)),
        *(RouterFile(f"{PODMAN}/bin/{name}", plugin) for name in (PLUGIN, IPAM_PLUGIN)),
        *(RouterFile(f"{PODMAN}/net.d/10-{network_of(each)}.conflist", _network(site.plan.topology, each)) for each in workloads),
    ]


def _network(topology: Topology, workload: Workload) -> str:
    families = {pool.family for pool in topology.pools}
    document = network_list(network_of(workload), ipv4=IPV4 in families, ipv6=IPV6 in families, portmap=False)
    document["plugins"][0]["profiles"] = list(workload.profiles)
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


async def _podman(site: Site, arguments: Sequence[str], *variables: str) -> str:
    directory = _directory(site)
    environment = [f"CONTAINERS_CONF={directory}/containers.conf", f"CONTAINERS_STORAGE_CONF={directory}/storage.conf", *variables]
    return await run_inside(site, PODMAN, ["env", *environment, "podman", *arguments], START_TIMEOUT_S)
