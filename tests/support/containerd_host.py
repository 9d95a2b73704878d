"""A real containerd on a ``CniHost``, with roots, sockets and mounts of its own; and calls of the Container Runtime Interface to it.

No image is pulled: the only one, with a static busybox, is imported. The requests are put together by hand from the field numbers of
Kubernetes' ``api.proto``, which are all that is needed of it here. What containerd starts is ended by its process number.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cni_host import DEADLINE_S, CniHost
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


def image_tar() -> bytes:
    """An image with one layer, in Docker's form."""
    layer = busybox_tar()
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sleep"], "Cmd": ["600"]},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


Field = tuple[int, Any]
"""Number, and a text, bytes, a whole number, or the fields of a message."""


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def encode(fields: Sequence[Field]) -> bytes:
    """The message (protobuf's wire format)."""
    made = b""
    for number, value in fields:
        if isinstance(value, int):
            made += _varint(number << 3) + _varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else encode(value)
            made += _varint(number << 3 | 2) + _varint(len(content)) + content
    return made


def decode(message: bytes) -> dict[int, list[Any]]:
    """Values by field number: whole numbers and bytes."""
    found: dict[int, list[Any]] = {}
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            octet = message[place]
            place += 1
            value |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                return value

    while place < len(message):
        key = varint()
        value: Any = varint()
        if key & 7 == 2:
            value, place = message[place : place + value], place + value
        found.setdefault(key >> 3, []).append(value)
    return found


def entries(number: int, values: dict[str, str]) -> list[Field]:
    """A map of texts."""
    return [(number, [(1, key), (2, value)]) for key, value in values.items()]


@dataclass(slots=True)
class Pod:
    """A pod that runs, with one container."""

    sandbox: str
    container: str
    address: str


@dataclass(slots=True)
class ContainerdHost:
    """Close it."""

    host: CniHost
    directory: Path
    network: dict[str, Any] | None = None
    """The network's configuration; None: as ``tabinet cni install`` writes it."""
    mounts: subprocess.Popen[bytes] | None = None
    daemon: subprocess.Popen[bytes] | None = None
    channel: grpc.Channel | None = None

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
        self.channel = grpc.insecure_channel(f"unix:{self.directory}/containerd.sock")
        (self.directory / "image.tar").write_bytes(image_tar())
        for namespace in ("default", "k8s.io"):
            self.ctr("-n", namespace, "images", "import", "--snapshotter", "native", f"{self.directory}/image.tar")

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
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

    # --- CRI

    def call(self, method: str, fields: Sequence[Field]) -> dict[int, list[Any]]:
        """The fields of what ``RuntimeService`` answers."""
        assert self.channel is not None
        ask = self.channel.unary_unary(f"/runtime.v1.RuntimeService/{method}")
        return decode(ask(encode(fields), timeout=DEADLINE_S))

    def run_pod(self, name: str, namespace: str = "shop", annotations: dict[str, str] | None = None) -> Pod:
        """A pod with a container that sleeps."""
        metadata = [(1, name), (2, f"uid-{name}"), (3, namespace), (4, 0)]
        config = [(1, metadata), (2, name), (3, f"{self.directory}/logs"), *entries(7, annotations or {}), (8, [])]
        sandbox = self.call("RunPodSandbox", [(1, config)])[1][0].decode()
        container_config = [(1, [(1, "main")]), (2, [(1, IMAGE)]), (11, f"{name}.log"), (15, [])]
        made = self.call("CreateContainer", [(1, sandbox), (2, container_config), (3, config)])[1][0].decode()
        self.call("StartContainer", [(1, made)])
        status = decode(self.call("PodSandboxStatus", [(1, sandbox)])[1][0])
        return Pod(sandbox, made, decode(status[5][0])[1][0].decode())

    def remove_pod(self, pod: Pod) -> None:
        self.call("StopPodSandbox", [(1, pod.sandbox)])
        self.call("RemovePodSandbox", [(1, pod.sandbox)])

    def reaches(self, pod: Pod, address: str) -> bool:
        words = [(2, word) for word in ("/bin/ping", "-c", "1", "-W", "1", address)]
        return self.call("ExecSync", [(1, pod.container), *words, (3, 10)]).get(3, [0]) == [0]


def _descriptor(enter: list[str]) -> int:
    return int(enter[-1].rpartition("/")[2])
