"""From networking-calico to Tabinet with machines running: etcd holds what networking-calico wrote, agents forward by it; then Neutron
starts with our driver, whose comparison replaces what differs, and no packet is lost meanwhile.

What networking-calico wrote is taken from the dumps of a real one (``test_openstack_dumps.py``), with identifiers and addresses of this
Neutron in the place of its own.
"""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fabric_world import Cloud, Port, fabric
from fake_nova import Nova
from openstack_world import RESOURCES, World, eventually
from test_openstack_consistency import resync
from test_openstack_dumps import OF_DUMP, addresses_of, read_dump

from tabinet.attach.openstack.names import workload_of
from tabinet.model.openstack import REVISION_ANNOTATION
from tabinet.model.status import EndpointStatusKey, status_path_of
from tabinet.store.api import DeleteOp, PutOp

Document = dict[str, Any]
DUMP = "networking-calico-dump.txt"
COMPARED_WITHIN_S = 240.0
KINDS = ("workloadendpoints", "networkpolicies", "networksets")
WORDS = {word: name for name, word in OF_DUMP.items()}
NO_ADDRESS = "10.99.0.0/24/32"
"""What networking-calico made of a pair with a prefix. Hosts refuse an endpoint with it, Felix as well as ours."""


@dataclass
class Etcd:
    """The lab's, as the World wants it."""

    endpoint: str


