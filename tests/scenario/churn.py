"""A fabric in use: policies, labels and workloads that change all the time, while a test breaks things."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from tabinet.attach.names import Workload
from tabinet.attach.netns import AttachRequest, attach, detach
from tabinet.attach.network import LinuxNetwork
from tabinet.errors import TabinetError
from tabinet.kernel import netns
from tabinet.lab.kinds.namespace import identity_of
from tabinet.lab.lab import Lab
from tabinet.lab.plan import namespace_of
from tabinet.model.keys import ResourceKey
from tabinet.store.client import ResourceClient

PAUSE_S = 0.05
ATTACH_WAIT_S = 3.0


def policy(name: str, port: int) -> dict[str, object]:
    """One that everybody has and that leaves to others what it does not name."""
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "order": 10,
            "selector": "app in {'web', 'app'}",
            "types": ["Ingress"],
            "ingress": [
                {"action": "Deny", "protocol": "TCP", "source": {"selector": "churn == 'yes'"}, "destination": {"ports": [port]}},
                {"action": "Allow"},
            ],
        },
    }


class Churn:
    """Changes one thing after the other. What the store or an agent cannot do at the moment fails, and goes on."""

    def __init__(self, lab: Lab, chance: random.Random) -> None:
        self.lab = lab
        self.chance = chance
        self.changes = 0
        self.failures: list[str] = []
        self.host = chance.choice([host.name for host in lab.plan.hosts])
        self.guest = Workload(node=self.host, workload="guest", orchestrator="lab", namespace="shop")

    async def run(self) -> None:
        async with self.lab.store() as store:
            client = ResourceClient(store)
            network = LinuxNetwork(namespace_of(self.lab.name, self.host))
            steps = (self._apply_policy, self._delete_policy, self._change_label)
            while True:
                try:
                    await self.chance.choice(steps)(client)
                    if self.chance.random() < 0.3:
                        request = AttachRequest(workload=self.guest, netns=self.namespace, count4=1, count6=1, profiles=("shop",))
                        await attach(request, store, network=network, wait_s=ATTACH_WAIT_S)
                        await detach(self.guest, store, network=network)
                    self.changes += 1
                except TabinetError as error:
                    self.failures.append(str(error))
                await asyncio.sleep(PAUSE_S)

    @property
    def namespace(self) -> str:
        """Named after the lab, so that it goes with it."""
        return namespace_of(self.lab.name, "guest")

    async def _apply_policy(self, client: ResourceClient) -> None:
        await client.apply(policy(f"churn-{self.chance.randrange(3)}", self.chance.choice((80, 8080))))

    async def _delete_policy(self, client: ResourceClient) -> None:
        await client.delete(ResourceKey("GlobalNetworkPolicy", f"churn-{self.chance.randrange(3)}"))

    async def _change_label(self, client: ResourceClient) -> None:
        workload = self.chance.choice(self.lab.plan.topology.workloads)
        document = await client.get(identity_of(workload).key)
        document["metadata"]["labels"]["churn"] = self.chance.choice(("yes", "no"))
        await client.update(document)


@contextlib.asynccontextmanager
async def churning(lab: Lab, chance: random.Random) -> AsyncIterator[Churn]:
    """Inside, things change; afterwards the guest is gone, and whatever else was changed stays."""
    churn = Churn(lab, chance)
    await asyncio.to_thread(netns.create, churn.namespace)
    task = asyncio.create_task(churn.run())
    try:
        yield churn
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(netns.delete, churn.namespace)
    async with lab.store() as store:
        await detach(churn.guest, store, network=LinuxNetwork(namespace_of(lab.name, churn.host)))
