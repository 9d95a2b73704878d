"""Hands in the kernel: what somebody deletes or adds in our table is found in slices, told by name and repaired by itself."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from time import perf_counter

import pytest

from tabinet.calc import messages as m
from tabinet.dataplane.drift import Drift, DriftKind
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.repair import repair
from tabinet.dataplane.nft.verify import TableAudit
from tabinet.kernel import netns
from tabinet.kernel.nftbrowse import open_browser
from tabinet.kernel.nftsocket import open_nftables
from tabinet.lib.ip import IPV4, Prefix, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules import layout
from tabinet.rules.builder import TableBuilder

pytestmark = pytest.mark.kernel

POLICY = ResourceKey("NetworkPolicy", "web", "default")
MEMBERS = 3000
MANY = "a4-s.g2"
"""The set of so many members: its name in the kernel says its size."""
HOUR_S = 3600.0


class World:
    """A real table in a namespace of its own, and its verification."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.nftables, self.reader = netns.run_in(namespace, lambda: (open_nftables(), open_browser()))
        self.builder = TableBuilder()
        self.driver = NftDriver(self.nftables)
        self.audit = TableAudit(self.driver, self.reader)
        nets = {Prefix(IPV4, (10 << 24) + number, 32) for number in range(MEMBERS)} | {
            parse_prefix("192.0.2.0/24"),
            parse_prefix("fd00:5::/64"),
        }
        source = m.Side(sets=("s",))
        allow = m.Rule(m.Action.ALLOW, protocol=6, source=source, destination=m.Side(ports=(m.PortRange(80, 80), m.PortRange(443, 444))))
        self.builder.on_update(m.SetUpdate("s", m.SetKind.NETS, frozenset(nets)))
        self.builder.on_update(m.PolicyUpdate(POLICY, m.Policy((allow, m.Rule(m.Action.DENY, protocol=17)), ())))
        self.builder.on_update(m.ProfileUpdate("open", m.Policy((), (m.Rule(m.Action.ALLOW),))))
        tier = m.TierPolicies("default", m.Action.DENY, (POLICY,))
        nets4 = (parse_prefix("10.65.0.1"), parse_prefix("fd00::1"))
        body = m.Endpoint("h", "cali1", "ee:ee:ee:ee:ee:ee", nets4, (parse_prefix("172.16.0.0/20"),), (tier,), (), ("open",))
        self.builder.on_update(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", "w1", "default"), 1, body))
        self.builder.flush()
        self.driver.resync(self.builder.table)

    def nft(self, command: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.namespace, "nft", command], check=True)

    def listing(self) -> object:
        """All that the kernel holds, but for what names the generation."""
        info = self.nftables.read_table()
        assert info is not None
        rules = {chain: [rule.userdata for rule in rules] for chain, rules in info.rules.items() if chain != layout.MARK_FLOW}
        names = [name for name in info.sets if name not in (layout.VALID, layout.VALID_RELATED)]
        return info.chains, rules, info.sets, {name: sorted(self.nftables.read_elements(name)) for name in names}

    def rule_handle(self, chain: str, text: str) -> str:
        argv = ["ip", "netns", "exec", self.namespace, "nft", "-a", "list", "chain", "inet", "tabinet", chain]
        lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
        return next(line for line in lines if text in line).rpartition(" ")[2]

    def verify(self) -> tuple[Drift, ...]:
        """One round and the repair of what it found."""
        self.audit.look_at_gates()
        self.audit.work(1 << 30, perf_counter() + HOUR_S, perf_counter)
        suspects = self.audit.take()
        return repair(self.driver, self.nftables, self.reader, suspects).drifts if suspects else ()

    def close(self) -> None:
        self.nftables.close()
        self.reader.close()


@pytest.fixture
def world() -> Iterator[World]:
    name = f"tbt-{uuid.uuid4().hex[:10]}"
    netns.create(name)
    world = World(name)
    yield world
    world.close()
    netns.delete(name)


