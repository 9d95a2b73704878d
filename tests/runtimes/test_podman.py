"""Real podman with its CNI backend, our plugins and a real agent. Skipped where podman is not installed: Tabinet does not need it.

No image is pulled: containers run from a directory with a static busybox (``podman run --rootfs``). To try it without installing anything,
unpack Debian's podman, conmon, runc and busybox-static somewhere and put their directories into PATH and LD_LIBRARY_PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cni_host import DEADLINE_S, NOTHING, CniHost

from tabinet.attach.cni.install import install_network, network_list

PROGRAMS = ("podman", "conmon", "runc", "busybox")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
POLICY = (
    "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: web}, spec: "
    "{selector: app == 'web', types: [Ingress], ingress: [{action: Allow, source: {selector: app == 'client'}}]}}"
)

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]


@dataclass(slots=True)
class Podman:
    """Podman on a host, with storage of its own."""

    host: CniHost
    directory: Path

    def prepare(self) -> None:
        """Configuration, a network, and a root directory for containers are there."""
        self.directory.mkdir()
        (self.directory / "containers.conf").write_text(
            f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{self.host.plugins}"]\n'
            f'network_config_dir = "{self.directory}/net.d"\ndefault_network = "fabric"\n'
            f'[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nconmon_path = ["{shutil.which("conmon")}"]\n'
            f'[engine.runtimes]\nrunc = ["{shutil.which("runc")}"]\n'
        )
        (self.directory / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{self.directory}/run"\ngraphroot = "{self.directory}/graph"\n'
        )
        install_network(self.directory / "net.d", network_list("fabric", ipv6=True, portmap=False))
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            (self.root / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", self.root / "bin" / "busybox")
        for name in ("sleep", "ping", "ip"):
            (self.root / "bin" / name).symlink_to("busybox")

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def __call__(self, *arguments: str, labels: str = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
            "CNI_ARGS": f"LABELS={labels}" if labels else "",
        }
        argv = self.host.inside("podman", *arguments)
        return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, env=environment, check=False)

    def run(self, name: str, *options: str, labels: str = "") -> None:
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
        command = ("run", "-d", "--name", name, "--network", "fabric", *options, *limits, "--rootfs", str(self.root), "sleep", "600")
        done = self(*command, labels=labels)
        assert done.returncode == 0, done.stderr

    def reaches(self, source: str, address: str) -> bool:
        return self("exec", source, "ping", "-c", "1", "-W", "1", address).returncode == 0


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    host = CniHost(tmp_path / "host")
    host.directory.mkdir()
    made = Podman(host, tmp_path / "podman")
    try:
        host.open()
        made.prepare()
        yield made
    finally:
        made("rm", "-af", "-t", "0")
        host.close()


def test_containers_of_podman_under_policy(podman: Podman) -> None:
    policy = podman.directory / "policy.yaml"
    policy.write_text(POLICY)
    podman.host.tabinet("apply", "-f", str(policy))
    podman.run("web", "--ip", "10.65.7.7", "--mac-address", "02:00:00:00:00:77", labels="app=web")
    podman.run("client", labels="app=client")
    podman.run("other")
    assert podman.reaches("client", "10.65.7.7")
    assert not podman.reaches("other", "10.65.7.7")
    spec = next(item["spec"] for item in podman.host.endpoints() if item["spec"]["ipNetworks"][0] == "10.65.7.7/32")
    assert spec["mac"] == "02:00:00:00:00:77"
    restarted = podman("restart", "-t", "0", "client")
    assert restarted.returncode == 0, restarted.stderr
    assert podman("rm", "-f", "-t", "0", "web", "client", "other").returncode == 0
    assert podman.host.leftovers() == NOTHING
