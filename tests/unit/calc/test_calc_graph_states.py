"""Named situations, and what each of them comes to."""

from __future__ import annotations

from calc_build import Fabric, allow, endpoint, global_policy, nets, policy, profile

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.messages import (
    Action,
    ConfigUpdate,
    EndpointRemove,
    EndpointUpdate,
    PolicyRemove,
    PolicyUpdate,
    ProfileRemove,
    ProfileUpdate,
    SetDelta,
    SetRemove,
    SetUpdate,
    TierPolicies,
)
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import (
    EndpointPort,
    EntityRule,
    GlobalNetworkSet,
    Metadata,
    NetworkSet,
    NetworkSetSpec,
    Rule,
    ServiceAccountMatch,
    Tier,
    TierSpec,
)

WEB = endpoint("web", "10.0.0.1/32", labels={"app": "web"}, profiles=("kns.shop",))
REMOTE_DB = endpoint("db", "10.0.0.9/32", host="h9", labels={"app": "db"}, profiles=("kns.shop",))
FROM_DB = policy("from-db", selector="app == 'web'", ingress=(allow(selector="app == 'db'"),))
NAMESPACE = profile("kns.shop", Rule(action="Allow"), labels={"pcns.team": "red"})


def tiers_of(fabric: Fabric, item: tuple[object, object] = WEB) -> tuple[TierPolicies, ...]:
    return fabric.state.endpoints[item[0]][1].ingress


def test_order_of_messages_and_of_removals() -> None:
    fabric = Fabric()
    told = fabric.put(WEB, REMOTE_DB, FROM_DB, NAMESPACE)
    assert [type(update) for update in told] == [SetUpdate, PolicyUpdate, ProfileUpdate, EndpointUpdate]
    gone = fabric.delete(WEB, FROM_DB)
    assert [type(update) for update in gone] == [EndpointRemove, ProfileRemove, PolicyRemove, SetRemove]


def test_nothing_before_in_sync_and_deletes_before_it_count() -> None:
    graph = Graph(frozenset({"h1"}))
    graph.on_input(Put(*WEB, 1))
    graph.on_input(Put(*FROM_DB, 2))
    graph.on_input(Delete(FROM_DB[0]))
    assert graph.flush() == []
    graph.on_input(InSync())
    assert [update.key for update in graph.flush() if isinstance(update, EndpointUpdate | PolicyUpdate)] == [WEB[0]]


def test_each_host_hears_of_its_own_configuration() -> None:
    graph = Graph(frozenset({"h1", "h2"}))
    graph.on_input(InSync())
    assert {update.host for update in graph.flush() if isinstance(update, ConfigUpdate)} == {"h1", "h2"}


def test_two_hosts_are_told_once_about_a_policy_that_both_need() -> None:
    fabric = Fabric(frozenset({"h1", "h2"}))
    told = fabric.put(WEB, endpoint("web2", "10.0.0.2/32", host="h2", labels={"app": "web"}), FROM_DB)
    assert [type(update) for update in told] == [SetUpdate, PolicyUpdate, EndpointUpdate, EndpointUpdate]
    assert {endpoint.host for _, endpoint in fabric.state.endpoints.values()} == {"h1", "h2"}


def test_policy_without_local_endpoint_is_not_told() -> None:
    fabric = Fabric()
    assert fabric.put(REMOTE_DB, policy("for-db", selector="app == 'db'", ingress=(allow(selector="app == 'web'"),))) == []


def test_pairs_that_cancel_are_not_told() -> None:
    fabric = Fabric()
    fabric.put(WEB, FROM_DB)
    fabric.tell(REMOTE_DB)
    assert fabric.delete(REMOTE_DB) == []
    fabric.tell(endpoint("web", "10.0.0.1/32", labels={"app": "other"}))
    fabric.graph.work()
    key, value = WEB
    fabric.graph.on_input(Put(key, value, 1))
    fabric.resources[key] = (value, 1)
    assert fabric.flush() == []


def test_remote_change_is_one_delta() -> None:
    fabric = Fabric()
    fabric.put(WEB, FROM_DB, REMOTE_DB)
    (delta,) = fabric.put(endpoint("db", "10.0.0.8/32", host="h9", labels={"app": "db"}))
    assert isinstance(delta, SetDelta)
    assert (delta.added, delta.removed) == (nets("10.0.0.8"), nets("10.0.0.9"))


def test_address_of_two_endpoints_stays_until_both_are_gone() -> None:
    fabric = Fabric()
    twin = endpoint("db-new", "10.0.0.9/32", host="h8", labels={"app": "db"})
    fabric.put(WEB, FROM_DB, REMOTE_DB, twin)
    assert fabric.delete(REMOTE_DB) == []
    (delta,) = fabric.delete(twin)
    assert isinstance(delta, SetDelta)
    assert delta.removed == nets("10.0.0.9")


