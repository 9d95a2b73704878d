"""The control plane of a cloud as it is in operation: Keystone, MariaDB, RabbitMQ, an etcd with TLS, and Neutron as several processes (two
of the API, ``neutron-rpc-server``, ``neutron-periodic-workers``). All of it on the loopback, with free ports, in one directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from certificates import client_files, make_certificates, server_arguments
from etcd_process import EtcdProcess, free_port
from fake_nova import Nova
from keystone_process import Keystone
from mariadb_process import MariaDb
from neutron_process import Backing, Neutron
from openstack_world import World
from rabbitmq_process import RabbitMq

from tabinet.store.open import StoreConfig

TENANTS = ("blue", "green")
"""Projects, each with a user of the same name."""


@dataclass
class WholeCloud(World):
    """A world whose callers are the administrator, unless they bring a token of their own."""

    keystone: Keystone | None = None


@contextlib.contextmanager
def whole_cloud(directory: Path) -> Iterator[WholeCloud]:
    """It runs, and nothing of it is left afterwards."""
    pki = directory / "pki"
    make_certificates(pki)
    etcd = EtcdProcess(directory / "etcd", f"https://127.0.0.1:{free_port()}", server_arguments(pki))
    nova, keystone = Nova(), Keystone(directory / "keystone")
    database, queue = MariaDb(directory / "mariadb"), RabbitMq(directory / "rabbitmq")
    with contextlib.ExitStack() as stack:
        for each in (nova, queue, database, keystone):
            stack.callback(each.stop)
        stack.callback(etcd.kill)
        nova.start()
        etcd.start()
        with ThreadPoolExecutor() as pool:  # most of the time each of them waits for something of its own
            started = [pool.submit(start) for start in (queue.start, database.start, lambda: _start(keystone))]
        for each in started:
            each.result()
        secrets = client_files(pki)
        backing = Backing(database.make_database("neutron"), queue.url, keystone, {f"etcd_{name}": path for name, path in secrets.items()})
        neutron = Neutron(directory / "neutron", etcd.endpoint, processes=2, comparison_interval=20.0, nova=nova.url, backing=backing)
        for name in TENANTS:
            keystone.make_user(name, name, "member")
        keystone.make_user("neutron", "service", "service", "admin")
        keystone.make_endpoint("network", "neutron", f"http://127.0.0.1:{neutron.port}")
        keystone.make_endpoint("compute", "nova", f"{nova.url}/v2.1")
        neutron.prepare(Path())
        stack.callback(neutron.stop)
        neutron.start()
        yield WholeCloud(neutron, etcd, nova, StoreConfig(endpoints=(etcd.endpoint,), **secrets), keystone)


def _start(keystone: Keystone) -> None:
    keystone.prepare()
    keystone.start()
