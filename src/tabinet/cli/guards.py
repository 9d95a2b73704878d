"""What may not be written or deleted although the document is fine, because of what else is in the store.

The rules are those of Calico's client (libcalico-go, ``clientv3``): pools do not overlap, and their CIDR and block size stay;
protected resources stay; a tier goes only after its policies. What is read may change before the write that follows: this protects from
mistakes, not from races.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tabinet.errors import Conflict, InputError, Problem
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.kinds import BY_NAME
from tabinet.model.protected import DEFAULT_ALLOW, FIXED_TIERS

if TYPE_CHECKING:
    from tabinet.model.documents import Document
    from tabinet.store.client import ResourceClient

PROTECTED: dict[str, tuple[str, ...]] = {
    "Tier": tuple(FIXED_TIERS),
    "Profile": (DEFAULT_ALLOW,),
    "ClusterInformation": ("default",),
}
POLICIES = ("NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy")


def check_deletable(keys: Sequence[ResourceKey]) -> None:
    """All the keys are of resources that may be deleted.

    Raises:
        InputError: some are protected, or of no resource that could be stored.
    """
    problems = []
    for key in keys:
        if key.name in PROTECTED.get(key.kind, ()):
            problems.append(Problem(path="", value=str(key), allowed="is part of every cluster and cannot be deleted"))
            continue
        try:
            path_of(key)
        except ValueError as error:
            problems.append(Problem(path="", value=str(key), allowed=str(error)))
    if problems:
        raise InputError(problems)


async def refuse_full_tier(client: ResourceClient, key: ResourceKey) -> None:
    """The key is not that of a tier with policies.

    Raises:
        Conflict: it is.
    """
    if key.kind != "Tier":
        return
    for kind in POLICIES:
        if kind not in BY_NAME:
            continue
        for document in await client.list(kind, on_broken=lambda _: None):
            spec = document.get("spec")
            if isinstance(spec, dict) and spec.get("tier") == key.name:
                raise Conflict(f"{key} still has policies, such as {kind}/{document['metadata'].get('name')}: delete them first")


async def refuse_bad_pools(client: ResourceClient, documents: Sequence[Document]) -> None:
    """The pools among the documents fit those in the store. Asks the store only if there are any.

    Raises:
        InputError: one overlaps another, or gets another CIDR or block size than it has.
    """
    from tabinet.cli.sources import placed

    wanted = {str(document.data["metadata"]["name"]): document for document in documents if document.data["kind"] == "IPPool"}
    if not wanted:
        return
    stored = {str(pool["metadata"].get("name")): pool for pool in await client.list("IPPool", on_broken=lambda _: None)}
    problems = []
    for name, document in wanted.items():
        others = {other: pool for other, pool in stored.items() if other not in wanted}
        problems += [placed(problem, document) for problem in _pool_problems(document.data, stored.get(name), others)]
    if problems:
        raise InputError(problems)


def _pool_problems(pool: dict[str, Any], before: dict[str, Any] | None, others: dict[str, dict[str, Any]]) -> list[Problem]:
    cidr = _cidr_of(pool)
    problems = []
    if before is not None and cidr is not None and (old := _cidr_of(before)) is not None:
        if old != cidr:
            allowed = f"the CIDR of a pool cannot be changed (it is {old}): delete the pool and create another"
            problems.append(Problem(path="spec.cidr", value=str(cidr), allowed=allowed))
        sizes = before["spec"].get("blockSize"), pool["spec"].get("blockSize")
        if all(sizes) and sizes[0] != sizes[1]:
            allowed = f"the block size of a pool cannot be changed (it is {sizes[0]}): delete the pool and create another"
            problems.append(Problem(path="spec.blockSize", value=str(sizes[1]), allowed=allowed))
    for name, other in others.items():
        theirs = _cidr_of(other)
        if cidr is not None and theirs is not None and theirs.overlaps(cidr):
            problems.append(
                Problem(path="spec.cidr", value=str(cidr), allowed=f"must not overlap {theirs} of the pool {name} in the store")
            )
    return problems


def _cidr_of(pool: dict[str, Any]) -> Prefix | None:
    spec = pool.get("spec")
    try:
        return parse_prefix(str(spec.get("cidr"))) if isinstance(spec, dict) else None
    except ValueError:
        return None
