"""Pages of the documentation, word for word, on two hosts in namespaces: from nothing to two workloads that reach each other.

First what deploy.md says; on these hosts then every page. What is not installed here is skipped. What a page takes down at its end leaves
nothing behind: no interface, endpoint or address.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from containerd_host import IMAGE, image_tar
from cri import Cri
from docker_host import busybox_tar
from guest_shell import Shell, make_image
from page_hosts import PageHost, PageHosts, eventually, overlay_is_there, page_hosts

from tabinet.lab import vm

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not overlay_is_there(), reason="this kernel has no overlayfs"),
]
BUSYBOX = "docker.io/library/busybox:latest"
DOCKER_UNIT = "[Service]\nType=notify\nExecStart=/usr/sbin/dockerd --storage-driver=vfs --log-level=warn\n"
CONTAINERD_UNIT = "[Service]\nType=notify\nExecStart=/usr/bin/containerd --log-level warn\n"
CONTAINERD = f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
netns_mounts_under_state_dir = true
disable_apparmor = true
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
"""
"""Debian's, but for what this machine lacks."""
PODMAN = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
STORAGE = '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n'
CONSOLE = re.compile(r'-append "console=ttyS0 quiet"')


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}; scripts/setup-runtimes does that")


@pytest.fixture(scope="module")
def fabric() -> Iterator[PageHosts[PageHost]]:
    """Two hosts as deploy.md has them."""
    with page_hosts(PageHost) as hosts:
        hosts.follow("deploy.md", "Two hosts from nothing")
        yield hosts


@pytest.fixture
def clean(fabric: PageHosts[PageHost]) -> Iterator[PageHosts[PageHost]]:
    """The hosts, which are as before after the test; networks that runtimes know are taken away."""
    before = traces(fabric)
    yield fabric
    for host in fabric.hosts.values():
        host.run("rm -f /etc/cni/net.d/10-fabric.conflist")
    eventually(lambda: traces(fabric) == before, "nothing is left", lambda: f"{before} {traces(fabric)}")


def traces(fabric: PageHosts[PageHost]) -> list[str]:
    """Interfaces, routes and neighbours of workloads, endpoints, and what of the pools is in use."""
    used = json.loads(fabric["node1"].run("tabinet ipam show --json").stdout)
    found = [f"{sum(pool['assigned'] for pool in used['pools'])} addresses", fabric["node1"].run("tabinet get wep -A -o name").stdout]
    for host in fabric.hosts.values():
        shown = host.run("ip -o link; ip route; ip -6 route; ip neigh show nud permanent").stdout
        found += [line for line in shown.splitlines() if " cali" in line or " tap" in line or " dkr" in line]
    return found


def test_two_hosts_from_nothing(fabric: PageHosts[PageHost]) -> None:
    assert traces(fabric)[1:] == [""]


def test_bare_metal(clean: PageHosts[PageHost]) -> None:
    clean.follow("bare-metal.md")


@needs("podman", "conmon", "runc", "busybox")
def test_podman(clean: PageHosts[PageHost]) -> None:
    for host in clean.hosts.values():
        host.write("/etc/containers/containers.conf.d/tests.conf", PODMAN)
        host.write("/etc/containers/storage.conf", STORAGE)
        host.write_bytes("/var/lib/busybox.tar", busybox_tar())

    def prepared(host: PageHost, commands: str) -> str:
        if "podman run" in commands and host.run("podman image exists busybox", check=False).returncode:
            host.run("podman import -q /var/lib/busybox.tar busybox")
        return commands

    clean.follow("podman.md", before=prepared)


@needs("containerd", "ctr", "runc", "busybox")
def test_containerd(clean: PageHosts[PageHost]) -> None:
    for host in clean.hosts.values():
        host.write("/etc/systemd/system/containerd.service", CONTAINERD_UNIT)
        host.write("/etc/containerd/config.toml", CONTAINERD)
        host.write_bytes("/var/lib/busybox.tar", image_tar(BUSYBOX, ()))
        host.write_bytes("/var/lib/box.tar", image_tar())
        host.environment["CONTAINERD_SNAPSHOTTER"] = "native"
        host.run("systemctl restart containerd")
        host.run("ctr images import --snapshotter native /var/lib/busybox.tar")
        host.run("ctr -n k8s.io images import --snapshotter native /var/lib/box.tar")
    clean.follow("containerd.md", "Two containers of ctr")
    clean.follow("containerd.md", "CRI")
    sockets = [f"/proc/{host.number}/root/run/containerd/containerd.sock" for host in clean.hosts.values()]
    one, two = (Cri.open(socket, IMAGE, "/var/log/pods") for socket in sockets)
    try:
        web = one.run_pod("web", annotations={"tabinet.io/labels": "app=web"})
        db = two.run_pod("db", annotations={"team": "b"})
        eventually(lambda: two.reaches(db, web.address), "a pod of the other host")
        labels = clean["node1"].run("tabinet get wep -A -o json").stdout
        assert '"app": "web"' in labels
        assert '"team": "b"' in labels
        one.remove_pod(web)
        two.remove_pod(db)
    finally:
        one.close()
        two.close()


@needs("dockerd", "docker", "containerd", "runc", "busybox")
def test_docker(clean: PageHosts[PageHost]) -> None:
    for host in clean.hosts.values():
        host.write("/etc/systemd/system/docker.service", DOCKER_UNIT)
        host.write_bytes("/var/lib/busybox.tar", busybox_tar())
        host.environment["DOCKER_API_VERSION"] = "1.41"

    def prepared(host: PageHost, commands: str) -> str:
        if "docker run" in commands and host.run("docker image inspect busybox", check=False).returncode:
            host.run("docker import /var/lib/busybox.tar busybox")
        return commands

    clean.follow("docker.md", before=prepared)


@pytest.mark.skipif(bool(vm.missing()), reason=f"not installed: {', '.join(vm.missing())}; scripts/setup-vms does that")
def test_qemu_and_anything_else(clean: PageHosts[PageHost], tmp_path: Path) -> None:
    image = tmp_path / "initrd"
    make_image(image)
    for host in clean.hosts.values():
        host.write_bytes("/var/lib/tabinet/vm/initrd", image.read_bytes())

    def with_a_shell(host: PageHost, commands: str) -> str:
        """Guests boot fast without hardware support, and take commands."""
        shell = "-device virtio-serial-pci -chardev socket,id=shell,path=/run/shell,server=on,wait=off -device virtserialport,chardev=shell"
        return CONSOLE.sub(f'-append "{vm.KERNEL_ARGUMENTS}" -M pc,hpet=off -nodefaults -no-user-config {shell}', commands)

    clean.follow("qemu.md", "Two guests on two hosts", before=with_a_shell)
    web, db = (Shell.open(f"/proc/{host.number}/root/run/shell") for host in clean.hosts.values())
    try:
        assert web.run("ping -c 1 -W 5 10.65.9.8")[0] == 0, web.run("ip addr; ip route")
        assert db.run("ping -c 1 -W 5 10.65.9.7")[0] == 0
        assert web.fetch("169.254.169.254", "/latest/meta-data/hostname", within_s=10).endswith("web")
    finally:
        web.close()
        db.close()
    clean.follow("qemu.md", "The end of a guest")
    clean.follow("qemu.md", "Anything else")
