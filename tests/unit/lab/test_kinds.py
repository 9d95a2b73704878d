"""Kinds of workloads: what a topology may say of them, what is planned for them, and what they tell others."""

from __future__ import annotations

import asyncio
import os
import tomllib
from pathlib import Path

import pytest

from tabinet.attach.libvirt.domain import parse_domain
from tabinet.errors import InputError
from tabinet.lab.build import namespace_batch, node_batch
from tabinet.lab.groups import lab_groups, processes_in_groups, remove_groups
from tabinet.lab.kinds import port
from tabinet.lab.kinds.facts import FACTS
from tabinet.lab.kinds.kind import Site
from tabinet.lab.kinds.known import KINDS, kind_of, kinds_in
from tabinet.lab.kinds.libvirt import render_domain
from tabinet.lab.launches import components, render_agent_file
from tabinet.lab.load import load_topology
from tabinet.lab.parse import parse_topology
from tabinet.lab.plan import NodeKind, Plan, make_plan
from tabinet.lab.state import LabDirectory
from tabinet.lab.topology import Workload
from tabinet.model.keys import ResourceKey
from tabinet.model.records.base import Metadata
from tabinet.model.records.endpoints import WorkloadEndpointSpec
from tabinet.model.resources import WorkloadEndpoint

DIRECTORY = LabDirectory("mixed")
HOST = "name: x\nhosts: {h: {}}\nworkloads:\n"


@pytest.fixture(scope="module")
def mixed() -> Plan:
    return make_plan(load_topology(Path(__file__).parents[3] / "examples" / "labs" / "mixed.yaml").topology)


def workload(plan: Plan, name: str) -> Workload:
    return next(each for each in plan.topology.workloads if each.name == name)


def site(plan: Plan, host: str) -> Site:
    return Site(plan, DIRECTORY, host)


def test_every_kind_that_can_be_written_is_known() -> None:
    assert set(KINDS) == set(FACTS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: podman, namespace: shop", "workloads.w.namespace: got shop; cannot be said of a workload of kind podman"),
        ("kind: tap, profiles: [shop]", "workloads.w.profiles: got ['shop']; cannot be said of a workload of kind tap"),
        ("kind: docker, ports: [{name: a, port: 1}]", "cannot be said of a workload of kind docker"),
        ("kind: qemu", "must be one of namespace, vm, podman, docker, libvirt, tap, host"),
    ],
)
def test_what_a_kind_cannot_have_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_topology(f"{HOST}  w: {{host: h, {text}}}\n")
    assert problem in str(caught.value)


def test_containers_get_their_namespaces_from_their_runtimes(mixed: Plan) -> None:
    made = namespace_batch(mixed)
    assert {node.name for node in mixed.nodes if node.kind is NodeKind.CONTAINER} == {"pod", "box"}
    assert "tl-mixed-ns" in made
    assert "tl-mixed-port" in made
    assert "tl-mixed-pod" not in made
    assert mixed.node("vm") is None
    assert mixed.node("metal") is None


def test_runtimes_are_programs_of_their_hosts_and_known_to_the_agents(mixed: Plan) -> None:
    programs = {host.name: [each.name for each in components(mixed, DIRECTORY) if each.node == host.name] for host in mixed.hosts}
    assert programs == {
        "host11": ["bird", "agent", "podman-mounts"],
        "host12": ["bird", "agent", "guest", "docker-mounts", "containerd", "dockerd", "libvirt-mounts", "libvirtd"],
        "host21": ["bird", "agent", "guest", "wire-port", "dhcp-port"],
        "host22": ["bird", "agent"],
    }
    assert all(len(each.socket) <= 107 for each in components(mixed, DIRECTORY))  # unix(7)
    told = tomllib.loads(render_agent_file(mixed, mixed.hosts[1], DIRECTORY))
    assert told["docker"]["enabled"]
    assert told["libvirt"]["uri"] == "qemu:///system?socket=/run/tabinet/labs/mixed/nodes/host12/libvirt/run/libvirt-sock"
    assert "docker" not in tomllib.loads(render_agent_file(mixed, mixed.hosts[0], DIRECTORY))


def test_a_domain_says_what_the_hook_understands(mixed: Plan) -> None:
    domain = parse_domain(render_domain(site(mixed, "host12"), workload(mixed, "vm")).encode(), ("tap",))
    assert domain is not None
    assert (domain.name, domain.namespace) == ("vm", "lab")
    (interface,) = domain.interfaces
    assert interface.device == "tapvm"
    assert interface.wanted.labels == {"app": "web", "tabinet.io/lab-workload": "vm"}


def test_a_port_is_what_the_neutron_driver_writes(mixed: Plan) -> None:
    topology, each = mixed.topology, workload(mixed, "port")
    endpoint = port.endpoint(topology, each)
    assert endpoint["spec"]["ipNetworks"] == [
        f"{address}/{bits}" for address, bits in zip(port.addresses(topology, each), (32, 128), strict=True)
    ]
    assert endpoint["spec"]["ipv4Gateway"] == "10.64.0.1"
    assert "sg-name.projectcalico.org/openstack-app-web" in endpoint["metadata"]["labels"]
    device = endpoint["spec"]["interfaceName"]
    assert len(device) <= 14
    batches = {node.name: node_batch(mixed, node) for node in mixed.nodes}
    assert f"tuntap add dev {device} mode tap" in batches["host21"]
    assert f"link set dev eth0 address {endpoint['spec']['mac']} up" in batches["port"]
    assert len(port.subnet_documents(topology)) == 2


def test_an_endpoint_of_a_runtime_is_found_by_its_name_on_its_host(mixed: Plan) -> None:
    box = workload(mixed, "box")
    key = ResourceKey("WorkloadEndpoint", "host12-libnetwork-libnetwork-1", "default")
    metadata = Metadata(labels={"tabinet.io/lab-workload": "box"})
    found = {
        host: kind_of(box).is_endpoint(
            site(mixed, "host12"), box, key, WorkloadEndpoint(metadata=metadata, spec=WorkloadEndpointSpec(node=host))
        )
        for host in ("host12", "host21")
    }
    assert found == {"host12": True, "host21": False}


def test_what_a_machine_lacks_is_told_with_what_to_do(mixed: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    told = "\n".join(line for kind in kinds_in(mixed.topology).values() for line in kind.missing())
    assert "containers of podman need podman, conmon, runc" in told
    assert "containers of Docker need dockerd, docker, containerd, runc" in told
    assert "domains of libvirt need libvirtd, virsh: run 'scripts/install-packages libvirt-packages.txt'" in told


def test_control_groups_of_one_lab_are_found_in_both_hierarchies_and_removed(tmp_path: Path) -> None:
    inner = tmp_path / "pids" / "tl-mixed-host11" / "container"
    for group in (inner, tmp_path / "tl-mixed-host12", tmp_path / "tl-mixed2-host11", tmp_path / "pids" / "other"):
        group.mkdir(parents=True)
    assert lab_groups("mixed", tmp_path) == [tmp_path / "tl-mixed-host12", inner, inner.parent]
    (inner / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert processes_in_groups(lab_groups("mixed", tmp_path)) == [os.getpid()]
    (inner / "cgroup.procs").unlink()  # in a directory that is no group it would stay
    assert asyncio.run(remove_groups("mixed", tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["other", "pids", "tl-mixed2-host11"]
