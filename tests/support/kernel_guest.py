"""A virtual machine whose kernel has what this machine's kernel lacks, for tests: it runs test files, and tells how each test ended.

In: test files that need nothing but pytest, Tabinet and a few programs. Out: outcomes by test. The guest runs Debian's kernel for clouds
(``make setup VMS=1``) in QEMU without hardware support; its root is a RAM disk with the Python that runs here, copied file by file, and
with what Tabinet's programs need. Nothing of this machine is mounted in it, and it has no network. It takes about 4 s until the first test
begins; throughput in it means nothing.
"""

from __future__ import annotations

import marshal
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path

import pytest

import tabinet
from tabinet.lab.vm import BUSYBOX, QEMU, VM_FILES, Entry, missing, render_cpio

NETWORK_MODULES = VM_FILES / "network"
MODULES = (
    *("8021q", "veth", "ipip", "vxlan", "tun", "ifb", "dummy"),
    *("nf_tables", "nf_conntrack", "nf_conntrack_netlink", "nfnetlink_log", "nft_chain_nat", "nft_ct", "nft_fib_inet", "nft_hash"),
    *("nft_limit", "nft_log", "nft_masq", "nft_nat", "nft_numgen", "nft_redir", "nft_reject_inet"),
    *("sch_ingress", "sch_tbf", "cls_matchall", "act_mirred"),
)
"""What tests use, and the kernel cannot load by itself: the guest has no modprobe."""
PROGRAMS = ("ip", "nft", "nsenter", "ping", "bridge", "tc", "dhclient")
ELSEWHERE = ("tabinet.attach.openstack", "tabinet.store.etcd", "tabinet.lab")
"""Packages of ours that the guest does not get: they need others that are large, or not installed here."""
MEMORY_MIB = 512
DEADLINE_S = 1200.0
"""A machine that is busy with other things takes ten times as long as a quiet one."""
END = "kernel-guest: the end"
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=1 panic=-1 nokaslr mitigations=off no_timer_check clocksource=acpi_pm rcupdate.rcu_expedited=1 "
    "cryptomgr.notests 8250.nr_uarts=1 i8042.noaux i8042.nokbd i8042.nopnp audit=0 pci=lastbus=0 noapic"
)
_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/guest/bin:/bin HOME=/run LC_ALL=C.UTF-8 PYTHONPATH={path} PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /run/netns /run/lock /tmp /dev/shm
printf '#!/bin/busybox sh\nexec {python} "$@"\n' >/guest/bin/python3
chmod 755 /guest/bin/python3
for module in $(ls /guest/modules); do insmod /guest/modules/$module; done
ip link set dev lo up
cd /guest
{python} -c 'import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))' {options} {files}
echo {end}
poweroff -f
"""
_OPTIONS = "-c /guest/pytest.ini -p no:cacheprovider -v -rs --durations=5 --tb=short --color=no --no-header --noconftest"
_SETTINGS = """[pytest]
addopts = --strict-markers
filterwarnings = error
pythonpath = {path}
markers =
    kernel: needs root and real network namespaces
    lab: brings up a whole lab
"""
_OUTCOME = re.compile(r"^(?:\S*/)?(test_\w+\.py)::(\S+) (PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE)
_LIST_MODULES = """import encodings.idna, importlib, os, pkgutil, sys
import pytest
import tabinet
sys.dont_write_bytecode = True
output, sys.stdout = sys.stdout, sys.stderr
elsewhere, *options = sys.argv[1:]
code = pytest.main(options)
sys.stdout = output
for found in pkgutil.walk_packages(tabinet.__path__, "tabinet."):
    if not found.name.startswith(tuple(elsewhere.split())):
        importlib.import_module(found.name)
for module in list(sys.modules.values()):
    path = getattr(module, "__file__", None)
    if path and os.path.exists(path):
        print(os.path.abspath(path))