def test_only_the_rules_of_a_policy_change() -> None:
    fabric = Fabric()
    fabric.put(WEB, REMOTE_DB, FROM_DB)
    told = fabric.put(policy("from-db", selector="app == 'web'", ingress=(allow(nets=("192.0.2.0/24",)),)))
    assert [type(update) for update in told] == [PolicyUpdate, SetRemove]


def test_set_that_changes_hands_is_kept() -> None:
    fabric = Fabric()
    fabric.put(WEB, REMOTE_DB, FROM_DB)
    other = policy("other", selector="app == 'web'", ingress=(allow(selector="app == 'db'"),))
    fabric.tell(other)
    told = fabric.delete(FROM_DB)
    assert not [update for update in told if isinstance(update, SetUpdate | SetRemove)]


def test_set_needed_again_between_two_cut_flushes() -> None:
    fabric = Fabric()
    fabric.put(WEB, REMOTE_DB, FROM_DB)
    del fabric.resources[FROM_DB[0]]
    fabric.graph.on_input(Delete(FROM_DB[0]))
    assert [type(update) for update in fabric.flush(1)] == [EndpointUpdate]
    fabric.tell(FROM_DB)
    told = fabric.flush()
    assert not [update for update in told if isinstance(update, SetRemove)]
    assert fabric.members() == [nets("10.0.0.9")]


def test_answers_for_a_class_without_local_endpoints_are_not_kept() -> None:
    fabric = Fabric()
    twin = endpoint("web-remote", "10.0.0.3/32", host="h9", labels={"app": "web"}, profiles=("kns.shop",))
    fabric.put(WEB, twin, FROM_DB)
    fabric.delete(WEB)
    fabric.delete(FROM_DB)
    fabric.put(WEB)
    assert tiers_of(fabric) == ()


def test_namespaced_policy_means_its_own_namespace() -> None:
    fabric = Fabric()
    other = endpoint("spy", "10.0.0.66/32", namespace="evil", labels={"app": "db"})
    other_web = endpoint("web", "10.0.0.67/32", namespace="evil", labels={"app": "web"}, interface="calievil")
    fabric.put(WEB, REMOTE_DB, other, other_web, FROM_DB)
    assert fabric.members() == [nets("10.0.0.9")]
    assert fabric.state.endpoints[other_web[0]][1].ingress == ()


def test_rule_with_only_a_negated_selector_is_limited_to_the_namespace() -> None:
    fabric = Fabric()
    fabric.put(WEB, REMOTE_DB, endpoint("spy", "10.0.0.66/32", namespace="evil"))
    fabric.put(policy("not-db", selector="all()", ingress=(allow(not_selector="app == 'db'"),)))
    (rule,) = fabric.state.policies[ResourceKey("NetworkPolicy", "not-db", "shop")].ingress
    assert fabric.state.sets[rule.source.sets[0]][1] == nets("10.0.0.1", "10.0.0.9")
    assert fabric.state.sets[rule.source.not_sets[0]][1] == nets("10.0.0.9")


def test_rule_with_only_nets_is_not_limited() -> None:
    fabric = Fabric()
    fabric.put(WEB, policy("cidr", ingress=(allow(nets=("192.0.2.0/24",)),)))
    (rule,) = fabric.state.policies[ResourceKey("NetworkPolicy", "cidr", "shop")].ingress
    assert rule.source.sets == ()
    assert rule.source.nets == (parse_prefix("192.0.2.0/24"),)


def test_namespace_selector_reaches_other_namespaces_by_inherited_labels() -> None:
    fabric = Fabric()
    friend = endpoint("friend", "10.0.0.70/32", host="h9", namespace="friends", profiles=("kns.friends",))
    fabric.put(WEB, REMOTE_DB, NAMESPACE, friend, profile("kns.friends", labels={"pcns.team": "blue"}))
    fabric.put(policy("blue", selector="app == 'web'", ingress=(allow(namespace_selector="team == 'blue'"),)))
    assert fabric.members() == [nets("10.0.0.70")]
    (delta,) = fabric.put(profile("kns.friends", labels={"pcns.team": "green"}))
    assert delta == SetDelta(fabric.sets()[0], frozenset(), nets("10.0.0.70"))


