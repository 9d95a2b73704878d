"""A model of hosts that assign, release, restart and die, beside the real client: both always agree on who has what."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ipam_stores import Killed, YieldingStore, put_pool

from tabinet.errors import AddressError
from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.lib.ip import Prefix
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
