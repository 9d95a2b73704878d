"""What the hook adds to ``virsh start``: a domain of which the hook takes care (address from a real etcd, TAP, policy in the kernel),
against the same one with a TAP that is there and no word in its metadata, for which the hook does nothing; and the hook by itself.

Whole commands and whole processes, in turn; domains are started paused, so that no guest takes the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.etcd import own_etcd
from tabinet.attach.libvirt.hook import XML_NAMESPACE
from tabinet.attach.libvirt.install import install_hook

PROGRAMS = ("libvirtd", "virsh", "qemu-system-x86_64")
SUPPORT = Path(__file__).parents[1] / "tests" / "support"
METADATA = f"<metadata><t:workload xmlns:t='{XML_NAMESPACE}'><t:label name='app' value='web'/></t:workload></metadata>"
DOMAIN = """<domain type='qemu'><name>{name}</name>{metadata}<memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><devices><controller type='usb' model='none'/>
<interface type='ethernet'><target dev='tap{name}' managed='no'/><model type='virtio'/><rom enabled='no'/></interface>
<memballoon model='none'/></devices></domain>"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--times", type=int, default=15, help="starts of each kind")
    options = parser.parse_args()
    figures = measure(options.times)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:45} {value}")


def measure(times: int) -> dict[str, Any]:
    """Medians in milliseconds.

    Raises:
        SystemExit: something is not installed.
    """
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)}; see libvirt-packages.txt")
    took: dict[str, list[float]] = {}
    with own_etcd() as endpoint, tempfile.TemporaryDirectory(dir="/tmp") as directory, opened(endpoint, Path(directory)) as (host, log):
        hook = host.directory / "etc" / "hooks" / "qemu"
        install_hook(hook)
        host.start()
        for name, metadata in (("ours", METADATA), ("other", "")):
            (host.boot / f"{name}.xml").write_text(DOMAIN.format(name=name, metadata=metadata))
            host.run(f"virsh define /var/lib/libvirt/boot/{name}.xml; virsh dumpxml {name} >/var/lib/libvirt/boot/{name}.whole")
        host.run("ip tuntap add dev tapother mode tap; ip link set dev tapother up")
        for number in range(times + 1):
            for name in ("ours", "other"):
                begin = time.perf_counter()
                host.run(f"virsh start --paused {name}")
                _note(took, f"virsh start, {name}", begin, number)
                host.run(f"virsh destroy {name}")
        for number in range(times + 1):
            for name in ("ours", "other"):
                for operation in ("prepare", "start", "release"):
                    with open(host.boot / f"{name}.whole", "rb") as xml:
                        begin = time.perf_counter()
                        subprocess.run(host.inside(str(hook), name, operation, "begin", "-"), stdin=xml, check=True)
                        _note(took, f"hook {operation}, {name}", begin, number)
        for operation in ("prepare", "release"):
            took[f"agent's {operation}"] = [float(ms) for ms in re.findall(rf"operation={operation} .*?ms=([0-9.]+)", log.read_text())]
    return {name: round(statistics.median(found), 1) for name, found in took.items()} | {"times": times, "load": os.getloadavg()[0]}


def _note(took: dict[str, list[float]], what: str, begin_s: float, number: int) -> None:
    if number:  # the first one of each kind finds nothing in memory
        took.setdefault(what, []).append((time.perf_counter() - begin_s) * 1e3)


@contextlib.contextmanager
def opened(endpoint: str, directory: Path) -> Iterator[tuple[Any, Path]]:
    """A host with an agent and a libvirtd, and the agent's log."""
    sys.path.append(str(SUPPORT))
    cni_host, libvirt_host = importlib.import_module("cni_host"), importlib.import_module("libvirt_host")  # made for the tests
    settings = f'[libvirt]\nuri = "qemu:///system?socket={directory}/virt/run/libvirt-sock"\n'
    host = cni_host.CniHost(directory / "host", settings=settings, store=f'endpoints = ["{endpoint}"]\n')
    host.directory.mkdir()
    virt = libvirt_host.LibvirtHost(host.namespace, directory / "virt", {}, directory / "cache")
    try:
        host.open()
        virt.prepare()
        yield virt, host.directory / "log"
    except subprocess.SubprocessError:
        print(virt.log(), file=sys.stderr)
        raise
    finally:
        virt.close()
        host.close()


if __name__ == "__main__":
    main()
