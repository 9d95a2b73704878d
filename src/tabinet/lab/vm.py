"""Virtual machines as workloads of a lab: what they boot, and QEMU's command line.

In: a kernel with its modules, busybox, and the prober with the Python that runs here. Out: an initial RAM disk (cpio "newc",
Documentation/driver-api/early-userspace/buffer-format.rst) in which a guest gets its address by DHCP and then runs the same prober as
workloads in namespaces do, over a port of virtio-serial. QEMU computes every instruction (TCG): no hardware support is needed.

``scripts/setup-vms`` puts kernel and modules where this module looks for them. Guests speak IPv4: busybox has no client of DHCPv6.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tabinet.errors import SetupError
from tabinet.lab.state import LabDirectory
from tabinet.lab.topology import Workload

VM_FILES = Path("/var/lib/tabinet/vm")
"""``vmlinuz``, and ``modules/`` with names in the order in which they are loaded."""
QEMU = "qemu-system-x86_64"
BUSYBOX = Path("/bin/busybox")
MEMORY_MIB = 256
READY = "tabinet-vm ready"
"""The guest's console says so once it has an address and its prober can be reached."""
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=1 panic=1 nokaslr mitigations=off no_timer_check tsc=reliable rcupdate.rcu_expedited=1 cryptomgr.notests "
    "8250.nr_uarts=1 i8042.noaux i8042.nokbd i8042.nopnp audit=0 pci=lastbus=0 acpi=off noapic lpj=4000000"
)
_PROBER = Path(__file__).with_name("probe") / "prober.py"
_IMPORTS = "import errno, json, os, select, socket, struct, sys, time"
_LIST_MODULES = _IMPORTS + (
    "\nfor module in list(sys.modules.values()):\n    for name in ('__file__', '__cached__'):\n        path = getattr(module, name, None)\n"
    "        if path and os.path.exists(path):\n            print(path)\n"
)
START = """\
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox ls /modules); do /bin/busybox insmod /modules/$module; done
/bin/busybox --install -s /bin
export PATH=/bin
ip link set dev lo up
ip link set dev eth0 up"""
"""How the first program of every guest begins."""
_INIT = """#!/bin/busybox sh
{start}
udhcpc -i eth0 -s /lease -T 1 -t 1000 -O 121 -O mtu >/dev/null 2>&1
until [ -c /dev/vport*p1 ]; do sleep 0.1; done
exec 3<>$(echo /dev/vport*p1)
echo {ready} >/dev/console
while :; do
    if read -r name tcp udp <&3; then
        {python} -I -S /prober.py "$name" "$tcp" "$udp" <&3 >&3 2>/dev/console
    else
        sleep 0.1
    fi
done
"""
LEASE = """\
#!/bin/busybox sh
case $1 in
bound|renew)
    ip -4 addr flush dev $interface scope global
    ip addr add $ip/${mask:-32} dev $interface
    [ -n "$mtu" ] && ip link set dev $interface mtu $mtu
    set -- $staticroutes
    while [ $# -gt 1 ]; do
        if [ $2 = 0.0.0.0 ]; then ip route replace $1 dev $interface; else ip route replace $1 via $2 dev $interface onlink; fi
        shift 2
    done
    ;;
esac
"""
"""What a guest does with what DHCP told it: the script of busybox's udhcpc."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A file of the image: contents, or a directory."""

    path: str
    """Without a slash at the beginning."""
    mode: int
    data: bytes = b""
    mtime_s: int = 0


def image_of(directory: LabDirectory) -> Path:
    """Where what virtual machines of a lab boot is."""
    return directory.path / "vm.initrd"


def tap_of(workload: str) -> str:
    """The interface of a workload's virtual machine on its host; at most 15 characters."""
    return f"tap{workload}" if len(workload) <= 12 else f"tap{hashlib.sha256(workload.encode()).hexdigest()[:12]}"


def mac_of(lab: str, workload: str) -> str:
    """The hardware address of a virtual machine: always the same."""
    tail = hashlib.sha256(f"{lab}/{workload}".encode()).digest()[:3]
    return "52:54:00:" + ":".join(f"{octet:02x}" for octet in tail)


