"""A real etcd for tests: its own directory, its own sockets, and proof that who listens there is the process that was started."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

READY_WITHIN_S = 20.0


@dataclass
class EtcdProcess:
    """One etcd; ``start`` after ``kill`` goes on with the same data."""

    directory: Path
    client_url: str = "unix://client:0"
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        if self.client_url.startswith("unix://"):
            return f"unix://{self.directory}/{self.client_url.removeprefix('unix://')}"
        return self.client_url

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        if self.client_url.startswith("unix://"):
            (self.directory / self.client_url.removeprefix("unix://")).unlink(missing_ok=True)
        command = ["etcd", "--name=test", "--data-dir=data", "--initial-cluster=test=unix://peer:0", "--logger=zap", "--log-level=error"]
        command += [f"--listen-client-urls={self.client_url}", f"--advertise-client-urls={self.client_url}"]
        command += ["--listen-peer-urls=unix://peer:0", "--initial-advertise-peer-urls=unix://peer:0"]
        command += ["--heartbeat-interval=10", "--election-timeout=100", *self.arguments]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log)
        self._wait_until_ours()

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL, and gone when it returns."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def resume_and_kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.kill()

    def _wait_until_ours(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            owner = self._listener_pid()
            if owner is not None:
                assert owner == self.process.pid, f"process {owner} listens on {self.endpoint}, we started {self.process.pid}"
                return
            time.sleep(0.01)
        log = (self.directory / "log").read_text(errors="replace")
        self.kill()
        raise AssertionError(f"etcd does not listen on {self.endpoint}: {log[-2000:]}")

    def _listener_pid(self) -> int | None:
        if self.client_url.startswith("unix://"):
            return _unix_listener_pid(self.endpoint.removeprefix("unix://"))
        assert self.process is not None
        return self.process.pid if _listens(self.process.pid, int(self.client_url.rsplit(":", 1)[1])) else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unix_listener_pid(path: str) -> int | None:
    """The process behind the socket, from SO_PEERCRED (unix(7))."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)


def _listens(pid: int, port: int) -> bool:
    """True when a descriptor of the process is the socket that listens on the port (proc(5), /proc/net/tcp)."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(descriptor) in inodes:
                return True
        except OSError:
            continue
    return False