CHAIN = "pi-np/default/web"
TABLE, ARP = "inet tabinet", "arp tabinet"
SET, CHAINS = DriftKind.SET, DriftKind.CHAIN
HANDS: dict[str, tuple[str, DriftKind, str, str]] = {
    "a rule deleted": (f"delete rule {TABLE} {CHAIN} handle HANDLE", CHAINS, CHAIN, "1 rule is missing"),
    "a rule added": (f"insert rule {TABLE} judge accept", CHAINS, "judge", "1 rule is not ours (without comment)"),
    "a rule replaced": (f"delete rule {TABLE} {CHAIN} handle HANDLE; add rule {TABLE} {CHAIN} accept", CHAINS, CHAIN, "1 rule is missing"),
    "a chain flushed": (f"flush chain {TABLE} forward", CHAINS, "forward", "missing"),
    "a chain added": (f"add chain {TABLE} foreign", CHAINS, "foreign", "is not ours"),
    "a hook added": (f"add chain {TABLE} foreign {{ type filter hook forward priority 5; }}", CHAINS, "foreign", "is not ours"),
    "a member deleted": (f"delete element {TABLE} {MANY} {{ 10.0.0.7 }}", SET, MANY, "1 element is missing (10.0.0.7)"),
    "a member added": (f"add element {TABLE} {MANY} {{ 203.0.113.9 }}", SET, MANY, "1 element is not ours (203.0.113.9)"),
    "a set flushed": (f"flush set {TABLE} {MANY}", SET, MANY, f"{MEMBERS} elements are missing"),
    "a net added": (f"add element {TABLE} n4-s {{ 198.51.100.0/24 }}", SET, "n4-s", "not ours (198.51.100.0"),
    "a net deleted": (f"delete element {TABLE} n4-s {{ 192.0.2.0/24 }}", SET, "n4-s", "missing (192.0.2.0"),
    "a source range deleted": (
        f'delete element {TABLE} spoof4 {{ "cali1" . 172.16.0.0/20 }}',
        SET,
        "spoof4",
        '1 element is missing ("cali1" . 172.16.0.0-172.16.15.255)',
    ),
    "an interface unbound": (f'delete element {TABLE} ingress {{ "cali1" }}', SET, "ingress", "1 element is missing"),
    "a hardware address added": (
        f'add element {TABLE} hardware {{ "cali2" . aa:bb:cc:dd:ee:ff }}',
        SET,
        "hardware",
        '1 element is not ours ("cali2" . aa:bb:cc:dd:ee:ff)',
    ),
    "a set added": (f"add set {TABLE} foreign {{ type ipv4_addr; }}", SET, "foreign", "is not ours"),
    "a claim added": (f'add element {ARP} arp_own {{ "cali1" . 10.9.9.9 }}', SET, "arp_own", '1 element is not ours ("cali1" . 10.9.9.9)'),
    "a rule about claims added": (f"insert rule {ARP} arp_senders accept", CHAINS, "arp_senders", "1 rule is not ours (without comment)"),
    "a chain about claims flushed": (f"flush chain {ARP} arp_input", CHAINS, "arp_input", "missing"),
    "the table deleted": (f"delete table {TABLE}", DriftKind.TABLE, TABLE, "deleted or flushed"),
    "all rules flushed": (f"flush table {TABLE}", DriftKind.TABLE, TABLE, "deleted or flushed"),
}


@pytest.mark.parametrize("what", HANDS)
def test_what_a_hand_did_is_told_and_repaired(world: World, what: str) -> None:
    command, kind, name, text = HANDS[what]
    before = world.listing()
    assert world.verify() == ()
    if "HANDLE" in command:
        command = command.replace("HANDLE", world.rule_handle(CHAIN, " 1 Deny"))
    world.nft(command)
    drifts = world.verify()
    assert [(drift.kind, drift.name) for drift in drifts] == [(kind, name)]
    assert text in drifts[0].text
    assert world.listing() == before
    assert world.verify() == ()
    assert world.driver.resync(world.builder.table).operations == 0


def test_the_table_about_claims_comes_back_when_it_alone_was_deleted(world: World) -> None:
    before = world.listing()
    world.nft(f"delete table {ARP}")
    assert {drift.kind for drift in world.verify()} == {DriftKind.TABLE}, "both of its base chains are gone: all is read"
    assert world.listing() == before
    assert world.verify() == ()


def test_what_packets_wrote_is_no_drift(world: World) -> None:
    world.nft(f'add element {ARP} arp_rate {{ "cali1" }}; add element {TABLE} nd_learned {{ "cali1" . fe80::1 }}')
    assert world.verify() == ()
    assert world.driver.resync(world.builder.table).operations == 0
    assert len(world.nftables.read_elements("nd_learned")) == 1


def test_a_chain_taken_out_of_the_policy_comes_back_with_all_that_led_to_it(world: World) -> None:
    before = world.listing()
    ((word, chain),) = world.builder.table.maps["ingress"].items()
    world.nft(f'delete element {TABLE} ingress {{ "{word}" }}; delete chain {TABLE} {chain}')
    found = {(drift.kind, drift.name) for drift in world.verify()}
    assert found == {(DriftKind.CHAIN, chain), (DriftKind.SET, "ingress")}
    assert world.listing() == before


def test_flows_are_judged_again_after_a_repair_as_the_damage_may_have_let_them_in(world: World) -> None:
    generation = world.driver.generation
    world.nft(f"insert rule {TABLE} judge accept")
    assert world.verify()
    assert world.driver.generation != generation