def missing() -> list[str]:
    """What this machine lacks for virtual machines."""
    wanted = [VM_FILES / "vmlinuz", VM_FILES / "modules", BUSYBOX]
    found = [str(path) for path in wanted if not path.exists()]
    places = os.environ.get("PATH", "").split(os.pathsep)
    return found if any(os.access(os.path.join(place, QEMU), os.X_OK) for place in places) else [QEMU, *found]


def qemu_argv(lab: str, workload: Workload, image: Path, socket: Path) -> tuple[str, ...]:
    """The command line of a virtual machine; ``socket``: where its prober is reached."""
    return (
        *(QEMU, "-accel", "tcg", "-M", "pc,hpet=off", "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none", "-serial", "stdio"),
        *("-kernel", str(VM_FILES / "vmlinuz"), "-initrd", str(image), "-append", KERNEL_ARGUMENTS),
        *("-netdev", f"tap,id=net,ifname={tap_of(workload.name)},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=net,mac={mac_of(lab, workload.name)},romfile="),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=prober,path={socket},server=on,wait=off"),
        *("-device", "virtserialport,chardev=prober"),
    )


def make_image() -> bytes:
    """The RAM disk of all virtual machines. Takes some tenths of a second.

    Raises:
        SetupError: this machine lacks something for it.
    """
    lacking = missing()
    if lacking:
        raise SetupError(f"virtual machines need {', '.join(lacking)}: run 'make setup VMS=1'")
    python = Path(sys.executable).resolve()
    script = _INIT.format(start=START, ready=READY, python=python)
    entries = [
        Entry("init", stat.S_IFREG | 0o755, script.encode()),
        _read(_PROBER, "prober.py"),
        *base_entries(),
        *(_read(path) for path in python_files(python)),
    ]
    return render_cpio(entries)


def base_entries() -> list[Entry]:
    """What every guest needs besides its first program: busybox, modules, and what a DHCP lease does (``/lease``)."""
    return [
        Entry("lease", stat.S_IFREG | 0o755, LEASE.encode()),
        _read(BUSYBOX, "bin/busybox"),
        *(_read(module, f"modules/{module.name}") for module in sorted((VM_FILES / "modules").iterdir())),
        *(Entry(name, stat.S_IFDIR | 0o755) for name in ("proc", "sys", "dev", "tmp")),
    ]


def python_files(python: Path) -> list[Path]:
    """What the prober needs of Python: the interpreter, modules, and the libraries that they are linked to."""
    listed = _output([str(python), "-I", "-S", "-c", _LIST_MODULES]).split("\n")
    files = dict.fromkeys([python, *(Path(line) for line in listed if line)])
    linked = [str(path) for path in files if path == python or path.suffix == ".so"]
    for line in _output(["ldd", *linked]).splitlines():
        words = line.split()
        found = [word for word in words if word.startswith("/") and not word.endswith(":")]
        files |= dict.fromkeys(Path(word) for word in found[:1])
    return list(files)


def _output(argv: Sequence[str]) -> str:
    try:
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SetupError(f"cannot look at what Python consists of: {error}") from error


def _read(path: Path, name: str = "") -> Entry:
    status = path.stat()
    mode = stat.S_IFREG | (0o755 if status.st_mode & 0o111 else 0o644)
    return Entry(name or str(path).lstrip("/"), mode, path.read_bytes(), int(status.st_mtime))


def render_cpio(entries: Iterable[Entry]) -> bytes:
    """The archive of the entries, with the directories that they are in before them."""
    made: set[str] = set()
    parts: list[bytes] = []
    for entry in entries:
        above = entry.path.split("/")[:-1]
        for depth in range(1, len(above) + 1):
            directory = "/".join(above[:depth])
            if directory not in made:
                made.add(directory)
                parts.append(_render_entry(len(parts) + 1, Entry(directory, stat.S_IFDIR | 0o755)))
        if entry.path not in made:
            made.add(entry.path)
            parts.append(_render_entry(len(parts) + 1, entry))
    parts.append(_render_entry(0, Entry("TRAILER!!!", 0)))
    return b"".join(parts)


def _render_entry(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, entry.mtime_s, len(entry.data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(head + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
