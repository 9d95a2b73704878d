"""What virtual machines boot."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tabinet.lab.topology import Workload
from tabinet.lab.vm import Entry, mac_of, qemu_argv, render_cpio, tap_of


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio here to read it")
def test_cpio_reads_the_image():
    image = render_cpio([Entry("a/b/c", 0o100755, b"text"), Entry("a/d", 0o100644), Entry("proc", 0o040755)])
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=image, capture_output=True, check=True).stdout
    assert listed.decode().split() == ["a", "a/b", "a/b/c", "a/d", "proc"]


def test_an_image_has_each_file_once_and_ends():
    image = render_cpio([Entry("a/b", 0o100644, b"x"), Entry("a/b", 0o100644, b"y"), Entry("a/c", 0o100644, b"")])
    assert len(image) % 4 == 0
    assert len(re.findall(b"070701", image)) == 4  # a, a/b, a/c and the trailer
    assert image.rstrip(b"\0").endswith(b"TRAILER!!!")


def test_names_of_interfaces_fit():
    assert tap_of("vm1") == "tapvm1"
    assert len({tap_of("a-long-name-of-1"), tap_of("a-long-name-of-2")}) == 2
    assert all(len(tap_of(name)) <= 15 for name in ("vm1", "twelve-chars", "a-long-name-of-1"))


def test_hardware_addresses_stay():
    assert mac_of("lab", "vm1") == mac_of("lab", "vm1") != mac_of("other", "vm1")
    assert re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", mac_of("lab", "vm1"))


def test_the_command_line_names_interface_and_address():
    machine = Workload(name="vm1", host="h", namespace="n", labels={}, profiles=(), ports=(), kind="vm")
    argv = qemu_argv("lab", machine, Path("/image"), Path("/socket"))
    assert "tap,id=net,ifname=tapvm1,script=no,downscript=no" in argv
    assert f"virtio-net-pci,netdev=net,mac={mac_of('lab', 'vm1')},romfile=" in argv
