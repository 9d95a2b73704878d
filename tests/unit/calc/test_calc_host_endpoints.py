"""Host endpoints: which policies are asked about which of their traffic, which of several counts, and those that make themselves."""

from __future__ import annotations

import pytest
from calc_build import Fabric, Item, allow, endpoint, global_policy, nets, policy

from tabinet.calc.messages import (
    Action,
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    PolicyRemove,
    PolicyUpdate,
    PortMember,
    ProfileRemove,
    ProfileUpdate,
)
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import (
    AutoHostEndpointConfig,
    ControllersConfig,
    EntityRule,
    HostEndpointPort,
    HostEndpointSpec,
    HostEndpointTemplate,
    KubeControllersConfiguration,
    KubeControllersConfigurationSpec,
    Metadata,
    Node,
    NodeAddress,
    NodeBgp,
    NodeControllerConfig,
    NodeInterface,
    NodeSpec,
    Rule,
    Tier,
    TierSpec,
)
from tabinet.model.resources import HostEndpoint as Resource

ALLOW = (Rule(action="Allow"),)
BOTH = {"types": ("Ingress", "Egress"), "ingress": ALLOW, "egress": ALLOW}


def host_endpoint(name: str, *, host: str = "h1", interface: str = "eth0", labels: dict[str, str] | None = None, **spec: object) -> Item:
    fields = HostEndpointSpec(node=host, interface_name=interface, **spec)
    return ResourceKey("HostEndpoint", name), Resource(metadata=Metadata(labels=labels or {}), spec=fields)


def controllers(**asked: object) -> Item:
    config = NodeControllerConfig(host_endpoint=AutoHostEndpointConfig(**({"auto_create": "Enabled"} | asked)))
    spec = KubeControllersConfigurationSpec(controllers=ControllersConfig(node=config))
    return ResourceKey("KubeControllersConfiguration", "default"), KubeControllersConfiguration(spec=spec)


def node(name: str = "h1", labels: dict[str, str] | None = None, **spec: object) -> Item:
    fields = NodeSpec(**({"bgp": NodeBgp(ipv4_address="172.16.0.1/24")} | spec))
    return ResourceKey("Node", name), Node(metadata=Metadata(labels=labels or {}), spec=fields)


def only(fabric: Fabric) -> HostEndpoint:
    ((_, found),) = fabric.state.host_endpoints.values()
    return found


def names(fabric: Fabric) -> dict[str, list[str]]:
    """The names of the policies in each part that has some."""
    found = only(fabric)
    parts = {name: getattr(found, name) for name in HostEndpoint.__struct_fields__ if "gress" in name or name == "pre_dnat"}
    return {part: [key.name for tier in tiers for key in tier.policies] for part, tiers in parts.items() if tiers}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ({}, ["ingress", "egress"]),
        ({"apply_on_forward": True}, ["ingress", "egress", "forward_ingress", "forward_egress"]),
        ({"apply_on_forward": True, "pre_dnat": True}, ["pre_dnat"]),
        ({"apply_on_forward": True, "do_not_track": True}, ["untracked_ingress", "untracked_egress"]),
        ({"apply_on_forward": True, "do_not_track": True, "pre_dnat": True}, []),
        ({"apply_on_forward": True, "types": ("Egress",)}, ["egress", "forward_egress"]),
        ({"apply_on_forward": True, "do_not_track": True, "types": ("Ingress",)}, ["untracked_ingress"]),
    ],
)
def test_policies_by_what_they_say_of_themselves(spec: dict[str, object], parts: list[str]) -> None:
    fabric = Fabric()
    fabric.put(host_endpoint("eth0"), global_policy("p", **(BOTH | spec)))
    assert names(fabric) == {part: ["p"] for part in parts}


def test_policy_before_translation_has_only_ingress_rules() -> None:
    fabric = Fabric()
    fabric.put(host_endpoint("eth0"), global_policy("p", pre_dnat=True, apply_on_forward=True, ingress=ALLOW, egress=ALLOW))
    told = fabric.state.policies[ResourceKey("GlobalNetworkPolicy", "p")]
    assert (len(told.ingress), len(told.egress)) == (1, 0)


