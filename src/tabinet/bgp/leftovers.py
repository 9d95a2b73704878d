"""Routes that BIRD leaves in the kernel when their metric changes: it knows only those of its present metric, and never looks at others.

In: the configuration texts before and after. Out: which metrics are of the past, and the removal of BIRD's routes that have them. Only
routes of BIRD's protocol number and of a metric that our own configuration had are removed. ``past_metrics`` is pure; ``remove_routes``
reads BIRD's routes of the main table once.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Set as AbstractSet

from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import DeleteRoute, Rtnetlink

BIRD_PROTOCOL = 12
"""RTPROT_BIRD of rtnetlink(7)."""
SETTLED_S = 10.0
"""After so long the routes with the present metric are there."""

_METRIC = re.compile(r"^protocol kernel tb_kernel([46]) \{$.*?^  metric ([0-9]{1,10});$", re.MULTILINE | re.DOTALL)


def metrics_in(text: str) -> frozenset[tuple[int, int]]:
    """Family and metric of the routes that a configuration of ours installs."""
    return frozenset((int(family), int(metric)) for family, metric in _METRIC.findall(text))


def past_metrics(before: str, after: str) -> frozenset[tuple[int, int]]:
    """Family and metric that routes had before, where they have another metric now; nothing where one of the texts is not ours."""
    now = metrics_in(after)
    return metrics_in(before) - now if now else frozenset()


def remove_routes(rtnetlink: Rtnetlink, past: AbstractSet[tuple[int, int]]) -> int:
    """BIRD has no routes of these families with these metrics in the kernel; gives how many there were.

    Raises:
        KernelError: the kernel refuses, or does not answer.
    """
    old = [route for route in rtnetlink.routes(protocol=BIRD_PROTOCOL) if (route.destination.family, route.metric) in past]
    for outcome in rtnetlink.execute([DeleteRoute(route) for route in old]):
        if isinstance(outcome, KernelError) and outcome.errno != errno.ESRCH:
            raise outcome
    return len(old)
