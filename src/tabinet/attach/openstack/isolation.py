"""Networks that reach each other only through routers: a tier of policies before those of security groups.

In: networks, and the routers that each is attached to. Out: documents. Hosts route between everything; this says what may use it:

- A profile for each network gives its endpoints a label for the network and one for each of its routers.
- Policies in the tier ``openstack-networks`` pass on (to the security groups) what comes from the same network or from one with a common
  router.
- Through routers in a row passes what the routes of all of them lead there and back (``chains``).
- Another one, after them, denies what comes from any other network. What comes from no port at all is not concerned.

So attaching a router writes a profile and a policy, however many ports there are. Only ``Region.isolated`` regions have any of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tabinet.attach.openstack.chains import Neighbour
from tabinet.attach.openstack.names import (
    NETWORK_LABEL,
    TIER,
    Region,
    network_policy_key,
    others_key,
    profile_key,
    router_label,
    router_policy_key,
)
from tabinet.lib.ip import IPV4, IPV6, parse_prefix
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.records.base import API_VERSION

Document = dict[str, Any]
Documents = dict[str, Document | None]
TIER_ORDER = 500_000
"""Before the tier of security groups (1,000,000), after what operators put in front."""
_OTHERS_ORDER = 20
_ORDER = 10


def network_labels(network: str, routers: Iterable[str]) -> dict[str, str]:
    """The labels of everything that is in the network."""
    return {NETWORK_LABEL: network} | dict.fromkeys(map(router_label, sorted(routers)), "")


def translate_network(network: str, routers: Iterable[str], region: Region) -> Documents:
    """What the store holds for a network that is attached to these routers."""
    profile, policy = profile_key(network), network_policy_key(region, network)
    if not region.isolated:
        return {path_of(profile): None, path_of(policy): None}
    selector = f"{NETWORK_LABEL} == '{network}'"
    return {
        path_of(profile): _document(profile, {"labelsToApply": network_labels(network, routers)}),
        path_of(policy): _policy(policy, _ORDER, selector, "Pass", selector),
    }


def translate_router(router: str, region: Region, neighbours: Iterable[Neighbour] = ()) -> Documents:
    """What the store holds for a router with these neighbours."""
    key = router_policy_key(region, router)
    selector = f"has({router_label(router)})"
    if not region.isolated:
        return {path_of(key): None}
    policy = _policy(key, _ORDER, selector, "Pass", selector)
    policy["spec"]["ingress"] += [rule for neighbour in neighbours for rule in _through(neighbour)]
    return {path_of(key): policy}


def _through(neighbour: Neighbour) -> list[Document]:
    """What comes through the neighbour, in both families."""
    rules = []
    for family in (IPV4, IPV6):
        there, here = ([net for net in nets if parse_prefix(net).family == family] for nets in (neighbour.there, neighbour.here))
        if there and here:
            source = {"selector": f"has({router_label(neighbour.router)})", "nets": there}
            rules.append({"action": "Pass", "ipVersion": family, "source": source, "destination": {"nets": here}})
    return rules


def translate_isolation(region: Region) -> Documents:
    """What the store holds once for all networks."""
    tier, others = ResourceKey("Tier", TIER), others_key(region)
    if not region.isolated:
        return {path_of(others): None}
    return {
        path_of(tier): _document(tier, {"order": TIER_ORDER, "defaultAction": "Pass"}),
        path_of(others): _policy(others, _OTHERS_ORDER, f"has({NETWORK_LABEL})", "Deny", f"has({NETWORK_LABEL})"),
    }


def _policy(key: ResourceKey, order: int, selector: str, action: str, source: str) -> Document:
    rule = {"action": action, "source": {"selector": source}}
    return _document(key, {"tier": TIER, "order": order, "selector": selector, "types": ["Ingress"], "ingress": [rule]})


def _document(key: ResourceKey, spec: Document) -> Document:
    metadata = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
    return {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "spec": spec}
