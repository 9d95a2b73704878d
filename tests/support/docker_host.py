"""A real dockerd on a ``CniHost``, with roots, sockets and mounts of its own, and a plugin directory that the host's agent serves.

No image is pulled: the only one is made from a static busybox. Everything that dockerd starts is ended by its process number: what is in
dockerd's mounts, and what is in a control group of one of its containers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cni_host import DEADLINE_S, CniHost

PROGRAMS = ("dockerd", "docker", "containerd", "runc", "busybox")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
IMAGE = "box"
ENVIRONMENT = {"DOCKER_API_VERSION": "1.41"}
"""What the oldest dockerd that is looked after speaks; a client may be newer."""
_PREPARE = (
    "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mkdir -p /run/docker/plugins"
    " && mount --bind {plugins} /run/docker/plugins && exec sleep infinity"
)


def busybox_tar() -> bytes:
    """A root directory with a busybox, and links to it, as a tar."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        archive.add(shutil.which("busybox") or "", "bin/busybox")
        for name in ("sh", "sleep", "ping", "ip", "httpd", "nslookup", "wget"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return made.getvalue()


@dataclass(slots=True)
class DockerHost:
    """Close it."""

    host: CniHost
    directory: Path
    mounts: subprocess.Popen[bytes] | None = None
    """Holds dockerd's mounts, so that one that is started again finds what the last one left."""
    containerd: subprocess.Popen[bytes] | None = None
    """Of its own, as on a host with systemd: dockerd may be killed and started without it."""
    daemon: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.directory / "dockerd.log"
        self.host.settings = (
            f'[docker]\nenabled = true\nplugin_socket = "{self.directory}/plugins/tabinet.sock"\napi_socket = "{self.socket}"\n'
            f'networks = "{self.directory}/networks"\n'
        )

    @property
    def runtime(self) -> str:
        """containerd's socket."""
        return f"{self.directory}/containerd.sock"

    @property
    def socket(self) -> Path:
        return self.directory / "docker.sock"

    def open(self) -> None:
        """Host, agent and dockerd run, and there is an image."""
        self.host.directory.mkdir(parents=True)
        (self.directory / "plugins").mkdir(parents=True)
        self.host.open()
        argv = ["unshare", "-m", "sh", "-c", _PREPARE.format(plugins=self.directory / "plugins")]
        self.mounts = subprocess.Popen(argv)
        wait_for(lambda: self._comm() == "sleep", "the mounts of dockerd")
        self.containerd = self._begin(
            "containerd", "--root", f"{self.directory}/root", "--state", f"{self.directory}/state", "--address", self.runtime
        )
        wait_for(lambda: Path(self.runtime).exists(), "containerd", self.log)
        self.start()
        self("import", "-", IMAGE, stdin=busybox_tar())

    def _comm(self) -> str:
        assert self.mounts is not None
        return Path(f"/proc/{self.mounts.pid}/comm").read_text().strip()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.remove_all()
        for process in (self.daemon, self.containerd):
            if process is not None:
                process.terminate()
                process.wait(DEADLINE_S)
        for number in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if self.mounts is not None:
            self.mounts.kill()
            self.mounts.wait(DEADLINE_S)
        self.host.close()

    def start(self, *more: str) -> None:
        """dockerd runs, and answers."""
        options = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--log-level=warn"]
        options += ["-H", f"unix://{self.socket}", "--data-root", f"{self.directory}/data", "--pidfile", f"{self.directory}/pid"]
        self.daemon = self._begin("dockerd", "--containerd", self.runtime, *options, *more)
        wait_for(lambda: self("version", check=False).returncode == 0, "dockerd", self.log)

    def _begin(self, *argv: str) -> subprocess.Popen[bytes]:
        """A program in dockerd's mounts and the host's network namespace, which is handed over open: it is not among those mounts."""
        assert self.mounts is not None
        descriptor = os.open(f"/run/netns/{self.host.namespace}", os.O_RDONLY)
        enter = ["nsenter", f"--mount=/proc/{self.mounts.pid}/ns/mnt", f"--net=/proc/self/fd/{descriptor}"]
        try:
            with self.log.open("ab") as log:
                return subprocess.Popen([*enter, *argv], stdout=log, stderr=log, pass_fds=[descriptor])
        finally:
            os.close(descriptor)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(number)
        self.daemon.wait(DEADLINE_S)
        self.daemon = None

    def processes(self) -> list[int]:
        """What is in dockerd's mounts, but for who holds them, and what is in its containers."""
        assert self.mounts is not None
        mine = os.stat(f"/proc/{self.mounts.pid}/ns/mnt").st_ino
        directory = self.directory / "data" / "containers"
        names = [entry.name for entry in directory.iterdir()] if directory.exists() else []
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.mounts.pid:
                continue
            with contextlib.suppress(OSError):
                groups = (entry / "cgroup").read_text()
                if os.stat(entry / "ns" / "mnt").st_ino == mine or any(name in groups for name in names):
                    found.append(int(entry.name))
        return found

    def __call__(self, *arguments: str, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        argv = ["docker", "-H", f"unix://{self.socket}", "--config", str(self.directory), *arguments]
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=DEADLINE_S, check=False, env=os.environ | ENVIRONMENT)
        output, errors = done.stdout.decode(), done.stderr.decode()
        assert not check or done.returncode == 0, f"{arguments}: {errors}{self.log.read_text()[-2000:]}"
        return subprocess.CompletedProcess(argv, done.returncode, output, errors)

    def run(self, name: str, network: str, *options: str, command: tuple[str, ...] = ("sleep", "600")) -> None:
        self("run", "-d", "--name", name, "--network", network, *options, IMAGE, *command)

    def remove_all(self) -> None:
        """No container is left."""
        names = self("ps", "-aq").stdout.split()
        if names:
            self("rm", "-f", *names)

    def reaches(self, source: str, address: str) -> bool:
        return self("exec", source, "ping", "-c", "1", "-W", "1", address, check=False).returncode == 0

    def address(self, container: str, network: str) -> str:
        inspected: list[dict[str, Any]] = json.loads(self("inspect", container).stdout)
        return str(inspected[0]["NetworkSettings"]["Networks"][network]["IPAddress"])


def wait_for(condition: Any, what: str, log: Path | None = None) -> None:
    """The condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {log.read_text()[-3000:] if log is not None else 'not in time'}"
        time.sleep(0.02)
