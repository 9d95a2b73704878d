"""One Neutron and one etcd for all tests here: each makes networks, groups and ports of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from etcd_process import EtcdProcess, free_port
from fake_nova import Nova
from neutron_process import VENV, Neutron, make_template
from openstack_world import World
from whole_cloud import WholeCloud, whole_cloud

if not (VENV / ".stamp").exists():
    collect_ignore_glob = ["test_*"]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of Neutron's with nothing in it."""
    path = tmp_path_factory.mktemp("template") / "neutron.sqlite"
    make_template(path)
    return path


@pytest.fixture(scope="session")
def world(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Neutron, running, and the etcd that it writes to."""
    directory: Path = tmp_path_factory.mktemp("openstack")
    etcd = EtcdProcess(directory / "etcd", f"http://127.0.0.1:{free_port()}")
    nova = Nova()
    nova.start()
    neutron = Neutron(directory / "neutron", etcd.endpoint, nova=nova.url)
    try:
        etcd.start()
        neutron.prepare(template)
        neutron.start()
        neutron.make_default_rules()
        yield World(neutron, etcd, nova)
    finally:
        neutron.stop()
        etcd.kill()
        nova.stop()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeCloud]:
    """A cloud's whole control plane, running."""
    with whole_cloud(tmp_path_factory.mktemp("whole")) as cloud:
        yield cloud
