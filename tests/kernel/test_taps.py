"""TAPs of domains in a real kernel: made to be opened by a hypervisor, told from those of others, removed only when they are ours."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tabinet.attach.inside import HOST_MAC
from tabinet.attach.libvirt.taps import Taps
from tabinet.attach.network import LinuxNetwork
from tabinet.errors import AttachError, KernelError
from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import Link
from tabinet.kernel.tuntap import create_tap

pytestmark = pytest.mark.kernel

TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x400454CA, 0x0002, 0x1000, 0x4000, 0x0100
ONE, OTHER = "6c1a1a0e-7a52-4c0e-8d34-1d1e6b1f0001", "6c1a1a0e-7a52-4c0e-8d34-1d1e6b1f0002"


@pytest.fixture
def host() -> Iterator[str]:
    name = f"tbt-{uuid.uuid4().hex[:6]}"
    netns.create(name)
    try:
        yield name
    finally:
        netns.delete(name)


def taps_of(host: str) -> Taps:
    network = LinuxNetwork(host)
    return Taps(network, lambda name, queues: netns.run_in(host, lambda: create_tap(name, queues)))


def links(host: str) -> dict[str, Link]:
    return {link.name: link for link in LinuxNetwork(host).on_host(lambda rtnetlink: rtnetlink.links()) if link.name != "lo"}


@contextlib.contextmanager
def opened(host: str, name: str, more: int = 0) -> Iterator[None]:
    """Somebody holds the interface open, as QEMU does."""

    def work() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | more))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    descriptor = netns.run_in(host, work)
    try:
        yield
    finally:
        os.close(descriptor)


def test_a_tap_is_ready_to_be_opened_stays_and_goes(host: str) -> None:
    taps = taps_of(host)
    taps.make("tapa", ONE, mtu=1400)
    made = links(host)["tapa"]
    assert (made.up, made.carrier, made.mac, made.mtu, taps.ours()) == (True, False, HOST_MAC, 1400, {"tapa": ONE})
    with opened(host, "tapa"):
        assert links(host)["tapa"].carrier
        taps.make("tapa", ONE)  # as when libvirt reconnects
        with pytest.raises(AttachError, match=f"in use by domain {ONE}"):
            taps.make("tapa", OTHER)
    taps.make("tapa", OTHER)
    assert taps.ours() == {"tapa": OTHER}
    taps.remove("tapa", ONE)
    assert "tapa" in links(host), "it is another domain's"
    for _ in range(2):
        taps.remove("tapa", OTHER)
    assert links(host) == {}


def test_several_queues_and_one_are_told_apart(host: str) -> None:
    taps = taps_of(host)
    taps.make("tapa", ONE, queues=2)
    with opened(host, "tapa", IFF_MULTI_QUEUE), opened(host, "tapa", IFF_MULTI_QUEUE):
        pass
    with pytest.raises(OSError, match="Invalid argument"), opened(host, "tapa"):
        pass
    taps.make("tapa", ONE)
    with opened(host, "tapa"):
        pass


def test_an_interface_of_others_is_used_and_left(host: str) -> None:
    taps = taps_of(host)
    subprocess.run(["ip", "-n", host, "tuntap", "add", "dev", "tapa", "mode", "tap"], check=True)
    before = links(host)["tapa"]
    taps.make("tapa", ONE, mtu=1400)
    taps.remove("tapa", ONE)
    assert (links(host)["tapa"], taps.ours()) == (before, {})
    with pytest.raises(KernelError, match="make TAP lo"):
        netns.run_in(host, lambda: create_tap("lo"))
