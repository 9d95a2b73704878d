"""A host as Debian has it, with systemd as its first process: Tabinet's units run under the real one.

In: a name, a namespace of network, a directory. Out: a host that takes commands, is switched off and boots again with its disk as it was.
It has namespaces of its own for processes, mounts, host name and cgroups; its disk lies over this machine's (overlayfs), which stays as
it is. Of the units that packages enabled, only etcd's and Debian's BIRD's are, as on a host where just these were installed; those of
systemd's that set up a machine and its kernel are masked. A copy of the checkout is in ``CHECKOUT``.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from page_hosts import DEADLINE_S, ROOT, eventually

from tabinet.kernel import netns

SYSTEMD = Path("/lib/systemd/systemd")
CHECKOUT = "/root/tabinet"
COMMAND_S = 300.0
"""What commands may take: an installation on a busy machine among them."""
ENABLED = ("bird", "etcd")
MASKED = (
    *("sysctl", "modules-load", "binfmt", "udevd", "udev-trigger", "udev-settle", "random-seed", "remount-fs", "hwdb-update"),
    *("timesyncd", "networkd", "resolved", "logind", "machine-id-commit"),
)
_DISK = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {directory}
cd {directory}
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
exec sleep infinity
"""
_BOOT = """
set -e
cd {directory}/root
mount --make-rprivate /
mount --bind . .
cd {directory}/root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm
for device in null zero full random urandom tty net/tun; do : >dev/$device; mount --bind /dev/$device dev/$device; done
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
hostname {name}
pivot_root . mnt
umount -l mnt
exec env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin {systemd} --log-target=journal --show-status=0 </dev/null
"""


def cgroups() -> Path | None:
    """Where this machine has cgroups of the second version; None: nowhere."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next((Path(place) for _, place, kind, *_ in mounts if kind == "cgroup2"), None)


@dataclass(slots=True)
class SystemdHost:
    """Close it."""

    name: str
    namespace: str
    directory: Path
    holder: subprocess.Popen[bytes] | None = None
    """Holds the disk."""
    running: subprocess.Popen[bytes] | None = None
    """Ends when the host is off."""
    number: int = 0
    """Of the host's first process."""

    @property
    def cgroup(self) -> Path:
        place = cgroups()
        assert place is not None
        return place / self.namespace

    def open(self) -> None:
        """The host has a network and has booted."""
        netns.create(self.namespace)
        self.directory.mkdir()
        self.holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", _DISK.format(directory=self.directory)])
        holder = self.holder.pid
        eventually(lambda: Path(f"/proc/{holder}/comm").read_text().strip() == "sleep", f"the disk of {self.name}")
        disk = Path(f"/proc/{holder}/root{self.directory}/root")
        units = disk / "etc/systemd/system"
        for wanted in units.glob("*.wants/*"):
            if wanted.stem not in ENABLED:
                wanted.unlink()
        for unit in MASKED:
            (units / f"systemd-{unit}.service").symlink_to("/dev/null")
        (disk / "etc/machine-id").write_text("")
        (disk / "etc/hostname").write_text(f"{self.name}\n")
        checkout = Path(f"{disk}{CHECKOUT}")
        checkout.mkdir(parents=True)
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        packed = subprocess.run(["tar", "-c", "--null", "-T", "-"], cwd=ROOT, check=True, capture_output=True, input=tracked).stdout
        subprocess.run(["tar", "-x", "-C", checkout], check=True, input=packed)
        self.boot()

    def boot(self) -> None:
        """systemd has done what it does at boot."""
        assert self.holder is not None
        self.cgroup.mkdir(exist_ok=True)
        boot = _BOOT.format(directory=self.directory, name=self.name, systemd=SYSTEMD)
        enter = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", f"--net=/run/netns/{self.namespace}"]
        unshare = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]
        into_cgroup = f'echo $$ >{self.cgroup}/cgroup.procs && exec {" ".join(enter + unshare)} sh -ec "$0"'
        self.running = subprocess.Popen(["sh", "-ec", into_cgroup, boot])
        children = Path(f"/proc/{self.running.pid}/task/{self.running.pid}/children")
        eventually(lambda: bool(children.read_text()), f"the first process of {self.name}")
        self.number = int(children.read_text())
        states = ("running", "degraded")
        eventually(lambda: self.run("systemctl is-system-running", check=False).stdout.strip() in states, f"{self.name} boots", self.logs)

    def inside(self, *argv: str, network: bool = True) -> list[str]:
        """The command as it would be given on the host; ``network``: False: with this machine's."""
        kinds = ("mnt", "pid", "uts", "ipc", "cgroup", *(("net",) if network else ()))
        names = {"mnt": "mount"}
        spaces = [f"--{names.get(kind, kind)}=/proc/{self.number}/ns/{kind}" for kind in kinds]
        return ["nsenter", *spaces, f"--root=/proc/{self.number}/root", *argv]

    def run(self, commands: str, *, check: bool = True, network: bool = True) -> subprocess.CompletedProcess[str]:
        """Commands of a root's shell on the host, in its checkout of Tabinet."""
        argv = self.inside("bash", "-ec", f"cd {CHECKOUT}\n{commands}", network=network)
        variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_")) or name.lower().endswith("_proxy")}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S, env=kept | variables, check=False)
        what = f"{self.name}: {commands}\nexit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        assert not check or done.returncode == 0, f"{what}\n{self.logs()}"
        return done

    def logs(self) -> str:
        """The end of the journal."""
        return subprocess.run(self.inside("journalctl", "--no-pager", "-n", "80"), capture_output=True, text=True, check=False).stdout

    def switch_off(self) -> None:
        """As by ``poweroff``: services are stopped, and what was in memory is gone: workloads' interfaces, routes, rules."""
        assert self.running is not None
        self.run("systemctl poweroff", check=False)
        self.running.wait(DEADLINE_S)
        self._forget()
        within = ["ip", "netns", "exec", self.namespace, "sh", "-ec"]
        links = "for link in $(ls /sys/class/net); do case $link in cali*|tap*) ip link delete $link;; esac; done"
        routes = "for family in -4 -6; do ip $family route flush proto bird; ip $family route flush type blackhole; done"
        subprocess.run([*within, f"{links}; {routes}; nft flush ruleset"], check=True)

    def _forget(self) -> None:
        if self.running is not None:
            self.running.kill()
            self.running.wait(DEADLINE_S)
            self.running = None
        for place, _, _ in os.walk(self.cgroup, topdown=False):
            eventually(lambda place=place: _is_removed(Path(place)), f"{place} is empty")

    def close(self) -> None:
        self._forget()
        if self.holder is not None:
            self.holder.kill()
            self.holder.wait(DEADLINE_S)
        if netns.exists(self.namespace):
            netns.delete(self.namespace)
        if self.directory.exists():
            self.directory.rmdir()


def _is_removed(place: Path) -> bool:
    with contextlib.suppress(OSError):
        place.rmdir()
    return not place.exists()
