"""Whatever resources say, what is rendered from them is a configuration that the real BIRD accepts; wrong parts are left out."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress, LinkPeer, Secret
from tabinet.bgp.render import render_config
from tabinet.calc.bgp import bgp_intent
from tabinet.calc.bgp_nodes import RoutingFacts
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model import resources as r
from tabinet.model.keys import ResourceKey

pytestmark = pytest.mark.skipif(shutil.which("bird") is None, reason="needs BIRD")

texts = st.text(alphabet="az09.:/-_*\"'\\;{}\n é", max_size=12)
names = st.sampled_from(("a", "b.c", "exp", "x" * 70, 'q"', "ü"))
as_numbers = st.one_of(st.sampled_from((64512, 65000, 0, "1.10", "no", 4294967295)), st.integers(0, 2**32))
addresses = st.sampled_from(("10.7.0.2", "10.7.0.2:1179", "10.9.0.9", "fd00:7::2", "[fd00:7::3]:179", "fe80::", "no", ""))
durations = st.sampled_from(("", "90s", "1ms", "no"))
numbers = st.one_of(st.none(), st.integers(1, 2_147_483_646))
communities = st.sampled_from(("65000:1", "1:2:3", "4294967295:0:7", "no", "0:0"))


def optional(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=fields)


operations = st.one_of(
    st.builds(r.FilterOperation, add_community=st.builds(r.AddCommunity, value=communities)),
    st.builds(
        r.FilterOperation, prepend_as_path=st.builds(r.PrependASPath, prefix=st.lists(as_numbers, min_size=1, max_size=3).map(tuple))
    ),
    st.builds(r.FilterOperation, set_priority=st.builds(r.SetPriority, value=st.integers(1, 2_147_483_646))),
)


def rules(record: type, cidrs: tuple[str, ...], lengths: type) -> st.SearchStrategy[tuple[object, ...]]:
    common = optional(
        source=st.sampled_from(("", "RemotePeers")),
        interface=st.one_of(st.sampled_from(("", "*", "eth*")), texts),
        peer_type=st.sampled_from(("", "eBGP", "iBGP")),
        communities=st.one_of(st.none(), st.builds(r.CommunityMatch, values=communities.map(lambda value: (value,)))),
        as_path_prefix=st.lists(as_numbers, max_size=3).map(tuple),
        priority=numbers,
        operations=st.lists(operations, max_size=3).map(tuple),
    )
    bound = st.one_of(st.none(), st.integers(0, 32))
    match = st.one_of(
        st.just({}),
        st.fixed_dictionaries(
            {
                "cidr": st.sampled_from(cidrs),
                "match_operator": st.sampled_from(("Equal", "NotEqual", "In", "NotIn", "no")),
                "prefix_length": st.one_of(st.none(), st.builds(lengths, min=bound, max=bound)),
            }
        ),
    )
    action = st.sampled_from(("Accept", "Reject"))
    one = st.builds(lambda a, c, m: record(action=a, **c, **m), action, common, match)
    return st.lists(one, max_size=3).map(tuple)


rules4 = rules(r.FilterRuleV4, ("10.65.0.0/16", "0.0.0.0/0", "10.65.0.1/32", "fd00::/16", "no"), r.PrefixLengthV4)
rules6 = rules(r.FilterRuleV6, ("fd00:65::/32", "::/0", "10.0.0.0/8", "no"), r.PrefixLengthV6)
filters = st.builds(r.BGPFilterSpec, export_v4=rules4, import_v4=rules4, export_v6=rules6, import_v6=rules6)

passwords = st.one_of(
    st.none(),
    st.builds(r.BgpPassword, secret_key_ref=st.builds(r.SecretKeySelector, name=st.just("bgp"), key=st.sampled_from(("k", "no")))),
)
specs = optional(
    node=st.sampled_from(("", "h1", "h2")),
    node_selector=st.sampled_from(("", "all()", "((")),
    peer_ip=addresses,
    as_number=as_numbers,
    peer_selector=st.sampled_from(("", "all()", "has(x)")),
    local_workload_selector=st.sampled_from(("", "all()")),
    local_as_number=st.one_of(st.none(), as_numbers),
    num_allowed_local_as_numbers=st.integers(0, 255),
    next_hop_mode=st.sampled_from(("", "Auto", "Self", "Keep", "no")),
    keep_original_next_hop=st.booleans(),
    source_address=st.sampled_from(("", "UseNodeIP", "None")),
    password=passwords,
    max_restart_time=durations,
    keepalive_time=durations,
    ttl_security=st.one_of(st.none(), st.integers(0, 255)),
    reachable_by=st.sampled_from(("", "10.7.0.9", "fd00:7::9", "no")),
    filters=st.lists(names, max_size=2).map(tuple),
    reverse_peering=st.sampled_from(("", "Manual")),
    failure_detection_mode=st.sampled_from(("", "None")),
)
annotations = optional(
    **{
        "tabinet.io/interfaces": st.sampled_from(("eth0", "eth0, up0", "gone", "")),
        "tabinet.io/remote-as": st.just("external"),
        "tabinet.io/bfd-interval": st.sampled_from(("50ms", "10s", "1h")),
        "tabinet.io/bfd-multiplier": st.sampled_from(("2", "255", "256")),
        "tabinet.io/route-limit": st.sampled_from(("1", "10000000", "x")),
        "tabinet.io/long-lived": st.sampled_from(("true", "false", "x")),
    }
)
peers = st.builds(lambda spec, notes: r.BGPPeer(metadata=r.Metadata(annotations=notes), spec=r.BGPPeerSpec(**spec)), specs, annotations)
nets = st.sampled_from(("10.96.0.0/12", "fd00:96::/64", "198.51.100.1/32", "no"))
configurations = st.builds(
    lambda fields: r.BGPConfigurationSpec(**fields),
    optional(
        node_to_node_mesh_enabled=st.booleans(),
        as_number=st.one_of(st.none(), as_numbers),
        listen_port=st.sampled_from((0, 179, 1179)),
        bind_mode=st.sampled_from(("", "None", "NodeIP")),
        log_severity_screen=st.one_of(st.sampled_from(("", "Debug", "None", "Info")), texts),
        ignored_interfaces=st.lists(texts, max_size=2).map(tuple),
        node_mesh_password=passwords,
        node_mesh_max_restart_time=durations,
        communities=st.just((r.Community(name="n", value="65000:7"),)),
        prefix_advertisements=st.lists(
            st.builds(r.PrefixAdvertisement, cidr=nets, communities=st.lists(st.one_of(communities, st.just("n")), max_size=2).map(tuple)),
            max_size=2,
        ).map(tuple),
        service_cluster_ips=st.lists(st.builds(r.ServiceBlock, cidr=nets), max_size=2).map(tuple),
        service_load_balancer_ips=st.lists(st.builds(r.ServiceBlock, cidr=nets), max_size=2).map(tuple),
        local_workload_peering_ip_v4=st.sampled_from(("", "169.254.9.9", "no")),
        local_workload_peering_ip_v6=st.sampled_from(("", "fd00::9", "no")),
        ipv4_normal_route_priority=numbers,
    ),
)
nodes = st.builds(
    lambda own, cluster, drain: {
        "h1": r.Node(
            metadata=r.Metadata(annotations={"tabinet.io/drain": drain} if drain else {}),
            spec=r.NodeSpec(bgp=r.NodeBgp(**own, route_reflector_cluster_id=cluster)),
        ),
        "h2": r.Node(
            metadata=r.Metadata(labels={"x": ""}),
            spec=r.NodeSpec(bgp=r.NodeBgp(ipv4_address="10.7.0.4/24", ipv6_address="fd00:7::4/64", route_reflector_cluster_id="1.1.1.1")),
        ),
        "h3": r.Node(spec=r.NodeSpec(bgp=r.NodeBgp(ipv4_address="10.8.0.4/24"))),
    },
    st.sampled_from(
        (
            {"ipv4_address": "10.7.0.1/24"},
            {"ipv6_address": "fd00:7::1/64"},
            {"ipv4_address": "10.254.0.1/32", "ipv6_address": "fd00:254::1/128"},
            {"ipv4_address": "no"},
        )
    ),
    st.sampled_from(("", "", "1.1.1.1", "no")),
    st.sampled_from(("", "true", "withdrawn", "no")),
)
ENDPOINT = r.WorkloadEndpoint(
    spec=r.WorkloadEndpointSpec(
        node="h1",
        interface_name="cali1",
        ip_networks=("10.65.0.7/32", "fd00:65::7/128"),
        allow_spoofed_source_prefixes=("203.0.113.0/24", "no"),
    )
)
FACTS = HostFacts(
    tuple(
        InterfaceAddress(name, parse_address(address), length)
        for name, address, length in (
            ("lo", "10.254.0.1", 32),
            ("lo", "fd00:254::1", 128),
            ("eth0", "10.7.0.1", 24),
            ("eth0", "fd00:7::1", 64),
            ("eth0", "fe80::1", 64),
            ("up0", "fe80::2", 64),
        )
    ),
    neighbours=(LinkPeer("eth0", parse_address("fe80::9")), LinkPeer("up0", parse_address("fe80::9"))),
    secrets=(Secret("bgp", "k", "s3cret; # }", True),),
)


@settings(max_examples=150, deadline=None)
@given(
    nodes,
    st.dictionaries(names, peers, max_size=4),
    st.dictionaries(names, filters, max_size=3),
    st.dictionaries(st.sampled_from(("default", "node.h1")), configurations, max_size=2),
)
def test_bird_accepts_what_any_resources_become(
    nodes: dict[str, r.Node],
    peers: dict[str, r.BGPPeer],
    filters: dict[str, r.BGPFilterSpec],
    configurations: dict[str, r.BGPConfigurationSpec],
) -> None:
    facts = RoutingFacts(
        nodes=nodes,
        peers=peers,
        filters=filters,
        configurations=configurations,
        pools={"p": r.IPPoolSpec(cidr="10.65.0.0/16"), "q": r.IPPoolSpec(cidr="fd00:65::/32", disable_bgp_export=True)},
        blocks={"h1": {parse_prefix("10.65.0.0/26"), parse_prefix("fd00:65::/122")}},
        endpoints={"h1": {ResourceKey("WorkloadEndpoint", "h1-k8s-w-eth0", "n"): ENDPOINT}},
    )
    intent, _ = bgp_intent("h1", facts)
    text = render_config(intent, FACTS, BgpOptions())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bird.conf"
        path.write_text(text)
        run = subprocess.run(["bird", "-p", "-c", path], check=False, capture_output=True, text=True, timeout=10)
    assert (run.returncode, run.stderr) == (0, ""), text
