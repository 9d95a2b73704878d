"""A real containerd on a ``CniHost``, with roots, sockets and mounts of its own; and whom to ask for pods.

No image is pulled: the only one, with a static busybox, is imported. What containerd starts is ended by its process number.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni_host import DEADLINE_S, CniHost
from cri import Cri
from docker_host import busybox_tar, wait_for

from tabinet.attach.cni.install import install_network, network_list

PROGRAMS = ("containerd", "ctr", "runc", "busybox")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
IMAGE = "tabinet.test/box:1"
NETWORK = "fabric"
_CONFIG = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
netns_mounts_under_state_dir = true
disable_apparmor = true
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{directory}/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
"""
_PREPARE = (
    "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /opt"
    " && mount -t tmpfs tmpfs /etc/cni && mkdir -p /opt/cni/bin /etc/cni/net.d"
    " && cp {plugins}/* /opt/cni/bin && cp {directory}/net.d/* /etc/cni/net.d && exec sleep infinity"
)


def image_tar(name: str = IMAGE, entrypoint: tuple[str, ...] = ("/bin/sleep",)) -> bytes:
    """An image with one layer, in Docker's form."""
    layer = busybox_tar()
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Cmd": ["600"] if entrypoint else ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


@dataclass(slots=True)
class ContainerdHost:
    """Close it."""

    host: CniHost
    directory: Path
    network: dict[str, Any] | None = None
    """The network's configuration; None: as ``tabinet cni install`` writes it."""
    mounts: subprocess.Popen[bytes] | None = None
    daemon: subprocess.Popen[bytes] | None = None
    cri: Cri | None = None

    @property
    def log(self) -> Path:
        return self.directory / "containerd.log"

    def open(self) -> None:
        """Host, agent and containerd run, and there is an image."""
        self.directory.mkdir(parents=True)
        self.host.directory.mkdir(parents=True)
        self.host.open()
        for name in ("loopback",):
            shutil.copy(f"/usr/lib/cni/{name}", self.host.plugins)
        install_network(self.directory / "net.d", self.network or network_list(NETWORK, portmap=False))
        config = _CONFIG.format(directory=self.directory, image=IMAGE, plugins=self.host.plugins)
        (self.directory / "config.toml").write_text(config)
        self.mounts = subprocess.Popen(["unshare", "-m", "sh", "-c", _PREPARE.format(plugins=self.host.plugins, directory=self.directory)])
        wait_for(lambda: Path(f"/proc/{self._mounts()}/comm").read_text().strip() == "sleep", "the mounts of containerd")
        with self._entered() as enter, self.log.open("ab") as log:
            argv = [*enter, "containerd", "--config", f"{self.directory}/config.toml", "--log-level", "warn"]
            self.daemon = subprocess.Popen(argv, stdout=log, stderr=log, pass_fds=[_descriptor(enter)])
        wait_for(lambda: self.ctr("version", check=False).returncode == 0, "containerd", self.log)
        self.cri = Cri.open(f"{self.directory}/containerd.sock", IMAGE, f"{self.directory}/logs")
        (self.directory / "image.tar").write_bytes(image_tar())
        for namespace in ("default", "k8s.io"):
            self.ctr("-n", namespace, "images", "import", "--snapshotter", "native", f"{self.directory}/image.tar")

    def close(self) -> None:
        if self.cri is not None:
            self.cri.close()
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(DEADLINE_S)
        for number in self.processes() if self.mounts is not None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if self.mounts is not None:
            self.mounts.kill()
            self.mounts.wait(DEADLINE_S)
        self.host.close()

    def _mounts(self) -> int:
        assert self.mounts is not None
        return self.mounts.pid

    @contextlib.contextmanager
    def _entered(self) -> Iterator[list[str]]:
        """What comes before a program in containerd's mounts and the host's network namespace."""
        descriptor = os.open(f"/run/netns/{self.host.namespace}", os.O_RDONLY)
        try:
            yield ["nsenter", f"--mount=/proc/{self._mounts()}/ns/mnt", f"--net=/proc/self/fd/{descriptor}"]
        finally:
            os.close(descriptor)

    def processes(self) -> list[int]:
        """What is in containerd's mounts, but for who holds them, and the containers that such a process started."""
        mine = os.stat(f"/proc/{self._mounts()}/ns/mnt").st_ino
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and int(entry.name) != self._mounts() and os.stat(entry / "ns" / "mnt").st_ino == mine:
                    children = (entry / "task" / entry.name / "children").read_text().split()
                    found += [int(entry.name), *map(int, children)]
        return found

    def ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        with self._entered() as enter:
            argv = [*enter, "ctr", "-a", f"{self.directory}/containerd.sock", *arguments]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, pass_fds=[_descriptor(enter)], check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.stderr}{self.log.read_text()[-2000:]}"
        return done


def _descriptor(enter: list[str]) -> int:
    return int(enter[-1].rpartition("/")[2])
