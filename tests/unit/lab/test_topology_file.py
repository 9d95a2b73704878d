"""Topology files: what is read, and that every mistake is told with path, value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabinet.errors import InputError
from tabinet.lab.parse import parse_topology

EXAMPLES = Path(__file__).parents[3] / "examples" / "labs"

GOOD = """
name: one
defaults: {as: 64600, namespace: shop, profiles: [open]}
routers:
  spine: {as: 65000, role: spine}
  tor: {as: 65001, software: frr, role: tor}
hosts:
  h1: {labels: {rack: a}}
  h2: {as: 4200000001}
links: [[spine, tor], [tor, h1], [tor, h2]]
workloads:
  w1: {host: h1, labels: {app: web}, ports: [{name: http, port: 80}]}
  w2: {host: h2, namespace: other, profiles: []}
check: {tcp: [80, 81], udp: [53]}
"""


def problems(text: str) -> dict[str, str]:
    """What is wrong, by path."""
    with pytest.raises(InputError) as raised:
        parse_topology(text, "lab.yaml")
    assert all(problem.source == "lab.yaml" for problem in raised.value.problems)
    return {problem.path: f"{problem.value}; {problem.allowed}" for problem in raised.value.problems}


def with_line(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_everything_is_read() -> None:
    topology = parse_topology(GOOD)
    spine, tor = topology.routers
    assert (spine.as_number, spine.software, spine.role) == (65000, "bird", "spine")
    assert (tor.as_number, tor.software, tor.role) == (65001, "frr", "tor")
    assert [(host.name, host.as_number, host.labels) for host in topology.hosts] == [
        ("h1", 64600, {"rack": "a"}),
        ("h2", 4200000001, {}),
    ]
    first, second = topology.workloads
    assert (first.namespace, first.profiles, first.ports[0].protocol, first.ports[0].port) == ("shop", ("open",), "TCP", 80)
    assert (second.namespace, second.profiles) == ("other", ())
    assert (topology.check.tcp, topology.check.udp, topology.mesh) == ((80, 81), (53,), False)


@pytest.mark.parametrize("name", ["clos", "flat", "reflectors", "unnumbered", "vxlan"])
def test_the_examples_are_good_and_large_enough(name: str) -> None:
    topology = parse_topology((EXAMPLES / f"{name}.yaml").read_text())
    count = len(topology.workloads)
    assert topology.name == name
    # One ICMP probe, two TCP and two UDP probes in each family for each ordered pair.
    assert count * (count - 1) * 5 * 2 >= 500


def test_the_default_example_has_the_shape_that_it_is_known_for() -> None:
    topology = parse_topology((EXAMPLES / "clos.yaml").read_text())
    links = [set(link) for link in topology.links]
    tors = [router.name for router in topology.routers if router.role == "tor"]
    spines = [router.name for router in topology.routers if router.role == "spine"]
    assert len(topology.workloads) >= 12
    assert all({spine, tor} in links for spine in spines for tor in tors)
    assert all(sum(host.name in link for link in links) == 2 for host in topology.hosts)
    assert len({host.as_number for host in topology.hosts}) == len(topology.hosts) == 4
    assert len({router.as_number for router in topology.routers if router.role == "spine"}) == 1


MISTAKES = [
    ("name: one", "name: one-two", "name", "one-two; must be 1 to 15 lower-case letters and digits"),
    ("name: one", "name: [one]", "name", "must be a text"),
    ("routers:\n", "ruoters:\n", "ruoters", "unknown key; did you mean routers?"),
    ("role: spine}", "role: spine, asn: 1}", "routers.spine.asn", "unknown key; did you mean as?"),
    ("role: spine}", "role: core}", "routers.spine.role", "core; must be one of spine, tor, router"),
    ("software: frr", "software: quagga", "routers.tor.software", "quagga; must be one of bird, frr"),
    ("as: 65000", "as: 0", "routers.spine.as", "0; must be a number from 1 to 4294967294"),
    ("as: 65000", "as: 23456", "routers.spine.as", "23456; is reserved (RFC 6793"),
    ("as: 65000", "as: '65000'", "routers.spine.as", "65000; must be a number from 1"),
    ("[tor, h1]", "[tor, h11]", "links[1][1]", "h11; must be a router or host of this file; did you mean h1?"),
    ("[tor, h1]", "[h1, h1]", "links[1]", "must lead to another node"),
    ("[tor, h2]", "[h1, tor], [tor, h2]", "links[2]", "this pair is linked already"),
    ("[tor, h2]", "[tor]", "links[2]", "must be a list of two node names"),
    ("[tor, h2]", "[tor, spine]", "hosts.h2", "h2; has no link and is in no segment"),
    ("host: h1", "host: h9", "workloads.w1.host", "h9; must be a host of this file"),
    ("host: h1", "host: tor", "workloads.w1.host", "tor; must be a host of this file"),
    ("w2: {", "h1: {", "workloads.h1", "is the name of another node already (hosts)"),
    ("w2: {", "w2-with-a-long-name: {", "workloads.w2-with-a-long-name", "must be 1 to 15"),
    ("w2: {", "mgmt: {", "workloads.mgmt", "is reserved"),
    ("w2: {", "cali2: {", "workloads.cali2", "must not begin with cali or tap"),
    ("w2: {", "w1: {", "workloads.w1", "each key may be given once"),
    ("namespace: other", "namespace: Other!", "workloads.w2.namespace", "Other!; must be 1 to 63"),
    ("port: 80}", "port: 70000}", "workloads.w1.ports[0].port", "70000; must be a number from 1 to 65535"),
    ("name: http, port", "port", "workloads.w1.ports[0].name", "nothing; must be the port's name"),
    ("app: web", "app: 7", "workloads.w1.labels.app", "7; must be a text; quote it"),
    ("tcp: [80, 81]", "tcp: []", "check.tcp", "must name at least one port"),
    ("udp: [53]", "udp: [dns]", "check.udp[0]", "dns; must be a number"),
    ("as: 64600,", "as: 64600, pools: [10.0.0.1/8],", "defaults.pools[0]", "10.0.0.1/8; must be an IPv4 or IPv6 prefix without host bits"),
    ("as: 64600,", "as: 64600, ipip: Sometimes,", "defaults.ipip", "Sometimes; must be one of Never, Always, CrossSubnet"),
    ("as: 64600,", "as: 64600, ipip: Always, vxlan: Always,", "defaults.ipip", "Always; must be Never where vxlan is not"),
    ("as: 64600,", "as: 64600, mesh: 'yes',", "defaults.mesh", "yes; must be true or false"),
    ("as: 64600,", "as: 64600, bfd: {interval_ms: 1},", "defaults.bfd.interval_ms", "1; must be a number from 10 to 10000"),
]


@pytest.mark.parametrize(
    ("old", "new", "path", "text"), MISTAKES, ids=[f"{path}-{index}" for index, (_, _, path, _) in enumerate(MISTAKES)]
)
def test_a_mistake_is_told_with_path_value_and_what_is_allowed(old: str, new: str, path: str, text: str) -> None:
    found = problems(with_line(old, new))
    assert path in found
    assert text in found[path]


def test_all_mistakes_are_told_at_once() -> None:
    text = with_line("as: 65000", "as: 0").replace("[tor, h1]", "[tor, h9]").replace("udp: [53]", "udp: [0]")
    assert {"routers.spine.as", "links[1][1]", "check.udp[0]"} <= problems(text).keys()


SEGMENT = """
name: flat
hosts: {a: {}, b: {}}
segments:
  lan: {subnet4: 172.20.0.0/24, subnet6: "fd00:20::/64", members: [a, b]}