def test_all_and_global_in_a_namespace_selector() -> None:
    fabric = Fabric()
    outside = ResourceKey("GlobalNetworkSet", "world"), GlobalNetworkSet(spec=NetworkSetSpec(nets=("198.51.100.0/24",)))
    fabric.put(WEB, outside, global_policy("g", ingress=(allow(namespace_selector="all()"),)))
    assert fabric.members() == [nets("10.0.0.1")]
    fabric.put(global_policy("g", ingress=(allow(namespace_selector="global()"),)))
    assert fabric.members() == [nets("198.51.100.0/24")]


def test_service_accounts_by_name_and_by_label() -> None:
    fabric = Fabric()
    robot = endpoint("robot", "10.0.0.5/32", host="h9", account="robot", profiles=("ksa.shop.robot",))
    human = endpoint("human", "10.0.0.6/32", host="h9", account="human")
    fabric.put(WEB, robot, human, profile("ksa.shop.robot", labels={"pcsa.role": "bot"}))
    for match in (ServiceAccountMatch(names=("robot", "other")), ServiceAccountMatch(selector="role == 'bot'")):
        fabric.put(policy("accounts", selector="app == 'web'", ingress=(allow(service_accounts=match),)))
        assert fabric.members() == [nets("10.0.0.5")]


def test_own_labels_override_inherited_ones_and_the_first_profile_wins() -> None:
    fabric = Fabric()
    red, blue = profile("red", labels={"colour": "red", "app": "red"}), profile("blue", labels={"colour": "blue"})
    item = endpoint("web", "10.0.0.1/32", labels={"app": "web"}, profiles=("red", "blue"))
    fabric.put(item, red, blue, policy("p", selector="app == 'web' && colour == 'red'"))
    assert len(tiers_of(fabric, item)) == 1


def test_network_sets_are_members_and_a_namespaced_one_inherits_from_its_namespace() -> None:
    fabric = Fabric()
    own = (
        ResourceKey("NetworkSet", "lan", "shop"),
        NetworkSet(metadata=Metadata(labels={"kind": "lan"}), spec=NetworkSetSpec(nets=("192.0.2.0/24",))),
    )
    fabric.put(WEB, NAMESPACE, own, policy("p", ingress=(allow(selector="kind == 'lan'", namespace_selector="team == 'red'"),)))
    assert fabric.members() == [nets("192.0.2.0/24")]


def test_named_port_becomes_address_protocol_port() -> None:
    fabric = Fabric()
    ports = (EndpointPort(name="http", protocol="TCP", port=8080), EndpointPort(name="http", protocol="UDP", port=8081))
    server = endpoint("web", "10.0.0.1/32 fd00::1/128", labels={"app": "web"}, ports=ports)
    rule = Rule(action="Allow", protocol="TCP", destination=EntityRule(ports=("http", 443)))
    fabric.put(server, policy("p", ingress=(rule,)))
    (translated,) = fabric.state.policies[ResourceKey("NetworkPolicy", "p", "shop")].ingress
    assert [(span.first, span.last) for span in translated.destination.ports] == [(443, 443)]
    members = fabric.state.sets[translated.destination.port_sets[0]][1]
    assert {(str(member.address), member.protocol, member.port) for member in members} == {
        ("10.0.0.1/32", 6, 8080),
        ("fd00::1/128", 6, 8080),
    }


def test_tiers_and_policies_in_order() -> None:
    fabric = Fabric()
    tiers = [
        (ResourceKey("Tier", "late"), Tier(spec=TierSpec(order=None))),
        (ResourceKey("Tier", "early"), Tier(spec=TierSpec(order=5, default_action="Pass"))),
    ]
    fabric.put(WEB, *tiers)
    fabric.put(
        global_policy("z-first", tier="default", order=1),
        global_policy("b-none", tier="default"),
        global_policy("a-none", tier="default"),
        global_policy("y-second", tier="default", order=2),
        global_policy("in-late", tier="late"),
        global_policy("in-early", tier="early"),
    )
    assert [(tier.tier, tier.default_action, [key.name for key in tier.policies]) for tier in tiers_of(fabric)] == [
        ("early", Action.PASS, ["in-early"]),
        ("default", Action.DENY, ["z-first", "y-second", "a-none", "b-none"]),
        ("late", Action.DENY, ["in-late"]),
    ]


def test_policy_of_a_missing_tier_waits_for_it_and_is_reported() -> None:
    fabric = Fabric()
    assert len(fabric.put(WEB, global_policy("p", tier="t", ingress=(allow(selector="all()"),)))) == 1
    assert any("spec.tier" in problem for problem in fabric.problems())
    tier = ResourceKey("Tier", "t"), Tier(spec=TierSpec(order=1))
    assert [type(update) for update in fabric.put(tier)] == [SetUpdate, PolicyUpdate, EndpointUpdate]
    assert not any("spec.tier" in problem for problem in fabric.problems())
    fabric.delete(tier)
    assert tiers_of(fabric) == ()