def test_policy_that_claims_to_be_both_is_reported() -> None:
    fabric = Fabric()
    fabric.put(host_endpoint("eth0"), global_policy("p", pre_dnat=True, do_not_track=True))
    assert any("preDNAT" in problem and "not enforced" in problem for problem in fabric.problems())


def test_tiers_of_each_part_hold_only_their_own_policies_in_order() -> None:
    fabric = Fabric()
    fabric.put(
        (ResourceKey("Tier", "early"), Tier(spec=TierSpec(order=1, default_action="Pass"))),
        host_endpoint("eth0"),
        global_policy("b", order=1, apply_on_forward=True),
        global_policy("a", order=2),
        global_policy("c", tier="early", apply_on_forward=True),
    )
    found = only(fabric)
    assert [(tier.tier, tier.default_action, [key.name for key in tier.policies]) for tier in found.ingress] == [
        ("early", Action.PASS, ["c"]),
        ("default", Action.DENY, ["b", "a"]),
    ]
    assert [[key.name for key in tier.policies] for tier in found.forward_ingress] == [["c"], ["b"]]


def test_policies_of_namespaces_never_select_host_endpoints_and_workloads_never_get_those_for_hosts() -> None:
    fabric = Fabric()
    workload = endpoint("web", "10.0.0.1/32")
    fabric.put(host_endpoint("eth0"), workload, policy("ns"), global_policy("raw", do_not_track=True, apply_on_forward=True))
    assert names(fabric) == {"untracked_ingress": ["raw"]}
    assert [[key.name for key in tier.policies] for tier in fabric.state.endpoints[workload[0]][1].ingress] == [["ns"]]


def test_order_of_messages() -> None:
    fabric = Fabric()
    item, rules = host_endpoint("eth0"), global_policy("p")
    assert [type(update) for update in fabric.put(item, rules)] == [PolicyUpdate, HostEndpointUpdate]
    assert [type(update) for update in fabric.delete(item)] == [HostEndpointRemove, PolicyRemove]


def test_selectors_and_profiles_see_the_labels_of_the_resource() -> None:
    fabric = Fabric()
    fabric.put(
        host_endpoint("eth0", labels={"role": "edge"}, profiles=("projectcalico-default-allow",)),
        global_policy("edge", selector="role == 'edge'"),
        global_policy("core", selector="role == 'core'"),
        global_policy("homeless", namespace_selector="global()"),
        global_policy("housed", namespace_selector="all()"),
    )
    assert names(fabric) == {"ingress": ["edge", "homeless"]}
    assert only(fabric).profiles == ("projectcalico-default-allow",)
    assert list(fabric.state.profiles) == ["projectcalico-default-allow"]


def test_addresses_and_ports_of_all_host_endpoints_are_members() -> None:
    fabric = Fabric()
    ports = (HostEndpointPort(name="http", protocol="TCP", port=8080),)
    remote = host_endpoint("h2", host="h2", labels={"role": "edge"}, expected_ips=("172.16.0.2", "bad"), ports=ports)
    rules = (allow(selector="role == 'edge'"), Rule(action="Allow", protocol="TCP", destination=EntityRule(ports=("http",))))
    fabric.put(host_endpoint("eth0"), remote, global_policy("p", ingress=rules))
    (address,) = nets("172.16.0.2")
    assert {member for members in fabric.members() for member in members} == {address, PortMember(address, 6, 8080)}


def test_one_that_names_nothing_is_not_programmed() -> None:
    fabric = Fabric()
    assert fabric.put(host_endpoint("none", interface="", expected_ips=("bad",))) == []
    assert len([problem for problem in fabric.problems() if "HostEndpoint/none" in problem]) == 2


