"""A Docker container as a workload: ``kind: docker``. Each host with such has a containerd and a dockerd, whose driver its agent is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabinet.lab.build import run
from tabinet.lab.component import Component
from tabinet.lab.kinds.containers import SLEEP, busybox_tar, control_group, lacking, name_namespace, network_of, wait_addresses
from tabinet.lab.kinds.facts import DOCKER
from tabinet.lab.kinds.kind import NAME_LABEL, START_TIMEOUT_S, Endpoint, Session, Site, has_name
from tabinet.lab.kinds.mounts import holder, inside
from tabinet.lab.routers import RouterFile
from tabinet.lab.topology import Workload
from tabinet.lib.ip import IPV6
from tabinet.model.keys import ResourceKey

DOCKERD = "dockerd"
CONTAINERD = "containerd"
_IMAGE = "lab"
_OWN = ("/run", "/var/lib")
_PREPARE = """\
mkdir -p {plugins} /run/docker/plugins
mount --bind {plugins} /run/docker/plugins
"""
_CONTAINERD_CONF = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
_API_VERSION = "DOCKER_API_VERSION=1.41"
"""What the oldest dockerd that is looked after speaks; a client may be newer."""


@dataclass(frozen=True, slots=True)
class DockerKind:
    """dockerd is kept apart from its containerd, as on a host with systemd: it may be killed and started without it."""

    def missing(self) -> list[str]:
        found = lacking(("dockerd", "docker", "containerd", "runc"))
        return [f"containers of Docker need {', '.join(found)}: run 'scripts/setup-runtimes'"] if found else []

    def settings(self, site: Site) -> str:
        if not site.workloads(DOCKER):
            return ""
        plugin, networks = _directory(site) / "plugins" / "tabinet.sock", _directory(site) / "networks"
        sockets = f'plugin_socket = "{plugin}"\napi_socket = "{_socket(site)}"\n'
        return f'\n[docker]\nenabled = true\n{sockets}networks = "{networks}"\n'

    def components(self, site: Site) -> Sequence[Component]:
        if not site.workloads(DOCKER):
            return ()
        directory = _directory(site)
        runtime = f"{directory}/containerd.sock"
        containerd = (
            *("containerd", "--config", f"{directory}/containerd.toml", "--address", runtime),
            *("--root", f"{directory}/root", "--state", f"{directory}/state"),
        )
        dockerd = (
            *("dockerd", "--containerd", runtime, "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"),
            *("--log-level=warn", "--live-restore", "--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent={control_group(site)}"),
            *("-H", f"unix://{_socket(site)}", "--data-root", f"{directory}/data", "--pidfile", f"{directory}/pid"),
        )
        files = [RouterFile(f"{DOCKER}/containerd.toml", _CONTAINERD_CONF)]
        return [
            holder(site, DOCKER, _OWN, _PREPARE.format(plugins=directory / "plugins"), files),
            site.component(CONTAINERD, inside(site, DOCKER, *containerd), socket=runtime, group=DOCKER),
            site.component(DOCKERD, inside(site, DOCKER, *dockerd), socket=str(_socket(site)), group=DOCKER),
        ]

    async def attach(self, site: Site, session: Session, workload: Workload) -> None:
        name, families = workload.name, {pool.family for pool in site.plan.topology.pools}
        # An image for each workload: several may be made at the same time.
        image = _directory(site) / f"{name}.tar"
        await asyncio.to_thread(image.write_bytes, busybox_tar())
        await _docker(site, "import", str(image), f"{_IMAGE}:{name}")
        image.unlink()
        ipv6 = ("--ipv6",) if IPV6 in families else ()
        profiles = ("-o", f"tabinet.profiles={','.join(workload.profiles)}")
        await _docker(site, "network", "create", "-d", "tabinet", "--ipam-driver", "tabinet", *ipv6, *profiles, network_of(workload))
        labels = [part for pair in (workload.labels | {NAME_LABEL: name}).items() for part in ("--label", "=".join(pair))]
        await _docker(site, "run", "-d", "--name", name, "--network", network_of(workload), *labels, f"{_IMAGE}:{name}", *SLEEP)
        await name_namespace(site, workload, await _docker(site, "inspect", "--format", "{{.State.Pid}}", name))

    async def wait(self, site: Site, workload: Workload) -> None:
        await wait_addresses(site, workload, DOCKERD)

    def is_endpoint(self, site: Site, workload: Workload, key: ResourceKey, endpoint: Endpoint) -> bool:
        return has_name(workload, endpoint)

    def prober_socket(self, site: Site, workload: Workload) -> str:
        return ""


def _directory(site: Site) -> Path:
    return site.node / DOCKER


def _socket(site: Site) -> Path:
    return _directory(site) / "docker.sock"


async def _docker(site: Site, *arguments: str) -> str:
    client = ["env", _API_VERSION, "docker", "-H", f"unix://{_socket(site)}", "--config", str(_directory(site))]
    return (await run([*client, *arguments], timeout_s=START_TIMEOUT_S)).strip()