sys.exit(code)
"""


@dataclass(frozen=True)
class GuestRun:
    """What a guest did."""

    outcomes: dict[str, dict[str, str]]
    """By file and test: PASSED, FAILED, ERROR or SKIPPED."""
    output: str


def lacking() -> list[str]:
    """What this machine lacks for such guests."""
    return missing() or [str(path) for path in (NETWORK_MODULES,) if not path.is_dir()]


def run_tests(files: Sequence[Path], directory: Path, *, leave_out: Sequence[str] = ()) -> GuestRun:
    """The tests of the files ran in a guest, one after the other, but for those with ``leave_out`` in their names.

    ``directory``: for the guest's RAM disk.

    Raises:
        subprocess.TimeoutExpired: it did not come to an end.
    """
    image = directory / "kernel-guest.cpio"
    image.write_bytes(render_cpio(_entries(files, leave_out)))
    argv = [
        *(QEMU, "-accel", "tcg", "-cpu", "max", "-M", "pc,hpet=off", "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config"),
        *("-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", str(VM_FILES / "vmlinuz"), "-initrd", str(image)),
        *("-append", _KERNEL_ARGUMENTS),
    ]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, check=False)
    output = done.stdout.decode(errors="replace").replace("\r\n", "\n") + done.stderr.decode(errors="replace")
    outcomes: dict[str, dict[str, str]] = {}
    for file, test, outcome in _OUTCOME.findall(output):
        outcomes.setdefault(file, {})[test] = outcome
    return GuestRun(outcomes, output)


def _entries(files: Sequence[Path], leave_out: Sequence[str]) -> Iterator[Entry]:
    python = Path(sys.executable).resolve()
    sources = Path(tabinet.__file__).parents[1]
    path = f"{sources}:{Path(pytest.__file__).parents[1]}:/guest/tests"
    settings = {"path": path, "python": python, "end": END}
    settings["options"] = _OPTIONS + (f" -k 'not ({' or '.join(leave_out)})'" if leave_out else "")
    settings["files"] = " ".join(f"tests/{file.name}" for file in files)
    yield Entry("init", stat.S_IFREG | 0o755, _INIT.format(**settings).encode())
    yield Entry("guest/pytest.ini", stat.S_IFREG | 0o644, _SETTINGS.format(path="/guest/tests").encode())
    yield _file(BUSYBOX, "bin/busybox")
    for place, module in enumerate(_kernel_modules(), 10):
        yield _file(module, f"guest/modules/{place}-{module.name}")
    linked = [python]
    for name in PROGRAMS:
        program = Path(_output(["sh", "-c", f"command -v {name}"]).strip()).resolve()
        linked.append(program)
        yield _file(program, f"guest/bin/{name}")
    for file in files:
        yield _file(file, f"guest/tests/{file.name}")
    for directory in {file.parent for file in files} | {Path(__file__).parent}:
        for helper in directory.glob("*.py"):
            if not helper.name.startswith("test_"):
                yield _file(helper, f"guest/tests/{helper.name}")
    modules = _modules_of(files)
    linked += [path for path in modules if path.suffix == ".so"]
    for path in modules:
        yield _module(path)
    for path in (python, *_libraries(linked)):
        yield _file(path)
    for name in ("proc", "sys", "dev", "run", "tmp"):
        yield Entry(name, stat.S_IFDIR | 0o755)


def _modules_of(files: Sequence[Path]) -> list[Path]:
    """What Python loads to find the tests of these files, which are not run here, and what our programs may load."""
    argv = [sys.executable, "-c", _LIST_MODULES, " ".join(ELSEWHERE), "--collect-only", "-q", "-p", "no:cacheprovider", *map(str, files)]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with tempfile.TemporaryDirectory() as directory:
        settings = Path(directory) / "pytest.ini"
        settings.write_text(_SETTINGS.format(path=Path(__file__).parent))
        argv += ["-c", str(settings), "--rootdir", directory, "--noconftest"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=DEADLINE_S, env=environment)
    assert done.returncode == 0, done.stderr
    ours = {file.parent for file in files} | {Path(__file__).parent}
    return [path for line in done.stdout.splitlines() if (path := Path(line)).parent not in ours]


def _module(path: Path) -> Entry:
    """A module of Python: if it is one in source, only compiled, as less is unpacked then and nothing has to be compiled there."""
    if path.suffix != ".py":
        return _file(path)
    compiled = Path(cache_from_source(str(path)))
    if compiled.exists() and _source_time_s(compiled) == int(path.stat().st_mtime):
        return _file(compiled, f"{path}c")
    code = marshal.dumps(compile(path.read_bytes(), str(path), "exec", dont_inherit=True))
    return Entry(f"{path}c".lstrip("/"), stat.S_IFREG | 0o644, MAGIC_NUMBER + bytes(12) + code)


def _source_time_s(compiled: Path) -> int:
    """The time of the source that a compiled module was made from (PEP 552)."""
    with compiled.open("rb") as file:
        head = file.read(12)
    return int.from_bytes(head[8:12], "little")


def _kernel_modules() -> list[Path]:
    """The kernel's modules, each after those that it depends on; what is built into the kernel is not among them."""
    known = {path.stem.replace("-", "_"): path for path in NETWORK_MODULES.glob("*.ko")}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in known and name not in ordered:
            for other in _dependencies(known[name]):
                add(other)
            ordered[name] = known[name]

    for name in MODULES:
        add(name)
    return list(ordered.values())


def _dependencies(module: Path) -> Iterable[str]:
    """As its section ``.modinfo`` says."""
    found = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def _libraries(linked: Iterable[Path]) -> list[Path]:
    libraries: dict[Path, None] = {}
    for line in _output(["ldd", *map(str, linked)]).splitlines():
        words = [word for word in line.split() if word.startswith("/") and not word.endswith(":")]
        libraries |= dict.fromkeys(Path(word) for word in words[:1])
    return list(libraries)


def _output(argv: Sequence[str]) -> str:
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60).stdout


def _file(path: Path, name: str = "") -> Entry:
    status = path.stat()
    mode = stat.S_IFREG | (0o755 if status.st_mode & 0o111 or path.suffix == ".so" else 0o644)
    return Entry((name or str(path)).lstrip("/"), mode, path.read_bytes(), int(status.st_mtime))
