"""What we encode is what nft(8) reads."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tabinet.kernel import netns
from tabinet.kernel import nftexpr as x
from tabinet.kernel.nftables import AddChain, AddElements, AddRule, AddSet, AddTable, Element, Hook, Nftables
from tabinet.kernel.nftexpr import Compare, Ct, CtDirection, Datatype, Meta, Verdict, host32, ifname, key, port, reg, set_spec
from tabinet.kernel.nftsocket import open_nftables

pytestmark = pytest.mark.kernel

R0, R1 = reg(0), reg(1)
TCP = [x.meta(Meta.L4PROTO, R0), x.compare(R0, Compare.EQ, b"\6")]

RULES: list[tuple[str, list[bytes]]] = [
    ("accept", [x.verdict(Verdict.ACCEPT)]),
    ("drop", [x.verdict(Verdict.DROP)]),
    ("return", [x.verdict(Verdict.RETURN)]),
    ("jump target", [x.verdict(Verdict.JUMP, "target")]),
    ("goto target", [x.verdict(Verdict.GOTO, "target")]),
    ("counter packets 0 bytes 0", [x.counter()]),
    ('iifname "eth0"', [x.meta(Meta.IIFNAME, R0), x.compare(R0, Compare.EQ, ifname("eth0"))]),
    ('oifname != "cali*"', [x.meta(Meta.OIFNAME, R0), x.compare(R0, Compare.NE, x.ifname_prefix("cali"))]),
    ("meta nfproto ipv4", [x.meta(Meta.NFPROTO, R0), x.compare(R0, Compare.EQ, b"\2")]),
    ("meta l4proto tcp", TCP),
    ("meta mark 0x00000007", [x.meta(Meta.MARK, R0), x.compare(R0, Compare.EQ, host32(7))]),
    ("meta mark set 0x00000009", [x.immediate(R0, host32(9)), x.meta_set(Meta.MARK, R0)]),
    ("ct state == established", [x.ct(Ct.STATE, R0), x.compare(R0, Compare.EQ, host32(x.CtState.ESTABLISHED))]),
    (
        "ct state invalid,untracked",
        [
            x.ct(Ct.STATE, R0),
            x.bitwise(R0, R0, host32(x.CtState.INVALID | x.CtState.UNTRACKED), host32(0)),
            x.compare(R0, Compare.NE, host32(0)),
        ],
    ),
    ("ct direction reply", [x.ct(Ct.DIRECTION, R0), x.compare(R0, Compare.EQ, bytes((CtDirection.REPLY,)))]),
    ("ct original ip saddr 10.0.0.1", [x.ct(Ct.SRC_IP, R0, CtDirection.ORIGINAL), x.compare(R0, Compare.EQ, bytes((10, 0, 0, 1)))]),
    ("ct reply ip6 saddr @six", [x.ct(Ct.SRC_IP6, R0, CtDirection.REPLY), x.lookup("six", R0)]),
    ("ct original ip saddr != @four", [x.ct(Ct.SRC_IP, R0, CtDirection.ORIGINAL), x.lookup("four", R0, inverted=True)]),
    (
        "ct reply proto-src 80-90",
        [*TCP, x.ct(Ct.PROTO_SRC, R0, CtDirection.REPLY), x.in_range(R0, Compare.EQ, port(80), port(90))],
    ),
    (
        "ct reply proto-src != 80-90",
        [*TCP, x.ct(Ct.PROTO_SRC, R0, CtDirection.REPLY), x.in_range(R0, Compare.NE, port(80), port(90))],
    ),
    ("ct mark set ct mark & 0xff0000ff", [x.ct(Ct.MARK, R0), x.bitwise(R0, R0, host32(0xFF0000FF), host32(0)), x.ct_set(Ct.MARK, R0)]),
    ("iifname vmap @map", [x.meta(Meta.IIFNAME, R0), x.verdict_map("map", R0)]),
    (
        "iifname . ip saddr @pair",
        [
            x.meta(Meta.NFPROTO, R0),
            x.compare(R0, Compare.EQ, b"\2"),
            x.meta(Meta.IIFNAME, R0),
            x.payload(x.NETWORK_HEADER, 12, 4, reg(4)),
            x.lookup("pair", R0),
        ],
    ),
    ("tcp dport 443", [*TCP, x.payload(x.TRANSPORT_HEADER, 2, 2, R0), x.compare(R0, Compare.EQ, port(443))]),
    ('log prefix "spoof " level notice', [x.log("spoof ")]),
    ('log prefix "p" group 3', [x.nflog("p", 3)]),
    ("limit rate 10/second burst 20 packets", [x.limit(10, burst=20)]),
    ("reject with icmpx admin-prohibited", [x.reject_icmp_admin_prohibited()]),
    ("reject with tcp reset", [*TCP, x.reject_tcp_reset()]),
    ("notrack", [x.notrack()]),
    ("update @seen { iifname limit rate 3/second burst 7 packets }", [x.meta(Meta.IIFNAME, R0), x.limit_by_key("seen", R0, 3, burst=7)]),
    ("add @seen { iifname }", [x.meta(Meta.IIFNAME, R0), x.remember("seen", R0)]),
    ('fib saddr oifname "cali*"', [x.fib_source_interface(R0), x.compare(R0, Compare.EQ, x.ifname_prefix("cali"))]),
]


class Table:
    def __init__(self, name: str) -> None:
        self.name = name
        self.nft: Nftables = netns.run_in(name, open_nftables)
        self.nft.commit([AddTable(), AddChain("target"), AddChain("rules")])
        self.nft.commit(
            [
                AddSet("four", set_spec(Datatype.IPV4_ADDR, size=16)),
                AddSet("six", set_spec(Datatype.IPV6_ADDR, size=16)),
                AddSet("pair", set_spec(Datatype.IFNAME, Datatype.IPV4_ADDR, size=16)),
                AddSet("map", set_spec(Datatype.IFNAME, size=16, verdict_map=True)),
                AddSet("seen", set_spec(Datatype.IFNAME, size=16, forget_s=60)),
            ]
        )

    def run(self, *arguments: str) -> str:
        command = ["ip", "netns", "exec", self.name, "nft", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    name = f"tbt-{uuid.uuid4().hex[:10]}"
    netns.create(name)
    table = Table(name)
    yield table
    table.nft.close()
    netns.delete(name)


@pytest.mark.parametrize(("text", "expressions"), RULES, ids=[text for text, _ in RULES])
def test_rules_list_as_meant(table: Table, text: str, expressions: list[bytes]) -> None:
    chain = f"c-{uuid.uuid4().hex[:8]}"
    table.nft.commit([AddChain(chain), AddRule(chain, x.rule(*expressions), x.comment("why"))])
    listed = [line.strip() for line in table.run("list", "chain", "inet", "tabinet", chain).splitlines()[2:-2]]
    assert len(listed) == 1
    assert listed[0].endswith(' comment "why"')
    rule = listed[0].removesuffix(' comment "why"')
    assert rule == text or rule.removeprefix("meta l4proto tcp ") == text


def elements_of(table: Table, kind: str, name: str) -> object:
    listing = json.loads(table.run("-j", "list", kind, "inet", "tabinet", name))["nftables"]
    return next(entry[kind] for entry in listing if kind in entry)["elem"]


@pytest.mark.parametrize(
    ("kind", "types", "arguments", "elements", "expected"),
    [
        ("set", [Datatype.IPV4_ADDR], {"size": 8}, [Element(bytes((10, 0, 0, 1)))], ["10.0.0.1"]),
        ("set", [Datatype.IPV6_ADDR], {"size": 8}, [Element(bytes(15) + b"\1")], ["::1"]),
        (
            "set",
            [Datatype.IPV4_ADDR],
            {"interval": True},
            [Element(bytes((10, 0, 0, 0))), Element(bytes((10, 1, 0, 0)), interval_end=True)],
            [{"prefix": {"addr": "10.0.0.0", "len": 16}}],
        ),
        (
            "set",
            [Datatype.IFNAME, Datatype.IPV4_ADDR],
            {"size": 8},
            [Element(key(ifname("eth0"), bytes((10, 0, 0, 1))))],
            [{"concat": ["eth0", "10.0.0.1"]}],
        ),
        (
            "set",
            [Datatype.IPV4_ADDR, Datatype.INET_PROTO, Datatype.INET_SERVICE],
            {"interval": True},
            [Element(key(bytes((10, 0, 0, 0)), b"\6", port(80)), key(bytes((10, 0, 0, 255)), b"\6", port(90)))],
            [{"concat": [{"prefix": {"addr": "10.0.0.0", "len": 24}}, "tcp", {"range": [80, 90]}]}],
        ),
        (
            "set",
            [Datatype.IPV4_ADDR, Datatype.INET_PROTO, Datatype.INET_SERVICE],
            {"size": 8},
            [Element(key(bytes((10, 0, 0, 1)), b"\x11", port(53)))],
            [{"concat": ["10.0.0.1", "udp", 53]}],
        ),
        (
            "map",
            [Datatype.IFNAME],
            {"size": 8, "verdict_map": True},
            [Element(ifname("eth0"), verdict=Verdict.GOTO, chain="target")],
            [["eth0", {"goto": {"target": "target"}}]],
        ),
        (
            "map",
            [Datatype.CT_STATE, Datatype.MARK],
            {"size": 8, "verdict_map": True},
            [Element(key(host32(2), host32(0x100)), verdict=Verdict.ACCEPT)],
            [[{"concat": ["established", 256]}, {"accept": None}]],
        ),
    ],
    ids=["address", "address6", "interval", "pair", "ranges", "triple", "verdicts", "flows"],
)
def test_elements_list_as_meant(
    table: Table, kind: str, types: list[Datatype], arguments: dict[str, int], elements: list[Element], expected: object
) -> None:
    name = f"s{uuid.uuid4().hex[:8]}"
    spec = set_spec(*types, **arguments)  # type: ignore[arg-type]  # a table of keyword arguments
    table.nft.commit([AddSet(name, spec), AddElements(name, tuple(elements))])
    assert elements_of(table, kind, name) == expected


def test_base_chains_list_with_hook_and_policy(table: Table) -> None:
    table.nft.commit(
        [AddChain("pre", Hook(hook=0, priority=-300)), AddChain("nat", Hook(hook=4, priority=100, type="nat", policy_accept=True))]
    )
    table.nft.commit([AddRule("nat", x.masquerade())])
    assert "type filter hook prerouting priority raw; policy accept;" in table.run("list", "chain", "inet", "tabinet", "pre")
    nat = table.run("list", "chain", "inet", "tabinet", "nat")
    assert "type nat hook postrouting priority srcnat; policy accept;" in nat
    assert "masquerade" in nat
