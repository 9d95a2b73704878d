"""``Carrier``: an endpoint or network set as far as labels and membership go, and what carriers share.

There are many, so what is alike is stored once: the keys of their labels in a ``Shape``, what they inherit in a ``Heritage``. A carrier
keeps of its own only the values. Plain data; ``labels`` and ``members`` keep it right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tabinet.calc.few import Few
from tabinet.calc.scopes import NAMESPACE, ORCHESTRATOR, SERVICE_ACCOUNT
from tabinet.lib.ip import Prefix
from tabinet.model.resources import EndpointPort, HostEndpointPort

if TYPE_CHECKING:
    from tabinet.calc.members import ActiveSet

Port = EndpointPort | HostEndpointPort
Origin = tuple[str, str, str]
"""Values of ``ORIGIN_KEYS`` that a carrier has by what it is, over those of its own labels; empty: it has none."""

ORIGIN_KEYS = (NAMESPACE, ORCHESTRATOR, SERVICE_ACCOUNT)
NOWHERE: Origin = ("", "", "")


@dataclass(slots=True, eq=False)
class Shape:
    """All carriers whose own labels have the same keys in the same order."""

    keys: tuple[str, ...]
    carriers: set[Carrier] = field(default_factory=set)
    version: int = 0
    projected: tuple[tuple[str, int], ...] = ()
    """The keys that classes go by, with their places among the values; as of ``version`` of the index. Sorted."""
    names: tuple[str, ...] = ()
    """Only these keys."""


@dataclass(slots=True, eq=False)
class Heritage:
    """All carriers that name the same profiles."""

    profiles: tuple[str, ...]
    carriers: Few[Carrier] = None
    version: int = 0
    projected: tuple[tuple[str, str], ...] = ()
    """The inherited labels that classes go by; as of ``version`` of the index."""


@dataclass(slots=True, eq=False)
class LabelClass:
    """All carriers that are equal in the labels which selectors in use ask for."""

    identity: tuple[str, ...]
    """Keys and values of ``labels``."""
    labels: dict[str, str]
    """The effective labels that selectors ask for. Never changes."""
    carriers: Few[Carrier] = None
    sets: tuple[ActiveSet, ...] = ()
    """The active sets whose selectors match; kept by ``members``."""


@dataclass(slots=True, eq=False)
class Carrier:
    """An endpoint or network set."""

    origin: Origin
    values: tuple[str, ...]
    """Values of its own labels, in the order of ``shape.keys``."""
    nets: tuple[str, ...]
    ports: tuple[Port, ...]
    shape: Shape
    heritage: Heritage
    label_class: LabelClass
    parsed: tuple[Prefix, ...] | None = None
    """``nets`` as prefixes, each once; None: not needed so far."""
