"""TableBuilder: the calculation's messages in, a table and its changes out.

The table is a function of what is announced, never of the order or of what was there before. ``on_update`` only remembers; ``flush``
changes ``table`` and says what changed, so that between two flushes the table stands still and may be read by another thread. Cost of
both follows the change. The builder filters nothing by host: it is given the messages of one host.

Messages about routing and configuration are ignored, except that they cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from tabinet.calc.messages import (
    ALL_HOSTS,
    Endpoint,
    EndpointRemove,
    EndpointUpdate,
    HostEndpointRemove,
    HostEndpointUpdate,
    Policy,
    PolicyRemove,
    PolicyUpdate,
    ProfileRemove,
    ProfileUpdate,
    SetDelta,
    SetRemove,
    SetUpdate,
    Tunnel,
    TunnelRemove,
    TunnelUpdate,
    Update,
)
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.bindings import Bindings
from tabinet.rules.classes import PROFILE, Classes
from tabinet.rules.denied import CountedInterfaces
from tabinet.rules.edit import TableEdit
from tabinet.rules.hosts import HostBindings
from tabinet.rules.ir import Table, TableDelta
from tabinet.rules.layout import NO_USES, Uses, empty_table, fixed_chains
from tabinet.rules.nat import nat_use
from tabinet.rules.options import TableOptions
from tabinet.rules.setstate import SetStates
from tabinet.rules.tunnels import tunnel_use


class TableBuilder:
    """Keeps one host's table."""

    def __init__(self, options: TableOptions | None = None) -> None:
        self.options = options if options is not None else TableOptions()
        self.table: Table = empty_table(self.options)
        """All that the kernel shall hold as of the last flush."""
        self._sets = SetStates()
        self._classes = Classes(self.options, self._sets.shape)
        self.counted = CountedInterfaces()
        """Whose denied packets are counted. As of the last flush."""
        self._bindings = Bindings(self.options, self._classes, self.counted)
        self._hosts = HostBindings(self.options, self._classes, self.counted)
        self._uses = NO_USES
        self._fixed = dict(self.table.chains)
        """The fixed part, as it is in the table."""
        self._tunnels: frozenset[Tunnel] = frozenset()
        self._policies: dict[ResourceKey, Policy | None] = {}
        self._endpoints: dict[ResourceKey, Endpoint | None] = {}

    @property
    def unbound(self) -> dict[ResourceKey, str]:
        """Endpoints that get no policy because of their interface's name, with that name.

        Workloads' has none of our prefixes or is too long; a host endpoint's has one, or is the loopback's.
        """
        return self._bindings.unbound | self._hosts.unbound

    def on_interfaces(self, interfaces: Mapping[str, frozenset[Prefix]]) -> None:
        """The host has these interfaces, with these addresses as host prefixes; counts from the next flush on.

        Only for host endpoints that name no interface. O(interfaces).
        """
        self._hosts.put_interfaces(interfaces)

    def on_update(self, update: Update) -> None:
        """The update counts from the next flush on. O(what the message holds)."""
        match update:
            case SetUpdate() | SetDelta() | SetRemove():
                self._sets.queue(update)
            case PolicyUpdate(key=key, policy=policy):
                self._policies[key] = policy
            case PolicyRemove(key=key):
                self._policies[key] = None
            case ProfileUpdate(name=name, policy=policy):
                self._policies[ResourceKey(PROFILE, name)] = policy
            case ProfileRemove(name=name):
                self._policies[ResourceKey(PROFILE, name)] = None
            case EndpointUpdate(key=key, endpoint=endpoint):
                self._endpoints[key] = endpoint
            case EndpointRemove(key=key):
                self._endpoints[key] = None
            case HostEndpointUpdate(key=key, endpoint=host_endpoint):
                self._hosts.put(key, host_endpoint)
            case HostEndpointRemove(key=key):
                self._hosts.put(key, None)
            case TunnelUpdate(tunnel=tunnel, local=local):
                self._tunnels = self._tunnels | {tunnel} if local.wanted else self._tunnels - {tunnel}
            case TunnelRemove(tunnel=tunnel):
                self._tunnels -= {tunnel}
            case _:
                pass

    def flush(self) -> TableDelta:
        """``table`` is what the updates so far want; the result is how it differs from the last flush."""
        edit = TableEdit(self.table)
        self._classes.revokes = self._bindings.revokes = self._hosts.revokes = False
        for set_id, move in self._sets.settle(edit).items():
            self._classes.set_moved(set_id, grew=move.grew, shrank=move.shrank, reshaped=move.reshaped)
        policies, self._policies = self._policies, {}
        for key, policy in policies.items():
            self._classes.put_policy(key, policy)
        endpoints, self._endpoints = self._endpoints, {}
        for key, endpoint in endpoints.items():
            self._bindings.put(key, endpoint)
        self._bindings.settle(edit)
        self._hosts.settle(edit)
        self._classes.settle(edit)
        self._settle_fixed(edit)
        return edit.finish(revokes=self._classes.revokes or self._bindings.revokes or self._hosts.revokes)

    def _settle_fixed(self, edit: TableEdit) -> None:
        """The fixed part has what the endpoints need of it. O(1) while that does not change."""
        nat = nat_use(self.options, self._bindings.floating.in_use, self._sets.shape, self._sets.occupied)
        tunnels = tunnel_use(self.options, self._tunnels, self._sets.shape(ALL_HOSTS))
        bindings = self._bindings
        uses = Uses(
            hosts=self._hosts.use,
            nat=nat,
            qos=bindings.has_limits,
            address_qos=bindings.addresses.in_use,
            passed=bindings.passed.in_use,
            tunnels=tunnels,
            stateless=bindings.has_stateless,
            pairs=bindings.has_pairs,
        )
        if uses == self._uses:
            return
        self._uses = uses
        before, self._fixed = self._fixed, fixed_chains(self.options, uses)
        for name in before.keys() - self._fixed.keys():
            edit.remove_chain(name)
        for name, chain in self._fixed.items():
            if before.get(name) != chain:
                edit.set_chain(name, chain)