def test_of_two_for_one_interface_the_smaller_key_counts_and_addresses_are_nobodys_alone() -> None:
    fabric = Fabric()
    by_address = [host_endpoint(name, interface="", expected_ips=("172.16.0.1",)) for name in ("x", "y")]
    fabric.put(host_endpoint("b"), host_endpoint("a"), host_endpoint("all", interface="*"), *by_address, host_endpoint("other", host="h2"))
    assert [key.name for key in fabric.state.host_endpoints] == ["a", "all", "x", "y"]
    assert any("HostEndpoint/a has this one, so this endpoint is not programmed" in problem for problem in fabric.problems())
    assert any("HostEndpoint/x has this one" in problem and "expectedIPs" in problem for problem in fabric.problems())


def test_workload_and_host_endpoint_may_name_one_interface() -> None:
    fabric = Fabric()
    fabric.put(host_endpoint("eth0"), endpoint("web", "10.0.0.1/32", interface="eth0"))
    assert (len(fabric.state.host_endpoints), len(fabric.state.endpoints)) == (1, 1)


# --- automatic ones -------------------------------------------------------------------------------------------------


def test_every_host_has_one_when_asked_for() -> None:
    fabric = Fabric()
    addresses = (NodeAddress(address="172.16.0.1", type="InternalIP"), NodeAddress(address="198.51.100.1", type="ExternalIP"))
    fabric.put(node(labels={"rack": "a"}, addresses=addresses, ipv4_vxlan_tunnel_addr="10.0.0.7"), node("h2", bgp=None))
    assert fabric.state.host_endpoints == {}
    assert [type(update) for update in fabric.put(controllers())] == [ProfileUpdate, HostEndpointUpdate]
    assert [key.name for key in fabric.state.host_endpoints] == ["h1-auto-hep"]
    made = only(fabric)
    assert (made.interface, made.profiles) == ("*", ("projectcalico-default-allow",))
    assert frozenset(made.addresses) == nets("172.16.0.1", "10.0.0.7")
    assert [type(update) for update in fabric.delete(controllers())] == [HostEndpointRemove, ProfileRemove]


def test_labels_of_the_host_are_those_of_its_automatic_endpoint() -> None:
    fabric = Fabric()
    selector = "rack == 'a' && projectcalico.org/created-by == 'calico-kube-controllers'"
    fabric.put(controllers(), node(labels={"rack": "a"}), global_policy("p", selector=selector))
    assert names(fabric) == {"ingress": ["p"]}
    fabric.put(node(labels={"rack": "b"}))
    assert names(fabric) == {}


def test_a_resource_stands_in_the_place_of_the_automatic_one() -> None:
    fabric = Fabric()
    fabric.put(controllers(), node())
    written = host_endpoint("h1-auto-hep", interface="eth7")
    fabric.put(written)
    assert only(fabric).interface == "eth7"
    fabric.delete(written)
    assert only(fabric).interface == "*"


def test_templates_by_address_and_by_interface() -> None:
    fabric = Fabric()
    templates = (
        HostEndpointTemplate(generate_name="lan", interface_cidrs=("172.16.0.0/24",), labels={"rack": "z"}, node_selector="rack == 'a'"),
        HostEndpointTemplate(generate_name="nic", interface_pattern="^eth[01]$"),
        HostEndpointTemplate(generate_name="bad", interface_pattern="("),
        HostEndpointTemplate(generate_name="none", interface_cidrs=("192.0.2.0/24",)),
    )
    interfaces = tuple(NodeInterface(name=f"eth{number}", addresses=(f"10.9.{number}.1/24",)) for number in range(3))
    fabric.put(controllers(create_default_host_endpoint="Disabled", templates=templates), node(labels={"rack": "a"}, interfaces=interfaces))
    made = {key.name: (each.interface, frozenset(each.addresses)) for key, (_, each) in fabric.state.host_endpoints.items()}
    assert made == {
        "h1-lan-auto-hep": ("", nets("172.16.0.1")),
        "h1-eth0-nic-auto-hep": ("eth0", nets("10.9.0.1")),
        "h1-eth1-nic-auto-hep": ("eth1", nets("10.9.1.1")),
    }
    assert any("templates[2].interfacePattern" in problem for problem in fabric.problems())