def test_types_default_to_the_directions_with_rules_and_else_to_ingress() -> None:
    fabric = Fabric()
    rules = (Rule(action="Allow"),)
    only = policy("only", ingress=(), egress=rules)
    fabric.put(WEB, policy("in"), policy("both", ingress=rules, egress=rules), policy("out", types=("Egress",)), only)
    local = fabric.state.endpoints[WEB[0]][1]
    assert [key.name for key in local.ingress[0].policies] == ["both", "in"]
    assert [key.name for key in local.egress[0].policies] == ["both", "only", "out"]


def test_policies_for_host_endpoints_never_apply_to_workloads() -> None:
    fabric = Fabric()
    fabric.put(WEB, global_policy("raw", do_not_track=True), global_policy("dnat", pre_dnat=True))
    assert tiers_of(fabric) == ()


def test_profiles_missing_implicit_and_deleted() -> None:
    fabric = Fabric()
    item = endpoint("web", "10.0.0.1/32", profiles=("gone", "projectcalico-default-allow"))
    fabric.put(item)
    assert list(fabric.state.profiles) == ["projectcalico-default-allow"]
    assert fabric.state.endpoints[item[0]][1].profiles == ("gone", "projectcalico-default-allow")
    assert any("'gone'" in problem for problem in fabric.problems())
    gone = profile("gone", Rule(action="Allow"))
    assert [type(update) for update in fabric.put(gone)] == [ProfileUpdate]
    assert fabric.problems() == []
    assert [type(update) for update in fabric.delete(gone)] == [ProfileRemove]


def test_endpoint_without_address_or_interface_is_not_programmed() -> None:
    fabric = Fabric()
    assert fabric.put(endpoint("a"), endpoint("b", "10.0.0.2/32", interface="")) == []
    assert any("interfaceName" in problem for problem in fabric.problems())


def test_of_two_that_claim_an_interface_the_smaller_key_is_programmed_whatever_the_order() -> None:
    first, second = endpoint("a", "10.0.0.1/32", interface="cali0"), endpoint("b", "10.0.0.2/32", interface="cali0")
    fabric = Fabric()
    fabric.put(second)
    assert list(fabric.state.endpoints) == [second[0]]
    fabric.put(first)
    assert list(fabric.state.endpoints) == [first[0]]
    assert any("has this one, so this endpoint is not programmed" in problem for problem in fabric.problems())
    fabric.delete(first)
    assert list(fabric.state.endpoints) == [second[0]]


def test_address_of_two_local_endpoints_is_reported() -> None:
    fabric = Fabric()
    fabric.put(endpoint("a", "10.0.0.1/32"), endpoint("b", "10.0.0.1/32"))
    assert [problem for problem in fabric.problems() if "an address of its own" in problem]


def test_broken_rules_fail_closed_and_are_reported() -> None:
    fabric = Fabric()
    broken = (
        allow(selector="app =="),
        Rule(action="Allow", protocol="nonsense"),
        allow(nets=("300.0.0.1",)),
        allow(not_nets=("nonsense",)),
        Rule(action="Allow", protocol="ICMP", destination=EntityRule(ports=("http",))),
    )
    fabric.put(WEB, policy("p", ingress=(*broken, Rule(action="Deny", source=EntityRule(not_nets=("nonsense",))))))
    (deny,) = fabric.state.policies[ResourceKey("NetworkPolicy", "p", "shop")].ingress
    assert deny.action is Action.DENY
    assert deny.source.not_nets == ()
    assert [f"spec.ingress[{index}]" in problem for index, problem in enumerate(fabric.problems()[:6])] == [True] * 6


def test_policy_with_a_broken_selector_applies_nowhere_and_is_reported() -> None:
    fabric = Fabric()
    fabric.put(WEB, policy("p", selector="((("))
    assert tiers_of(fabric) == ()
    assert len([problem for problem in fabric.problems() if "NetworkPolicy/shop/p" in problem]) == 1


def test_set_ids_are_a_function_of_meaning() -> None:
    one, two = Fabric(), Fabric()
    one.put(WEB, REMOTE_DB, FROM_DB)
    two.put(WEB, policy("x", ingress=(allow(selector="( app=='db' )"), allow(selector='app in {"db"}'))))
    assert one.sets() == two.sets()
    assert all(len(set_id) <= 24 and set_id.replace("-", "").isalnum() for set_id in one.sets())


def test_new_revision_of_an_endpoint_is_told() -> None:
    fabric = Fabric()
    fabric.put(WEB)
    (told,) = fabric.put(WEB)
    assert isinstance(told, EndpointUpdate)
    assert told.revision == fabric.revision
