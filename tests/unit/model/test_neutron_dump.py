"""What Neutron's Calico driver has written into an etcd is read without loss, and written again as it was.

The dumps in ``data/neutron`` are an etcd's keys and values in turn, from networking-calico with two hosts: security groups, ports with
allowed address pairs (one of them a prefix, which the driver writes as ``10.99.0.0/24/32``), a floating IP, QoS, and a live migration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tabinet.errors import DataError
from tabinet.model.codec import decode_document, decode_stored, encode_document, fail_closed
from tabinet.model.documents import Document
from tabinet.model.keys import ResourceKey, parse_path, path_of
from tabinet.model.resources import FelixConfiguration, LiveMigration, NetworkPolicy, WorkloadEndpoint
from tabinet.model.status import (
    EndpointStatusKey,
    HostStatusKey,
    parse_endpoint_status,
    parse_host_status,
    parse_status_path,
    status_path_of,
)
from tabinet.model.validate import validate

DUMPS = sorted((Path(__file__).parent / "data" / "neutron").glob("*.txt"))
BROKEN = "10.99.0.0/24/32"
REGION = "/calico/felix/v2/no-region/host/"


def entries(dump: Path) -> dict[str, bytes]:
    lines = dump.read_text().splitlines()
    return dict(zip(lines[::2], (line.encode() for line in lines[1::2]), strict=True))


ENTRIES = [(path, value) for dump in DUMPS for path, value in entries(dump).items()]
RESOURCES = [(path, value) for path, value in ENTRIES if path.startswith("/calico/resources/")]


def test_the_dumps_are_what_they_say() -> None:
    assert len(DUMPS) == 2
    kinds = {key.kind for path, _ in RESOURCES if isinstance(key := parse_path(path), ResourceKey)}
    assert kinds == {"ClusterInformation", "FelixConfiguration", "LiveMigration", "NetworkPolicy", "WorkloadEndpoint"}


@pytest.mark.parametrize(("path", "value"), RESOURCES, ids=[path.rpartition("/")[2] for path, _ in RESOURCES])
def test_every_resource_is_read_and_written_as_it_was(path: str, value: bytes) -> None:
    key = parse_path(path)
    assert key is not None
    assert path_of(key) == path
    document = decode_document(value, path)
    assert json.loads(encode_document(document)) == json.loads(value)
    if BROKEN.encode() not in value:
        decoded = decode_stored(path, value)
        assert decoded is not None
        assert decoded[0] == key
        assert validate(Document(data=document, source="dump", index=1, line=1)) == []


WITH_PREFIX = [(path, value) for path, value in RESOURCES if BROKEN.encode() in value]


@pytest.mark.parametrize(("path", "value"), WITH_PREFIX, ids=[path.rpartition("/")[2] for path, _ in WITH_PREFIX])
def test_a_prefix_among_the_addresses_is_reported_and_nothing_else_suffers(path: str, value: bytes) -> None:
    with pytest.raises(DataError) as refused:
        decode_stored(path, value)
    (problem,) = refused.value.problems
    assert (problem.path, problem.value) == ("spec.ipNetworks[3]", f'"{BROKEN}"')
    (same,) = validate(Document(data=decode_document(value, path), source="dump", index=1, line=1))
    assert (same.path, same.value, same.allowed) == (problem.path, problem.value, problem.allowed)

    closed = fail_closed(path, value)
    assert closed is not None
    key, record = closed
    assert key == parse_path(path)
    assert isinstance(record, WorkloadEndpoint)
    stored: dict[str, Any] = json.loads(value)
    assert record.spec.ip_networks == ("10.65.0.65/32", "fd00:65::78/128", "10.65.0.77/32")
    assert record.metadata.labels == stored["metadata"]["labels"]
    assert record.spec.interface_name == stored["spec"]["interfaceName"]
    assert record.spec.qos_controls is not None
    assert record.spec.qos_controls.ingress_burst == 4294967296
    assert [nat.external_ip for nat in record.spec.ip_nats] == [nat["externalIP"] for nat in stored["spec"].get("ipNATs", [])]


def test_rules_mean_what_the_security_groups_say() -> None:
    policies = [decoded[1] for path, value in RESOURCES if "/networkpolicies/" in path and (decoded := decode_stored(path, value))]
    rules = [rule for policy in policies if isinstance(policy, NetworkPolicy) for rule in policy.spec.ingress]
    assert {rule.protocol for rule in rules} == {None, 6, "112", "ICMP", "ICMPv6"}
    assert {port for rule in rules for port in rule.destination.ports} == {22, 80, "1000:2000"}
    assert {(rule.icmp.type, rule.icmp.code) for rule in rules if rule.icmp} == {(8, 0), (128, 0)}


def test_the_migration_names_both_ends() -> None:
    [(_, migration)] = [decoded for path, value in RESOURCES if "/livemigrations/" in path and (decoded := decode_stored(path, value))]
    assert isinstance(migration, LiveMigration)
    source, target = migration.spec.source, migration.spec.target
    assert source is not None and source.workload_endpoint is not None
    assert target is not None and target.workload_endpoint is not None
    assert (source.workload_endpoint.hostname, target.workload_endpoint.hostname) == ("hostA", "hostB")
    assert source.workload_endpoint.endpoint_id == target.workload_endpoint.endpoint_id == "145be8b3-67e3-45b9-8d4d-4b97c80fbfd5"


def test_the_settings_are_read() -> None:
    (settings, *_) = [
        decoded[1] for path, value in RESOURCES if "/felixconfigurations/" in path and (decoded := decode_stored(path, value))
    ]
    assert isinstance(settings, FelixConfiguration)
    assert settings.spec == {"endpointReportingEnabled": True, "interfacePrefix": "tap"}


STATUSES = [(path, value) for path, value in ENTRIES if path.startswith(REGION)]


@pytest.mark.parametrize(("path", "value"), STATUSES, ids=[path.removeprefix(REGION) for path, _ in STATUSES])
def test_statuses_are_read(path: str, value: bytes) -> None:
    match parse_status_path(path):
        case EndpointStatusKey() as key:
            assert status_path_of(key) == path
            assert key.workload == "openstack/035626d3-710c-42e6-9045-66a9161c80b1"
            assert parse_endpoint_status(path, value).status == "up"
        case HostStatusKey() as key:
            assert status_path_of(key) == path
            assert parse_host_status(path, value).uptime == 1.5
        case None:
            assert path.endswith("/round-trip-check")


def test_the_rest_is_not_ours_to_interpret() -> None:
    rest = {path.split("/")[2] for path, _ in ENTRIES if parse_path(path) is None and parse_status_path(path) is None}
    assert rest == {"compaction", "dhcp", "felix", "openstack"}
