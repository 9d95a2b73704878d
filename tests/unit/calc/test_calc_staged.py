"""Staged policies: judged and counted, never enforced."""

from __future__ import annotations

import pytest
from calc_build import Fabric, Item, allow, endpoint, global_policy, policy, profile

from tabinet.calc.messages import EndpointUpdate
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import (
    EntityRule,
    LabelRequirement,
    LabelSelector,
    Rule,
    ServiceMatch,
    StagedGlobalNetworkPolicy,
    StagedGlobalNetworkPolicySpec,
    StagedKubernetesNetworkPolicy,
    StagedKubernetesNetworkPolicySpec,
    StagedNetworkPolicy,
    StagedNetworkPolicySpec,
    Tier,
    TierSpec,
)

WEB = endpoint("web", "10.0.0.1/32", labels={"app": "web"})
DB = endpoint("db", "10.0.0.2/32", labels={"app": "db"})
FAR = endpoint("far", "10.0.0.3/32", host="h9", labels={"app": "web"})
OTHER = endpoint("web", "10.0.0.4/32", namespace="other", labels={"app": "web"}, interface="caliother")


def staged(name: str, action: str = "", *, namespace: str = "shop", **spec: object) -> Item:
    value = StagedNetworkPolicy(spec=StagedNetworkPolicySpec(staged_action=action, **spec))
    return ResourceKey("StagedNetworkPolicy", name, namespace), value


def staged_global(name: str, action: str = "", **spec: object) -> Item:
    value = StagedGlobalNetworkPolicy(spec=StagedGlobalNetworkPolicySpec(staged_action=action, **spec))
    return ResourceKey("StagedGlobalNetworkPolicy", name), value


def test_staged_policies_are_never_told() -> None:
    fabric = Fabric()
    fabric.put(WEB)
    assert fabric.put(staged("p", ingress=(allow(selector="all()"),)), staged_global("g", egress=(allow(selector="all()"),))) == []
    (_, local) = fabric.state.endpoints[WEB[0]]
    assert (local.ingress, local.egress) == ((), ())


@pytest.mark.parametrize("action", ["", "Set", "Learn", "Ignore"])
def test_endpoints_that_it_would_police(action: str) -> None:
    fabric = Fabric()
    fabric.put(WEB, DB, FAR, OTHER)
    fabric.put(staged("p", action, selector="app == 'web'", ingress=(allow(selector="app == 'db'"), allow(nets=("10.0.0.0/8",)))))
    (effect,) = fabric.graph.staged()
    assert (effect.action, effect.tier, effect.replaces) == (action or "Set", "default", None)
    assert effect.endpoints == (WEB[0],)
    assert (effect.rules, effect.sets, effect.problems) == (2, 1, ())


def test_a_global_one_reaches_all_namespaces_and_follows_changes() -> None:
    fabric = Fabric()
    fabric.put(WEB, DB, FAR, OTHER, staged_global("g", selector="app == 'web'"))
    assert fabric.graph.staged()[0].endpoints == (OTHER[0], WEB[0])
    fabric.delete(OTHER)
    assert fabric.graph.staged()[0].endpoints == (WEB[0],)
    fabric.put(endpoint("db", "10.0.0.2/32", labels={"app": "web"}))
    assert fabric.graph.staged()[0].endpoints == (DB[0], WEB[0])


def test_delete_concerns_those_that_the_policy_polices_now() -> None:
    fabric = Fabric()
    fabric.put(WEB, DB, policy("p", selector="app == 'db'"), staged("p", "Delete"), staged_global("g", "Delete"), global_policy("x"))
    of_global, of_namespace = fabric.graph.staged()
    assert (of_namespace.replaces, of_namespace.endpoints) == (ResourceKey("NetworkPolicy", "p", "shop"), (DB[0],))
    assert (of_global.replaces, of_global.endpoints) == (None, ())
    fabric.put(global_policy("g"))
    assert fabric.graph.staged()[0].endpoints == (DB[0], WEB[0])


def test_of_a_tier_that_does_not_exist_it_polices_nobody() -> None:
    fabric = Fabric()
    fabric.put(WEB, staged_global("g", tier="t"))
    assert fabric.graph.staged()[0].endpoints == ()
    assert any("StagedGlobalNetworkPolicy/g" in problem and "spec.tier" in problem for problem in fabric.problems())
    fabric.put((ResourceKey("Tier", "t"), Tier(spec=TierSpec(order=1))))
    assert fabric.graph.staged()[0].endpoints == (WEB[0],)


def test_what_is_wrong_with_its_rules_is_said_with_it() -> None:
    fabric = Fabric()
    rule = Rule(action="Allow", destination=EntityRule(services=ServiceMatch(name="dns", namespace="kube-system")))
    fabric.put(WEB, staged_global("g", egress=(rule,)))
    (effect,) = fabric.graph.staged()
    assert [problem.path for problem in effect.problems] == ["spec.egress[0].destination.services"]
    assert fabric.problems() == []


def test_namespace_without_local_endpoint_is_not_looked_at() -> None:
    fabric = Fabric()
    fabric.put(FAR, staged("p"), staged("broken", selector="((("))
    assert fabric.graph.staged() == []
    fabric.put(WEB)
    assert [effect.key.name for effect in fabric.graph.staged()] == ["broken", "p"]
    fabric.delete(WEB)
    assert fabric.graph.staged() == []
    assert fabric.problems() == []


def test_staged_policy_of_kubernetes() -> None:
    fabric = Fabric()
    requirement = LabelRequirement(key="app", operator="In", values=("web", "api"))
    spec = StagedKubernetesNetworkPolicySpec(pod_selector=LabelSelector(match_expressions=(requirement,)))
    fabric.put(WEB, DB, (ResourceKey("StagedKubernetesNetworkPolicy", "k", "shop"), StagedKubernetesNetworkPolicy(spec=spec)))
    (effect,) = fabric.graph.staged()
    assert (effect.tier, effect.endpoints) == ("default", (WEB[0],))
    assert effect.replaces is None
    fabric.put(policy("knp.default." + effect.key.name, selector="app == 'db'"))
    assert fabric.graph.staged()[0].replaces == ResourceKey("NetworkPolicy", "knp.default." + effect.key.name, "shop")


def test_becoming_staged_only_is_a_change_of_the_endpoint() -> None:
    fabric = Fabric()
    enforced = policy("p")
    fabric.put(WEB, enforced)
    told = fabric.delete(enforced)
    assert any(isinstance(update, EndpointUpdate) for update in told)
    assert fabric.put(staged("p"), profile("unused")) == []
