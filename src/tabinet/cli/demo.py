"""``tabinet demo``: the default lab, a policy, what happens when things break, and what can be known before a packet is sent.

Everything that it prints was measured, or held against packets.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

import click
import msgspec

from tabinet.cli.demo_proof import Proof, prove
from tabinet.cli.labs import show_check
from tabinet.cli.output import note, show_json, show_table
from tabinet.cli.sources import read_documents
from tabinet.errors import LabError
from tabinet.lab.check import CheckReport
from tabinet.lab.kinds.facts import VM
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.load import LoadedTopology, load_topology
from tabinet.lab.measure import Cost, cost_of, denied_after_ms, flows_between
from tabinet.lab.state import running_labs
from tabinet.lab.up import lab_up
from tabinet.model.keys import ResourceKey
from tabinet.store.client import ResourceClient

PAIRS = (("web1", "app3"), ("web3", "app1"), ("web2", "app4"), ("web4", "app2"))
"""Flows between the racks, from and to every host; the policy allows web to app."""
UPLINK_PAIRS = (("web1", "app3"), ("web1", "app4"), ("web3", "app1"), ("web4", "app1"))
"""Flows from and to host11, so that some of them take the link that is cut."""
UPLINK = "tor11:host11"
STOP = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "GlobalNetworkPolicy",
    "metadata": {"name": "isolation.stop"},
    "spec": {"tier": "isolation", "order": 1, "selector": "app == 'app'", "types": ["Ingress"], "ingress": [{"action": "Deny"}]},
}

NEXT = """
The fabric is running. Look around:
  tabinet status                                   every host: agent, endpoints, BGP sessions
  tabinet lab status                               every node and program
  tabinet lab exec web1 -- ping -c3 169.254.1.1    run anything in any node
  tabinet lab exec host11 -- ip route              routes: workloads here, blocks learned by BGP
  tabinet lab exec host11 -- nft list table inet tabinet
  tabinet lab exec host11 -- birdc -s bird.ctl show protocols
  tabinet get np -A -o yaml                        the policies; edit, tabinet apply -f FILE, tabinet lab check
  tabinet explain web1 db1 --port 5432             why a packet passes, or not; tabinet plan -f FILE, tabinet reach, tabinet lint
  tabinet lab cut tor11:host11 --silent            break something; then tabinet lab heal tor11:host11
Remove it:
  tabinet lab down
