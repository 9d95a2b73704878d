"""A real libvirtd on a host of a lab, with mounts of its own: its /etc/libvirt, /run and /var are not the machine's.

Nothing of the machine's own libvirt, should there be one, is seen or changed. What is started is ended by its process number: libvirtd,
and what is in its mounts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tabinet.lab import vm

PROGRAMS = ("libvirtd", "virsh", "unshare", "nsenter")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None] + vm.missing()
DEADLINE_S = 120.0
_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
_USERS = (
    ("passwd", "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin"),
    ("group", "libvirt-qemu:x:64055:"),
    ("group", "kvm:x:64056:"),
)
"""libvirtd looks for them, whatever its configuration says; Debian's libvirt-daemon-system makes them."""
_PREPARE = """\
set -e
mount --make-rprivate /
for place in /run /var/lib /var/cache /var/log; do mount -t tmpfs tmpfs $place; done
mkdir -p /run/libvirt /var/cache/libvirt /var/lib/libvirt/boot
mount --bind {directory}/run /run/libvirt
mount --bind {directory}/etc /etc/libvirt
mount --bind {directory}/passwd /etc/passwd
mount --bind {directory}/group /etc/group
mount --bind {cache} /var/cache/libvirt
mount --bind {directory}/boot /var/lib/libvirt/boot
mount -t sysfs sysfs /sys
exec sleep infinity
"""


@dataclass(slots=True)
class LibvirtHost:
    """Close it."""

    namespace: str
    """The host's network namespace."""
    directory: Path
    """Its path must be short: there are sockets in it."""
    environment: dict[str, str]
    """Of commands on the host."""
    cache: Path
    """What libvirtd finds out about QEMU, which takes seconds; several may share it."""
    mounts: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    """Holds the mounts, so that a libvirtd that is started again finds what the last one left."""
    daemon: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        """libvirtd as it is reached from outside of its mounts."""
        return f"qemu:///system?socket={self.directory}/run/libvirt-sock"

    @property
    def boot(self) -> Path:
        """``/var/lib/libvirt/boot`` there."""
        return self.directory / "boot"

    def prepare(self) -> None:
        """The mounts are there; libvirtd does not run yet."""
        for name in ("run", "etc", "boot"):
            (self.directory / name).mkdir(parents=True)
        self.cache.mkdir(parents=True, exist_ok=True)
        (self.directory / "etc" / "qemu.conf").write_text(_QEMU_CONF)
        log = f'log_outputs = "3:file:{self.directory}/libvirtd.log"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
        # Hosts with the same identity would take a migration for one to themselves.
        (self.directory / "etc" / "libvirtd.conf").write_text(
            f'{log}host_uuid = "{Path("/proc/sys/kernel/random/uuid").read_text().strip()}"\n'
        )
        for name in ("passwd", "group"):
            text = Path(f"/etc/{name}").read_text()
            more = [line for file, line in _USERS if file == name and f"\n{line.partition(':')[0]}:" not in text]
            (self.directory / name).write_text(text + "".join(f"{line}\n" for line in more))
        script = _PREPARE.format(directory=self.directory, cache=self.cache)
        self.mounts = subprocess.Popen(self._in_network("unshare", "-m", "sh", "-c", script))
        eventually(lambda: Path(f"/proc/{self.holder}/comm").read_text().strip() == "sleep", "the mounts of libvirtd")

    @property
    def holder(self) -> int:
        assert self.mounts is not None
        return self.mounts.pid

    def _in_network(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *argv]

    def inside(self, *argv: str) -> list[str]:
        """The command as it would be given on the host."""
        return ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt", f"--net=/proc/{self.holder}/ns/net", *argv]

    def start(self) -> None:
        """libvirtd runs, and answers."""
        with open(self.directory / "daemon.log", "ab") as log:
            self.daemon = subprocess.Popen(self.inside("libvirtd", "--pid-file", "/run/libvirtd.pid"), stdout=log, stderr=log)
        eventually(lambda: self.run("virsh list", check=False).returncode == 0, "libvirtd", self.log)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """libvirtd does not run; its domains do."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        self.daemon.wait(DEADLINE_S)
        self.daemon = None

    def log(self) -> str:
        """What libvirtd said last."""
        paths = [self.directory / name for name in ("daemon.log", "libvirtd.log")]
        return "\n".join(path.read_text()[-3000:] for path in paths if path.exists())

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell's command on the host."""
        argv = self.inside("sh", "-ec", command)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, env=os.environ | self.environment, check=False)
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{self.log()}"
        return done

    def begin(self, command: str) -> subprocess.Popen[str]:
        """The same, not waited for."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.inside("sh", "-ec", command), stdout=pipe, stderr=subprocess.STDOUT, text=True, env=os.environ | self.environment
        )

    def machine(self, domain: str) -> int:
        """The process number of a domain's QEMU."""
        return int(self.run(f"cat /run/libvirt/qemu/{shlex.quote(domain)}.pid").stdout)

    def shell_path(self, name: str) -> str:
        """A socket that a domain made in ``/var/lib/libvirt``, as others find it."""
        return f"/proc/{self.holder}/root/var/lib/libvirt/{name}"

    def taps(self) -> list[str]:
        """Workloads' interfaces on the host."""
        links = subprocess.run(["ip", "-n", self.namespace, "-o", "link"], check=True, capture_output=True, text=True).stdout
        return [line.split(": ")[1] for line in links.splitlines() if line.split(": ")[1].startswith(("tap", "cali"))]

    def close(self) -> None:
        if self.daemon is not None:
            self.stop(signal.SIGKILL)
        if self.mounts is None:
            return
        for number in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.mounts.kill()
        self.mounts.wait(DEADLINE_S)

    def _processes(self) -> list[int]:
        """What is in the mounts, but for who holds them."""
        mine = os.stat(f"/proc/{self.holder}/ns/mnt").st_ino
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.holder:
                with contextlib.suppress(OSError):
                    if os.stat(entry / "ns" / "mnt").st_ino == mine:
                        found.append(int(entry.name))
        return found


def eventually(condition: Callable[[], bool], what: str, explain: Callable[[], str] = lambda: "not in time") -> None:
    """The condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {explain()}"
        time.sleep(0.05)
