"""Two hosts that do what pages of the documentation say, word for word: namespaces of network, mounts and host name for each.

A page's commands are its blocks of ``sh`` whose first line names hosts: ``# on node1 and node2``. Hosts write into directories of their
own, which lie over those of the machine (overlayfs), so that its ``/etc``, ``/opt``, ``/usr/local``, ``/var`` and ``/run`` stay as they
are. There is no systemd: ``systemctl`` is a program of the tests that starts what units say. Nothing is installed. What is started is
ended by its process number: what is in a host's mounts, and all that these processes started.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import systemctl

from tabinet.kernel import netns

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DEADLINE_S = 90.0
ADDRESSES = {"node1": "192.0.2.11", "node2": "192.0.2.12"}
_BLOCK = re.compile(r"^```sh\n# on ([^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PREPARE = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {directory}
for place in etc opt usr/local var root; do
    mkdir -p {directory}/$place/upper {directory}/$place/work
    mount -t overlay overlay -o lowerdir=/$place,upperdir={directory}/$place/upper,workdir={directory}/$place/work /$place
done
mount -t tmpfs tmpfs /run
ln -sfn {environment} /opt/tabinet
hostname {name}
exec sleep infinity
"""


def overlay_is_there() -> bool:
    """Directories can be laid over others: the kernel has overlayfs, or a module of it."""
    subprocess.run(["modprobe", "-q", "overlay"], check=False, capture_output=True) if shutil.which("modprobe") else None
    return "\toverlay\n" in Path("/proc/filesystems").read_text()


