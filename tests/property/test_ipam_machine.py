"""Models of hosts that assign, release, restart and die, beside the real client: both always agree on who has what.

The second one has a cooldown, endpoints that come and go, hosts that go, and garbage collection at any time, which may die as well: what
an endpoint uses is never taken back, and what nobody uses is gone after the grace period.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ipam_stores import Killed, YieldingStore, put_endpoint, put_node, put_pool

from tabinet.errors import AddressError
from tabinet.ipam.audit import find_leaks, find_problems
from tabinet.ipam.client import IpamClient
from tabinet.ipam.collector import collect
from tabinet.ipam.inventory import read_fabric, read_inventory
from tabinet.ipam.plan import AssignRequest
from tabinet.lib.ip import Prefix
from tabinet.store.api import Page, PutOp
from tabinet.store.memory import MemoryStore

T = TypeVar("T")
HOSTS = st.sampled_from(["h1", "h2", "h3"])
HANDLES = st.sampled_from(["a", "b", "c", "d"])
POOL_SIZE = 16


class AddressMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.inner = MemoryStore()
        self.clients: dict[str, IpamClient] = {}
        self.owned: dict[str, set[Prefix]] = {}
        self.now_ns = 10**18

    def teardown(self) -> None:
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def client(self, host: str, kill_at: int = -1) -> IpamClient:
        if kill_at >= 0:
            self.clients.pop(host, None)
            return IpamClient(YieldingStore(self.inner, kill_at=kill_at), now_ns=lambda: self.now_ns)
        if host not in self.clients:
            self.clients[host] = IpamClient(YieldingStore(self.inner), now_ns=lambda: self.now_ns)
        return self.clients[host]

    def recorded(self, handle: str) -> set[Prefix]:
        """What the store says the handle owns: a repeated request for nothing more."""
        return set(self.run(IpamClient(self.inner).assign(AssignRequest(host="h1", handle=handle))).addresses)

    @initialize()
    def pools(self) -> None:
        self.run(put_pool(self.inner, "four", "10.0.0.0/28", blockSize=30))
        self.run(put_pool(self.inner, "six", "fd00::/124", blockSize=126))

    @rule(host=HOSTS, handle=HANDLES, count4=st.integers(0, 4), count6=st.integers(0, 4))
    def assign(self, host: str, handle: str, count4: int, count6: int) -> None:
        before = self.owned.get(handle, set())
        request = AssignRequest(host=host, handle=handle, count4=count4, count6=count6)
        try:
            result = self.run(self.client(host).assign(request))
        except AddressError:
            # Without strict affinity a request fails only when a family has too few free addresses for it.
            assert any(
                count - len(self.of(before, family)) > POOL_SIZE - len(self.of(set().union(*self.owned.values()), family))
                for family, count in ((4, count4), (6, count6))
            )
            return
        assert before <= set(result.addresses)
        assert set(result.assigned) == set(result.addresses) - before
        assert len(self.of(set(result.addresses), 4)) == max(count4, len(self.of(before, 4)))
        assert len(self.of(set(result.addresses), 6)) == max(count6, len(self.of(before, 6)))
        self.owned[handle] = set(result.addresses)

    @staticmethod
    def of(addresses: set[Prefix], family: int) -> set[Prefix]:
        return {address for address in addresses if address.family == family}

    @rule(host=HOSTS, handle=HANDLES, kill_at=st.integers(1, 24))
    def assign_and_die(self, host: str, handle: str, kill_at: int) -> None:
        before = self.owned.get(handle, set())
        request = AssignRequest(host=host, handle=handle, count4=len(self.of(before, 4)) + 1, count6=len(self.of(before, 6)) + 1)
        with contextlib.suppress(Killed, AddressError):
            self.run(self.client(host, kill_at).assign(request))
        after = self.recorded(handle)
        assert len(after - before) in (0, 2)
        assert before <= after
        self.owned[handle] = after

    @rule(host=HOSTS, handle=HANDLES)
    def release(self, host: str, handle: str) -> None:
        assert set(self.run(self.client(host).release_handle(handle))) == self.owned.pop(handle, set())

    @rule(host=HOSTS, handle=HANDLES, kill_at=st.integers(1, 8))
    def release_and_die(self, host: str, handle: str, kill_at: int) -> None:
        with contextlib.suppress(Killed):
            self.run(self.client(host, kill_at).release_handle(handle))
        after = self.recorded(handle)
        assert after in (set(), self.owned.get(handle, set()))
        self.owned[handle] = after

    @precondition(lambda self: any(self.owned.values()))
    @rule(host=HOSTS, data=st.data())
    def release_one(self, host: str, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(set().union(*self.owned.values()))))
        assert self.run(self.client(host).release_addresses([address])) == (address,)
        for owned in self.owned.values():
            owned.discard(address)

    @rule(host=HOSTS)
    def restart(self, host: str) -> None:
        self.clients.pop(host, None)

    @rule()
    def time_passes(self) -> None:
        self.now_ns += 61 * 10**9

    @invariant()
    def nothing_is_shared_or_lost(self) -> None:
        held = [address for owned in self.owned.values() for address in owned]
        assert len(held) == len(set(held))
        client = IpamClient(self.inner)
        assert self.run(client.check()) == ()
        assert sum(usage.assigned for usage in self.run(client.usage())) == len(held)
        for handle, owned in self.owned.items():
            assert self.recorded(handle) == owned


TestAddressMachine = AddressMachine.TestCase
TestAddressMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


GRACE_S = 100


class CollectionMachine(RuleBasedStateMachine):
    """What is right: an address is its handle's from the assignment until its release, or until it was without endpoint for the grace
    period; then it rests for the cooldown."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.inner = MemoryStore()
        self.owned: dict[str, set[Prefix]] = {}
        self.attached: set[str] = set()
        self.hosts = {"h1", "h2"}
        self.now_ns = 10**18

    def teardown(self) -> None:
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def client(self, kill_at: int = -1) -> IpamClient:
        return IpamClient(YieldingStore(self.inner, kill_at=kill_at), now_ns=lambda: self.now_ns)

    def learn(self) -> None:
        """What the store says, where a death leaves open what has happened."""
        for handle in ("a", "b", "c"):
            self.owned[handle] = set(self.run(self.client().owned(handle)))

    @initialize(cooldown_s=st.sampled_from([0, 50]))
    def configure(self, cooldown_s: int) -> None:
        self.run(put_pool(self.inner, "four", "10.0.0.0/28", blockSize=30))
        self.run(self.inner.txn([], [PutOp("/calico/ipam/v2/config", msgspec.json.encode({"ipCooldownSeconds": cooldown_s}))]))
        for host in self.hosts:
            self.run(put_node(self.inner, host))

    @rule(host=st.sampled_from(["h1", "h2"]), handle=st.sampled_from(["a", "b", "c"]), count=st.integers(1, 3), kill_at=st.integers(-1, 16))
    def assign(self, host: str, handle: str, count: int, kill_at: int) -> None:
        request = AssignRequest(host=host, handle=handle, count4=count, attributes={"workload": handle})
        before = self.owned.get(handle, set())
        with contextlib.suppress(Killed, AddressError):
            self.run(self.client(kill_at).assign(request))
        self.learn()
        assert before <= self.owned[handle]
        assert len(self.owned[handle]) in (len(before), max(count, len(before)))

    @precondition(lambda self: any(self.owned.values()))
    @rule(data=st.data())
    def attach(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(sorted(handle for handle, owned in self.owned.items() if owned)))
        self.run(put_endpoint(self.inner, f"h1-cni-{handle}-eth0", sorted(self.owned[handle])))
        self.attached.add(handle)

    @precondition(lambda self: self.attached)
    @rule(data=st.data(), release=st.booleans(), kill_at=st.integers(-1, 8))
    def detach(self, data: st.DataObject, release: bool, kill_at: int) -> None:
        handle = data.draw(st.sampled_from(sorted(self.attached)))
        self.run(put_endpoint(self.inner, f"h1-cni-{handle}-eth0", None))
        self.attached.discard(handle)
        if release:
            before = self.owned[handle]
            with contextlib.suppress(Killed):
                self.run(self.client(kill_at).release_handle(handle))
            self.learn()
            assert self.owned[handle] in (set(), before)

    @rule(there=st.booleans())
    def a_host_comes_or_goes(self, there: bool) -> None:
        self.run(put_node(self.inner, "h2", there=there))
        (self.hosts.add if there else self.hosts.discard)("h2")

    @rule(seconds=st.sampled_from([1, 49, 50, 99, 100]))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * 10**9

    @rule(grace_s=st.sampled_from([GRACE_S, GRACE_S, 0]), kill_at=st.integers(-1, 40))
    def collect(self, grace_s: int, kill_at: int) -> None:
        before = {handle: set(owned) for handle, owned in self.owned.items()}
        store = YieldingStore(self.inner, kill_at=kill_at)
        killed = True
        with contextlib.suppress(Killed):
            self.run(collect(store, grace_s=grace_s, now_ns=lambda: self.now_ns))
            killed = False
        self.learn()
        for handle, owned in before.items():
            assert self.owned[handle] in (set(), owned)
            if handle in self.attached:
                assert self.owned[handle] == owned
            elif grace_s == 0 and not killed:
                assert self.owned[handle] == set()

    @invariant()
    def everything_fits_together(self) -> None:
        if not self.owned:
            return
        inventory, fabric = self.run(read_inventory(self.inner)), self.run(read_fabric(self.inner))
        assert find_problems(inventory) == []
        held = [address for owned in self.owned.values() for address in owned]
        assert len(held) == len(set(held))
        leaked = {address for finding in find_leaks(inventory, fabric) for address in finding.addresses}
        assert leaked == {address for handle, owned in self.owned.items() if handle not in self.attached for address in owned}

    @invariant()
    def nothing_is_left_when_all_was_let_go_for_long_enough(self) -> None:
        """On a copy, so that the machine goes on as it was."""
        copy = MemoryStore()
        for page in self.run(collected(self.inner)):
            for item in page.items:
                if "workloadendpoints" not in item.key:
                    self.run(copy.txn([], [PutOp(item.key, item.value)]))
        for later_s in (0, 1000, 2000):
            self.run(collect(copy, grace_s=GRACE_S, now_ns=lambda later_s=later_s: self.now_ns + later_s * 10**9))
        usages = self.run(IpamClient(copy).usage())
        assert all((usage.assigned, usage.resting) == (0, 0) for usage in usages)


async def collected(store: MemoryStore) -> list[Page]:
    return [page async for page in store.list("/")]


TestCollectionMachine = CollectionMachine.TestCase
TestCollectionMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
