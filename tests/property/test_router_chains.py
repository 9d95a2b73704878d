"""Routers in a row against one walk for every address: whatever the routes say, circles and routes that contradict each other included."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tabinet.attach.openstack.chains import Neighbour, Route, neighbours
from tabinet.lib.ip import Prefix, parse_address, parse_prefix

ROUTERS = ("a", "b", "c", "d")
NETS = ("10.0.0.0/28", "10.0.0.0/29", "10.0.0.8/29", "10.0.0.4/30", "10.0.0.8/30", "10.0.0.9/32", "fd00::/125", "fd00::4/126")
ADDRESSES = tuple(parse_address(f"{net}{number:x}") for net, most in (("fd00::", 8),) for number in range(most)) + tuple(
    parse_address(f"10.0.0.{number}") for number in range(16)
)

connections = st.dictionaries(st.sampled_from(ROUTERS), st.lists(st.sampled_from(NETS), max_size=2), max_size=4)
routes = st.lists(st.tuples(st.sampled_from(ROUTERS), st.sampled_from(("", *ROUTERS)), st.sampled_from(NETS)), max_size=9)


def ends(
    router: str, address: Prefix, connected: dict[str, list[str]], given_routes: list[Route], before: tuple[str, ...] = ()
) -> Iterator[str]:
    """Where every walk ends; the empty name: nowhere."""
    own = [parse_prefix(net) for net in connected.get(router, ()) if parse_prefix(net).contains(address)]
    tables = [(parse_prefix(net), following) for first, following, net in given_routes if first == router]
    fitting = [(net, following) for net, following in tables if net.contains(address)]
    longest = max((net.length for net in (*own, *(net for net, _ in fitting))), default=-1)
    if router in before or longest < 0:
        yield ""
    elif any(net.length == longest for net in own):
        yield router
    else:
        for following in {following for net, following in fitting if net.length == longest}:
            if following in ("", router):
                yield router
            else:
                yield from ends(following, address, connected, given_routes, (*before, router))


@given(connections, routes)
def test_what_passes_is_what_every_walk_there_and_back_says(connected: dict[str, list[str]], given_routes: list[Route]) -> None:
    found = neighbours(connected, given_routes)

    def said(here: str, there: str, destination: Prefix, source: Prefix) -> bool:
        pairs = (each for each in found.get(here, ()) if each.router == there)
        return any(_holds(each.there, source) and _holds(each.here, destination) for each in pairs)

    reached = {(router, address): set(ends(router, address, connected, given_routes)) for router in ROUTERS for address in ADDRESSES}
    for here in ROUTERS:
        for there in set(ROUTERS) - {here}:
            forth = {address for address in ADDRESSES if reached[there, address] == {here}}
            back = {address for address in ADDRESSES if reached[here, address] == {there}}
            for destination in ADDRESSES:
                for source in ADDRESSES:
                    assert said(here, there, destination, source) is (destination in forth and source in back)


def _holds(nets: tuple[str, ...], address: Prefix) -> bool:
    return any(parse_prefix(net).contains(address) for net in nets)


def test_a_chain_of_any_length() -> None:
    length = 30
    connected = {f"r{number:02}": [f"10.0.{number}.0/24"] for number in range(length)}
    forth = [(f"r{number:02}", f"r{number + 1:02}", f"10.0.{length - 1}.0/24") for number in range(length - 1)]
    back = [(f"r{number:02}", f"r{number - 1:02}", "10.0.0.0/24") for number in range(1, length)]
    found = neighbours(connected, forth + back)
    last = f"r{length - 1:02}"
    assert found["r00"] == (Neighbour(last, (f"10.0.{length - 1}.0/24",), ("10.0.0.0/24",)),)
    assert found[last] == (Neighbour("r00", ("10.0.0.0/24",), (f"10.0.{length - 1}.0/24",)),)
    assert neighbours(connected, [each for each in forth + back if each[0] != "r15"]) == {}
    assert neighbours(connected, [*forth, *back, ("r15", "r14", f"10.0.{length - 1}.0/25")])["r00"][0].there == (
        f"10.0.{length - 1}.128/25",
    )
