"""What containers of all runtimes have in common: an image of a static busybox, a control group, and a namespace that gets a name."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterable

from tabinet.lab.build import NETNS_DIRECTORY, in_namespace, run
from tabinet.lab.kinds.kind import Site, until
from tabinet.lab.topology import Workload
from tabinet.lab.vm import BUSYBOX

DIRECTORIES = ("bin", "etc", "proc", "sys", "dev", "tmp")
APPLETS = ("sh", "sleep", "ping", "ip")
SLEEP = ("sleep", "1000000000")
"""What containers do."""


def lacking(programs: Iterable[str]) -> list[str]:
    """Those of the programs that this machine does not have, and busybox if it has none."""
    found = [name for name in programs if shutil.which(name) is None]
    return found if BUSYBOX.exists() else [*found, str(BUSYBOX)]


def network_of(workload: Workload) -> str:
    """The runtime's network that the container is in; one for each, as profiles are those of a network. No word that a runtime reserves."""
    return f"lab-{workload.name}"


def control_group(site: Site) -> str:
    """Below which the control groups of a host's containers are; named like the host's network namespace, by which it is removed."""
    return f"/{site.namespace}"


def busybox_tar() -> bytes:
    """A root directory with a busybox, and links to it, as a tar."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in DIRECTORIES:
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        archive.add(BUSYBOX, "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return made.getvalue()


async def name_namespace(site: Site, workload: Workload, pid: str) -> None:
    """The network namespace of the container whose first process this is has the workload's name: everything else finds it there."""
    name = site.namespace_of(workload)
    if (NETNS_DIRECTORY / name).exists():  # that of the container before it
        await run(["ip", "netns", "del", name])
    await run(["ip", "netns", "attach", name, pid])


async def wait_addresses(site: Site, workload: Workload, log: str) -> None:
    """No address in the workload's namespace is being probed for duplicates any more.

    Raises:
        LabError: one still is after a long time.
    """
    argv = in_namespace(site.namespace_of(workload), ["ip", "-6", "-o", "addr", "show", "tentative"])

    async def settled() -> bool:
        return not (await run(argv)).strip()

    await until(settled, f"{workload.name} can use its addresses", site.directory.log(site.host, log))
