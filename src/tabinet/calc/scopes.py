"""Whom the selectors of a policy and of its rules mean: texts of a resource to one selector tree.

Namespaces and service accounts reach us as labels. Every endpoint carries ``projectcalico.org/namespace`` (and
``projectcalico.org/serviceaccount``), and inherits from its profiles the labels of its namespace as ``pcns.<label>`` and those of its
service account as ``pcsa.<label>``. So a selector over namespaces is one over prefixed labels.

- A NetworkPolicy selects endpoints of its own namespace only.
- A rule of a NetworkPolicy that selects by labels (``selector``, ``notSelector`` or ``serviceAccounts``) means its own namespace, unless
  it has a ``namespaceSelector``, which then says which namespaces. A rule without any of these means every address.

Pure. Every function raises ``SelectorError`` for a text that is no selector.
"""

from __future__ import annotations

import functools

from tabinet.model.resources import EntityRule, GlobalNetworkPolicySpec, NetworkPolicySpec
from tabinet.selector import (
    All,
    Eq,
    Global,
    Has,
    Leaf,
    Node,
    Not,
    Selector,
    conjunction,
    from_tree,
    membership,
    parse,
    rewrite,
    with_key_prefix,
)

NAMESPACE = "projectcalico.org/namespace"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
ORCHESTRATOR = "projectcalico.org/orchestrator"
NAMESPACE_PREFIX = "pcns."
SERVICE_ACCOUNT_PREFIX = "pcsa."


def policy_scope(spec: NetworkPolicySpec, namespace: str) -> Node:
    """Which endpoints a policy applies to; ``namespace`` is empty for a global policy."""
    terms: list[Node] = []
    if namespace:
        terms.append(Eq(NAMESPACE, namespace))
    elif isinstance(spec, GlobalNetworkPolicySpec) and spec.namespace_selector:
        terms.append(_namespaces(spec.namespace_selector))
    if spec.service_account_selector:
        accounts = with_key_prefix(_tree(spec.service_account_selector), SERVICE_ACCOUNT_PREFIX)
        terms.append(accounts if namespace else rewrite(accounts, _any_account))
    terms.append(_tree(spec.selector))
    return _narrowed(terms)


def side_scope(side: EntityRule, namespace: str) -> Selector | None:
    """Whom a rule's source or destination means by labels; ``None`` when it does not select by labels."""
    accounts = side.service_accounts
    names, by_account = ((), "") if accounts is None else (accounts.names, accounts.selector)
    limited = bool(side.selector or side.not_selector or names or by_account)
    return _side_scope(side.selector, side.namespace_selector, names, by_account, namespace if limited else "")


@functools.lru_cache(maxsize=65536)
def _side_scope(selector: str, namespaces: str, accounts: tuple[str, ...], by_account: str, namespace: str) -> Selector | None:
    # Remembered, because the rules of many policies say the same, and because making a selector costs more than all else about a rule.
    terms: list[Node] = []
    if namespaces:
        terms.append(_namespaces(namespaces))
    elif namespace:
        terms.append(Eq(NAMESPACE, namespace))
    if by_account:
        terms.append(with_key_prefix(_tree(by_account), SERVICE_ACCOUNT_PREFIX))
    if accounts:
        terms.append(membership(SERVICE_ACCOUNT, accounts))
    if selector:
        terms.append(_tree(selector))
    return from_tree(_narrowed(terms)) if terms else None


def _tree(text: str) -> Node:
    return parse(text).root


def _namespaces(text: str) -> Node:
    return rewrite(with_key_prefix(_tree(text), NAMESPACE_PREFIX), _any_namespace)


def _any_namespace(leaf: Leaf) -> Node:
    match leaf:
        case All():
            return Has(NAMESPACE)
        case Global():
            return Not(Has(NAMESPACE))
        case _:
            return leaf


def _any_account(leaf: Leaf) -> Node:
    return Has(SERVICE_ACCOUNT) if isinstance(leaf, All) else leaf


def _narrowed(terms: list[Node]) -> Node:
    """All of the terms; those that everything passes are left out, so that equal meanings give equal sets more often."""
    return conjunction(term for term in terms if not isinstance(term, (All, Global)))
