"""What the kernel's nf_tables and the fake both do, told once and run against both."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator

import pytest

from tabinet.errors import KernelError
from tabinet.kernel import netns, nftexpr
from tabinet.kernel.nftables import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    Element,
    FlushChain,
    FlushSet,
    Hook,
    Nftables,
    NftOp,
)
from tabinet.kernel.nftexpr import Datatype, Verdict, ifname, reg, set_spec
from tabinet.kernel.nftfake import FakeNftables
from tabinet.kernel.nftsocket import open_nftables

FORWARD = Hook(hook=2, priority=0)
ARP_INPUT = Hook(hook=0, priority=0)
ADDRESSES = set_spec(Datatype.IPV4_ADDR, size=16)
COUNTED = set_spec(Datatype.IFNAME, size=16, counted=True)
VERDICTS = set_spec(Datatype.IFNAME, size=16, verdict_map=True)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.kernel)])
def nft(request: pytest.FixtureRequest) -> Iterator[Nftables]:
    if request.param == "fake":
        yield FakeNftables()
        return
    name = f"tbt-{uuid.uuid4().hex[:10]}"
    netns.create(name)
    socket = netns.run_in(name, open_nftables)
    yield socket
    socket.close()
    netns.delete(name)


@pytest.fixture
def table(nft: Nftables) -> Nftables:
    nft.commit([AddTable()])
    return nft


def address(last: int) -> Element:
    return Element(bytes((10, 0, 0, last)))


def goto(interface: str, chain: str) -> Element:
    return Element(ifname(interface), verdict=Verdict.GOTO, chain=chain)


def goto_rule(chain: str, target: str, userdata: bytes = b"") -> AddRule:
    return AddRule(chain, nftexpr.rule(nftexpr.counter(), nftexpr.verdict(Verdict.GOTO, target)), userdata, targets=(target,))


def lookup_rule(chain: str, name: str) -> AddRule:
    content = nftexpr.rule(nftexpr.payload(nftexpr.NETWORK_HEADER, 12, 4, reg(0)), nftexpr.lookup(name, reg(0)))
    return AddRule(chain, content, sets=(name,))


def refused(nft: Nftables, operations: list[NftOp]) -> KernelError:
    """The error of a transaction that must fail and change nothing."""
    before = nft.read_table()
    elements = {name: sorted(nft.read_elements(name)) for name in before.sets} if before else {}
    with pytest.raises(KernelError) as caught:
        nft.commit(operations)
    assert nft.read_table() == before
    assert {name: sorted(nft.read_elements(name)) for name in elements} == elements
    return caught.value


def test_absent_table_reads_as_none(nft: Nftables) -> None:
    assert nft.read_table() is None
    assert nft.read_counters() == {}


def test_objects_read_back_as_given(table: Nftables) -> None:
    specs = {
        "a": ADDRESSES,
        "m": VERDICTS,
        "counted": COUNTED,
        "pair": set_spec(Datatype.IFNAME, Datatype.IPV6_ADDR, size=64),
        "nets": set_spec(Datatype.IPV4_ADDR, interval=True),
        "triple": set_spec(Datatype.IPV4_ADDR, Datatype.INET_PROTO, Datatype.INET_SERVICE, interval=True),
        "arp_learned": set_spec(Datatype.IPV4_ADDR, size=64, forget_s=60),
        "learned": set_spec(Datatype.IFNAME, size=64, forget_s=90),
        "flows": set_spec(Datatype.CT_STATE, Datatype.MARK, size=16, verdict_map=True),
    }
    table.commit([AddChain("base", FORWARD), AddChain("plain"), AddChain("arp_base", ARP_INPUT)])
    table.commit([AddSet(name, spec) for name, spec in specs.items()])
    table.commit([goto_rule("base", "plain", b"\0\2a\0"), lookup_rule("base", "a"), lookup_rule("arp_base", "arp_learned")])
    info = table.read_table()
    assert info is not None
    assert info.complete
    assert info.chains == {"base": FORWARD, "plain": None, "arp_base": ARP_INPUT}
    assert len(info.rules["arp_base"]) == 1
    assert info.sets == specs
    assert [rule.userdata for rule in info.rules["base"]] == [b"\0\2a\0", b""]
    assert info.rules["plain"] == []
    assert len({rule.handle for rule in info.rules["base"]}) == 2


def test_elements_read_back_as_given(table: Nftables) -> None:
    triple = set_spec(Datatype.IPV4_ADDR, Datatype.INET_PROTO, Datatype.INET_SERVICE, interval=True)
    port = nftexpr.key(bytes((10, 0, 0, 0)), b"\6", nftexpr.port(80))
    content = {
        "a": [address(1), address(2)],
        "m": [goto("eth0", "c"), Element(ifname("eth1"), verdict=Verdict.DROP), Element(ifname("eth2"), verdict=Verdict.ACCEPT)],
        "nets": [address(0), Element(bytes((10, 0, 1, 0)), interval_end=True)],
        "triple": [Element(port, end=nftexpr.key(bytes((10, 0, 0, 255)), b"\6", nftexpr.port(90)))],
    }
    sets = [
        AddSet("a", ADDRESSES),
        AddSet("m", VERDICTS),
        AddSet("nets", set_spec(Datatype.IPV4_ADDR, interval=True)),
        AddSet("triple", triple),
    ]
    table.commit([AddChain("c"), *sets, *[AddElements(name, tuple(elements)) for name, elements in content.items()]])
    for name, elements in content.items():
        assert sorted(table.read_elements(name), key=repr) == sorted(elements, key=repr)


def test_adding_twice_is_no_error(table: Nftables) -> None:
    operations: list[NftOp] = [
        AddTable(),
        AddChain("c"),
        AddChain("base", FORWARD),
        AddSet("a", ADDRESSES),
        AddSet("m", VERDICTS),
        AddElements("a", (address(1),)),
        AddElements("m", (goto("eth0", "c"),)),
    ]
    table.commit(operations)
    before = table.read_table()
    table.commit([*operations, AddChain("base")])
    assert table.read_table() == before
    assert table.read_elements("a") == [address(1)]


def test_without_table_everything_is_enoent(nft: Nftables) -> None:
    operations: list[NftOp] = [
        DeleteTable(),
        AddChain("c"),
        DeleteChain("c"),
        FlushChain("c"),
        goto_rule("c", "d"),
        AddSet("a", ADDRESSES),
        DeleteSet("a"),
        FlushSet("a"),
        AddElements("a", (address(1),)),
        DeleteElements("a", (address(1),)),
    ]
    for operation in operations:
        assert refused(nft, [operation]).errno == errno.ENOENT, operation


@pytest.mark.parametrize(
    ("operation", "code", "words"),
    [
        (DeleteChain("no"), errno.ENOENT, "delete chain no"),
        (FlushChain("no"), errno.ENOENT, "flush chain no"),
        (goto_rule("no", "c"), errno.ENOENT, "add rule to chain no"),
        (goto_rule("c", "no"), errno.ENOENT, "add rule to chain c"),
        (lookup_rule("c", "no"), errno.ENOENT, "add rule to chain c"),
        (DeleteSet("no"), errno.ENOENT, "delete set no"),
        (FlushSet("no"), errno.ENOENT, "flush set no"),
        (AddElements("no", (address(1),)), errno.ENOENT, "add 1 elements to set no"),
        (DeleteElements("a", (address(9),)), errno.ENOENT, "delete 1 elements of set a"),
        (AddElements("m", (goto("eth9", "no"),)), errno.ENOENT, "add 1 elements to set m"),
        (AddElements("m", (goto("eth0", "free"),)), errno.EEXIST, "add 1 elements to set m"),
        (AddElements("a", (Element(b"123"),)), errno.EINVAL, "add 1 elements to set a"),
        (AddElements("m", (Element(ifname("eth9")),)), errno.EINVAL, "add 1 elements to set m"),
        (AddElements("a", tuple(address(i) for i in range(20))), errno.ENFILE, "add 20 elements to set a"),
        (AddSet("a", set_spec(Datatype.IPV6_ADDR, size=16)), errno.EEXIST, "add set a"),
        (AddSet("a", set_spec(Datatype.IPV4_ADDR, interval=True)), errno.EEXIST, "add set a"),
        (AddChain("c", FORWARD), errno.EOPNOTSUPP, "add chain c"),
        (AddChain("base", Hook(hook=2, priority=5)), errno.EOPNOTSUPP, "add chain base"),
        (DeleteChain("c"), errno.EBUSY, "delete chain c"),
        (DeleteChain("mapped"), errno.EBUSY, "delete chain mapped"),
        (DeleteSet("a"), errno.EBUSY, "delete set a"),
    ],
    ids=repr,
)
def test_refusals_change_nothing_and_name_the_operation(table: Nftables, operation: NftOp, code: int, words: str) -> None:
    table.commit(
        [
            *[AddChain(name) for name in ("c", "free", "mapped")],
            AddChain("base", FORWARD),
            AddSet("a", ADDRESSES),
            AddSet("m", VERDICTS),
            AddElements("a", (address(1),)),
            AddElements("m", (goto("eth0", "mapped"),)),
            goto_rule("base", "c"),
            lookup_rule("base", "a"),
        ]
    )
    error = refused(table, [AddChain("new"), AddElements("a", (address(2),)), FlushChain("free"), operation, DeleteChain("new")])
    assert error.errno == code
    assert error.operation.startswith(words)


def test_references_end_with_what_refers(table: Nftables) -> None:
    table.commit([AddChain("c"), AddChain("d"), AddChain("from"), AddSet("a", ADDRESSES), AddSet("m", VERDICTS)])
    table.commit([goto_rule("from", "c"), lookup_rule("from", "a"), AddElements("m", (goto("eth0", "d"),))])
    table.commit([FlushChain("from"), DeleteChain("c"), DeleteSet("a")])
    table.commit([DeleteElements("m", (Element(ifname("eth0")),)), DeleteChain("d")])
    table.commit([AddChain("e"), AddElements("m", (goto("eth0", "e"),))])
    table.commit([DeleteSet("m"), DeleteChain("e")])
    table.commit([AddChain("g"), goto_rule("from", "g"), DeleteChain("from"), DeleteChain("g")])
    info = table.read_table()
    assert info is not None
    assert (info.chains, info.sets) == ({}, {})


def test_a_chain_can_be_deleted_only_after_its_element_in_one_batch(table: Nftables) -> None:
    table.commit([AddChain("c"), AddSet("m", VERDICTS), AddElements("m", (goto("eth0", "c"),))])
    gone = DeleteElements("m", (goto("eth0", "c"),))
    assert refused(table, [DeleteChain("c"), gone]).errno == errno.EBUSY
    table.commit([gone, DeleteChain("c")])


def test_a_verdict_moves_by_delete_and_add(table: Nftables) -> None:
    table.commit([AddChain("c"), AddChain("d"), AddSet("m", VERDICTS), AddElements("m", (goto("eth0", "c"),))])
    table.commit([DeleteElements("m", (goto("eth0", "c"),)), AddElements("m", (goto("eth0", "d"),)), DeleteChain("c")])
    assert table.read_elements("m") == [goto("eth0", "d")]


def test_flush_and_refill_in_one_batch(table: Nftables) -> None:
    table.commit([AddChain("c"), AddChain("d"), AddSet("a", ADDRESSES), AddElements("a", tuple(address(i) for i in range(16)))])
    table.commit([goto_rule("c", "d", b"\0\2a\0")])
    table.commit(
        [FlushSet("a"), AddElements("a", tuple(address(i) for i in range(100, 116))), FlushChain("c"), goto_rule("c", "d", b"\0\2b\0")]
    )
    assert sorted(table.read_elements("a")) == [address(i) for i in range(100, 116)]
    info = table.read_table()
    assert info is not None
    assert [rule.userdata for rule in info.rules["c"]] == [b"\0\2b\0"]


def test_a_size_can_be_raised(table: Nftables) -> None:
    table.commit([AddSet("a", ADDRESSES), AddElements("a", tuple(address(i) for i in range(16)))])
    assert refused(table, [AddElements("a", (address(16),))]).errno == errno.ENFILE
    larger = AddSet("a", set_spec(Datatype.IPV4_ADDR, size=32))
    assert refused(table, [larger, AddElements("a", (address(16),))]).errno == errno.ENFILE  # it takes effect with the commit
    table.commit([larger])
    table.commit([AddElements("a", (address(16),))])
    info = table.read_table()
    assert info is not None
    assert info.sets["a"].size == 32
    assert len(table.read_elements("a")) == 17


def test_delete_and_create_resets_the_table(table: Nftables) -> None:
    table.commit([AddChain("c"), AddSet("m", VERDICTS), AddElements("m", (goto("eth0", "c"),))])
    table.commit([DeleteTable(), AddTable(), AddChain("only")])
    info = table.read_table()
    assert info is not None
    assert (set(info.chains), info.sets) == ({"only"}, {})
    table.commit([DeleteTable()])
    assert table.read_table() is None


def test_counters_start_at_zero_and_are_found_by_userdata(table: Nftables) -> None:
    table.commit([AddChain("c"), AddChain("d"), AddSet("a", ADDRESSES), goto_rule("c", "d", b"\0\2x\0"), lookup_rule("c", "a")])
    assert table.read_counters() == {("c", b"\0\2x\0"): (0, 0)}


def test_elements_of_a_counted_set_count_from_zero_and_are_compared_without_counts(table: Nftables) -> None:
    lookup = nftexpr.rule(nftexpr.meta(nftexpr.Meta.IIFNAME, reg(0)), nftexpr.lookup("n", reg(0)))
    table.commit([AddChain("c"), AddSet("n", COUNTED), AddSet("a", ADDRESSES), AddRule("c", lookup, sets=("n",))])
    names = (Element(ifname("eth0")), Element(ifname("eth1")))
    table.commit([AddElements("n", names), AddElements("a", (address(1),))])
    assert sorted(table.read_elements("n")) == sorted(names)
    assert table.read_element_counters("n") == {ifname("eth0"): (0, 0), ifname("eth1"): (0, 0)}
    assert table.read_element_counters("a") == {}
    table.commit([DeleteElements("n", names[:1])])
    assert table.read_element_counters("n") == {ifname("eth1"): (0, 0)}
    with pytest.raises(KernelError) as caught:
        table.read_element_counters("no")
    assert caught.value.errno == errno.ENOENT


def test_empty_commit_does_nothing(nft: Nftables) -> None:
    nft.commit([])
    assert nft.read_table() is None


def test_many_elements_in_one_transaction(table: Nftables) -> None:
    count = 100_000
    elements = tuple(Element((0x0A000000 + i).to_bytes(4, "big")) for i in range(count))
    spec = set_spec(Datatype.IPV4_ADDR, size=4 * count)
    table.commit([AddSet("big", spec), AddElements("big", elements)])
    assert set(table.read_elements("big")) == set(elements)
    assert refused(table, [FlushSet("big"), DeleteChain("no")]).errno == errno.ENOENT
    table.commit([DeleteElements("big", elements[1:])])
    assert table.read_elements("big") == [elements[0]]


def test_reading_elements_of_an_absent_set(table: Nftables) -> None:
    with pytest.raises(KernelError) as caught:
        table.read_elements("no")
    assert caught.value.errno == errno.ENOENT


def test_own_transactions_disturb_nobody(nft: Nftables) -> None:
    assert nft.disturbed()  # nobody knows what was before
    assert not nft.disturbed()
    nft.commit([AddTable()])
    nft.commit([AddTable()])  # changes nothing, and the kernel does not count it
    nft.commit([AddChain("forward", FORWARD)])
    assert not nft.disturbed()


@pytest.mark.kernel
def test_what_others_do_in_any_table_is_noticed_once() -> None:
    name = f"tbt-{uuid.uuid4().hex[:10]}"
    netns.create(name)
    try:
        ours, other = netns.run_in(name, open_nftables), netns.run_in(name, lambda: open_nftables("somebody"))
        ours.disturbed()
        other.commit([AddTable()])
        ours.commit([AddTable()])
        assert ours.disturbed()
        assert not ours.disturbed()
        ours.close()
        other.close()
    finally:
        netns.delete(name)
