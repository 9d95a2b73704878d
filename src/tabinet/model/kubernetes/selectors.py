"""Kubernetes' label selectors to the texts of ours.

In Kubernetes ``NotIn`` and ``DoesNotExist`` hold for absent labels, as ``not in`` and ``!has()`` do here. Selectors over pods also ask for
the orchestrator: a host endpoint, a virtual machine or a network set is no pod, whatever its labels are. Pure; linear in the selector.
"""

from __future__ import annotations

from tabinet.model.kubernetes.kinds import ORCHESTRATOR
from tabinet.model.records.kubernetes import LabelRequirement, LabelSelector
from tabinet.selector import Eq, Has, Node, conjunction, membership, negation
from tabinet.selector.render import render_tree

_POD = Eq("projectcalico.org/orchestrator", ORCHESTRATOR)


def pods_text(selector: LabelSelector | None) -> str:
    """The pods that ``selector`` means; all pods for an empty or absent one.

    Raises:
        ValueError: an unknown operator, or a value that no selector can hold.
    """
    return render_tree(conjunction([_POD, *(_terms(selector) if selector is not None else ())]))


def namespaces_text(selector: LabelSelector) -> str:
    """The namespaces that ``selector`` means, as the text of a ``namespaceSelector``; ``all()`` for an empty one.

    Raises:
        ValueError: as ``pods_text``.
    """
    return render_tree(conjunction(_terms(selector)))


def _terms(selector: LabelSelector) -> list[Node]:
    labels: list[Node] = [Eq(key, value) for key, value in sorted(selector.match_labels.items())]
    return labels + [_term(requirement) for requirement in selector.match_expressions]


def _term(requirement: LabelRequirement) -> Node:
    match requirement.operator:
        case "In":
            return membership(requirement.key, requirement.values)
        case "NotIn":
            return negation(membership(requirement.key, requirement.values))
        case "Exists":
            return Has(requirement.key)
        case "DoesNotExist":
            return negation(Has(requirement.key))
        case _:
            raise ValueError(f"{requirement.operator!r} is not In, NotIn, Exists or DoesNotExist")