(tabinet is .venv/bin/tabinet, as root.)"""


def run_demo(examples: Path, *, as_json: bool, vms: bool = False) -> int:
    """Runs the demo; 0 when everything matched."""
    loaded = load_topology(examples / "labs" / "clos.yaml")
    loaded = with_machines(loaded) if vms else loaded
    documents = [document.data for document in read_documents([str(examples / "policies")])]
    return asyncio.run(_Demo(loaded, documents, as_json).run())


def with_machines(loaded: LoadedTopology) -> LoadedTopology:
    """The same lab with a virtual machine beside the first workload of either kind that talks with the other: web and app."""
    topology = loaded.topology
    models = [next(workload for workload in topology.workloads if workload.name == name) for name in PAIRS[0]]
    machines = tuple(msgspec.structs.replace(model, name=f"vm-{model.name}", kind=VM) for model in models)
    return msgspec.structs.replace(loaded, topology=msgspec.structs.replace(topology, workloads=(*topology.workloads, *machines)))


class _Demo:
    def __init__(self, loaded: LoadedTopology, documents: list[dict[str, object]], as_json: bool) -> None:
        self.loaded = loaded
        self.documents = documents
        self.as_json = as_json
        self.begin = monotonic()
        self.costs: list[tuple[str, Cost]] = []
        self.checks: list[tuple[str, CheckReport]] = []

    def say(self, text: str) -> None:
        note(f"{monotonic() - self.begin:6.1f} s  {text}")

    async def run(self) -> int:
        name = self.loaded.topology.name
        if name in running_labs():
            self.say(f"removing the lab {name} that runs")
            await lab_down(name)
        lab = await lab_up(self.loaded, progress=self.say)
        up_s = monotonic() - self.begin
        async with lab.store() as store:
            client = ResourceClient(store)
            await self.check(lab, "without policies: profiles decide")
            ready_s = monotonic() - self.begin
            await client.apply_many(self.documents)
            self.say("applied three layers (web -> app -> db) and an isolated tenant")
            await self.check(lab, "with policies", show=not self.as_json)
            denied_ms = await self.policy_change(lab, client)
            await self.break_things(lab)
            proof = await prove(lab, client, self.say)
        await self.check(lab, "after all of that")
        return self.finish(up_s, ready_s, denied_ms, proof)

    async def check(self, lab: Lab, what: str, *, show: bool = False) -> None:
        report = await lab.check()
        self.checks.append((what, report))
        self.say(f"check {what}: {report.probes} probes, {report.mismatches} mismatches")
        if show or report.mismatches:
            show_check(report)

    async def policy_change(self, lab: Lab, client: ResourceClient) -> float:
        """Running flows are denied on all four hosts, then allowed again."""

        async def deny() -> None:
            await client.apply(STOP)

        took = await denied_after_ms(await flows_between(lab, PAIRS), deny)
        self.say(f"a policy that denies: running flows ended on all hosts after {took:.0f} ms")
        await client.delete(ResourceKey("GlobalNetworkPolicy", "isolation.stop"))
        return took

    async def break_things(self, lab: Lab) -> None:
        flows = await flows_between(lab, UPLINK_PAIRS)
        events = (
            (f"link {UPLINK} cut (carrier lost)", lambda: lab.cut(UPLINK)),
            (f"link {UPLINK} healed", lambda: lab.heal(UPLINK)),
            (f"link {UPLINK} drops silently (BFD)", lambda: lab.cut(UPLINK, silent=True)),
            (f"link {UPLINK} healed", lambda: lab.heal(UPLINK)),
            ("agent of host11 restarted", lambda: lab.restart("host11", "agent")),
            ("agent of host21 killed and started", lambda: lab.restart("host21", "agent", kill_it=True)),
            ("BIRD of host11 restarted", lambda: lab.restart("host11", "bird")),
        )
        for what, event in events:
            cost = await cost_of(flows, event)
            self.costs.append((what, cost))
            self.say(f"{what}: {cost.lost} of {cost.sent} packets lost, worst flow {cost.worst_ms:.0f} ms")
            if not lab.state().faults:
                await lab.wait_converged()

    def finish(self, up_s: float, ready_s: float, denied_ms: float, proof: Proof) -> int:
        mismatches = sum(report.mismatches for _, report in self.checks)
        if self.as_json:
            show_json(
                {
                    "lab_up_seconds": round(up_s, 1),
                    "all_probes_matching_seconds": round(ready_s, 1),
                    "policy_denies_after_ms": round(denied_ms, 1),
                    "checks": [{"what": what, "probes": r.probes, "mismatches": r.mismatches} for what, r in self.checks],
                    "events": [
                        {"what": what, "lost": c.lost, "sent": c.sent, "worst_ms": c.worst_ms, "took_ms": c.took_ms}
                        for what, c in self.costs
                    ],
                    "proof": msgspec.to_builtins(proof),
                }
            )
        else:
            click.echo(
                f"\nfrom nothing to all probes matching: {ready_s:.1f} s; a denying policy enforced on all hosts: {denied_ms:.0f} ms\n"
            )
            rows = [[what, f"{c.took_ms:.0f}", c.flows, c.sent, c.lost, f"{c.worst_ms:.0f}"] for what, c in self.costs]
            show_table(["EVENT", "TOOK MS", "FLOWS", "SENT", "LOST", "WORST FLOW MS"], rows)
            show_table(["CHECK", "PROBES", "MISMATCHES"], [[what, r.probes, r.mismatches] for what, r in self.checks])
            click.echo(NEXT)
        if mismatches:
            raise LabError(f"{mismatches} probes did not do what the policies say")
        return 0