@pytest.fixture(scope="module")
def cloud(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with fabric(template, tmp_path_factory.mktemp("takeover"), comparison_interval=2.0) as made:
        yield made


def test_machines_notice_nothing(cloud: Cloud) -> None:
    world = World(cloud.neutron, Etcd(cloud.neutron.etcd), Nova())  # type: ignore[arg-type]  # as far as it is used here
    network = world.network("10.65.0.0/24", "fd00:65::/64", name="net")
    group = cloud.neutron.create("security_group", name="web-e649")
    for ethertype, protocol, kind in (("IPv4", "icmp", 8), ("IPv6", "icmpv6", 128)):
        fields = {"security_group_id": group["id"], "direction": "ingress", "port_range_min": kind, "port_range_max": 0}
        cloud.neutron.create("security_group_rule", **fields, ethertype=ethertype, protocol=protocol)
    ports = {
        host: cloud.boot(network, host, security_groups=[group["id"]], allowed_address_pairs=[{"ip_address": pair}])
        for host, pair in (("nova1", "10.65.0.77"), ("nova2", "10.65.0.78"))
    }
    ours = world.stored(RESOURCES)
    cloud.neutron.stop()
    with closing(sqlite3.connect(cloud.neutron.directory / "neutron.sqlite")) as database, database:
        database.execute("update ml2_port_binding_levels set driver = 'calico'")
    put_what_networking_calico_wrote(world, ours, ports, network, group)
    eventually(lambda: all(reported(world, host, port) for host, port in ports.items()))
    assert not set(map(str, meaning(ours).values())) & set(map(str, meaning(world.stored(RESOURCES)).values()))

    code, found = resync(world, "--dry-run")
    assert code == 1
    assert {each["what"] for each in found["differences"]} == {"different", "missing", "left over"}

    one, two = ports["nova1"], ports["nova2"]
    with no_packet_lost(cloud, one, two), no_packet_lost(cloud, two, one):
        cloud.neutron.start()
        eventually(lambda: meaning(world.stored(RESOURCES)) == meaning(ours), COMPARED_WITHIN_S)
        eventually(lambda: all(reported(world, host, port) for host, port in ports.items()))
    assert cloud.neutron.show("port", one["id"])["status"] == "ACTIVE"
    added = cloud.neutron.create(
        "security_group_rule", security_group_id=group["id"], direction="ingress", ethertype="IPv4", protocol="tcp"
    )
    eventually(lambda: cloud.reaches(one, two, 80))
    cloud.neutron.delete(f"/security-group-rules/{added['id']}")
    eventually(lambda: not cloud.reaches(one, two, 80))


def put_what_networking_calico_wrote(
    world: World, ours: dict[str, Document], ports: dict[str, Port], network: Document, group: Document
) -> None:
    """Endpoints, policy and the cluster's documents are theirs, in the place of ours; also an endpoint whose port is long gone."""
    theirs = read_dump(DUMP)
    written: dict[str, Document] = {}
    for host, port in ports.items():
        four, six = addresses_of(port)
        words = {"PORT1": port["id"], "VM1": port["device_id"], "NET": network["id"], "WEB": group["id"], "MAC1": port["mac_address"]}
        words |= {"TAP1": f"tap{port['id']}"[:14], "V4-1": four, "V6-1": six}
        renamed = {WORDS[word]: name for word, name in words.items()} | {"hostA": host, "10.65.0.77": pair_of(port)}
        for path, document in theirs.items():
            if WORDS["PORT1"].replace("-", "--") in path and "workloadendpoints" in path:
                path, document = in_their_words(path, document, renamed)
                for name in ("ipNetworks", "allowedIps"):
                    document["spec"][name] = [each for each in document["spec"][name] if each != NO_ADDRESS]
                written[path] = document
            elif WORDS["WEB"] in path:
                path, document = in_their_words(path, document, renamed)
                written[path] = document
            elif "felixconfigurations" in path or WORDS["PORT2"].replace("-", "--") in path:
                written[path] = document
    removed = [DeleteOp(path) for path in meaning(ours) if path not in written]
    puts = [PutOp(path, json.dumps(document).encode()) for path, document in written.items()]
    assert sum("workloadendpoints" in path for path in written) == 3
    assert sum("ossg.default" in path for path in written) == 1
    world.run(lambda store: store.txn((), (*puts, *removed)))


def in_their_words(path: str, document: Document, renamed: dict[str, str]) -> tuple[str, Document]:
    text = json.dumps(document)
    for name in sorted(renamed, key=len, reverse=True):
        path = path.replace(name.replace("-", "--"), renamed[name].replace("-", "--")).replace(name, renamed[name])
        text = text.replace(name.replace("-", "--"), renamed[name].replace("-", "--")).replace(name, renamed[name])
    return path, json.loads(text)


def pair_of(port: Port) -> str:
    return str(port["allowed_address_pairs"][0]["ip_address"])


def reported(world: World, host: str, port: Port) -> bool:
    """The host's agent says that the kernel holds the endpoint as it is in etcd now."""
    key = EndpointStatusKey(host, "openstack", f"openstack/{workload_of(port['device_id'], port['id'])}", port["id"])
    path = status_path_of(key)
    found = world.stored(path).get(path, {})
    return (found.get("status"), found.get("revision")) == ("up", world.revision(world.endpoint_path(port, host)))


def meaning(entries: dict[str, Document]) -> dict[str, Document]:
    """What our driver is responsible for, without what says when it was written."""
    mine = {path: entry for path, entry in entries.items() if path.startswith(tuple(f"{RESOURCES}{kind}/openstack/" for kind in KINDS))}
    return {
        path: {
            "spec": entry["spec"],
            "labels": entry["metadata"].get("labels"),
            "annotations": {name: value for name, value in entry["metadata"].get("annotations", {}).items() if name != REVISION_ANNOTATION},
        }
        for path, entry in mine.items()
    }


@contextmanager
def no_packet_lost(cloud: Cloud, source: Port, target: Port) -> Iterator[None]:
    """One machine pings the other in both families all the time, and every ping is answered."""
    command = ["ip", "netns", "exec", cloud.machine(source), "ping", "-n", "-i", "0.02"]
    started = [subprocess.Popen([*command, address], stdout=subprocess.PIPE, text=True) for address in addresses_of(target)]
    try:
        yield
    finally:
        for each in started:
            each.send_signal(signal.SIGINT)
        texts = [each.communicate(timeout=30)[0] for each in started]
    for text in texts:
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", text)}
        assert answered, text[-2000:]
        assert sorted(set(range(1, max(answered) + 1)) - answered) == [], "packets were lost"
