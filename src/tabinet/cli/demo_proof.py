"""The end of the demo: a denied packet explained, a hole seen before it is opened, and a change that an invariant refuses.

Each of them is held against real packets: what is said to be denied does not arrive, the packet that the plan names does not arrive
before the hole is opened and arrives after, and what was refused has changed nothing. In: a lab with the policies of the examples, and
workloads web1 and db1. Out: a ``Proof``; the lab is as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from tabinet.analysis.explain import explain
from tabinet.analysis.fabric import survey
from tabinet.analysis.plan import make_plan
from tabinet.analysis.render import render_explanation
from tabinet.analysis.seek import find_ends
from tabinet.analysis.situation import calculate
from tabinet.cli.explain_flow import ask
from tabinet.cli.fabric_reading import options_reader, read_resources
from tabinet.cli.invariant_guard import refuse_what_breaks
from tabinet.cli.place import Place
from tabinet.cli.plan import changes_by_applying, render_group
from tabinet.errors import InputError, LabError
from tabinet.lab.lab import FLOW_PORT, Lab
from tabinet.lab.measure import allowed_after_ms
from tabinet.lab.traffic import FlowSpec, start_traffic
from tabinet.model.codec import encode_document
from tabinet.model.documents import Document
from tabinet.model.kept_invariants import invariant_path
from tabinet.model.keys import ResourceKey
from tabinet.store.api import DeleteOp, PutOp
from tabinet.store.client import ResourceClient

SENDER, RECEIVER = "web1", "db1"
SENT_FOR_S = 0.3
HOLE: dict[str, Any] = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "NetworkPolicy",
    "metadata": {"name": "isolation.debug", "namespace": "shop"},
    "spec": {
        "tier": "isolation",
        "order": 1,
        "selector": "app in {'web', 'db'}",
        "types": ["Ingress", "Egress"],
        "ingress": [{"action": "Allow", "protocol": "UDP", "source": {"selector": "app == 'web'"}, "destination": {"ports": [FLOW_PORT]}}],
        "egress": [{"action": "Allow", "protocol": "UDP", "destination": {"selector": "app == 'db'", "ports": [FLOW_PORT]}}],
    },
}
INVARIANT: dict[str, Any] = {
    "apiVersion": "tabinet/v1",
    "kind": "Invariant",
    "metadata": {"name": "web-never-reaches-db"},
    "spec": {
        "description": "web servers ask app servers, never the database (pings may pass)",
        "never": {
            "from": {"selector": "app == 'web' && tenant == 'shop'"},
            "to": {"selector": "app == 'db' && tenant == 'shop'"},
            "except": [{"protocol": "ICMP"}, {"protocol": "ICMPv6"}],
        },
    },
}


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was said, and found true."""

    denied: str
    """Why a packet does not arrive."""
    opens: tuple[str, ...]
    """What the plan said that a policy opens."""
    opened_ms: float
    """From its writing until the packet of the plan arrived."""
    refused: str
    """Why the policy was not written again."""


async def prove(lab: Lab, client: ResourceClient, say: Callable[[str], None]) -> Proof:
    """Everything was said, and tried.

    Raises:
        LabError: packets do something else.
    """
    denied = await _explain_denied(lab, client, say)
    opens, opened_ms = await _open_the_hole(lab, client, say)
    refused = await _refuse_the_hole(lab, client, say)
    return Proof(denied=denied, opens=tuple(opens), opened_ms=opened_ms, refused=refused)


async def _explain_denied(lab: Lab, client: ResourceClient, say: Callable[[str], None]) -> str:
    fabric = survey(await read_resources(client.store), options_reader(Place(lab=lab.name)))
    start, end = find_ends(fabric, SENDER, RECEIVER, None)
    found = explain(fabric, ask(start, end, "udp", FLOW_PORT, None, None, 0))
    if found.allowed:
        raise LabError(f"explain says that {found.packet} is allowed: {found.reason}")
    await _must_not_arrive(await lab.flow(SENDER, RECEIVER, start.address.family))
    verdict, reason, *_ = (line.strip() for line in render_explanation(found))
    say(f"explain: {verdict}")
    say(f"         {reason}; none of the packets that were sent arrived")
    return f"{verdict} {reason}"


async def _open_the_hole(lab: Lab, client: ResourceClient, say: Callable[[str], None]) -> tuple[list[str], float]:
    resources = await read_resources(client.store)
    plan = make_plan(calculate(resources), changes_by_applying([_as_document(HOLE)], resources), options_reader(Place(lab=lab.name)))
    if not plan.opened:
        raise LabError("the plan says that the policy opens nothing")
    lines = [line.strip() for group in plan.opened for line in render_group(group)]
    say("plan of a policy for debugging: it opens")
    for line in lines:
        say(f"         {line}")
    # Not one of a virtual machine: traffic is sent between namespaces.
    opened = next(each for each in plan.opened if all(map(lab.plan.node, (each.witness.source_name, each.witness.destination_name))))
    witness = opened.witness
    flow = await lab.flow(witness.source_name, witness.destination_name, opened.families[0], witness.port)

    async def apply() -> None:
        await client.apply(HOLE)

    try:
        took = await allowed_after_ms([flow], apply)
    finally:
        await client.delete(ResourceKey("NetworkPolicy", "isolation.debug", "shop"))
    say(f"applied: packets of the plan arrive after {took:.0f} ms, and did not before; deleted again")
    return lines, took


async def _refuse_the_hole(lab: Lab, client: ResourceClient, say: Callable[[str], None]) -> str:
    store, path = client.store, invariant_path("web-never-reaches-db")
    await store.txn((), [PutOp(path, encode_document(INVARIANT))])
    try:
        await refuse_what_breaks(store, lambda resources: changes_by_applying([_as_document(HOLE)], resources), command="demo", force=False)
    except InputError as error:
        reason = "; ".join(str(problem) for problem in error.problems)
    else:
        raise LabError("no invariant refuses the hole")
    finally:
        await store.txn((), [DeleteOp(path)])
    await _must_not_arrive(await lab.flow(SENDER, RECEIVER, 4))
    say(f"applied again with an invariant in the store: refused, {reason}; nothing arrives")
    return reason


async def _must_not_arrive(flow: FlowSpec) -> None:
    """None of the packets of some time arrived.

    Raises:
        LabError: one did, or none was sent.
    """
    traffic = await start_traffic([flow])
    await asyncio.sleep(SENT_FOR_S)
    (report,) = await traffic.stop()
    if not report.sent or report.lost < report.sent:
        raise LabError(f"{report.sent - report.lost} of {report.sent} packets from {flow.source} to {flow.destination} arrived")


def _as_document(data: dict[str, Any]) -> Document:
    return Document(data=data, source="demo", index=1, line=1)