"""


@pytest.mark.parametrize(
    ("old", "new", "path", "text"),
    [
        ("172.20.0.0/24", "172.20.0.1/24", "segments.lan.subnet4", "must be an IPv4 prefix without host bits"),
        ("172.20.0.0/24", "'fd00:21::/64'", "segments.lan.subnet4", "must be an IPv4 prefix"),
        ("172.20.0.0/24", "10.65.4.0/24", "segments.lan.subnet4", "must not overlap 10.65.0.0/16, which the lab uses"),
        ("172.20.0.0/24", "172.20.0.0/31", "segments.lan.subnet4", "is too small for 2 members"),
        ("[a, b]", "[a]", "segments.lan.members", "must name at least two nodes"),
        ("[a, b]", "[a, a, b]", "segments.lan.members[1]", "may be listed once"),
        ("[a, b]", "[a, c]", "segments.lan.members[1]", "c; must be a router or host"),
        ("lan:", "a:", "segments.a", "is the name of another node already"),
    ],
)
def test_mistakes_in_segments(old: str, new: str, path: str, text: str) -> None:
    found = problems(SEGMENT.replace(old, new))
    assert text in found.get(path, "")


@pytest.mark.parametrize("text", ["", "[]", "just words", "{", "a: b: c", "name: x\x00"])
def test_what_is_no_topology_at_all_is_an_error_and_no_crash(text: str) -> None:
    assert problems(text)


def test_reflectors_and_unnumbered_links() -> None:
    text = with_line("h1: {labels: {rack: a}}", "h1: {reflector: 224.0.0.7}")
    assert [host.reflector for host in parse_topology(text).hosts] == ["224.0.0.7", ""]
    assert "IPv4 address" in problems(text.replace("224.0.0.7", "seven"))["hosts.h1.reflector"]
    unnumbered = with_line("defaults: {as: 64600,", "defaults: {as: 64600, unnumbered: true,")
    assert "must be frr" in problems(unnumbered)["routers.spine.software"]
    assert parse_topology(unnumbered.replace("spine: {as: 65000,", "spine: {as: 65000, software: frr,")).unnumbered