@dataclass(slots=True)
class PageHost:
    """Close it."""

    name: str
    namespace: str
    directory: Path
    holder: subprocess.Popen[bytes] | None = None
    """Holds the mounts and the host name."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of commands, besides paths."""

    def open(self) -> None:
        netns.create(self.namespace)
        self.directory.mkdir()
        script = _PREPARE.format(directory=self.directory, environment=Path(sys.executable).parents[1], name=self.name)
        enter = ["nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--mount", "--uts"]
        self.holder = subprocess.Popen([*enter, "sh", "-c", script])
        eventually(lambda: Path(f"/proc/{self.number}/comm").read_text().strip() == "sleep", f"the mounts of {self.name}")
        self.write("/usr/local/bin/systemctl", f"#!{os.path.realpath(sys.executable)} -I\n{inspect.getsource(systemctl)}", 0o755)
        self.write("/etc/hosts", "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items()))

    @property
    def number(self) -> int:
        assert self.holder is not None
        return self.holder.pid

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file of the host."""
        self.write_bytes(path, text.encode(), mode)

    def write_bytes(self, path: str, content: bytes, mode: int = 0o644) -> None:
        place = Path(f"/proc/{self.number}/root{path}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        place.chmod(mode)

    def inside(self, *argv: str) -> list[str]:
        """The command as it would be given on the host."""
        spaces = [f"--{kind}=/proc/{self.number}/ns/{file}" for kind, file in (("mount", "mnt"), ("net", "net"), ("uts", "uts"))]
        return ["nsenter", *spaces, *argv]

    def run(self, commands: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Commands of a root's shell on the host, in a checkout of Tabinet."""
        variables = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/opt/tabinet/bin", "HOME": "/root"}
        argv, pipe = self.inside("bash", "-ec", f"cd {shlex.quote(str(ROOT))}\n{commands}"), subprocess.PIPE
        try:
            done = subprocess.run(argv, stdout=pipe, stderr=pipe, timeout=DEADLINE_S, env=variables | self.environment, check=False)
            code, said = done.returncode, (done.stdout, done.stderr)
        except subprocess.TimeoutExpired as expired:
            code, said = 124, (expired.stdout or b"", expired.stderr or b"")
        output, errors = (text.decode(errors="replace") for text in said)
        assert not check or code == 0, f"{self.name}: {commands}\nexit code {code}\n{output[-3000:]}{errors[-3000:]}\n{self.logs()}"
        return subprocess.CompletedProcess(argv, code, output, errors)

    def logs(self) -> str:
        """The end of what units said."""
        paths = sorted(Path(f"/proc/{self.number}/root/var/log/units").glob("*"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in paths)

    def close(self) -> None:
        if self.holder is not None:
            for number in self._processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            self.holder.kill()
            self.holder.wait(DEADLINE_S)
        if netns.exists(self.namespace):
            netns.delete(self.namespace)
        if self.directory.exists():
            self.directory.rmdir()

    def named(self, name: str) -> list[int]:
        """Processes of the host in the first words of whose command lines the name stands; of paths their last part."""
        found = []
        for number in self._processes():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[:4]
                if name in " ".join(Path(os.fsdecode(word)).name for word in words):
                    found.append(number)
        return found

    def _processes(self) -> list[int]:
        """What is in the mounts, but for who holds them, and what these processes started."""
        mine = os.stat(f"/proc/{self.number}/ns/mnt").st_ino
        parents: dict[int, int] = {}
        found: set[int] = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if os.stat(entry / "ns" / "mnt").st_ino == mine:
                        found.add(int(entry.name))
        grown = True
        while grown:
            more = {number for number, parent in parents.items() if parent in found} - found
            found |= more
            grown = bool(more)
        return sorted(found - {self.number})


class Host(Protocol):
    """What pages are given to."""

    namespace: str

    def open(self) -> None: ...

    def run(self, commands: str) -> object: ...

    def close(self) -> None: ...


Kind = TypeVar("Kind", bound=Host)


@dataclass(slots=True)
class PageHosts(Generic[Kind]):
    """``node1`` and ``node2`` on an Ethernet, each with a default route to a router that is not there. Close it."""

    make: Callable[[str, str, Path], Kind]
    """From a name, a namespace of network that is not there yet, and a directory likewise."""
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    hosts: dict[str, Kind] = field(default_factory=dict)

    def open(self) -> None:
        for name in ADDRESSES:
            made = self.make(name, f"tbp-{self.tag}-{name}", Path(f"/tmp/tbp-{self.tag}-{name}"))
            self.hosts[name] = made
            made.open()
        one, two = (host.namespace for host in self.hosts.values())
        subprocess.run(["ip", "-n", one, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", two], check=True)
        for name, host in self.hosts.items():
            for words in (
                "link set dev lo up",
                "link set dev eth0 up",
                f"addr add {ADDRESSES[name]}/24 dev eth0",
                "route add default via 192.0.2.1",
            ):
                subprocess.run(["ip", "-n", host.namespace, *words.split()], check=True)

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()

    def __getitem__(self, name: str) -> Kind:
        return self.hosts[name]

    def follow(self, page: str, *titles: str, before: Callable[[Kind, str], str] = lambda _, commands: commands) -> None:
        """The commands below these headings of a page have been given, in the page's order; without headings: all of the page.

        ``before`` is called before each block, with the host, and gives what is run in its place.
        """
        for hosts, commands in blocks_of(page, *titles):
            for host in hosts:
                self.hosts[host].run(before(self.hosts[host], commands))


def blocks_of(page: str, *titles: str) -> list[tuple[list[str], str]]:
    """Hosts, and what is to be given there."""
    sections = (DOCS / page).read_text().split("\n## ")
    chosen = [part for part in sections if not titles or part.partition("\n")[0] in titles]
    assert len(chosen) >= len(titles), f"{page}: {titles}"
    return [(where.split(" and "), commands) for part in chosen for where, commands in _BLOCK.findall(part)]


@contextlib.contextmanager
def page_hosts(make: Callable[[str, str, Path], Kind]) -> Iterator[PageHosts[Kind]]:
    made = PageHosts(make)
    try:
        made.open()
        yield made
    finally:
        made.close()


def eventually(condition: Callable[[], bool], what: str, explain: Callable[[], str] = lambda: "not in time") -> None:
    """The condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {explain()}"
        time.sleep(0.05)
