"""What is seen of a table piece by piece, told once and run against the kernel and the fake."""

from __future__ import annotations

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
    DeleteElements,
    DeleteTable,
    Element,
    Hook,
    Nftables,
    NftReader,
)
from tabinet.kernel.nftbrowse import open_browser
from tabinet.kernel.nftexpr import Datatype, Verdict, ifname, set_spec
from tabinet.kernel.nftfake import FakeNftables
from tabinet.kernel.nftsocket import open_nftables

FORWARD = Hook(hook=2, priority=0)
ADDRESSES = set_spec(Datatype.IPV4_ADDR, size=8192)
RANGES = set_spec(Datatype.IPV4_ADDR, interval=True)
VERDICTS = set_spec(Datatype.IFNAME, size=16, verdict_map=True)
MANY = 5000


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.kernel)])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Nftables, NftReader]]:
    if request.param == "fake":
        fake = FakeNftables()
        yield fake, fake
        return
    name = f"tbt-{uuid.uuid4().hex[:10]}"
    netns.create(name)
    socket, browser = netns.run_in(name, lambda: (open_nftables(), open_browser()))
    yield socket, browser
    socket.close()
    browser.close()
    netns.delete(name)


def address(number: int) -> Element:
    return Element(bytes((10, 0, number >> 8, number & 255)))


def test_nothing_is_there_without_a_table(both: tuple[Nftables, NftReader]) -> None:
    _, reader = both
    assert reader.read_chain("a") is None
    assert reader.find_element("s", address(1)) is None
    assert [chain for page in reader.browse_chains() for chain in page] == []
    assert [found for page in reader.browse_sets() for found in page] == []
    with pytest.raises(KernelError):
        list(reader.browse_elements("s"))


def test_a_chain_by_itself(both: tuple[Nftables, NftReader]) -> None:
    nft, reader = both
    rules = [AddRule("a", nftexpr.rule(nftexpr.counter()), bytes((i,))) for i in range(3)]
    nft.commit([AddTable(), AddChain("a", FORWARD), AddChain("b"), *rules, AddRule("b", nftexpr.rule(nftexpr.counter()), b"other")])
    found = reader.read_chain("a")
    assert found is not None
    assert (found.hook, [rule.userdata for rule in found.rules]) == (FORWARD, [b"\0", b"\1", b"\2"])
    other = reader.read_chain("b")
    assert other is not None
    assert (other.hook, [rule.userdata for rule in other.rules]) == (None, [b"other"])
    assert reader.read_chain("c") is None


def test_an_element_by_itself(both: tuple[Nftables, NftReader]) -> None:
    nft, reader = both
    goto = Element(ifname("eth0"), verdict=Verdict.GOTO, chain="a")
    nft.commit([AddTable(), AddChain("a"), AddSet("m", VERDICTS), AddElements("m", (goto,)), AddSet("s", ADDRESSES)])
    nft.commit([AddElements("s", (address(1),))])
    assert reader.find_element("s", address(1)) == address(1)
    assert reader.find_element("s", address(2)) is None
    assert reader.find_element("m", Element(ifname("eth0"))) == goto


def test_the_counter_of_an_element_by_itself(both: tuple[Nftables, NftReader]) -> None:
    nft, reader = both
    name = ifname("eth0")
    counted = set_spec(Datatype.IFNAME, size=16, counted=True)
    nft.commit([AddTable(), AddSet("n", counted), AddElements("n", (Element(name),))])
    assert reader.find_element_counter("n", name) == (0, 0)
    assert reader.find_element("n", Element(name)) == Element(name)
    assert reader.find_element_counter("n", ifname("eth1")) is None
    assert reader.find_element_counter("no", name) is None


def test_browsing_shows_everything_once_in_several_pages(both: tuple[Nftables, NftReader]) -> None:
    nft, reader = both
    chains = [AddChain(f"chain-{i}") for i in range(600)]
    nft.commit([AddTable(), *chains, AddChain("base", FORWARD), AddSet("s", ADDRESSES), AddSet("r", RANGES)])
    nft.commit([AddElements("s", tuple(address(i) for i in range(MANY)))])
    pages = list(reader.browse_elements("s"))
    assert len(pages) > 1
    assert sorted(element for page in pages for element in page) == [address(i) for i in range(MANY)]
    found = [chain for page in reader.browse_chains() for chain in page]
    assert dict(found) == {f"chain-{i}": None for i in range(600)} | {"base": FORWARD}
    assert len(found) == 601
    assert dict(spec for page in reader.browse_sets() for spec in page) == {"s": ADDRESSES, "r": RANGES}


def test_a_browsing_that_was_given_up_is_in_nobodys_way(both: tuple[Nftables, NftReader]) -> None:
    nft, reader = both
    nft.commit([AddTable(), AddChain("a"), AddSet("s", ADDRESSES), AddElements("s", tuple(address(i) for i in range(MANY)))])
    given_up = reader.browse_elements("s")
    assert next(given_up)
    del given_up
    assert [name for page in reader.browse_chains() for name, _ in page] == ["a"]
    assert sum(len(page) for page in reader.browse_elements("s")) == MANY


def test_changes_while_browsing_cost_nothing_but_exactness(both: tuple[Nftables, NftReader]) -> None:
    nft, reader = both
    nft.commit([AddTable(), AddSet("s", ADDRESSES), AddElements("s", tuple(address(i) for i in range(MANY)))])
    pages = reader.browse_elements("s")
    seen = set(next(pages))
    gone = {address(i) for i in range(0, MANY, 50)}
    nft.commit([DeleteElements("s", tuple(gone))])
    assert all(reader.find_element("s", element) is None for element in list(gone)[:10])  # asked while the browsing goes on
    for page in pages:
        seen |= set(page)
    assert seen <= {address(i) for i in range(MANY)}


def test_a_table_that_goes_while_it_is_browsed_is_an_end_or_an_error(both: tuple[Nftables, NftReader]) -> None:
    nft, reader = both
    nft.commit([AddTable(), AddSet("s", ADDRESSES), AddElements("s", tuple(address(i) for i in range(MANY)))])
    pages = reader.browse_elements("s")
    next(pages)
    nft.commit([DeleteTable()])
    try:
        for _ in pages:
            pass
    except KernelError:
        pass
    assert [name for page in reader.browse_chains() for name, _ in page] == []
