"""Status paths and records, both ways."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabinet.errors import DataError
from tabinet.model.endpoint_names import WorkloadEndpointName
from tabinet.model.keys import ResourceKey
from tabinet.model.status import (
    EndpointStatus,
    EndpointStatusKey,
    HostStatus,
    HostStatusKey,
    StatusKey,
    endpoint_status_key,
    endpoint_status_path,
    endpoint_status_prefix,
    host_status_prefix,
    parse_endpoint_status,
    parse_host_status,
    parse_status_path,
    render_endpoint_status,
    status_path_of,
)

ENDPOINT = EndpointStatusKey("node-1", "openstack", "openstack/vm%1", "port")

PATHS: list[tuple[StatusKey, str]] = [
    (HostStatusKey("n"), "/calico/felix/v2/no-region/host/n/status"),
    (HostStatusKey("n", "eu", True), "/calico/felix/v2/region-eu/host/n/last_reported_status"),
    (ENDPOINT, "/calico/felix/v2/no-region/host/node-1/workload/openstack/openstack%2fvm%251/endpoint/port"),
]


@pytest.mark.parametrize(("key", "path"), PATHS)
def test_paths(key: StatusKey, path: str) -> None:
    assert status_path_of(key) == path
    assert parse_status_path(path) == key


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1)
WORKLOADS = st.text(st.characters(codec="utf-8"), min_size=1) | st.text("%25f/ab", min_size=1)


@given(
    st.builds(EndpointStatusKey, TEXT, TEXT, WORKLOADS, TEXT, st.just("") | TEXT)
    | st.builds(HostStatusKey, TEXT, st.just("") | TEXT, st.booleans())
)
def test_every_key_survives_its_path(key: StatusKey) -> None:
    assert parse_status_path(status_path_of(key)) == key


@pytest.mark.parametrize(
    "path",
    [
        "/calico/ipam/v2/config",
        "/calico/felix/v2/no-region/host/n",
        "/calico/felix/v2/no-region/host//status",
        "/calico/felix/v2/somewhere/host/n/status",
        "/calico/felix/v2/region-/host/n/status",
        "/calico/felix/v2/no-region/host/n/workload/cni/a%2F/endpoint/e",
        "/calico/felix/v2/no-region/host/n/workload/cni/%3a/endpoint/e",
        "/calico/felix/v2/no-region/host/n/workload/cni/a/b/endpoint/e",
    ],
)
def test_other_paths_are_nobodys(path: str) -> None:
    assert parse_status_path(path) is None


def test_prefixes_lead_to_the_keys() -> None:
    assert status_path_of(ENDPOINT).startswith(endpoint_status_prefix("node-1"))
    assert status_path_of(HostStatusKey("n", "eu")).startswith(host_status_prefix("n", "eu"))


@pytest.mark.parametrize(
    "key", [HostStatusKey(""), HostStatusKey("a/b"), EndpointStatusKey("n", "o", "", "e"), EndpointStatusKey("n", "o", "w", "a/b")]
)
def test_keys_that_have_no_path(key: StatusKey) -> None:
    with pytest.raises(ValueError, match=r"cannot be part|without a name"):
        status_path_of(key)


def test_the_key_of_an_endpoint_has_namespace_and_workload() -> None:
    name = WorkloadEndpointName("n", "cni", "c1", "eth0")
    assert endpoint_status_key("default", name) == EndpointStatusKey("n", "cni", "default/c1", "eth0")


def test_what_an_agent_reports_is_where_an_attachment_looks() -> None:
    name = WorkloadEndpointName("node-1", "cni", "c-1", "eth0")
    path = endpoint_status_path("node-1", ResourceKey("WorkloadEndpoint", str(name), "default"))
    assert path == status_path_of(endpoint_status_key("default", name))
    assert parse_endpoint_status(path, render_endpoint_status(True, 7)) == EndpointStatus("up", 7)
    assert parse_endpoint_status(path, render_endpoint_status(False, 7, "why")) == EndpointStatus("down", 7, "why")
    assert parse_endpoint_status(path, render_endpoint_status(False, 7, "why", failed=True)) == EndpointStatus("error", 7, "why")


def test_records_are_what_calico_reads_and_writes() -> None:
    assert msgspec.json.encode(EndpointStatus("up")) == b'{"status":"up"}'
    assert parse_endpoint_status("/k", b'{"status":"down","reason":"no link","revision":7,"later":1}') == EndpointStatus(
        "down", 7, "no link"
    )
    assert parse_host_status("/k", b'{"time":"2026-01-01T00:00:00Z","uptime":1.5,"first_update":true}') == HostStatus(
        "2026-01-01T00:00:00Z", 1.5, True
    )


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"status": 1}', b"\xff"])
def test_what_is_no_status_is_refused(value: bytes) -> None:
    with pytest.raises(DataError):
        parse_endpoint_status("/k", value)
    with pytest.raises(DataError):
        parse_host_status("/k", value)
