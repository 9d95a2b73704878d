"""What a lab says of itself and of wrong questions, without anything running."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabinet.errors import InputError, LabError
from tabinet.kernel.rtnetlink import Route, blackhole_route, gateway_route
from tabinet.lab.lab import Lab, open_lab
from tabinet.lab.load import load_topology
from tabinet.lab.plan import make_plan
from tabinet.lab.readiness import missing_routes
from tabinet.lab.state import Fault, LabDirectory, LabState
from tabinet.lab.status import summarize_status
from tabinet.lib.ip import parse_address, parse_prefix

EXAMPLES = Path(__file__).parents[3] / "examples" / "labs"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """The flat example as if it had been brought up and had died."""
    loaded = load_topology(EXAMPLES / "flat.yaml")
    directory = LabDirectory("flat", tmp_path)
    fault = Fault(cable="lan:node2", silent=True)
    directory.write(LabState(topology=loaded.topology, source=loaded.source, stage="up", faults=(fault,)))
    return Lab(directory, make_plan(loaded.topology))


def test_a_lab_is_found_by_name_or_because_it_is_the_only_one(lab: Lab) -> None:
    root = lab.directory.root
    assert open_lab("flat", root) == open_lab(None, root) == lab
    with pytest.raises(LabError, match=r"no lab clos \(running: flat\)"):
        open_lab("clos", root)


def test_without_a_lab_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no lab runs: make one with 'tabinet lab up'"):
        open_lab(None, tmp_path)


def test_with_several_labs_one_must_be_named(lab: Lab) -> None:
    LabDirectory("other", lab.directory.root).write(lab.state())
    with pytest.raises(LabError, match=r"several labs run \(flat, other\): say which"):
        open_lab(None, lab.directory.root)


async def test_unknown_links_nodes_and_components_are_answered_with_the_known_ones(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"no link lan:node9 .links: lan:node1, lan:node2"):
        await lab.cut("lan:node9")
    with pytest.raises(LabError, match="is cut already: heal it first"):
        await lab.cut("node2:lan")
    with pytest.raises(LabError, match=r"no component ospfd .components: bird, agent"):
        await lab.restart("node1", "ospfd")
    with pytest.raises(LabError, match=r"web1 runs nothing .nodes with programs: mgmt, node1"):
        await lab.restart("web1", "agent")
    with pytest.raises(LabError, match="has no node nobody"):
        lab.exec_argv("nobody", ["ip", "a"])


def test_commands_are_run_in_the_nodes_namespace(lab: Lab) -> None:
    assert lab.exec_argv("web1", ["ip", "a"]) == ["nsenter", "--net=/run/netns/tl-flat-web1", "--", "ip", "a"]


def test_commands_on_a_host_find_its_configuration(lab: Lab) -> None:
    assert lab.exec_environment("web1") == {"TABINET_LAB": "flat"}
    config = lab.directory.node("node1") / "agent.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("")
    assert lab.exec_environment("node1") == {"TABINET_CONFIG": str(config)}


def test_the_status_names_what_is_dead_cut_and_unknown(lab: Lab) -> None:
    status = summarize_status(lab.plan, lab.directory, lab.state(), [], {}, "no answer", {"tl-flat-node1"})
    assert (status.name, status.stage, status.healthy, status.store) == ("flat", "up", False, "no answer")
    assert {node.name for node in status.nodes if node.exists} == {"node1"}
    assert next((item.component, item.alive, item.pid) for node in status.nodes for item in node.components) == ("etcd", False, 0)
    assert {cable.name: cable.state for cable in status.cables if cable.state != "up"} == {"lan:node2": "silent"}
    assert all(workload.addresses == () for workload in status.workloads)


VIA = parse_address("10.255.0.1")


@pytest.mark.parametrize(
    ("routes", "missing"),
    [
        ([], True),
        ([gateway_route(parse_prefix("10.65.0.0/26"), VIA)], False),
        ([gateway_route(parse_prefix("10.65.0.0/26"), VIA), blackhole_route(parse_prefix("10.65.0.7/32"))], True),
        ([blackhole_route(parse_prefix("10.65.0.0/26")), gateway_route(parse_prefix("10.65.0.7/32"), VIA)], False),
        ([gateway_route(parse_prefix("10.66.0.0/16"), VIA)], True),
    ],
)
def test_the_longest_match_decides_whether_there_is_a_way(routes: list[Route], missing: bool) -> None:
    wanted = parse_address("10.65.0.7")
    assert missing_routes(routes, [wanted]) == ([wanted] if missing else [])


def test_all_problems_of_a_topology_and_its_resource_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("kind: Nonsense\napiVersion: projectcalico.org/v3\nmetadata: {name: x}\n")
    (tmp_path / "lab.yaml").write_text(
        """
name: one
hosts: {a: {}, b: {}}
links: [[a, b]]
resources:
  - bad.yaml
  - absent.yaml
  - {kind: Tier, apiVersion: projectcalico.org/v3, metadata: {name: t}, spec: {order: first}}
"""
    )
    with pytest.raises(InputError) as raised:
        load_topology(tmp_path / "lab.yaml")
    texts = [str(problem) for problem in raised.value.problems]
    assert any("bad.yaml" in text and "Nonsense" in text for text in texts)
    assert any("absent.yaml" in text for text in texts)
    assert any("resources[2].spec.order" in text and "first" in text for text in texts)


def test_a_topology_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_topology(tmp_path / "nothing.yaml")
